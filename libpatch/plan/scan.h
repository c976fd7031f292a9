/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a function's code says of an address: does an instruction start there, do direct branches lead there? And which
 * branches it has. The last few functions asked about are kept, so that whoever asks about the parts of one function
 * in turns has each decoded once. Called with the library lock held.
 *
 * Whole functions are decoded only when the answer needs it. Whether branches lead to an address is mostly known
 * without: no byte of the function begins a displacement that would.
 */
#ifndef LIBPATCH_PLAN_SCAN_H
#define LIBPATCH_PLAN_SCAN_H

#include "arch/insn.h"
#include "base/compiler.h"
#include "base/thread_safety.h"

/* The answers below are for the function [lower, upper), mapped memory that is not empty; patched or not. */
void scan_set(uintptr_t lower, uintptr_t upper) REQUIRES(library_lock);

/*
 * Decode it all. False when out of memory, when the function is not readable now, or when it is larger than 4 MiB: then
 * nothing is known of it, and what is asked below is answered with no.
 */
bool scan_function(void) REQUIRES(library_lock);

bool scan_is_start(uintptr_t address) REQUIRES(library_lock);
bool scan_is_target(uintptr_t address) REQUIRES(library_lock);

/* An instruction that may go elsewhere and does not come back behind itself: kinds from ARCH_JMP on, without calls. */
struct scan_branch {
	uint32_t offset;      /* from the function's first byte */
	int32_t displacement; /* from the instruction's end to where it leads; 0 where that is not known */
	uint8_t length;
	uint8_t kind; /* enum arch_kind */
	bool far;     /* it changes the code segment, or more */
};

/* The whole function, decoded. What it points to is good until scan_set() or scan_forget(). */
struct scan_function {
	uintptr_t lower;
	uintptr_t upper;
	const struct scan_branch *branches; /* in order of addresses */
	size_t count;
	uintptr_t undecodable; /* the first byte that begins no instruction; 0: there is none */
	uintptr_t last;        /* the last instruction; 0: there is none */
	/* Control reaches the function's end: it runs on behind the last instruction that is no no-op. */
	bool falls;
};

/* NULL: as scan_function() says. */
const struct scan_function *scan_get(void) REQUIRES(library_lock);

static inline uintptr_t scan_branch_address(const struct scan_function *function, const struct scan_branch *branch)
{
	return function->lower + branch->offset;
}

/* Where a direct branch leads. */
static inline uintptr_t scan_branch_target(const struct scan_function *function, const struct scan_branch *branch)
{
	return scan_branch_address(function, branch) + branch->length + (uintptr_t)(intptr_t)branch->displacement;
}

/* The text changed for other reasons than patches: forget. */
void scan_forget(void) REQUIRES(library_lock);

#endif
