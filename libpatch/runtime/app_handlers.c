/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whether the program has handlers, by two atomic words: threads inside are counted, and a thread that is about to
 * install a handler waits for them. Waits for nothing else; takes no lock.
 */
#include "runtime/app_handlers.h"

#include "base/syscall.h"
#include "sys/process.h"

#include <limits.h>
#include <linux/futex.h>
#include <stdatomic.h>

enum { NOT_KNOWN, NONE, SOME };

static _Atomic int state;
/* Threads that are in, or about to look. In a child of fork() it begins with 0. */
static _Atomic int *const count = &libpatch_process_own.without_handlers;
static TLS_INITIAL_EXEC bool in;

void app_handlers_begin(void)
{
	int expected = NOT_KNOWN;

	if (process_wipes())
		atomic_compare_exchange_strong(&state, &expected, NONE);
}

bool app_handlers_enter(void)
{
	if (atomic_load(&state) != NONE)
		return false;
	in = true;
	/* Sequentially consistent, like the other side's (app_handlers_expect()). */
	atomic_fetch_add(count, 1);
	if (atomic_load(&state) == NONE)
		return true;
	app_handlers_leave();
	return false;
}

void app_handlers_leave(void)
{
	in = false;
	if (atomic_fetch_sub(count, 1) == 1 && atomic_load(&state) != NONE)
		raw_syscall(SYS_futex, count, FUTEX_WAKE_PRIVATE, INT_MAX);
}

void app_handlers_expect(void)
{
	int others;

	if (atomic_exchange(&state, SOME) == NOT_KNOWN || in)
		return;
	while ((others = atomic_load(count)) != 0)
		raw_syscall(SYS_futex, count, FUTEX_WAIT_PRIVATE, others);
}

void app_handlers_forget_others(void)
{
	atomic_store(count, in ? 1 : 0);
}
