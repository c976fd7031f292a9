/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Program headers in memory: one way to go through those of one type. Pure; the headers must stay readable during the
 * loop.
 */
#ifndef LIBPATCH_ELF_SEGMENTS_H
#define LIBPATCH_ELF_SEGMENTS_H

#include "base/compiler.h"

#include <elf.h>
#include <string.h>

/* Is it the header of a program or of a library for this architecture? */
static inline bool segments_are_of(const Elf64_Ehdr *elf)
{
	return memcmp(elf->e_ident, ELFMAG, SELFMAG) == 0 && elf->e_ident[EI_CLASS] == ELFCLASS64 &&
	       elf->e_machine == EM_X86_64 && (elf->e_type == ET_EXEC || elf->e_type == ET_DYN);
}

/* The first of `count` headers behind `after` (NULL: of all) with this type and at least these flags; NULL: none. */
static inline const Elf64_Phdr *segment_next(const Elf64_Phdr *headers, size_t count, const Elf64_Phdr *after,
					     uint32_t type, uint32_t flags)
{
	const Elf64_Phdr *at = after != NULL ? after + 1 : headers;

	for (; headers != NULL && at < headers + count; ++at)
		if (at->p_type == type && (at->p_flags & flags) == flags)
			return at;
	return NULL;
}

/* `segment` goes through the headers of this type that have at least these flags (PF_R, PF_W, PF_X). */
#define FOR_EACH_SEGMENT(segment, headers, count, type, flags)                                                         \
	for (const Elf64_Phdr *segment = segment_next(headers, count, NULL, type, flags); segment != NULL;             \
	     segment = segment_next(headers, count, segment, type, flags))

/* Is the address in the segment of a module with this bias, which is its load address less p_vaddr? */
static inline bool segment_contains(const Elf64_Phdr *segment, uintptr_t bias, uintptr_t address)
{
	const uintptr_t start = bias + segment->p_vaddr;

	return address >= start && address - start < segment->p_memsz;
}

/* Whole pages that all loaded segments lie in, from the lowest to the highest. [UINTPTR_MAX, 0): there are none. */
static inline void segments_extent(const Elf64_Phdr *headers, size_t count, uintptr_t bias, uintptr_t *lower,
				   uintptr_t *upper)
{
	*lower = UINTPTR_MAX;
	*upper = 0;
	FOR_EACH_SEGMENT(segment, headers, count, PT_LOAD, 0) {
		*lower = MIN(*lower, ALIGN_DOWN(bias + segment->p_vaddr, PAGE_SIZE));
		*upper = MAX(*upper, ALIGN_UP(bias + segment->p_vaddr + segment->p_memsz, PAGE_SIZE));
	}
}

#endif
