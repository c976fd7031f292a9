/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Rows with libpatch, all in one process, each with a function of its own. */
#define _GNU_SOURCE
#include "hit.h"
#include "patch.h"

#include <string.h>

extern worker_function bench_ours_entry, bench_ours_entry_all_gpr, bench_ours_entry_sse, bench_ours_entry_avx;
extern worker_function bench_ours_entry_all, bench_ours_entry_trap, bench_ours_entry_around, bench_ours_entry_return;
extern worker_function bench_ours_entry_own;
extern worker_function bench_ours_entry_disabled, bench_ours_entry_2, bench_ours_entry_4;
extern worker_function bench_ours_count_plain, bench_ours_count_atomic, bench_ours_count_thread;
extern worker_function bench_ours_prologue, bench_ours_prologue_2, bench_ours_prologue_4, bench_ours_prologue_trap;
extern worker_function bench_ours_middle, bench_ours_middle_site;
extern worker_function bench_ours_call, bench_ours_call_reg, bench_ours_call_mem, bench_ours_jmp_mem;
extern worker_function bench_ours_call_site, bench_ours_call_reg_site, bench_ours_call_mem_site;
extern worker_function bench_ours_jmp_mem_site;
extern worker_function bench_ours_entry_default, bench_ours_middle_default, bench_ours_middle_default_site;
extern worker_function bench_ours_middle_all, bench_ours_middle_all_site;

/* One probe: at an address behind the function's, of a kind. */
static const struct ours {
	const char *row;
	worker_function *function;
	worker_function *site; /* NULL: its first instruction */
	enum bench_kind kind;
	int policy;
	uint8_t offsets[4]; /* of further probes in the same region */
	uint8_t more;       /* probes at the same instruction */
	bool disabled;
} ours[] = {
	{.row = "gpr", .function = bench_ours_entry, .kind = KIND_GPR},
	{.row = "gpr_all_offered", .function = bench_ours_entry_all_gpr, .kind = KIND_ALL_GPR},
	{.row = "gpr_prologue", .function = bench_ours_prologue, .kind = KIND_GPR},
	{.row = "gpr_middle", .function = bench_ours_middle, .site = bench_ours_middle_site, .kind = KIND_GPR},
	{.row = "gpr_2_in_region", .function = bench_ours_prologue_2, .kind = KIND_GPR, .offsets = {1}},
	{.row = "gpr_4_in_region", .function = bench_ours_prologue_4, .kind = KIND_GPR, .offsets = {1, 2, 4}},
	{.row = "gpr_2_at_place", .function = bench_ours_entry_2, .kind = KIND_GPR, .more = 1},
	{.row = "gpr_4_at_place", .function = bench_ours_entry_4, .kind = KIND_GPR, .more = 3},
	{.row = "gpr_around", .function = bench_ours_entry_around, .kind = KIND_AROUND},
	{.row = "gpr_around_call", .function = bench_ours_call, .site = bench_ours_call_site, .kind = KIND_AROUND},
	{.row = "gpr_around_call_reg", .function = bench_ours_call_reg, .site = bench_ours_call_reg_site,
	 .kind = KIND_AROUND},
	{.row = "gpr_around_call_mem", .function = bench_ours_call_mem, .site = bench_ours_call_mem_site,
	 .kind = KIND_AROUND},
	{.row = "gpr_around_jmp_mem", .function = bench_ours_jmp_mem, .site = bench_ours_jmp_mem_site,
	 .kind = KIND_AROUND},
	{.row = "gpr_own_stack", .function = bench_ours_entry_own, .kind = KIND_OWN_STACK},
	{.row = "gpr_return", .function = bench_ours_entry_return, .kind = KIND_RETURN},
	{.row = "disabled", .function = bench_ours_entry_disabled, .kind = KIND_GPR, .disabled = true},
	{.row = "xmm", .function = bench_ours_entry_sse, .kind = KIND_SSE},
	{.row = "ymm", .function = bench_ours_entry_avx, .kind = KIND_AVX},
	{.row = "default", .function = bench_ours_entry_default, .kind = KIND_DEFAULT},
	{.row = "default_middle", .function = bench_ours_middle_default, .site = bench_ours_middle_default_site,
	 .kind = KIND_DEFAULT},
	{.row = "all", .function = bench_ours_entry_all, .kind = KIND_ALL},
	{.row = "all_middle", .function = bench_ours_middle_all, .site = bench_ours_middle_all_site, .kind = KIND_ALL},
	{.row = "count_plain", .function = bench_ours_count_plain, .kind = KIND_COUNT_PLAIN},
	{.row = "count_atomic", .function = bench_ours_count_atomic, .kind = KIND_COUNT_ATOMIC},
	{.row = "count_thread", .function = bench_ours_count_thread, .kind = KIND_COUNT_THREAD},
	{.row = "trap", .function = bench_ours_entry_trap, .kind = KIND_GPR, .policy = PATCH_TRAP_POLICY_FORCE},
	{.row = "trap_prologue", .function = bench_ours_prologue_trap, .kind = KIND_GPR,
	 .policy = PATCH_TRAP_POLICY_FORCE},
};

static struct worker_row rows[sizeof(ours) / sizeof(*ours) + 1];

static const char *make(const struct ours *which, uintptr_t address)
{
	patch_t patch;

	if (!bench_make(address, which->kind, which->policy,
			which->disabled ? PATCH_DISABLED : PATCH_ENABLED, &patch))
		return bench_last_error();
	return NULL;
}

static const char *prepare(const struct worker_row *row)
{
	const struct ours *which = &ours[row - rows];
	uintptr_t address = (uintptr_t)(which->site ? which->site : which->function);
	const char *reason = bench_kind_missing(which->kind);

	if (!reason && !bench_init())
		reason = bench_last_error();
	if (!reason)
		reason = make(which, address);
	for (unsigned int i = 0; !reason && i < which->more; i++)
		reason = make(which, address);
	for (size_t i = 0; !reason && i < sizeof(which->offsets) && which->offsets[i]; i++)
		reason = make(which, address + which->offsets[i]);
	if (!reason && patch_commit())
		reason = bench_last_error();
	return reason;
}

const struct worker_program hit_ours = {.rows = rows, .prepare = prepare};

__attribute__((constructor)) static void list(void)
{
	for (size_t i = 0; i < sizeof(ours) / sizeof(*ours); i++)
		rows[i] = (struct worker_row){.name = ours[i].row, .function = ours[i].function};
}
