/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The process's address space, as /proc/self/maps tells it: what is mapped at an address, and where there is room.
 * Called with the library lock held.
 */
#ifndef LIBPATCH_SYS_MAPS_H
#define LIBPATCH_SYS_MAPS_H

#include "base/compiler.h"
#include "base/thread_safety.h"

/* Lowest address taken: vm.mmap_min_addr is 64 KiB; a null pointer with a large offset should keep faulting. */
#define MAPS_FLOOR (1UL << 20)
/* User addresses end here (Documentation/arch/x86/x86_64/mm.rst), less a guard page. */
#define MAPS_CEILING 0x7ffffffff000UL

struct maps_mapping {
	uintptr_t lower;
	uintptr_t upper;
	int protection; /* PROT_* */
	bool shared;
	bool special; /* [vdso], [vsyscall], [uprobes-trampoline] and their like: not to be written */
	/* Where there is no file, all three are 0. */
	uint64_t offset; /* in the file, of `lower` */
	uint64_t device; /* major << 32 | minor */
	uint64_t inode;
};

/* False when nothing is mapped at address, or /proc cannot be read (*readable is false then). */
bool maps_mapping(uintptr_t address, struct maps_mapping *out, bool *readable);

/*
 * The byte that the file mapped at address has for it: what nobody has written to memory. False when there is no file,
 * or it cannot be opened by the name that the kernel tells, or another file has that name now.
 */
bool maps_file_byte(uintptr_t address, uint8_t *byte) REQUIRES(library_lock);

/* Why /proc/self/maps cannot be read: -errno; 0: it can. */
long maps_refusal(void);

/* Visit every mapping, ascending, until `visit` returns false. False when /proc cannot be read. */
typedef bool maps_mapping_fn(const struct maps_mapping *mapping, void *data);
bool maps_mappings(maps_mapping_fn *visit, void *data);

/*
 * Visit every gap between mappings, ascending, without the room that the program break and the main stack may grow
 * into. Stops when `visit` returns false. False when /proc cannot be read. Gaps are remembered, less what maps_map()
 * has mapped in them, until maps_forget(), or until maps_map() finds that another thread has mapped something. A gap
 * that has come up since is missed until then.
 */
typedef bool maps_visit_fn(uintptr_t lower, uintptr_t upper, void *data);
bool maps_gaps(maps_visit_fn *visit, void *data) REQUIRES(library_lock);
/* For who found none that will do: has anything been mapped since they were read? Then they are read anew. */
bool maps_look_again(void) REQUIRES(library_lock);

/*
 * Visit what maps_gaps() has just left out for the program break, but for the first 128 MiB. Only while it is open: a
 * break that meets a mapping grows no more, and the process then has to find its memory elsewhere.
 */
void maps_break_room(maps_visit_fn *visit, void *data) REQUIRES(library_lock);
void maps_open_break_room(bool open) REQUIRES(library_lock);

void maps_forget(void);

/* Map [address, address + size), where nothing is, privately; 0 or -errno. Never replaces a mapping. */
long maps_map(uintptr_t address, size_t size, int protection) REQUIRES(library_lock);

#endif
