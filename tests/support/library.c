/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Asks the dynamic linker for the module that patch_commit() is in. */
#define _GNU_SOURCE
#include "library.h"

#include <libpatch/patch.h>
#include <link.h>

uintptr_t library_lower, library_upper;

static int library_look(struct dl_phdr_info *info, size_t size, void *unused)
{
	uintptr_t lower = UINTPTR_MAX, upper = 0;

	(void)size;
	(void)unused;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
		const uintptr_t start = info->dlpi_addr + segment->p_vaddr;

		if (segment->p_type != PT_LOAD)
			continue;
		lower = start < lower ? start : lower;
		upper = start + segment->p_memsz > upper ? start + segment->p_memsz : upper;
	}
	if ((uintptr_t)patch_commit < lower || (uintptr_t)patch_commit >= upper)
		return 0;
	library_lower = lower;
	library_upper = upper;
	return 1;
}

void library_find(void)
{
	dl_iterate_phdr(library_look, NULL);
}
