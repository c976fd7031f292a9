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
/* For who found none that will do: has anything been mapped since they were read? Then they are read anew. */
bool gaps_look_again(void) REQUIRES(library_lock);
void gaps_forget(void);

/*
 * Visit what gaps_visit() has just left out for the program break, but for the first 128 MiB. Only while it is open: a
 * break that meets a mapping grows no more, and the process then has to find its memory elsewhere.
 */
void gaps_visit_break_room(gaps_visit_fn *visit, void *data) REQUIRES(library_lock);
void gaps_open_break_room(bool open) REQUIRES(library_lock);

/* Map [address, address + size), where nothing is, privately; 0 or -errno. Never replaces a mapping. */
long gaps_map(uintptr_t address, size_t size, int protection) REQUIRES(library_lock);

#endif
