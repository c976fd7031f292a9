/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * module_find_mapped(): modules by their ELF headers in memory. Guarantees:
 *
 * G1 No lock of its own, no allocation, no call of libc: raw system calls and static memory. The library lock is held.
 * G2 Headers are copied by the kernel (sys/mem_read.h): what is not there, or no ELF file, is not found, and never
 *    faults.
 * G3 A segment whose pages are not all mapped readable, from the header's file and at the place that the program
 *    headers say, is left out of what eh_frame_function() may read. Without the one around the address there is no
 *    module.
 */
#include "elf/module.h"
#include "elf/segments.h"
#include "sys/mem_read.h"

#include <string.h>
#include <sys/mman.h>

#define SEGMENTS_MAX 32
/* Code reaches its module's data by rel32. */
#define SPAN_MAX (2UL << 30)
/* Of .eh_frame_hdr, compared to know it again: version, encodings, where .eh_frame is, number of functions. */
#define TABLE_HEAD 12

struct image {
	struct maps_mapping head; /* begins with the ELF header */
	Elf64_Ehdr elf;
	Elf64_Phdr headers[SEGMENTS_MAX];
	uintptr_t bias;
};

struct search {
	uintptr_t address;
	const struct maps_mapping *mapping; /* around it */
	struct image candidate;
	struct image image; /* the nearest below address that fits; elf.e_phnum 0: none */
	uintptr_t covered[SEGMENTS_MAX]; /* mapped as it should be up to here */
};

/* Not on the stack, which may be a small sigaltstack. */
static struct search search;

/* The last answer, and the mapping that it was given for. */
static struct {
	struct maps_mapping mapping; /* lower == upper: none */
	bool found;
	struct module module;
	uint8_t table[TABLE_HEAD];
} known;

static bool mapped_read(uintptr_t address, void *buffer, size_t size)
{
	int error;

	return mem_read(address, buffer, size, &error) == size;
}

static uintptr_t mapped_segment_start(const struct image *image, const Elf64_Phdr *segment)
{
	return ALIGN_DOWN(image->bias + segment->p_vaddr, PAGE_SIZE);
}

/* The end of the bytes that come from the file: bss is not looked at. */
static uintptr_t mapped_segment_end(const struct image *image, const Elf64_Phdr *segment)
{
	return image->bias + segment->p_vaddr + segment->p_filesz;
}

/* Is this mapping where the segment should be, as far as they overlap? */
static bool mapped_belongs(const struct image *image, const Elf64_Phdr *segment, const struct maps_mapping *mapping)
{
	const struct maps_mapping *head = &image->head;

	if (mapping->device != head->device || mapping->inode != head->inode)
		return false;
	return mapping->inode == 0 || mapping->offset - mapping->lower ==
					      head->offset + ALIGN_DOWN(segment->p_offset, PAGE_SIZE) -
						      mapped_segment_start(image, segment);
}

static bool mapped_read_headers(struct image *image)
{
	const Elf64_Ehdr *elf = &image->elf;
	const Elf64_Phdr *first;

	if (!mapped_read(image->head.lower, &image->elf, sizeof(image->elf)) ||
	    !segments_are_of(elf) || elf->e_phentsize != sizeof(image->headers[0]) || elf->e_phnum > SEGMENTS_MAX)
		return false;
	if (elf->e_phoff > PAGE_SIZE ||
	    !mapped_read(image->head.lower + elf->e_phoff, image->headers, elf->e_phnum * sizeof(image->headers[0])))
		return false;
	first = segment_next(image->headers, elf->e_phnum, NULL, PT_LOAD, 0);
	if (first == NULL)
		return false;
	image->bias = image->head.lower - ALIGN_DOWN(first->p_vaddr, PAGE_SIZE);
	return first->p_offset < PAGE_SIZE && (elf->e_type == ET_DYN || image->bias == 0);
}

static bool mapped_is_around(const struct image *image, uintptr_t address, const struct maps_mapping *mapping)
{
	FOR_EACH_SEGMENT(segment, image->headers, image->elf.e_phnum, PT_LOAD, 0)
		if (address >= mapped_segment_start(image, segment) && address < mapped_segment_end(image, segment))
			return mapped_belongs(image, segment, mapping);
	return false;
}

