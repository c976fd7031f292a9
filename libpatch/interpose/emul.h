/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Calls that are made in the program's stead, each of them by a function here; syscall_emul.c chooses. All as
 * arch_syscall_hook_fn: true when the call was made, false when it is the program's to make. mediated.h says what each
 * may do when.
 */
#ifndef LIBPATCH_INTERPOSE_EMUL_H
#define LIBPATCH_INTERPOSE_EMUL_H

#include "arch/syscall.h"
#include "base/compiler.h"
#include "trap/mediated.h"
#include "trap/owned_signals.h"

#define OWNED SIGNALS_OWNED
/* The kernel's sigset_t (arch/x86/include/asm/signal.h). */
#define SET_SIZE 8

/* emul_memory.c */
bool emul_is_readable(const void *set);
bool emul_are_readable(const void *words, size_t size);
bool emul_is_writable(void *info, size_t size);

/* emul_mask.c */
bool emul_sigprocmask(struct arch_call *program);
bool emul_sigreturn(struct arch_call *call);
/* What the thread blocks in the kernel, by other means than these calls or since before them, it believes to block. */
void emul_adopt_blocked(void);
/*
 * All calls are mediated: what a thread blocks may be adopted. Before, calls about signals are made as they are: one
 * that is adopted would read by a call that is not mediated yet what the kernel has, and set that again.
 */
void emul_begin_signals(void);
bool emul_signals_are_ours(void);
/* The same, in front of a call with a mask: what the kernel puts back behind it lets owned signals through. */
void emul_adopt_before_call(void);

/*
 * Handlers that were set by calls which were not mediated are entered and left by us from here on. First of all: the
 * frame of a handler that the kernel calls without us does not say what a thread believes that was adopted, and its
 * return would take it for the program's mask (S7).
 */
void emul_take_over_handlers(void);

/* emul_wait.c */
bool emul_sigsuspend(struct arch_call *program);
/* ppoll, epoll_pwait, epoll_pwait2: the mask is one of the arguments, at the offset `mask`, its size the next. */
bool emul_ppoll(struct arch_call *program, size_t mask, long size);
bool emul_pselect(struct arch_call *program);
bool emul_io_uring_enter(struct arch_call *program);
/* What is held becomes pending for the call, whether it will look at it or not. words: the mask from before, and 1. */
void emul_pend_held(struct mediated *call);
/* Of what emul_pend_held() has done: what is still pending comes now, and the thread believes to block it. */
void emul_hold_again(struct mediated *call);

/* emul_take.c */
bool emul_sigtimedwait(struct arch_call *program);
bool emul_sigpending(struct arch_call *program);

/* emul_action.c */
bool emul_sigaction(struct arch_call *program);

/* emul_exec.c */
bool emul_execve(struct arch_call *program);

/* emul_filter.c */
bool emul_prctl(struct arch_call *program);
bool emul_seccomp(struct arch_call *program);

/* emul_fork.c */
bool emul_clone(struct arch_call *program);
bool emul_clone3(struct arch_call *program);
bool emul_fork(struct arch_call *program);

/* Nothing is due. */
static inline void emul_post_nothing(struct mediated *call)
{
	(void)call;
}

#endif
