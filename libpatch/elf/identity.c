/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Build ids in notes, in memory and in files; and sums for what has none. Nothing is believed of the sizes in notes.
 */
#include "elf/identity.h"

#include "elf/module_span.h"

#include <string.h>

/* As many bytes of a section of notes are looked at: there are one or two notes, of some thirty bytes each. */
#define NOTES_SIZE 1024

/* FNV-1a, 64 bits. */
#define SUM_BASIS 0xcbf29ce484222325UL
#define SUM_PRIME 0x100000001b3UL

static uint64_t identity_add(uint64_t sum, const void *bytes, size_t size)
{
	for (const uint8_t *at = bytes; size > 0; ++at, --size)
		sum = (sum ^ *at) * SUM_PRIME;
	return sum;
}

/* From p_flags to p_filesz: what module_find_mapped() leaves as it is. */
static uint64_t identity_add_header(uint64_t sum, const Elf64_Phdr *header)
{
	return identity_add(sum, &header->p_flags, offsetof(Elf64_Phdr, p_memsz) - offsetof(Elf64_Phdr, p_flags));
}

static void identity_set_sum(struct identity *out, uint64_t sum)
{
	out->size = sizeof(sum);
	out->is_sum = true;
	memcpy(out->bytes, &sum, sizeof(sum));
}

/* Notes are aligned to 4 bytes, or to 8 in sections that are (.note.gnu.property). */
static bool identity_find_note(const uint8_t *notes, size_t size, size_t alignment, struct identity *out)
{
	while (size >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr note;
		size_t name, contents;

		memcpy(&note, notes, sizeof(note));
		name = ALIGN_UP(sizeof(note) + (size_t)note.n_namesz, alignment);
		contents = name + note.n_descsz;
		if (name > size || contents > size)
			return false;
		if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == sizeof(ELF_NOTE_GNU) &&
		    memcmp(notes + sizeof(note), ELF_NOTE_GNU, sizeof(ELF_NOTE_GNU)) == 0 && note.n_descsz > 0 &&
		    note.n_descsz <= IDENTITY_SIZE) {
			out->size = (uint8_t)note.n_descsz;
			memcpy(out->bytes, notes + name, note.n_descsz);
			return true;
		}
		contents = MIN(ALIGN_UP(contents, alignment), size);
		notes += contents;
		size -= contents;
	}
	return false;
}

static size_t identity_note_alignment(uint64_t stated)
{
	return stated == 8 ? 8 : 4;
}

void identity_of_module(const struct module *module, struct identity *out)
{
	const Elf64_Phdr *headers = module->headers;
	uint64_t sum = SUM_BASIS;

	*out = (struct identity){ .size = 0 };
	for (size_t i = 0; i < module->header_count; ++i)
		sum = identity_add_header(sum, &headers[i]);
	FOR_EACH_SEGMENT(segment, headers, module->header_count, PT_NOTE, 0) {
		uintptr_t notes = module->bias + segment->p_vaddr;

		if (identity_find_note((const uint8_t *)notes, MIN(module_room(module, notes), segment->p_filesz),
				       identity_note_alignment(segment->p_align), out))
			return;
	}
	FOR_EACH_SEGMENT(segment, headers, module->header_count, PT_GNU_EH_FRAME, 0) {
		const void *table = module_span(module, module->bias + segment->p_vaddr, segment->p_filesz, 1);

		if (table != NULL)
			identity_set_sum(out, identity_add(sum, table, segment->p_filesz));
		return;
	}
}

void identity_build_id(const struct elf_file *file, struct identity *out)
{
	uint8_t notes[NOTES_SIZE];
	Elf64_Shdr section;

	*out = (struct identity){ .size = 0 };
	for (size_t i = 0; elf_file_find_type(file, SHT_NOTE, &i, &section); ++i) {
		size_t size = MIN(section.sh_size, sizeof(notes));

		if (elf_file_read(file, section.sh_offset, notes, size) &&
		    identity_find_note(notes, size, identity_note_alignment(section.sh_addralign), out))
			return;
	}
}

static bool identity_add_file(const struct elf_file *file, uint64_t offset, uint64_t size, uint64_t *sum)
{
	uint8_t bytes[NOTES_SIZE];

	for (size_t piece; size > 0; offset += piece, size -= piece) {
		piece = MIN(size, sizeof(bytes));
		if (!elf_file_read(file, offset, bytes, piece))
			return false;
		*sum = identity_add(*sum, bytes, piece);
	}
	return true;
}

static bool identity_read_header(const struct elf_file *file, size_t index, Elf64_Phdr *header)
{
	return elf_file_read(file, file->header.e_phoff + index * sizeof(*header), header, sizeof(*header));
}

void identity_of_file(const struct elf_file *file, struct identity *out)
{
	const size_t count = file->header.e_phnum;
	uint64_t sum = SUM_BASIS;
	Elf64_Phdr header;

	identity_build_id(file, out);
	if (out->size > 0 || file->header.e_phentsize != sizeof(header))
		return;
	for (size_t i = 0; i < count; ++i) {
		if (!identity_read_header(file, i, &header))
			return;
		sum = identity_add_header(sum, &header);
	}
	for (size_t i = 0; i < count; ++i) {
		if (!identity_read_header(file, i, &header))
			return;
		if (header.p_type != PT_GNU_EH_FRAME)
			continue;
		if (identity_add_file(file, header.p_offset, header.p_filesz, &sum))
			identity_set_sum(out, sum);
		return;
	}
}

bool identity_is_same(const struct identity *a, const struct identity *b)
{
	return a->size > 0 && a->size == b->size && a->is_sum == b->is_sum && memcmp(a->bytes, b->bytes, a->size) == 0;
}
