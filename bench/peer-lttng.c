/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Compiled by peer-lttng.sh. Two equal tracepoints, of which the script enables one. */
#define LTTNG_UST_TRACEPOINT_CREATE_PROBES
#define LTTNG_UST_TRACEPOINT_DEFINE
#include "peer-lttng.h"

#include "worker.h"

__attribute__((noinline)) static void bare(void)
{
	__asm__ volatile("");
}

__attribute__((noinline)) static void enabled(void)
{
	lttng_ust_tracepoint(libpatch_bench, hit, 1);
}

__attribute__((noinline)) static void disabled(void)
{
	lttng_ust_tracepoint(libpatch_bench, other, 1);
}

static const struct worker_row rows[] = {
	{.name = "lttng_bare", .function = bare},
	{.name = "lttng_tracepoint", .function = enabled},
	{.name = "lttng_disabled", .function = disabled},
	{.name = 0},
};

int main(void)
{
	static const struct worker_program program = {.rows = rows};

	return worker_serve(&program);
}
