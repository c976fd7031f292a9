/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The process's address space, as /proc/self/maps tells it: what is mapped at an address, and where there is room.
 * Called with the library lock held.
 */
#ifndef LIBPATCH_SPACE_H
#define LIBPATCH_SPACE_H

#include "base/base.h"

/* Lowest address taken: vm.mmap_min_addr is 64 KiB; a null pointer with a large offset should keep faulting. */
#define SPACE_FLOOR (1UL << 20)
/* User addresses end here (Documentation/arch/x86/x86_64/mm.rst), less a guard page. */
#define SPACE_CEILING 0x7ffffffff000UL

struct space_mapping {
	uintptr_t lower;
	uintptr_t upper;
	int protection; /* PROT_* */
	bool shared;
	bool special; /* [vdso], [vsyscall], [uprobes-trampoline] and their like: not to be written */
	/* Of the file, all 0 where there is none. */
	uint64_t offset;
	uint64_t device;
	uint64_t inode;
};

/* False when nothing is mapped at address, or /proc cannot be read (*readable is false then). */
bool space_mapping(uintptr_t address, struct space_mapping *out, bool *readable);

/* Why /proc/self/maps cannot be read: -errno; 0: it can. */
long space_refusal(void);

/* Visit every mapping, ascending, until `visit` returns false. False when /proc cannot be read. */
typedef bool space_mapping_fn(const struct space_mapping *mapping, void *data);
bool space_mappings(space_mapping_fn *visit, void *data);

/*
 * Visit every gap between mappings, ascending, without the room that the program break and the main stack may grow into.
 * Stops when `visit` returns false. False when /proc cannot be read. Gaps are remembered until space_forget(), or until
 * space_map() maps something or finds that somebody else did: one that has come up since is missed, no more.
 */
typedef bool space_visit_fn(uintptr_t lower, uintptr_t upper, void *data);
bool space_gaps(space_visit_fn *visit, void *data);

void space_forget(void);

/* Map [address, address + size), where nothing is, privately; 0 or -errno. Never replaces a mapping. */
long space_map(uintptr_t address, size_t size, int protection);

#endif
