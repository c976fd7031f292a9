/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where handlers of the program begin and end. The kernel calls a thunk in place of the handler, and the handler
 * returns through a restorer: the address of either names the action of the program's that they stand for.
 */
#ifndef LIBPATCH_ARCH_SIGNAL_ENTRY_H
#define LIBPATCH_ARCH_SIGNAL_ENTRY_H

#include "arch/syscall.h"
#include "base/compiler.h"

#include <signal.h>
#include <ucontext.h>

#define ARCH_SIGNAL_THUNKS 1024

uintptr_t arch_signal_thunk(unsigned int index);
uintptr_t arch_signal_restorer(unsigned int index);
/* The index of the thunk or the restorer at the address; -1: there is none. */
int arch_signal_index(uintptr_t address);

/* What the entry has on the stack, right below the frame of the kernel. */
struct arch_signal_entry {
	uint64_t mask; /* that the handler begins with */
	uintptr_t moved; /* how far all of this was moved; 0: it is where the kernel has put it */
	ucontext_t *context;
	siginfo_t *info;
	uintptr_t signo;
	uintptr_t restorer;
};

/*
 * The upper layers' part of it (trap/signal_frame.h), called with all signals but SIGSYS blocked. The first returns
 * the handler, or 0: the thread returns from the signal at once. The second is called when the handler has returned,
 * with the frame of the kernel.
 */
uintptr_t libpatch_signal_enter(int signo, siginfo_t *info, ucontext_t *context, unsigned int index,
				struct arch_signal_entry *entry);
void libpatch_signal_leave(ucontext_t *context);

/*
 * What the thread believes to block of the owned signals, and what is held for it and for the process. At the end of a
 * handler nothing is to be done, and libpatch_signal_leave() is not called, when all of this is 0, and the frame has no
 * word, no mark in uc_link and no owned signal in its mask.
 */
struct signal_belief {
	uint64_t blocked;
	/* The view of a child that borrows its parent's memory: the parent's thread is stopped meanwhile. */
	long child; /* its process id; 0: none */
	uint64_t blocked_in_child;
};
extern TLS_INITIAL_EXEC struct signal_belief libpatch_signal_belief; /* trap/app_sigstate.c */

struct signal_held {
	_Atomic short state; /* 0: nothing */
	short error; /* 0 with it */
	int code;
	uint64_t words[4]; /* what the code says there is (siginfo_t) */
};
#define ARCH_SIGNALS_HELD 2
extern struct signal_held libpatch_held_of_process[ARCH_SIGNALS_HELD]; /* trap/app_sigpending.c */
extern TLS_INITIAL_EXEC struct signal_held libpatch_held_of_thread[ARCH_SIGNALS_HELD];

/*
 * Has the program set a filter of system calls (seccomp(2))? It may end the process for calls that the program does not
 * make, so handlers are entered and left by rt_sigreturn alone, which who handles signals must be allowed.
 */
extern _Atomic int libpatch_signal_filter; /* trap/signal_frame.c */

/* By what the storage of a thread is known to be libc's (sys/tls.h). */
struct signal_storage {
	int known;
	uintptr_t stack_guard;
	uintptr_t pointer_guard;
};
extern struct signal_storage libpatch_signal_storage; /* sys/tls.c */

/* The handler, which was entered without libpatch_signal_leave() in mind, returns to where it was interrupted. */
void arch_signal_return_at_once(struct arch_signal_entry *entry);

/*
 * A thread that was interrupted between libpatch_signal_enter() and the first instruction of the handler, with the
 * handler's mask in effect already: put it to that instruction. False: it is elsewhere.
 */
bool arch_signal_finish_entry(greg_t *registers);
/* One that was interrupted where it has asked whether there is anything to be done at a handler's end asks again. */
void arch_signal_leave_anew(greg_t *registers);

/*
 * The handler is to run below this stack pointer, and its red zone: the entry and the frame are copied there. Returns
 * the context there; NULL: the stack cannot be written to.
 */
ucontext_t *arch_signal_move(struct arch_signal_entry *entry, uintptr_t stack_pointer);

/* The information that belongs to the frame of the kernel with this context. */
siginfo_t *arch_signal_info(ucontext_t *context);

/* Words of a frame of the kernel that neither the kernel nor a program looks at, kept for as long as the frame. */
#define ARCH_SIGNAL_WORDS 5
/* The one with the address of the thread's storage when the handler began. */
#define ARCH_SIGNAL_STORAGE 4
uint64_t *arch_signal_words(ucontext_t *context);

#endif
