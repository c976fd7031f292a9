/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Stacks of threads' own, for hooks that must not use the program's (PATCH_STACK_OWN).
 *
 * A mapping: a page that cannot be touched, the stack, and at its upper end a struct own_stack, right below which the
 * frame of a hook lies. A hook that finds the stack free takes it, and gives it back when it ends. One that does not
 * find it free goes through libpatch_own_stack (arch/x86_64/own_stack_ask.S), with nothing of the program's touched,
 * flags included:
 *
 *   the thread has no stack              it takes one that is spare; if there is none, it waits for who makes them; if
 *                                        they cannot, the hook is passed over
 *   its stack pointer is in its stack    the frame lies below it: a procedure runs, or a handler that came in a hook
 *   it is on the stack of signals,       the frame lies below the stack pointer: from anywhere else the kernel would
 *   or in its parent's memory (vfork)    begin at that stack's upper end again; and the parent may be in a procedure
 *   elsewhere                            who was on the stack has left it, by longjmp() or an exception: it is free
 *
 * A handler of the program makes it not free if it is on it, or on the stack of signals (trap/signal_frame.c). Nothing
 * but hooks makes it free.
 */
#ifndef LIBPATCH_ARCH_OWN_STACK_H
#define LIBPATCH_ARCH_OWN_STACK_H

#include "base/compiler.h"

#include <signal.h>
#include <ucontext.h>

struct own_stack {
	uintptr_t free; /* of the frame right below: ARCH_OWN_FRAME_FREE */
	struct own_stack *self; /* NULL: spare, or no stack */
	uintptr_t adopted; /* 0: own_stack_adopt() is to be called */
	/* Of libpatch_own_stack, for as long as it runs. */
	uintptr_t rax;
	uintptr_t rdx;
	uintptr_t flags; /* as LAHF and SETO leave them */
	uintptr_t landing;
	uintptr_t base;
	uintptr_t rdi;
	uintptr_t rsi;
	uintptr_t r11;
	stack_t signals;
	uintptr_t unused[2];
};
/* Of a thread that has none. Never written. */
extern const struct own_stack libpatch_own_none __attribute__((visibility("hidden")));

/* Those that no thread has, some of them. Taken by an exchange with NULL. */
#define OWN_SPARES 8
extern struct own_stack *libpatch_own_spares[OWN_SPARES] __attribute__((visibility("hidden")));
/*
 * How often it is looked whether one is spare, before a hook is passed over; set when they are made. 0: they could not
 * be made. And how many hooks were passed over, at least: both are counted without flags, so not atomically.
 */
extern uint64_t libpatch_own_patience __attribute__((visibility("hidden")));
extern uint64_t libpatch_own_missed __attribute__((visibility("hidden")));
/* Bytes of each one, without the page that cannot be touched. */
extern uintptr_t libpatch_own_size __attribute__((visibility("hidden")));

static inline bool own_stack_has(const struct own_stack *own, uintptr_t address)
{
	return (uintptr_t)own - address < libpatch_own_size || address - (uintptr_t)own < sizeof(*own);
}

/*
 * A thread in libpatch_own_stack: put it to where its hook begins anew, with the program's registers but rcx, which the
 * code there restores. False: it is elsewhere.
 */
bool arch_own_stack_finish(greg_t *registers);

#endif
