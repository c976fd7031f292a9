/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How a function is left, by its code and its unwind table. It may be in several pieces: what compilers put elsewhere
 * because it rarely runs (.cold), and code that functions share. Exits are found in all of them. Nothing is changed.
 * Called with the library lock held; text is read as the program has it, under patches.
 *
 * A function can be left only where its frame is gone: where the CFA is rsp + 8. Pieces are what it goes to otherwise.
 */
#ifndef LIBPATCH_PLAN_EXITS_H
#define LIBPATCH_PLAN_EXITS_H

#include "base/compiler.h"
#include "base/error.h"
#include "base/thread_safety.h"
#include "elf/module.h"

#include <libpatch/patch.h>

enum exit_kind {
	EXIT_RET,      /* any near return */
	EXIT_JUMP,     /* a direct jump that leaves */
	EXIT_BRANCH,   /* a conditional branch or loop that leaves when it is taken */
	EXIT_INDIRECT, /* leaves unless it leads into a piece, and not to the function's entry: seen when it runs */
	EXIT_FALL,     /* control leaves behind this instruction, into what follows */
	EXIT_AGAIN     /* a direct branch to the function's own entry: neither a return nor a call */
};

struct exit_place {
	uintptr_t address; /* of the instruction */
	uintptr_t target;  /* where a direct branch leads, or control falls to; else 0 */
	uint8_t length;
	uint8_t kind; /* enum exit_kind */
	bool bare;    /* the frame is gone: false only for some EXIT_RET of code whose table is wrong */
};

struct exit_piece {
	uintptr_t lower;
	uintptr_t upper;
	/* It begins as a function does, and is here because it shares code with others: to jump there is to leave. */
	bool callable;
};

struct exits {
	uintptr_t entry; /* the function's first byte */
	uintptr_t body;  /* the same, or behind an endbr64 there */
	const struct exit_piece *pieces; /* the first one begins at the entry */
	size_t piece_count;
	const struct exit_place *places; /* piece by piece, in order of addresses in each but for EXIT_FALL */
	size_t place_count;
	/*
	 * Why there may be more exits than these, and where; of several reasons the first. NULL: these are all.
	 */
	struct refusal missing;
};

/*
 * The exits of the function around address. *exits is good until the next call. PATCH_OK: these are all exits.
 * PATCH_ENOTSUP: there may be others, as exits->missing and *refusal say; or, with *exits NULL, nothing is known.
 * PATCH_ENOMEM: *exits is NULL.
 */
patch_status exits_find(uintptr_t address, const struct exits **exits, struct refusal *refusal) REQUIRES(library_lock);
/* The same in a module that was found before. */
patch_status exits_find_in(const struct module *module, uintptr_t address, const struct exits **exits,
			   struct refusal *refusal) REQUIRES(library_lock);

#endif
