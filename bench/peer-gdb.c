/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Compiled by peer-gdb.sh. */
#include "worker.h"

extern worker_function bench_gdb_entry;

static const char *prepare(const struct worker_row *row)
{
	return *(const unsigned char *)(uintptr_t)row->function == 0xe9 ? 0 : "gdb put no jump there";
}

static const struct worker_row rows[] = {
	{.name = "gdb_fast_tracepoint", .function = bench_gdb_entry},
	{.name = 0},
};

int main(void)
{
	static const struct worker_program program = {.rows = rows, .prepare = prepare};

	return worker_serve(&program);
}
