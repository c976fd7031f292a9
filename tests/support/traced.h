/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A child that this process traces, and lets go one step or one signal at a time.
 */
#ifndef TESTS_TRACED_H
#define TESTS_TRACED_H

#include <sys/ptrace.h>
#include <sys/types.h>

/* In the child, of one thread: by none of the calls that the library makes in the program's stead. */
void send_to_itself(int signo);

/* It goes on, with the signal or 0. Returns the signal that it is stopped with; the process ends when the child has. */
int go(pid_t pid, enum __ptrace_request request, int signo);

#endif
