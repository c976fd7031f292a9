/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The program's view of the owned signals: masks per thread, and a child's view that borrows its parent's memory. Only
 * tells what was set; syscall_emul.c decides what a call means.
 */
#include "trap/app_sigstate.h"

#include "arch/signal_entry.h"
#include "arch/thread_pointer.h"
#include "base/syscall.h"
#include "sys/process.h"

#include <stdatomic.h>

TLS_INITIAL_EXEC struct signal_belief libpatch_signal_belief;

/* ---- the view of a borrowing child ------------------------------------------------------------------------------ */

bool app_sigstate_is_child(bool begin)
{
	long pid;

	if (libpatch_signal_belief.child == 0 && !begin)
		return false;
	if (!process_is_borrowed()) {
		libpatch_signal_belief.child = 0;
		return false;
	}
	pid = raw_syscall(SYS_getpid);
	if (libpatch_signal_belief.child == pid)
		return true;
	libpatch_signal_belief.child = begin ? pid : 0;
	libpatch_signal_belief.blocked_in_child = libpatch_signal_belief.blocked;
	return begin;
}

/* ---- masks ------------------------------------------------------------------------------------------------------ */

intptr_t app_sigstate_place(void)
{
	return (intptr_t)((uintptr_t)&libpatch_signal_belief.blocked - arch_thread_pointer());
}

void app_sigstate_inherit(uintptr_t thread)
{
	*(uint64_t *)(thread + (uintptr_t)app_sigstate_place()) = app_sigstate_blocked();
}

static _Atomic bool ended;

void app_sigstate_end(void)
{
	atomic_store(&ended, true);
}

uint64_t app_sigstate_blocked(void)
{
	if (atomic_load_explicit(&ended, memory_order_relaxed))
		return 0;
	return app_sigstate_is_child(false) ? libpatch_signal_belief.blocked_in_child : libpatch_signal_belief.blocked;
}

uint64_t app_sigstate_withheld(uint64_t mask)
{
	return atomic_load_explicit(&ended, memory_order_relaxed) ? mask : mask & ~SIGNALS_OWNED;
}

void app_sigstate_set_blocked(uint64_t now)
{
	if (now == app_sigstate_blocked())
		return;
	if (app_sigstate_is_child(true))
		libpatch_signal_belief.blocked_in_child = now;
	else
		libpatch_signal_belief.blocked = now;
}
