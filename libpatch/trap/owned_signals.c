/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The signals that trap bytes raise, and whether they are libpatch's. One atomic word; nothing is installed here.
 */
#include "trap/owned_signals.h"

#include "arch/trap_bytes.h"
#include "base/syscall.h"

#include <stdatomic.h>

const int signals_ownable[SIGNALS_OWNABLE] = { SIGTRAP, SIGILL };

static _Atomic bool owned;

int signal_index(int signo)
{
	for (int i = 0; i < SIGNALS_OWNABLE; ++i)
		if (signals_ownable[i] == signo)
			return i;
	return -1;
}

bool signals_owned(void)
{
	return atomic_load_explicit(&owned, memory_order_acquire);
}

void signals_set_owned(void)
{
	atomic_store_explicit(&owned, true, memory_order_release);
}

bool signal_is_event(const siginfo_t *info)
{
	return info->si_signo == SIGTRAP && info->si_code == ARCH_TRAP_EVENT;
}

/* si_perf_flags, and TRAP_PERF_FLAG_ASYNC in it (include/uapi/asm-generic/siginfo.h). */
#define EVENT_FLAGS 36
#define EVENT_LATE 1

void signal_tell_event_late(siginfo_t *info)
{
	((uint8_t *)info)[EVENT_FLAGS] |= EVENT_LATE;
}

bool signals_are_blocked(uint64_t blocked)
{
	/* Nobody else blocks exactly these: libc's functions leave out two that libc keeps for itself. */
	uint64_t in_entry = SIGNALS_IN_ENTRY & ~(SIGNALS_BIT(SIGKILL) | SIGNALS_BIT(SIGSTOP));

	return (blocked & SIGNALS_OWNED) != 0 && blocked != in_entry;
}

uint64_t signals_block(void)
{
	const uint64_t all = SIGNALS_IN_ENTRY;
	uint64_t before = 0;

	raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, sizeof(all));
	return before;
}

void signals_set_mask(uint64_t mask)
{
	raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof(mask));
}
