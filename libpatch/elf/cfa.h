/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where a function's frame is, instruction by instruction, from a module's unwind table: the canonical frame address
 * (CFA) is the stack pointer before the function was called. Where it is rsp + 8, only the return address is on the
 * stack. And where in the frame the caller's registers are kept (elf/caller.h). Lock-free and async-signal-safe; no
 * allocation; whatever the table holds, nothing outside the module's readable segments is read.
 *
 *     if (!cfa_begin(&rows, module, address))
 *             no entry of the table is around address
 *     for addresses of the function, in ascending order:
 *             cfa_seek(&rows, address); rows.frame is the frame there
 */
#ifndef LIBPATCH_ELF_CFA_H
#define LIBPATCH_ELF_CFA_H

#include "elf/eh_frame.h"

#define CFA_RSP 7
#define CFA_RETURN_ADDRESS 16 /* stands for the address that is returned to */
#define CFA_KEPT 17 /* so many there are */

/* Distances from the CFA, in words. */
#define CFA_KEPT_NOWHERE 0 /* the register has it */
#define CFA_KEPT_ELSEWHERE INT16_MIN /* in a way that is not told */

/* The CFA is a register and an offset; or it is computed in another way, of which nothing is known here. */
struct cfa_frame {
	bool known;
	uint8_t base; /* the register, as DWARF numbers them: 7 is rsp */
	int64_t offset;
	int16_t kept[CFA_KEPT]; /* where the caller's are */
};

/* Compilers use one; more than these in each other are taken for damage. */
#define CFA_REMEMBERED 8

struct cfa_rows {
	/* The row at hand: `frame` holds on [lower, upper). */
	uintptr_t lower;
	uintptr_t upper;
	struct cfa_frame frame;
	bool damaged; /* the table cannot be read from here on: nothing is known of the frame */
	struct eh_frame_entry entry;
	/* For cfa.c. */
	int16_t kept_at_first[CFA_KEPT];
	struct cfa_frame remembered[CFA_REMEMBERED];
	unsigned int depth;
};

/* The first row of the function around address. False: the table has no entry there. */
bool cfa_begin(struct cfa_rows *rows, const struct module *module, uintptr_t address);
/* The next row, up to the function's end. False: there is none. */
bool cfa_next(struct cfa_rows *rows);

/* Go on to the row that holds at address, which is in the function, and not in front of the row at hand. */
static inline void cfa_seek(struct cfa_rows *rows, uintptr_t address)
{
	while (address >= rows->upper && cfa_next(rows))
		;
}

/* Is the frame gone, or not there yet: is the return address on top of the stack? */
static inline bool cfa_is_bare(const struct cfa_rows *rows)
{
	return rows->frame.known && rows->frame.base == CFA_RSP && rows->frame.offset == 8;
}

#endif
