/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A thread that runs code over and over while another patches it. */
#ifndef BENCHMARK_RUNNER_H
#define BENCHMARK_RUNNER_H

#include <stdbool.h>
#include <stdint.h>

struct runner_state {
	uint64_t calls;
	uint64_t thread_ns; /* of its processor time */
	uint64_t longest_ns; /* between two calls, since the last look */
};

bool runner_start(void (*call)(void));
/* What it did until now. */
void runner_look(struct runner_state *state);
void runner_stop(void);

#endif
