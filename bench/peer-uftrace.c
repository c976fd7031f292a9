/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Compiled by peer-uftrace.sh, with room for a call at the start of functions. */
#include "worker.h"

#include <string.h>

__attribute__((noinline)) void bare(void)
{
	__asm__ volatile("");
}

__attribute__((noinline)) void traced(void)
{
	__asm__ volatile("");
}

static const char *prepare(const struct worker_row *row)
{
	static const unsigned char nop[] = {0x0f, 0x1f, 0x44};
	const unsigned char *code = (const unsigned char *)(uintptr_t)row->function;

	if (row->function == traced && (code[0] == 0x90 || !memcmp(code, nop, sizeof(nop))))
		return "uftrace did not patch the function";
	return NULL;
}

static const struct worker_row rows[] = {
	{.name = "uftrace_bare", .function = bare},
	{.name = "uftrace_entry_exit", .function = traced},
	{.name = NULL},
};

int main(void)
{
	static const struct worker_program program = {.rows = rows, .prepare = prepare};

	return worker_serve(&program);
}
