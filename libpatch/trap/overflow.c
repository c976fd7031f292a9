/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What was interrupted is noted in the thread's block: a thread has one hook at a time that calls anything, and the
 * handler meets none that does.
 */
#include "trap/overflow.h"

#include "arch/put_off.h"
#include "arch/signal_entry.h"
#include "arch/thread_pointer.h"
#include "arch/upcalls.h"
#include "arch/x86_64/hook_frame.h"
#include "base/thread_block.h"
#include "code/pc_map.h"
#include "elf/caller.h"
#include "elf/module.h"
#include "sys/mem_read.h"
#include "trap/action.h"

#include <string.h>

/* More than procedures have: those of one that calls itself for ever are not worth the time. */
#define CALLERS_MAX 1024

_Static_assert(OVERFLOW_REGISTERS == REG_EFL + 1 && sizeof(greg_t) == sizeof(int64_t), "general registers come first");
#define REGISTERS_SIZE (OVERFLOW_REGISTERS * sizeof(greg_t))

/* Nothing of the stack need be there. */
static bool overflow_read(void *data, uintptr_t address, void *out, size_t size)
{
	(void)data;
	return mem_read_readable(address, out, size) == size;
}

/* ---- from the fault to the hook --------------------------------------------------------------------------------- */

/* A return that a signal was put off to the end of. */
static void overflow_pass_stub(struct arch_registers *at)
{
	greg_t registers[NGREG];

	arch_registers_to(at, registers);
	if (arch_put_off_finish(registers))
		arch_registers_from(registers, at);
}

/*
 * Up to the instruction at the hook with this guard; 0: at the next hook that there is. Hooks on the way, of what a
 * procedure calls, are passed over, but ask the library; where their guard is not found, the last of them counts.
 */
static bool overflow_walk(struct arch_registers *at, uintptr_t *guard)
{
	const uintptr_t upper = *guard != 0 ? *guard : UINTPTR_MAX;
	struct arch_registers shown;
	struct arch_canonical canonical;
	struct arch_code_map map;
	bool returned = false, found = false, done = false;

	for (unsigned int i = 0; i < CALLERS_MAX && !done; ++i) {
		if (pc_map_of_code(at->pc - returned, &map)) {
			at->pc -= returned;
			if (!arch_canonical(&map, at, arch_thread_pointer(), overflow_read, NULL, &canonical))
				break;
			*at = shown = canonical.shown;
			returned = false;
			found = true;
			done = *guard == 0 || at->general[ARCH_RSP] > upper;
		} else {
			if (at->general[ARCH_RSP] > upper || !caller_registers(at, returned, overflow_read, NULL))
				break;
			overflow_pass_stub(at);
			returned = true;
		}
	}
	if (found)
		*at = shown;
	if (!done)
		*guard = 0;
	return found;
}

/*
 * Is it a hook's frame on the program's stack, not on the thread's own, which is too small for a procedure then? Values
 * that are no frame's are 0, or as large as no address is.
 */
static bool overflow_is_frame(uintptr_t guard)
{
	uint64_t flags;

	return (intptr_t)guard > 0 && overflow_read(NULL, guard + ARCH_HOOK_FRAME_FLAGS, &flags, sizeof(flags)) &&
	       flags < ARCH_FLAGS_END;
}

/*
 * In what a hook calls? The registers are the program's then, and the guard is the hook's that calls a procedure; 0: it
 * asks the library whether it may run.
 */
static bool overflow_is_in_call(struct arch_registers *at, uintptr_t address, uintptr_t *guard)
{
	const uintptr_t running = libpatch_hook_guard.guard;
	const uintptr_t stack_pointer = at->general[ARCH_RSP];

	*guard = 0;
	if (stack_pointer <= running && address < running && overflow_is_frame(running))
		*guard = running;
	else if (running == 0 || !module_is_own(at->pc))
		return false;
	return overflow_walk(at, guard) && address < at->general[ARCH_RSP];
}

/* Registers of the program, and the guard as above. */
static bool overflow_find(greg_t *registers, uintptr_t address, uintptr_t stack_pointer, uintptr_t *guard)
{
	const uintptr_t shown = (uintptr_t)registers[REG_RSP];
	struct arch_registers at;

	arch_registers_from(registers, &at);
	if (overflow_is_in_call(&at, address, guard)) {
		arch_registers_to(&at, registers);
		return true;
	}
	/* The hook's frame: that is what is shown already. */
	*guard = 0;
	return shown - stack_pointer > ARCH_HOOK_RED_ZONE && address < shown;
}

/* ---- begin, end ------------------------------------------------------------------------------------------------- */

static bool overflow_is_again(const struct overflow_note *note, const greg_t *registers)
{
	return note->refused && note->shown[REG_RIP] == registers[REG_RIP] &&
	       note->shown[REG_RSP] == registers[REG_RSP];
}

bool overflow_show(siginfo_t *info, ucontext_t *context, uintptr_t stack_pointer, unsigned int index)
{
	greg_t *registers = context->uc_mcontext.gregs;
	greg_t interrupted[OVERFLOW_REGISTERS];
	struct overflow_note *note;
	struct thread_block *block;
	uintptr_t guard;

	memcpy(interrupted, registers, sizeof(interrupted));
	if (!overflow_find(registers, (uintptr_t)info->si_addr, stack_pointer, &guard))
		return false;
	block = thread_block();
	if (block == NULL) {
		memcpy(registers, interrupted, sizeof(interrupted));
		return false;
	}
	note = &block->overflow;
	note->again = overflow_is_again(note, registers);
	if (note->again) {
		info->si_addr = (void *)ALIGN_DOWN((uintptr_t)registers[REG_RSP] - 1, sizeof(uintptr_t));
		registers[REG_CR2] = (greg_t)info->si_addr;
	}
	note->guard = guard;
	note->index = index;
	note->refused = false;
	memcpy(note->interrupted, interrupted, REGISTERS_SIZE);
	memcpy(note->shown, registers, REGISTERS_SIZE);
	return true;
}

void overflow_resume(ucontext_t *context)
{
	struct overflow_note *note = &thread_block_known()->overflow;
	greg_t *registers = context->uc_mcontext.gregs;

	if (memcmp(registers, note->shown, REGISTERS_SIZE) == 0) {
		memcpy(registers, note->interrupted, REGISTERS_SIZE);
		note->refused = !note->again &&
				action_undo_reset(arch_signal_info(context)->si_signo, note->index);
	} else if (note->guard != 0 && libpatch_hook_guard.guard == note->guard) {
		libpatch_hook_guard.guard = 0;
	}
}
