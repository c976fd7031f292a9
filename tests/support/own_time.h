/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How long processes have had, apart from waiting for a processor: what a limit of time is about. A limit by the clock
 * ends healthy tests on a machine with other things to do.
 *
 * Looked at once a second, processes that could run are charged the processor time that they used, but no more than the
 * second; processes of which each thread sleeps are charged the second. So a deadlock, a livelock, and a loop that asks
 * and sleeps, all come to an end, and the load of the machine does not count.
 */
#ifndef TESTS_OWN_TIME_H
#define TESTS_OWN_TIME_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct own_time {
	bool session;    /* the processes: those of a session, or of a process group */
	pid_t id;        /* of the session or of the group */
	double charged;  /* seconds */
	double by_clock; /* seconds since own_time_start() */
	/* of the last look */
	double looked_at;
	uint64_t ticks;
};

void own_time_start(struct own_time *own, bool session, pid_t id);
/* To be called every OWN_TIME_PERIOD seconds, or later. */
void own_time_look(struct own_time *own);
/* To standard error: the processes, what they do, and the time they used. */
void own_time_report(const struct own_time *own);
void own_time_kill(const struct own_time *own);

#define OWN_TIME_PERIOD 1
/* By the clock, that many times the limit is allowed. */
#define OWN_TIME_PATIENCE 30

#endif
