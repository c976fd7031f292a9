/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where nothing is mapped, and memory there.
 */
#ifndef LIBPATCH_SYS_GAPS_H
#define LIBPATCH_SYS_GAPS_H

#include "base/compiler.h"
#include "base/thread_safety.h"

/* Lowest address taken: vm.mmap_min_addr is 64 KiB; a null pointer with a large offset should keep faulting. */
#define GAPS_FLOOR (1UL << 20)
/* User addresses end here (Documentation/arch/x86/x86_64/mm.rst), less a guard page. */
#define GAPS_CEILING 0x7ffffffff000UL

/*
 * Visit every gap between mappings, ascending, without the room that the program break and the main stack may grow
 * into. Stops when `visit` returns false. False when /proc cannot be read. Gaps are remembered, less what gaps_map()
 * has mapped in them, until gaps_forget(), or until gaps_map() finds that another thread has mapped something. A gap
 * that has come up since is missed until then.
 */
typedef bool gaps_visit_fn(uintptr_t lower, uintptr_t upper, void *data);
bool gaps_visit(gaps_visit_fn *visit, void *data) REQUIRES(library_lock);
void gaps_forget(void);

/*
 * The room for the program break, but for its first 128 MiB, is searched, too, where no gap will do. Only while it is
 * open: a break that meets a mapping grows no more, and the process then has to find its memory elsewhere.
 */
void gaps_open_break_room(bool open) REQUIRES(library_lock);

/* Map [address, address + size), where nothing is, privately; 0 or -errno. Never replaces a mapping. */
long gaps_map(uintptr_t address, size_t size, int protection) REQUIRES(library_lock);

/* Looking for memory: which gap, how much of it, and where, is for who looks. */
struct gap_search;
/* Of [lower, upper), in whole pages, is something to be had, and is that better than what was found so far? */
typedef void gap_consider_fn(struct gap_search *search, uintptr_t lower, uintptr_t upper);
struct gap_search {
	gap_consider_fn *consider;
	size_t size;     /* so much is wanted */
	bool from_above; /* as far up in a gap as can be */
	/* Found: what is to be mapped, and how much that is of `size`. 0: nothing. */
	uintptr_t lower;
	uintptr_t upper;
	size_t taken;
};

/*
 * Search, and map what was found; again with half of that, down to `least`, where the kernel refuses it. 0 or -errno;
 * -ENOMEM: nothing was found.
 */
long gaps_search(struct gap_search *search, size_t least, int protection) REQUIRES(library_lock);

/*
 * What the kernel refused is not asked for again, for no other address, until gaps_try_again(), which each public call
 * ends with: to look for a gap takes long where there are so many mappings that the kernel refuses more.
 * gaps_note_refusal(): of a mapping of this size was refused what makes it of use.
 */
void gaps_note_refusal(size_t size) REQUIRES(library_lock);
void gaps_try_again(void);

#endif