static bool mapped_look_for_header(const struct maps_mapping *mapping, void *data)
{
	struct search *search = data;

	if (mapping->lower > search->address)
		return false;
	if (mapping->special || !(mapping->protection & PROT_READ) || search->address - mapping->lower > SPAN_MAX)
		return true;
	/* Nothing else is read: it may be memory of a user fault handler, or of a device. */
	if (mapping->device != search->mapping->device || mapping->inode != search->mapping->inode)
		return true;
	search->candidate.head = *mapping;
	if (mapped_read_headers(&search->candidate) &&
	    mapped_is_around(&search->candidate, search->address, search->mapping))
		search->image = search->candidate;
	return true;
}

static bool mapped_cover(const struct maps_mapping *mapping, void *data)
{
	struct search *search = data;
	const struct image *image = &search->image;

	FOR_EACH_SEGMENT(segment, image->headers, image->elf.e_phnum, PT_LOAD, 0) {
		uintptr_t *covered = &search->covered[segment - image->headers];

		if (*covered >= mapping->lower && *covered < mapping->upper && (mapping->protection & PROT_READ) &&
		    mapped_belongs(image, segment, mapping))
			*covered = mapping->upper;
	}
	return true;
}

/* What is known of the image that was found. False: a segment around the address is not there as the headers say. */
static bool mapped_describe(struct search *search, struct module *module)
{
	struct image *image = &search->image;

	for (size_t i = 0; i < image->elf.e_phnum; ++i)
		search->covered[i] = mapped_segment_start(image, &image->headers[i]);
	if (!maps_mappings(mapped_cover, search))
		return false;
	*module = (struct module){ .identity = (const void *)image->head.lower,
				   .headers = image->headers,
				   .header_count = image->elf.e_phnum,
				   .bias = image->bias };
	segments_extent(image->headers, image->elf.e_phnum, image->bias, &module->lower, &module->upper);
	FOR_EACH_SEGMENT(segment, image->headers, image->elf.e_phnum, PT_GNU_EH_FRAME, 0)
		module->eh_frame_hdr = (const void *)(image->bias + segment->p_vaddr);
	FOR_EACH_SEGMENT(segment, image->headers, image->elf.e_phnum, PT_LOAD, 0) {
		size_t i = (size_t)(segment - image->headers);

		if (search->covered[i] < mapped_segment_end(image, segment))
			image->headers[i].p_type = PT_NULL;
		image->headers[i].p_memsz = segment->p_filesz;
	}
	return mapped_is_around(image, search->address, search->mapping);
}

/* False: it has a table that cannot be read. */
static bool mapped_read_table_head(const struct module *module, uint8_t head[TABLE_HEAD])
{
	memset(head, 0, TABLE_HEAD);
	return module->eh_frame_hdr == NULL || mapped_read((uintptr_t)module->eh_frame_hdr, head, TABLE_HEAD);
}

/* Is the last answer for this mapping, and is the module still there, neither unmapped nor replaced by another one? */
static bool mapped_is_current(const struct maps_mapping *mapping)
{
	uint8_t table[TABLE_HEAD];
	Elf64_Ehdr elf;

	if (mapping->lower != known.mapping.lower || mapping->upper != known.mapping.upper)
		return false;
	return !known.found ||
	       (mapped_read((uintptr_t)known.module.identity, &elf, sizeof(elf)) &&
		memcmp(&elf, &search.image.elf, sizeof(elf)) == 0 && mapped_read_table_head(&known.module, table) &&
		memcmp(table, known.table, sizeof(table)) == 0);
}

void module_forget_mapped(void)
{
	known.mapping = (struct maps_mapping){ 0 };
}

bool module_find_mapped(uintptr_t address, const struct maps_mapping *mapping, struct module *out)
{
	if (!mapped_is_current(mapping)) {
		module_forget_mapped();
		search.address = address;
		search.mapping = mapping;
		search.image.elf.e_phnum = 0;
		if (!maps_mappings(mapped_look_for_header, &search))
			return false;
		known.found = search.image.elf.e_phnum != 0 && mapped_describe(&search, &known.module);
		if (known.found && !mapped_read_table_head(&known.module, known.table))
			known.module.eh_frame_hdr = NULL;
		known.mapping = *mapping;
	}
	if (known.found)
		*out = known.module;
	return known.found;
}
