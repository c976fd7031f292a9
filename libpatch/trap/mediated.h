/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * System calls that the library makes in the program's stead, as a handler of the program sees them: not made yet, or
 * made. There is no place in between, and no frame of ours lies under the handler.
 *
 * Such a call has three parts. What comes before the kernel's call writes nothing but struct mediated. The kernel's
 * call has one place (arch_call_kernel()). `post` does what is due afterwards, from what is in struct mediated; it may
 * be cut short anywhere and begin again. A handler that interrupts the first part drops the call: when the handler has
 * returned the call begins anew. Behind the kernel's call the last part is done for the thread, and the program is
 * behind its call.
 */
#ifndef LIBPATCH_TRAP_MEDIATED_H
#define LIBPATCH_TRAP_MEDIATED_H

#include "arch/syscall.h"
#include "base/compiler.h"

#include <signal.h>

struct mediated {
	struct arch_call *program; /* its registers, and the result when the call is made */
	struct arch_call ours;     /* as the kernel gets it: the first seven words, at first the program's */
	bool made;
	bool interrupted; /* `post` runs for a handler: all signals are blocked, and the frame has the mask */
	/* Also when the call is not made, and will begin anew, or never. */
	void (*post)(struct mediated *call);

	/* The thread may end in it, or a child that borrows its parent's memory: it is looked at whose call it is. */
	bool lasts;
	bool waits;
	bool restarts; /* when a signal without a handler has come (ERESTARTNOHAND of the kernel) */
	uint64_t mask; /* the thread's for the time of a call that waits */
	/* Owned signals that the call takes or lets through: held ones are looked at first. */
	uint64_t takes;
	/* The thread's masks are those of the program that is to be executed: a signal that comes is not put off. */
	bool leaves;
	/* The library lock is held: whatever comes waits. */
	bool busy;
	/* A signal of the process that another thread has told this one (trap/app_sigwait.h). */
	bool is_told;
	siginfo_t told;
	int tid; /* of the thread, when it has an offer */

	/* For `post`: what belongs to the call at hand. */
	uint64_t words[3];
	void *pointer;
	siginfo_t info;
};

/*
 * From here on the thread is in the call, and a handler that comes drops it or completes it. A child of vfork() that
 * executes its program, or is killed, in a call leaves it to its parent, which is not in it.
 */
void mediated_begin(struct mediated *call);
/* Make it, with `post`. */
void mediated_make(struct mediated *call);
/* The call was made in another way; a handler that comes now finds it so. */
void mediated_is_made(struct mediated *call, long result);
void mediated_end(void);

/* The call that the thread is in; NULL: none. */
struct mediated *mediated_current(void);

#endif
