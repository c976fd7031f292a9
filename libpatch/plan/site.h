/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What there is at an address that is to be patched: a mapping, a module, a function. Called with the library
 * lock held.
 */
#ifndef LIBPATCH_PLAN_SITE_H
#define LIBPATCH_PLAN_SITE_H

#include "arch/insn.h"
#include "base/compiler.h"
#include "base/thread_safety.h"
#include "elf/module.h"
#include "patch/region.h"

#include <libpatch/patch.h>

/* What there is around a site. */
struct extent {
	/* The function, upper 0 when unknown; where the next one begins. */
	uintptr_t lower;
	uintptr_t upper;
	uintptr_t limit;
	uintptr_t barrier; /* no byte from here on may be changed */
	uintptr_t floor;   /* none in front of here */
	uintptr_t mapped;  /* end of the mapping */
	bool no_rmw;       /* the mapping is writable (text.h) */
};

/* May a patch be placed at address? PATCH_OK, or why not in *refusal. */
patch_status site_examine(uintptr_t address, struct extent *extent, struct refusal *refusal) REQUIRES(library_lock);

/* The same for the library's own patch at a system call. */
patch_status site_examine_syscall(uintptr_t address, struct extent *extent, struct refusal *refusal)
	REQUIRES(library_lock);

/* Handlers of the program return through the code at address, which must stay as it is. Not many are remembered. */
void site_protect_restorer(uintptr_t address) REQUIRES(library_lock);

/* May a divert lead there? PATCH_OK, or why not in *refusal. */
patch_status site_check_target(uintptr_t address, struct refusal *refusal) REQUIRES(library_lock);

enum site_use {
	SITE_PROCEDURE,
	SITE_DESTROY,
	SITE_COUNTER,
	SITE_ORIGINAL
};

/* May a client's address be used so? PATCH_OK, also where that cannot be told, or why not in *refusal. */
patch_status site_check_use(uintptr_t address, enum site_use use, struct refusal *refusal) REQUIRES(library_lock);

/* The module around an address that is mapped. Its code can be read until site_examine() is asked about another one. */
bool site_module(uintptr_t address, struct module *module) REQUIRES(library_lock);

/*
 * The end of the function that begins at extent->limit, as far as its bytes may be changed; 0: no function begins
 * there.
 */
uintptr_t site_next_function_end(const struct extent *extent) REQUIRES(library_lock);

/* The instruction at address, under patches; false when the bytes there are none. */
bool site_decode(uintptr_t address, struct arch_insn *insn) REQUIRES(library_lock);

/*
 * The dynamic linker has mapped this module, and has not listed it yet: here it is known until site_forget(), without
 * reading what else is mapped. The caller sees to it that it stays.
 */
struct module;
void site_expect(const struct module *module) REQUIRES(library_lock);

/*
 * Forget what was looked up of mappings and functions, and trusted, but for the mappings that clients' procedures and
 * counters are in; and what the kernel refused (sys/gaps.h).
 */
void site_forget(void) REQUIRES(library_lock);
/* That, too: what is mapped there goes. */
void site_forget_unmapped(uintptr_t lower, uintptr_t upper) REQUIRES(library_lock);

#endif
