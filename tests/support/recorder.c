/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A probe's procedure that compares where it is called, and with which registers, with a single-stepped trace.
 * Procedures run without extended state and report nothing: recorder_check() does, behind the call.
 */
#include "targets.h"

/* May this register differ from the trace? The kernel puts rip and rflags in rcx and r11. */
static GP_ONLY bool machine_is_loose(const struct target *target, int number)
{
	return target->flags & TARGET_SYSCALL && (number == PATCH_X86_64_RCX || number == PATCH_X86_64_R11);
}

static GP_ONLY void recorder_problem(struct recorder *recorder, const char *what, int number, uint64_t seen,
				     uint64_t wanted)
{
	if (recorder->problem)
		return;
	recorder->problem = what;
	recorder->problem_register = number;
	recorder->seen = seen;
	recorder->wanted = wanted;
}

static GP_ONLY void recorder_compare(struct recorder *recorder, const struct patch_exec_context *context,
				     const struct machine_step *step)
{
	for (int r = 0; r < PATCH_ARCH_GREGS_COUNT; r++)
		if (context->general_purpose_registers[r] != step->registers[r] &&
		    !machine_is_loose(recorder->target, r))
			recorder_problem(recorder, "register", r, context->general_purpose_registers[r],
					 step->registers[r]);
	if (context->stack_pointer != step->rsp)
		recorder_problem(recorder, "stack_pointer", -1, context->stack_pointer, step->rsp);
	if ((context->status_register & MACHINE_FLAGS) != step->flags)
		recorder_problem(recorder, "status_register", -1, context->status_register & MACHINE_FLAGS,
				 step->flags);
}

GP_ONLY void recorder_procedure(struct patch_exec_context *context, uint8_t post)
{
	struct recorder *recorder = (struct recorder *)context->user_data;
	const struct machine_trace *trace = recorder->trace;
	unsigned int at;

	if (!post) {
		recorder->hits++;
		if (context->program_counter != recorder->address)
			recorder_problem(recorder, "program_counter", -1, context->program_counter, recorder->address);
		if (!trace)
			return;
		for (at = recorder->cursor; at < trace->count && trace->step[at].rip != recorder->hook; at++)
			;
		if (at == trace->count) {
			recorder_problem(recorder, "a hit too many", -1, recorder->hits, 0);
			return;
		}
		recorder->matched = at;
		recorder->cursor = at + 1;
		recorder_compare(recorder, context, &trace->step[at]);
		return;
	}
	recorder->posts++;
	if (context->program_counter < (uintptr_t)recorder->target->function ||
	    context->program_counter >= (uintptr_t)recorder->target->end)
		recorder_problem(recorder, "program_counter after the instruction", -1, context->program_counter,
				 recorder->address);
	if (!trace || recorder->is_call || recorder->matched + 1 >= trace->count)
		return;
	/* The next step of the trace may be behind a callee; without one it is the next instruction. */
	if (recorder->leaves || trace->step[recorder->matched + 1].rip == recorder->address)
		return;
	if (context->program_counter != trace->step[recorder->matched + 1].rip)
		recorder_problem(recorder, "program_counter after the instruction", -1, context->program_counter,
				 trace->step[recorder->matched + 1].rip);
	recorder_compare(recorder, context, &trace->step[recorder->matched + 1]);
}

void recorder_reset(struct recorder *recorder, const struct machine_trace *trace)
{
	recorder->trace = trace;
	recorder->hits = 0;
	recorder->posts = 0;
	recorder->cursor = 0;
	recorder->matched = 0;
	recorder->problem = NULL;
}

void recorder_init(struct recorder *recorder, const struct target *target, uintptr_t address)
{
	memset(recorder, 0, sizeof(*recorder));
	recorder->target = target;
	recorder->address = address;
	recorder->leaves = target_has_endbr(address);
	recorder->hook = address + (recorder->leaves ? 4 : 0);
	recorder->is_call = target_is_call(address);
}

void recorder_check(const struct recorder *recorder, size_t input)
{
	unsigned int wanted = machine_count(recorder->trace, recorder->hook);

	if (recorder->problem)
		FAIL("%s+%#zx, input %zu: %s %s is %#llx, wanted %#llx", recorder->target->name,
		     (size_t)(recorder->address - target_start(recorder->target)), input, recorder->problem,
		     recorder->problem_register >= 0 ? machine_register_name[recorder->problem_register] : "",
		     (unsigned long long)recorder->seen, (unsigned long long)recorder->wanted);
	if (recorder->hits != wanted)
		FAIL("%s+%#zx, input %zu: %u hits, wanted %u", recorder->target->name,
		     (size_t)(recorder->address - target_start(recorder->target)), input, recorder->hits, wanted);
}
