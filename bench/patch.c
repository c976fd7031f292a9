/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "hit.h"
#include "patch.h"

#include <stdio.h>
#include <string.h>

#ifdef PATCH_EXEC_MODEL_COUNT
static uint64_t counter __attribute__((aligned(64)));
static __thread uint64_t thread_counter;
#endif

const char *bench_kind_missing(enum bench_kind kind)
{
#ifndef PATCH_REGS_STATE
	if (kind == KIND_SSE || kind == KIND_AVX)
		return "this version of libpatch saves all extended state or none";
#endif
#ifndef PATCH_REGS_NO_STATE
	if (kind == KIND_DEFAULT)
		return "this version of libpatch preserves no extended state by default";
#endif
#ifndef PATCH_EXEC_MODEL_COUNT
	if (kind >= KIND_COUNT_PLAIN)
		return "this version of libpatch has no counting probes";
#endif
	if (kind == KIND_AVX && !__builtin_cpu_supports("avx"))
		return "the processor has no AVX";
	return NULL;
}

bool bench_init(void)
{
	static bool done;

	if (!done)
		done = patch_init(NULL, 0) == PATCH_OK;
	return done;
}

static void set_probe(struct patch_exec_model *model, enum bench_kind kind)
{
	uint64_t mask = 0;

#ifdef PATCH_REGS_NO_STATE
	mask = PATCH_REGS_NO_STATE;
#endif
	if (kind == KIND_ALL_GPR)
		mask = PATCH_REGS_GP_ONLY;
	if (kind == KIND_DEFAULT)
		mask = 0;
	if (kind == KIND_ALL)
		mask = PATCH_REGS_ALL;
#ifdef PATCH_REGS_STATE
	if (kind == KIND_SSE || kind == KIND_AVX)
		mask = PATCH_REGS_STATE(PATCH_X86_64_SSE_STATE);
	if (kind == KIND_AVX)
		mask |= PATCH_REGS_STATE(PATCH_X86_64_AVX_STATE);
#endif
	model->type = kind == KIND_AROUND ? PATCH_EXEC_MODEL_PROBE_AROUND :
		      kind == KIND_RETURN ? PATCH_EXEC_MODEL_PROBE_RETURN :
					    PATCH_EXEC_MODEL_PROBE;
	model->probe.procedure = bench_empty;
	model->probe.read_registers = mask;
	model->probe.write_registers = mask;
	model->probe.clobber_registers = mask;
}

static void set_counter(struct patch_exec_model *model, enum bench_kind kind)
{
#ifdef PATCH_EXEC_MODEL_COUNT
	model->type = PATCH_EXEC_MODEL_COUNT;
	model->count.counter = kind == KIND_COUNT_THREAD ? &thread_counter : &counter;
	model->count.kind = kind == KIND_COUNT_PLAIN  ? PATCH_COUNT_PLAIN :
			    kind == KIND_COUNT_ATOMIC ? PATCH_COUNT_ATOMIC :
							PATCH_COUNT_THREAD;
#else
	(void)model;
	(void)kind;
#endif
}

bool bench_make(uintptr_t address, enum bench_kind kind, int policy, int state, patch_t *out)
{
	struct patch_location location = {.type = PATCH_LOCATION_ADDRESS, .address = address};
	struct patch_exec_model model;
	patch_attr attr;

	memset(&model, 0, sizeof(model));
	if (kind >= KIND_COUNT_PLAIN)
		set_counter(&model, kind);
	else
		set_probe(&model, kind);
	return patch_attr_init(&attr, sizeof(attr)) == PATCH_OK &&
	       patch_attr_set_trap_policy(&attr, policy) == PATCH_OK &&
	       patch_attr_set_initial_state(&attr, state) == PATCH_OK &&
	       patch_attr_set_stack(&attr, kind == KIND_OWN_STACK) == PATCH_OK &&
	       patch_make(&location, &model, &attr, out, NULL) == PATCH_OK;
}

const char *bench_last_error(void)
{
	static char text[160];
	struct patch_error error;

	patch_last_error(&error);
	snprintf(text, sizeof(text), "%s: %.80s", error.origin, error.message);
	return text;
}
