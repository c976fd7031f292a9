/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Generated code seen from outside: is this pc in it, and which original instruction does it stand for?
 * Async-signal-safe, any thread, no lock (I9).
 */
#ifndef LIBPATCH_CODE_PC_MAP_H
#define LIBPATCH_CODE_PC_MAP_H

#include "arch/canonical.h"
#include "base/compiler.h"

#include <ucontext.h>

/* The original address for a pc in a block or at a pad. False: the pc stands for none. */
bool pc_map_original(uintptr_t pc, uintptr_t *original);
/* Is pc in any arena or pad mapping? */
bool pc_map_contains(uintptr_t pc);

/* The map of the block that the pc is in the code of. */
bool pc_map_of_code(uintptr_t pc, struct arch_code_map *map);

/* Where a thread that was interrupted in generated code goes on. */
struct code_place {
	uintptr_t shown; /* the pc that the program sees meanwhile */
	uintptr_t pc;
	uintptr_t below; /* so much less is the stack pointer than what the program sees */
};

/*
 * In a handler of the thread that was interrupted, with its registers as in uc_mcontext.gregs: if the pc is in
 * generated code, make them the program's, and the thread's errno, guard and pairs, too. Whoever returns from the
 * handler calls code_canonical_resume(). False: the pc is elsewhere, or tells nothing; nothing has changed.
 */
bool code_canonical(greg_t *registers, struct code_place *place);
/* With what the program has made of the registers: unless it has changed the pc, go on in generated code. */
void code_canonical_resume(greg_t *registers, const struct code_place *place);

/*
 * In generated code: the pc that code_canonical() would show. `begins`: where the code for that instruction begins in
 * its block. False: it is elsewhere that the thread would go on.
 */
bool code_shown(const greg_t *registers, uintptr_t *shown, bool *begins);

/* Is the stack pointer in what the hook with its frame at `base` calls? */
bool code_is_called(uintptr_t base, uintptr_t rsp);

/*
 * A signal has interrupted a thread, with this stack pointer. If that is in what the hook with its frame at `base`
 * calls, have the call return to a stub (arch/put_off.h). False: no call of a hook's is found there.
 */
bool code_put_off(uintptr_t base, uintptr_t rsp);

#endif
