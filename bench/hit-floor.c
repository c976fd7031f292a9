/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Rows without libpatch: bare calls, and the stubs of stubs.S. */
#define _GNU_SOURCE
#include "hit.h"
#include "common/probe_code.h"

#include <signal.h>
#include <string.h>
#include <ucontext.h>

extern worker_function bench_bare_entry, bench_bare_prologue, bench_bare_middle, bench_bare_nop5;
extern worker_function bench_bare_call, bench_bare_call_reg, bench_bare_call_mem, bench_bare_jmp_mem;
extern worker_function bench_stub_jump, bench_stub_inc, bench_stub_lock_inc, bench_stub_popf, bench_stub_sahf;
extern worker_function bench_stub_all_gpr, bench_stub_xmm, bench_stub_ymm, bench_stub_zmm;
extern worker_function bench_stub_all_xmm, bench_stub_all_ymm, bench_stub_all_zmm;
extern worker_function bench_stub_all_x87_xmm, bench_stub_all_x87_ymm, bench_stub_all_x87_zmm;
extern worker_function bench_stub_middle, bench_stub_prologue, bench_trap;
extern char bench_trap_stub[];

PROBE_CODE void bench_empty(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static void on_trap(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)info;
	((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] = (greg_t)bench_trap_stub;
}

static const char *prepare(const struct worker_row *row)
{
	if (row->function == bench_trap) {
		struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};

		if (sigaction(SIGTRAP, &action, NULL))
			return "no handler";
	}
	if (strstr(row->name, "_ymm") && !__builtin_cpu_supports("avx"))
		return "the processor has no AVX";
	if (strstr(row->name, "_zmm") && !__builtin_cpu_supports("avx512bw"))
		return "the processor has no AVX-512";
	return NULL;
}

static const struct worker_row rows[] = {
	{.name = "bare_entry", .function = bench_bare_entry},
	{.name = "bare_prologue", .function = bench_bare_prologue},
	{.name = "bare_middle", .function = bench_bare_middle},
	{.name = "bare_nop5", .function = bench_bare_nop5},
	{.name = "bare_call", .function = bench_bare_call},
	{.name = "bare_call_reg", .function = bench_bare_call_reg},
	{.name = "bare_call_mem", .function = bench_bare_call_mem},
	{.name = "bare_jmp_mem", .function = bench_bare_jmp_mem},
	{.name = "stub_jump", .function = bench_stub_jump},
	{.name = "stub_inc", .function = bench_stub_inc},
	{.name = "stub_lock_inc", .function = bench_stub_lock_inc},
	{.name = "stub_popf", .function = bench_stub_popf},
	{.name = "stub_sahf", .function = bench_stub_sahf},
	{.name = "stub_all_gpr", .function = bench_stub_all_gpr},
	{.name = "stub_xmm", .function = bench_stub_xmm},
	{.name = "stub_ymm", .function = bench_stub_ymm},
	{.name = "stub_zmm", .function = bench_stub_zmm},
	{.name = "stub_all_xmm", .function = bench_stub_all_xmm},
	{.name = "stub_all_ymm", .function = bench_stub_all_ymm},
	{.name = "stub_all_zmm", .function = bench_stub_all_zmm},
	{.name = "stub_all_x87_xmm", .function = bench_stub_all_x87_xmm},
	{.name = "stub_all_x87_ymm", .function = bench_stub_all_x87_ymm},
	{.name = "stub_all_x87_zmm", .function = bench_stub_all_x87_zmm},
	{.name = "stub_middle", .function = bench_stub_middle},
	{.name = "stub_prologue", .function = bench_stub_prologue},
	{.name = "stub_trap", .function = bench_trap},
	{.name = NULL},
};

const struct worker_program hit_floors = {.rows = rows, .prepare = prepare};
