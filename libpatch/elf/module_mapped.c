/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * module_find_mapped(): modules by their ELF headers in memory. Guarantees:
 *
 * G1 No lock of its own, no allocation, no call of libc: raw system calls and static memory. The library lock is held.
 * G2 Headers are copied by the kernel (text.h): what is not there, or no ELF file, is not found, and never faults.
 * G3 A segment whose pages are not all mapped readable, from the header's file and at the place that the program headers
 *    say, is left out of what module_function() may read. Without the one around the address there is no module.
 */
#include "elf/module.h"
#include "sys/mem_read.h"

#include <elf.h>
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

/* The last answer. */
static struct {
	struct maps_mapping mapping; /* lower == upper: none */
	bool found;
	struct module module;
	uint8_t table[TABLE_HEAD];
} known;

static bool read_all(uintptr_t address, void *buffer, size_t size)
{
	int error;

	return mem_read(address, buffer, size, &error) == size;
}

static uintptr_t segment_start(const struct image *image, const Elf64_Phdr *segment)
{
	return ALIGN_DOWN(image->bias + segment->p_vaddr, PAGE_SIZE);
}

/* End of what the file gives it: bss is not looked at. */
static uintptr_t segment_end(const struct image *image, const Elf64_Phdr *segment)
{
	return image->bias + segment->p_vaddr + segment->p_filesz;
}

/* Is this mapping where the segment should be, as far as they overlap? */
static bool belongs(const struct image *image, const Elf64_Phdr *segment, const struct maps_mapping *mapping)
{
	const struct maps_mapping *head = &image->head;

	if (mapping->device != head->device || mapping->inode != head->inode)
		return false;
	return mapping->inode == 0 || mapping->offset - mapping->lower ==
					      head->offset + ALIGN_DOWN(segment->p_offset, PAGE_SIZE) -
						      segment_start(image, segment);
}

static bool read_headers(struct image *image)
{
	const Elf64_Ehdr *elf = &image->elf;

	if (!read_all(image->head.lower, &image->elf, sizeof(image->elf)) ||
	    memcmp(elf->e_ident, ELFMAG, SELFMAG) != 0 || elf->e_ident[EI_CLASS] != ELFCLASS64 ||
	    elf->e_machine != EM_X86_64 || (elf->e_type != ET_EXEC && elf->e_type != ET_DYN) ||
	    elf->e_phentsize != sizeof(image->headers[0]) || elf->e_phnum > SEGMENTS_MAX)
		return false;
	if (elf->e_phoff > PAGE_SIZE ||
	    !read_all(image->head.lower + elf->e_phoff, image->headers, elf->e_phnum * sizeof(image->headers[0])))
		return false;
	for (size_t i = 0; i < elf->e_phnum; ++i) {
		if (image->headers[i].p_type != PT_LOAD)
			continue;
		image->bias = image->head.lower - ALIGN_DOWN(image->headers[i].p_vaddr, PAGE_SIZE);
		return image->headers[i].p_offset < PAGE_SIZE && (elf->e_type == ET_DYN || image->bias == 0);
	}
	return false;
}

static bool is_around(const struct image *image, uintptr_t address, const struct maps_mapping *mapping)
{
	for (size_t i = 0; i < image->elf.e_phnum; ++i) {
		const Elf64_Phdr *segment = &image->headers[i];

		if (segment->p_type == PT_LOAD && address >= segment_start(image, segment) &&
		    address < segment_end(image, segment))
			return belongs(image, segment, mapping);
	}
	return false;
}

static bool look_for_header(const struct maps_mapping *mapping, void *data)
{
	struct search *search = data;

	if (mapping->lower > search->address)
		return false;
	if (mapping->special || !(mapping->protection & PROT_READ) || search->address - mapping->lower > SPAN_MAX)
		return true;
	search->candidate.head = *mapping;
	if (read_headers(&search->candidate) && is_around(&search->candidate, search->address, search->mapping))
		search->image = search->candidate;
	return true;
}

static bool cover(const struct maps_mapping *mapping, void *data)
{
	struct search *search = data;
	const struct image *image = &search->image;

	for (size_t i = 0; i < image->elf.e_phnum; ++i)
		if (image->headers[i].p_type == PT_LOAD && search->covered[i] >= mapping->lower &&
		    search->covered[i] < mapping->upper && (mapping->protection & PROT_READ) &&
		    belongs(image, &image->headers[i], mapping))
			search->covered[i] = mapping->upper;
	return true;
}

static bool describe(struct image *image, struct module *module)
{
	uintptr_t lower = UINTPTR_MAX;
	uintptr_t upper = 0;

	for (size_t i = 0; i < image->elf.e_phnum; ++i)
		search.covered[i] = segment_start(image, &image->headers[i]);
	if (!maps_mappings(cover, &search))
		return false;
	*module = (struct module){ .identity = (const void *)image->head.lower,
				   .headers = image->headers,
				   .header_count = image->elf.e_phnum,
				   .bias = image->bias };
	for (size_t i = 0; i < image->elf.e_phnum; ++i) {
		Elf64_Phdr *segment = &image->headers[i];
		uintptr_t start = image->bias + segment->p_vaddr;

		if (segment->p_type == PT_GNU_EH_FRAME)
			module->eh_frame_hdr = (const void *)start;
		if (segment->p_type != PT_LOAD)
			continue;
		lower = MIN(lower, ALIGN_DOWN(start, PAGE_SIZE));
		upper = MAX(upper, ALIGN_UP(start + segment->p_memsz, PAGE_SIZE));
		if (search.covered[i] < segment_end(image, segment))
			segment->p_type = PT_NULL;
		segment->p_memsz = segment->p_filesz;
	}
	module->lower = lower;
	module->upper = upper;
	return is_around(image, search.address, search.mapping);
}

/* False: it has a table that cannot be read. */
static bool read_table_head(const struct module *module, uint8_t head[TABLE_HEAD])
{
	memset(head, 0, TABLE_HEAD);
	return module->eh_frame_hdr == NULL || read_all((uintptr_t)module->eh_frame_hdr, head, TABLE_HEAD);
}

/* Not unmapped, nor replaced by another module, since it was looked up? */
static bool is_current(const struct maps_mapping *mapping)
{
	uint8_t table[TABLE_HEAD];
	Elf64_Ehdr elf;

	if (mapping->lower != known.mapping.lower || mapping->upper != known.mapping.upper)
		return false;
	return !known.found ||
	       (read_all((uintptr_t)known.module.identity, &elf, sizeof(elf)) &&
		memcmp(&elf, &search.image.elf, sizeof(elf)) == 0 && read_table_head(&known.module, table) &&
		memcmp(table, known.table, sizeof(table)) == 0);
}

void module_forget(void)
{
	known.mapping = (struct maps_mapping){ 0 };
}

bool module_find_mapped(uintptr_t address, const struct maps_mapping *mapping, struct module *out)
{
	if (!is_current(mapping)) {
		module_forget();
		search.address = address;
		search.mapping = mapping;
		search.image.elf.e_phnum = 0;
		if (!maps_mappings(look_for_header, &search))
			return false;
		known.found = search.image.elf.e_phnum != 0 && describe(&search.image, &known.module);
		if (known.found && !read_table_head(&known.module, known.table))
			known.module.eh_frame_hdr = NULL;
		known.mapping = *mapping;
	}
	if (known.found)
		*out = known.module;
	return known.found;
}
