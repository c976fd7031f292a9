/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The C side of own_stack_ask.S: a thread that is interrupted there. Runs in entries of handlers; only memory of the
 * thread is touched.
 */
#include "arch/own_stack.h"

#include "arch/upcalls.h"
#include "arch/x86_64/flags.h"
#include "arch/x86_64/hook_frame.h"
#include "arch/x86_64/own_stack.h"

#define PLACE(name) extern const char name[] __attribute__((visibility("hidden")))

PLACE(arch_own_stack_asked);
PLACE(arch_own_stack_kept);
PLACE(arch_own_stack_owned);
PLACE(arch_own_stack_flags_kept);
PLACE(arch_own_stack_asks);
PLACE(arch_own_stack_asked_all);
PLACE(arch_own_stack_spares);
PLACE(arch_own_stack_waits);
PLACE(arch_own_stack_end);

#define CHECK(field, offset) _Static_assert(offsetof(struct own_stack, field) == (offset), "own_stack.h")
CHECK(free, OWN_FREE);
CHECK(self, OWN_SELF);
CHECK(adopted, OWN_ADOPTED);
CHECK(rax, OWN_RAX);
CHECK(rdx, OWN_RDX);
CHECK(flags, OWN_FLAGS);
CHECK(landing, OWN_LANDING);
CHECK(base, OWN_BASE);
CHECK(rdi, OWN_RDI);
CHECK(rsi, OWN_RSI);
CHECK(r11, OWN_R11);
CHECK(signals, OWN_SIGNALS);
CHECK(signals.ss_flags, OWN_SIGNALS_FLAGS);
_Static_assert(offsetof(struct hook_guard, own) == GUARD_WORD_OWN, "own_stack.h");
_Static_assert(offsetof(struct hook_guard, guard) == 0, "own_stack_ask.S");
_Static_assert((sizeof(struct own_stack) + ARCH_OWN_FRAME_FREE) % 16 == 0, "the frame's base");

const struct own_stack libpatch_own_none;

static greg_t own_stack_flags(greg_t flags, uintptr_t kept)
{
	return (flags & ~(greg_t)FLAGS_STATUS) | (greg_t)(kept >> 8 & FLAGS_STATUS & 0xff) |
	       ((kept & 0xff) != 0 ? FLAG_OF : 0);
}

static void own_stack_take_back(greg_t *registers, const struct own_stack *own)
{
	registers[REG_RAX] = (greg_t)own->rax;
	registers[REG_RDX] = (greg_t)own->rdx;
}

/* The thread has its stack: the landing, too, is kept there. */
static uintptr_t own_stack_finish_owned(greg_t *registers, const char *pc)
{
	const struct own_stack *own = libpatch_hook_guard.own;

	own_stack_take_back(registers, own);
	if (pc >= arch_own_stack_flags_kept)
		registers[REG_EFL] = own_stack_flags(registers[REG_EFL], own->flags);
	if (pc >= arch_own_stack_asks && pc < arch_own_stack_asked_all) {
		registers[REG_RDI] = (greg_t)own->rdi;
		registers[REG_RSI] = (greg_t)own->rsi;
		registers[REG_R11] = (greg_t)own->r11;
	}
	return own->landing;
}

/* It does not have it yet: rcx is the stack, perhaps one that was spare, or 0; or a number, where it waits for one. */
static uintptr_t own_stack_finish_asked(greg_t *registers, const char *pc)
{
	struct own_stack *own = pc > arch_own_stack_waits ? NULL : (struct own_stack *)registers[REG_RCX];
	const uintptr_t landing = (uintptr_t)libpatch_hook_guard.own;

	if (own == NULL)
		own = (struct own_stack *)(uintptr_t)&libpatch_own_none;
	else if (pc > arch_own_stack_asked)
		own->self = own;
	if (pc >= arch_own_stack_kept && pc < arch_own_stack_owned)
		own_stack_take_back(registers, own);
	libpatch_hook_guard.own = own;
	return landing;
}

bool arch_own_stack_finish(greg_t *registers)
{
	const char *pc = (const char *)registers[REG_RIP];
	uintptr_t landing;

	if (pc < (const char *)(uintptr_t)libpatch_own_stack || pc >= arch_own_stack_end)
		return false;
	if (pc >= arch_own_stack_owned && pc < arch_own_stack_spares)
		landing = own_stack_finish_owned(registers, pc);
	else
		landing = own_stack_finish_asked(registers, pc);
	registers[REG_RIP] = (greg_t)(landing + OWN_LANDING_AGAIN);
	return true;
}
