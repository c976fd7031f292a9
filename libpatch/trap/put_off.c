/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which signals are put off, and until when. Runs in entries of handlers, with all signals blocked, or in the thread
 * whose signals they are. Takes no lock, allocates nothing (I9).
 */
#include "trap/put_off.h"

#include "arch/put_off.h"
#include "arch/signal_entry.h"
#include "arch/upcalls.h"
#include "base/syscall.h"
#include "code/pc_map.h"
#include "sys/mem_read.h"
#include "trap/action.h"
#include "trap/owned_signals.h"

#include <stdatomic.h>

/* Signals of libc's own: cancellation, and a change of all threads' credentials, for which other threads wait. */
#define SIGNALS_OF_LIBC 2
#define FIRST_OF_LIBC 32

/* What an instruction raises. Others send these, too, but not with such a code. */
#define SIGNALS_OF_INSTRUCTIONS \
	(SIGNALS_BIT(SIGSEGV) | SIGNALS_BIT(SIGBUS) | SIGNALS_BIT(SIGFPE) | SIGNALS_BIT(SIGSYS))

/*
 * Who calls abort() does not go on. Owned signals must not be blocked (S1); the program's own view of them is shown in
 * procedures, too.
 */
static bool put_off_can(int signo, const siginfo_t *info)
{
	const uint64_t bit = SIGNALS_BIT(signo);

	if (signo == SIGABRT || (bit & SIGNALS_OWNED) != 0 ||
	    (signo >= FIRST_OF_LIBC && signo < FIRST_OF_LIBC + SIGNALS_OF_LIBC))
		return false;
	return (bit & SIGNALS_OF_INSTRUCTIONS) == 0 || info->si_code <= 0;
}

/*
 * The frame of the hook that runs, 0 if none does. The guard may be of a hook that a longjmp has left, so that the
 * memory is looked at with care: what is found there decides.
 */
static uintptr_t put_off_frame(void)
{
	const uintptr_t guard = libpatch_hook_guard.guard;
	uintptr_t words[ARCH_PUT_OFF_WAYS];
	int error;

	/* Values that are no frame's are 0, or as large as no address of the program is. */
	if ((intptr_t)guard <= 0 || mem_read(guard - sizeof(words), words, sizeof(words), &error) < sizeof(words))
		return 0;
	return guard;
}

bool put_off_is_called(uintptr_t stack_pointer)
{
	const uintptr_t frame = put_off_frame();

	return frame != 0 && code_is_called(frame, stack_pointer);
}

bool put_off_signal(int signo, siginfo_t *info, ucontext_t *context)
{
	uint64_t *blocked = (uint64_t *)&context->uc_sigmask;
	uintptr_t frame;
	long process;

	/* A filter may end the process for what it takes. */
	if (libpatch_hook_guard.guard == 0 || !put_off_can(signo, info) || atomic_load(&libpatch_signal_filter) != 0)
		return false;
	frame = put_off_frame();
	if (frame == 0 || !code_put_off(frame, (uintptr_t)context->uc_mcontext.gregs[REG_RSP]))
		return false;
	process = raw_syscall(SYS_getpid);
	/* The kernel has no memory for a real-time signal, which carries what the program needs. */
	if (raw_syscall(SYS_rt_tgsigqueueinfo, process, raw_syscall(SYS_gettid), signo, info) != 0)
		return false;
	action_arm_again(signo);
	/* What the program blocks, and a wait has let through, it goes on to block. */
	libpatch_hook_guard.put_off |= SIGNALS_BIT(signo) & ~*blocked;
	*blocked |= SIGNALS_BIT(signo);
	return true;
}

void put_off_end(ucontext_t *context)
{
	if (!arch_put_off_finish(context->uc_mcontext.gregs))
		return;
	put_off_forget(context);
}

void put_off_forget(ucontext_t *context)
{
	*(uint64_t *)&context->uc_sigmask &= ~libpatch_hook_guard.put_off;
	libpatch_hook_guard.put_off = 0;
}

uint64_t put_off_blocked(void)
{
	return libpatch_hook_guard.put_off;
}

void put_off_keep_blocked(uint64_t signals)
{
	libpatch_hook_guard.put_off &= ~signals;
}

void put_off_abandon(void)
{
	const uint64_t signals = libpatch_hook_guard.put_off;

	if (signals == 0)
		return;
	libpatch_hook_guard.put_off = 0;
	raw_syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, &signals, NULL, sizeof(signals));
}
