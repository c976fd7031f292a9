/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A kernel that refuses: filters on system calls, for the calling thread and all that it starts from then on. They
 * cannot be taken back, so each belongs into a child of its own.
 */
#ifndef TESTS_SECCOMP_H
#define TESTS_SECCOMP_H

#include "harness.h"

#include <linux/seccomp.h>

/* From now on `action` is taken for this thread's system call `number`. What seccomp(2) returns: -1, and nothing has
 * changed. */
int filter_call(long number, unsigned int action, unsigned int flags);

/* 0, or why there can be no filter: then nothing has changed. */
int try_refuse(long number, int error);

/* From now on this thread's system call `number` fails with `error`. */
void refuse(long number, int error);

/* Skip the test where filters are not to be had. */
void require_filters(void);

#endif
