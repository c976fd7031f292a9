/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads may be about to install a handler, or to block signals, by system calls that were not mediated yet, or are
 * not at all. Library lock held.
 */
#ifndef LIBPATCH_INTERPOSE_CALL_AUDIT_H
#define LIBPATCH_INTERPOSE_CALL_AUDIT_H

#include "base/compiler.h"
#include "base/thread_safety.h"
#include "sys/tasks.h"

/*
 * System calls are mediated from now on: whoever is there may be in a call that is not. Each thread but the calling one
 * is visited with what it waits in, and whether that tells that it is past. False: /proc cannot be read.
 */
typedef void call_audit_visit_fn(pid_t tid, const struct tasks_wait *wait, bool past, void *data);
bool call_audit_begin(call_audit_visit_fn *visit, void *data);
/*
 * Has what is executed there to do with such a call, or may it: the thread is about to make one, or to find out that it
 * makes none (syscall_emul.h)?
 */
bool call_audit_is_in_front(uintptr_t pc);
/* Is every such call over that was not mediated? Once it is true, it stays so. */
bool call_audit_is_over(void);
/*
 * Those that run, as far as is known, and of which nothing else tells that they are past, are stopped for a moment, to
 * see where they are (seize.h): call_audit_is_over() knows it from then on.
 */
void call_audit_stop(void) REQUIRES(library_lock);
/* The same of those that cannot be stopped, and never run for a tick: how often they have run since the first count. */
void call_audit_count_switches(void) REQUIRES(library_lock);
/* A thread that is, or may be, in front of one or in one that may block signals; 0: none is known. */
pid_t call_audit_suspect(void);
/* Is it known who may be in one? Else call_audit_is_over() looks at all threads. */
bool call_audit_is_listed(void);

#endif
