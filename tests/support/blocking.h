/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A library whose constructor starts threads that block every signal and wait, each in a way of its own. It must not
 * know of libpatch.
 */
#ifndef TESTS_BLOCKING_H
#define TESTS_BLOCKING_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Which: its name, or "all", which stands for those of which all can be adopted. */
#define BLOCKING_WAY "LIBPATCH_TEST_BLOCKING_WAY"
/* The threads' name. */
#define BLOCKING_THREAD "blocking"

/* How many threads there are. */
size_t blocking_count(void);
/* Is it one of them? It may be, where one has not begun to run. */
bool blocking_is_thread(pid_t tid);
/* Can it be taken out of its masks where it is? */
bool blocking_can_be_adopted(void);
/* What each thread does when it has waited; returns the sum. */
int blocking_step(int a, int b);
/* End their waits, and the threads. False: one of them computed, or read back of its mask, what is wrong. */
bool blocking_end(void);

#endif
