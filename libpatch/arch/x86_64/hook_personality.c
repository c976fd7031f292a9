/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Leaving a hook by unwinding: the personality routine of generated code. It runs in the program, in any thread that
 * unwinds, and writes nothing but that thread's guard, and lets signals come that were put off.
 */
#include "arch/x86_64/unwind_tables.h"

#include "arch/upcalls.h"

#define RED_ZONE_WORDS 16

/*
 * The end of a hook's frame: the program's stack pointer, which the expression of unwind_put_stack_pointer() computes.
 * Of a frame on the thread's own stack, for which that is another stack's, only the base counts.
 */
static uintptr_t personality_frame_end(const struct arena_tables *tables, uintptr_t pc, uintptr_t rsp)
{
	const uint16_t *granules = (const uint16_t *)tables->granules;
	size_t granule = (pc - tables->code) >> GRANULE_SHIFT;
	uintptr_t block = tables->code + ((granule - granules[granule]) << GRANULE_SHIFT);
	const struct arch_row *row = (const struct arch_row *)(block + BLOCK_ROWS);
	uint8_t cfa;

	while (row[1].code <= pc - block)
		row++;
	cfa = row->cfa;
	if ((cfa & ARCH_ROW_DEREF) != 0 && (cfa & (ARCH_ROW_DEREF - 1)) < RED_ZONE_WORDS)
		return rsp + 1;
	if ((cfa & ARCH_ROW_DEREF) != 0)
		rsp = *(const uintptr_t *)rsp;
	return rsp + (cfa & (ARCH_ROW_DEREF - 1)) * sizeof(uintptr_t);
}

/*
 * Called for each frame of generated code that an exception, a forced unwind, thread cancellation or pthread_exit
 * removes. When it is the frame of the running hook, that hook is over, and none runs.
 *
 * Only a guard inside this very frame is followed. Another one belongs to a hook on another stack that may still run
 * (a signal handler on its own stack threw), or to one that longjmp left, whose memory may be in use again.
 */
_Unwind_Reason_Code libpatch_hook_personality(int version, _Unwind_Action actions, _Unwind_Exception_Class class,
					      struct _Unwind_Exception *exception, struct _Unwind_Context *context)
{
	uintptr_t guard = libpatch_hook_guard.guard;
	uintptr_t rsp = _Unwind_GetCFA(context); /* the callee's CFA */
	struct arena_tables tables;

	(void)version;
	(void)class;
	(void)exception;
	/*
	 * No hook is 0, which is below every frame; GUARD_INSIDE and GUARD_UNKNOWN are above every frame. The CFA of a
	 * stub (put_off_stubs.S) is a byte above the stack pointer.
	 */
	if ((actions & _UA_CLEANUP_PHASE) == 0 || guard + 1 < rsp)
		return _URC_CONTINUE_UNWIND;
	tables.code = _Unwind_GetRegionStart(context);
	tables.granules = (uintptr_t)_Unwind_GetLanguageSpecificData(context);
	if (guard < personality_frame_end(&tables, _Unwind_GetIP(context), rsp)) {
		libpatch_hook_guard.guard = 0;
		put_off_abandon();
	}
	return _URC_CONTINUE_UNWIND;
}
