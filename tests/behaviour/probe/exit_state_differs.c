/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * PROBE_RETURN on functions with awkward ways out: every form of return, tail calls by direct, conditional and indirect
 * jumps, tables, exits in parts elsewhere (.cold). From the same state as natively, with procedures that destroy what
 * they may: everything behind the call is as without; the first call sees the state at the entry, and the second one
 * that in front of the instruction that leaves, as single steps have shown it.
 */
#include "targets.h"

#define GENERAL (((uint64_t)1 << PATCH_ARCH_GREGS_COUNT) - 1)

/* ---- what procedures see ----------------------------------------------------------------------------------------- */

static struct {
	const struct machine_trace *trace;
	uintptr_t located;
	unsigned int entered, returned, step; /* not yet matched */
	bool at_end;                          /* the last return was at the last step */
	const char *problem;
} seen;

GP_ONLY static bool is_state(const struct patch_exec_context *context, const struct machine_step *step)
{
	for (int r = 0; r < PATCH_ARCH_GREGS_COUNT; r++)
		if (context->general_purpose_registers[r] != step->registers[r])
			return false;
	return context->stack_pointer == step->rsp && ((context->status_register ^ step->flags) & MACHINE_FLAGS) == 0;
}

GP_ONLY static void look(struct patch_exec_context *context, uint8_t post)
{
	const struct machine_trace *trace = seen.trace;
	unsigned int at = seen.step;

	if (trace == NULL) {
		*(post ? &seen.returned : &seen.entered) += 1;
		return;
	}
	if (!post && context->program_counter != seen.located)
		seen.problem = "the entry is reported elsewhere";
	/* Instructions that change nothing are in front of exits. */
	if (post && trace->count > 0 && is_state(context, &trace->step[trace->count - 1]))
		at = trace->count - 1;
	while (at < trace->count && !is_state(context, &trace->step[at]))
		at++;
	if (at == trace->count) {
		seen.problem = post ? "a state at a return that never was" : "a state at an entry that never was";
		return;
	}
	seen.step = at;
	seen.at_end = at + 1 == trace->count;
	if (post)
		seen.returned++;
	else
		seen.entered++;
}

/* ---- functions with parts elsewhere ------------------------------------------------------------------------------ */

#define FUNCTION(name, code) \
	__asm__(".text\n.p2align 4\n.type " #name ", @function\n" #name ":\n.cfi_startproc\n" code "\n.cfi_endproc\n" \
		".size " #name ", . - " #name "\n" #name "_end:\n"); \
	uint64_t name(uint64_t a, uint64_t b);
#define COLD(name, rules, code) \
	".cfi_endproc\n.pushsection .text.unlikely, \"ax\"\n.p2align 4\n	nop\n.cfi_startproc\n" rules name \
	":\n" code "\n.cfi_endproc\n.popsection\n.cfi_startproc\n"

FUNCTION(cold_bare, "	test $1, %dil\n	jne cold_bare_cold\n	lea 1(%rdi), %rax\n	ret\n"
		    "cold_bare_back:	add $1, %rax\n	stc\n	ret\n"
		    COLD("cold_bare_cold", "", "	mov %rdi, %rax\n	test $2, %dil\n	je cold_bare_back\n"
					       "	add $1, %rax\n	cmc\n	ret"))
FUNCTION(cold_framed, "	push %rbx\n.cfi_adjust_cfa_offset 8\n	test $1, %dil\n	jne cold_framed_cold\n"
		      "	mov %rsi, %rax\n	pop %rbx\n.cfi_adjust_cfa_offset -8\n	ret\n"
		      COLD("cold_framed_cold", ".cfi_def_cfa_offset 16\n",
			   "	lea 1(%rdi), %rax\n	pop %rbx\n.cfi_def_cfa_offset 8\n	test $2, %dil\n"
			   "	jne helper_add\n	ret"))
FUNCTION(cold_tail, "	sub $8, %rsp\n.cfi_adjust_cfa_offset 8\n	test $1, %dil\n	jne cold_tail_cold\n"
		    "	add $8, %rsp\n.cfi_adjust_cfa_offset -8\n	lea helper_add(%rip), %rax\n	jmp *%rax\n"
		    COLD("cold_tail_cold", ".cfi_def_cfa_offset 16\n",
			 "	add $8, %rsp\n.cfi_def_cfa_offset 8\n	neg %rdi\n	jmp *helper_pointer(%rip)"))
FUNCTION(ret_forms, "	and $3, %edi\n	lea ret_forms_table(%rip), %rax\n	movslq (%rax,%rdi,4), %rdi\n"
		    "	add %rdi, %rax\n	jmp *%rax\n"
		    "ret_forms_0:	rep ret\nret_forms_1:	.byte 0xF2; ret\nret_forms_2:	ret $0\n"
		    "ret_forms_3:	xchg %rax, %rsi\n	stc\n	ret")
__asm__(".data\n.p2align 3\nhelper_pointer:	.quad helper_add\n.section .rodata\n.p2align 2\nret_forms_table:\n"
	".long ret_forms_0 - ret_forms_table, ret_forms_1 - ret_forms_table\n"
	".long ret_forms_2 - ret_forms_table, ret_forms_3 - ret_forms_table\n.text\n");

static const struct form {
	const char *name;
	target_function function;
} forms[] = { { "cold_bare", cold_bare },
	      { "cold_framed", cold_framed },
	      { "cold_tail", cold_tail },
	      { "ret_forms", ret_forms } };
#define FORMS (sizeof(forms) / sizeof(forms[0]))

/* ---- patched against native -------------------------------------------------------------------------------------- */

static const struct kind {
	const char *name;
	void (*procedure)(struct patch_exec_context *, uint8_t);
	uint64_t clobber;
} kinds[] = { { "general", destroy_general, GENERAL | PATCH_REGS_GP_ONLY }, { "sse", destroy_sse, 0 } };

static struct machine machine;
static struct machine_state natively[FORMS][TARGET_INPUTS];
static unsigned int refused, out_of_reach, patched;

static bool make(target_function function, const struct kind *kind, int policy, patch_t *patch)
{
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE_RETURN, kind->procedure, NULL);
	struct patch_location location = location_at((uintptr_t)function);
	patch_attr attr = attr_of(policy, PATCH_ENABLED);
	patch_status status;

	model.probe.read_registers = GENERAL;
	model.probe.write_registers = 0;
	model.probe.clobber_registers = kind->clobber;
	status = patch_make(&location, &model, &attr, patch, NULL);
	if (status != PATCH_OK) {
		/*
		 * The bytes behind a function that is shorter than a jump say where that leads: 16 MiB, in which the
		 * kernel may have put the program break, at random.
		 */
		if (status == PATCH_ENOMEM && policy == PATCH_TRAP_POLICY_FORBID)
			out_of_reach++;
		else
			refused++;
		return false;
	}
	CHECK_OK(patch_commit());
	seen.located = (uintptr_t)function;
	patched++;
	return true;
}

