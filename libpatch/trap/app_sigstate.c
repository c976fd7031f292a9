/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The program's view of the owned signals: masks per thread, and a child's view that borrows its parent's memory. Only
 * tells what was set; syscall_emul.c decides what a call means.
 */
#include "trap/app_sigstate.h"

#include "arch/thread_pointer.h"
#include "base/syscall.h"
#include "sys/process.h"

#include <stdatomic.h>

/* ---- the view of a borrowing child ------------------------------------------------------------------------------ */

/* The parent's thread is stopped meanwhile, and the child has its thread-local storage. */
struct child {
	long pid; /* 0: none */
	uint64_t blocked;
};

static TLS_INITIAL_EXEC struct child child;
static TLS_INITIAL_EXEC uint64_t blocked;

/* Is this a child with a view of its own? `begin`: it is about to get one. */
static bool app_sigstate_is_child(bool begin)
{
	long pid;

	if (child.pid == 0 && !begin)
		return false;
	if (!process_is_borrowed()) {
		child.pid = 0;
		return false;
	}
	pid = raw_syscall(SYS_getpid);
	if (child.pid == pid)
		return true;
	child.pid = begin ? pid : 0;
	child.blocked = blocked;
	return begin;
}

/* ---- masks ------------------------------------------------------------------------------------------------------ */

intptr_t app_sigstate_place(void)
{
	return (intptr_t)((uintptr_t)&blocked - arch_thread_pointer());
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
	return app_sigstate_is_child(false) ? child.blocked : blocked;
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
		child.blocked = now;
	else
		blocked = now;
}
