/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The program's view of the owned signals: masks per thread, actions as versions that a handler can read while they are
 * written, and a child's view that borrows its parent's memory. Only tells what was set; syscall_emul.c decides what a
 * call means.
 */
#include "trap/app_sigstate.h"

#include "arch/thread_pointer.h"
#include "base/syscall.h"
#include "sys/process.h"

#include <stdatomic.h>

/* ---- the view of a borrowing child ------------------------------------------------------------------------------ */

#define ACTIONS (2 * SIGNALS_OWNABLE)

/* The parent's thread is stopped meanwhile, and the child has its thread-local storage. */
struct child {
	long pid; /* 0: none */
	uint64_t blocked;
	bool has_action[ACTIONS];
	struct kernel_sigaction actions[ACTIONS];
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
	for (int index = 0; index < ACTIONS; ++index)
		child.has_action[index] = false;
	return begin;
}

/* ---- masks ------------------------------------------------------------------------------------------------------ */

void app_sigstate_inherit(uintptr_t thread)
{
	*(uint64_t *)((uintptr_t)&blocked - arch_thread_pointer() + thread) = app_sigstate_blocked();
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

void app_sigstate_set_blocked(uint64_t now)
{
	if (now == app_sigstate_blocked())
		return;
	if (app_sigstate_is_child(true))
		child.blocked = now;
	else
		blocked = now;
}

/* ---- actions ---------------------------------------------------------------------------------------------------- */

/* The last versions of an action: a reader copies one, and starts again when it may have been overwritten meanwhile. */
#define VERSIONS 16

static struct {
	_Atomic unsigned int next;
	_Atomic unsigned int now;
	struct kernel_sigaction versions[VERSIONS];
} actions[ACTIONS];

void app_sigstate_action(int index, struct kernel_sigaction *action)
{
	unsigned int now;

	if (app_sigstate_is_child(false) && child.has_action[index]) {
		kernel_sigaction_copy(action, &child.actions[index]);
		return;
	}
	do {
		/* Acquire pairs with the store in app_sigstate_set_action(). */
		now = atomic_load(&actions[index].now);
		kernel_sigaction_copy(action, &actions[index].versions[now % VERSIONS]);
		atomic_thread_fence(memory_order_acquire);
	} while (atomic_load(&actions[index].next) - now >= VERSIONS);
}

void app_sigstate_set_action(int index, const struct kernel_sigaction *action)
{
	unsigned int version;

	if (app_sigstate_is_child(true)) {
		kernel_sigaction_copy(&child.actions[index], action);
		child.has_action[index] = true;
		return;
	}
	version = atomic_fetch_add(&actions[index].next, 1) + 1;
	kernel_sigaction_copy(&actions[index].versions[version % VERSIONS], action);
	atomic_store(&actions[index].now, version);
}

/* ---- sa_mask ---------------------------------------------------------------------------------------------------- */

/* Bit i for signals_ownable[i]. */
static _Atomic uint8_t handler_masks[SIGNALS + 1];

uint64_t app_sigstate_handler_mask(long signo)
{
	uint8_t bits = atomic_load_explicit(&handler_masks[signo], memory_order_relaxed);
	uint64_t mask = 0;

	for (int index = 0; index < SIGNALS_OWNABLE; ++index)
		if (bits & 1U << index)
			mask |= SIGNALS_BIT(signals_ownable[index]);
	return mask;
}

void app_sigstate_set_handler_mask(long signo, uint64_t mask)
{
	uint8_t bits = 0;

	/* A borrowing child's handlers end with it; its parent's stay. */
	if (mask == app_sigstate_handler_mask(signo) || process_is_borrowed())
		return;
	for (int index = 0; index < SIGNALS_OWNABLE; ++index)
		if (mask & SIGNALS_BIT(signals_ownable[index]))
			bits |= (uint8_t)(1U << index);
	atomic_store_explicit(&handler_masks[signo], bits, memory_order_relaxed);
}