static void unmake(patch_t patch)
{
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
}

static void begin(const struct machine_trace *trace)
{
	seen.trace = trace;
	seen.entered = seen.returned = seen.step = 0;
	seen.at_end = false;
	seen.problem = NULL;
}

/* To go to the first instruction again is no call, which leaves the return address on the stack. */
static unsigned int count_entries(const struct machine_trace *trace, uintptr_t start)
{
	unsigned int count = 0;

	for (unsigned int i = 0; i < trace->count; i++)
		count += trace->step[i].rip == start && (i == 0 || trace->step[i - 1].rsp != trace->step[i].rsp);
	return count;
}

static void check_target(size_t t, const struct kind *kind, int policy)
{
	const uintptr_t start = target_start(&targets[t]);
	const unsigned int before = out_of_reach;
	patch_t patch;

	CONTEXT("%s, %s, %s", targets[t].name, kind->name, policy_name(policy));
	if (!make(targets[t].function, kind, policy, &patch)) {
		CHECK_MSG(targets[t].function == t_no_unwind || out_of_reach > before, "%s", harness_last_error());
		return;
	}
	for (size_t i = 0; i < TARGET_INPUTS; i++) {
		const struct machine_trace *trace = &machine.trace[t][i];
		const unsigned int entries = count_entries(trace, start);

		begin(trace);
		machine_run(&machine, t, i);
		CHECK_MSG(seen.problem == NULL, "input %zu: %s", i, seen.problem);
		CHECK_EQ(seen.entered, entries);
		/*
		 * It jumps into another function with what it has pushed, of which its unwind entry says nothing: the
		 * jump is passed over, and the return is another's.
		 */
		if (targets[t].function == t_outside_entry) {
			CHECK_EQ(seen.returned, 0);
			continue;
		}
		CHECK_EQ(seen.returned, entries);
		CHECK(seen.at_end);
	}
	unmake(patch);
}

static void call_form(size_t f, size_t i, struct machine_state *state)
{
	memset(state, 0xee, sizeof(*state));
	machine_call(forms[f].function, target_inputs[i][0], target_inputs[i][1], machine.stack_top, state,
		     machine_entry_flags(i));
}

static void check_form(size_t f, const struct kind *kind, int policy)
{
	patch_t patch;

	CONTEXT("%s, %s, %s", forms[f].name, kind->name, policy_name(policy));
	if (!make(forms[f].function, kind, policy, &patch)) {
		FAIL("%s", harness_last_error());
		return;
	}
	for (size_t i = 0; i < TARGET_INPUTS; i++) {
		struct machine_state state;

		begin(NULL);
		call_form(f, i, &state);
		CHECK_EQ(seen.entered, 1);
		CHECK_EQ(seen.returned, 1);
		CHECK(memcmp(state.registers, natively[f][i].registers, sizeof(state.registers)) == 0);
		CHECK_EQ(state.flags & MACHINE_FLAGS, natively[f][i].flags & MACHINE_FLAGS);
		CHECK_EQ(state.rsp, natively[f][i].rsp);
		CHECK(memcmp(state.xmm, natively[f][i].xmm, sizeof(state.xmm)) == 0);
	}
	unmake(patch);
}

int main(void)
{
	static const int policies[] = { PATCH_TRAP_POLICY_ALLOW, PATCH_TRAP_POLICY_FORBID, PATCH_TRAP_POLICY_FORCE };

	harness_start();
	machine_prepare(&machine);
	for (size_t f = 0; f < FORMS; f++)
		for (size_t i = 0; i < TARGET_INPUTS; i++)
			call_form(f, i, &natively[f][i]);
	destroy_inner = look;
	REQUIRE_OK(patch_init(NULL, 0));
	for (size_t p = 0; p < sizeof(policies) / sizeof(policies[0]); p++)
		for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
			for (size_t t = 0; t < TARGET_COUNT; t++)
				if (target_runs_here(&targets[t]))
					check_target(t, &kinds[k], policies[p]);
			for (size_t f = 0; f < FORMS; f++)
				check_form(f, &kinds[k], policies[p]);
		}
	CHECK_OK(patch_fini());
	harness_say("%u patched, %u refused, %u out of reach\n", patched, refused, out_of_reach);
	/* Of the one place that is so short. */
	CHECK(out_of_reach <= 2);
	/* t_no_unwind. */
	CHECK_EQ(refused, sizeof(policies) / sizeof(policies[0]) * sizeof(kinds) / sizeof(kinds[0]));
	return harness_end();
}
