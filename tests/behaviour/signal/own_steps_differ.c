/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A program steps through itself, by TF, while every instruction has a patch: it is shown the same steps as without,
 * with the same registers, and none of a procedure, of the library, or of generated code.
 */
#include "targets.h"

/* Each instruction of a procedure is a signal: one input, by which loops are executed more than once. */
#define INPUTS 2

struct steps {
	unsigned int count;
	struct machine_step step[MACHINE_MAX_STEPS];
};

/* What steps are outside of, and what they leave out, is as in machine_record(). */
static struct steps now;
static uintptr_t lower, upper, at_syscall;
static unsigned int outside;

static GP_ONLY void on_step(int signo, siginfo_t *info, void *data)
{
	const greg_t *registers = ((ucontext_t *)data)->uc_mcontext.gregs;
	const uintptr_t pc = (uintptr_t)registers[REG_RIP];
	struct machine_step *step = &now.step[now.count];

	(void)signo;
	if ((uintptr_t)info->si_addr != pc)
		outside += 1000;
	if (pc < lower || pc >= upper) {
		outside++;
		return;
	}
	/* The processor does not stop between a syscall and the next instruction, which generated code is in between.
	 */
	if (now.count == MACHINE_MAX_STEPS || (now.count > 0 && step[-1].rip == at_syscall && pc == at_syscall + 2))
		return;
	now.count++;
	step->rip = pc;
	step->rsp = (uint64_t)registers[REG_RSP];
	step->flags = (uint64_t)registers[REG_EFL] & MACHINE_FLAGS;
	step->registers[0] = (uint64_t)registers[REG_RAX];
	step->registers[1] = (uint64_t)registers[REG_RCX];
	step->registers[2] = (uint64_t)registers[REG_RDX];
	step->registers[3] = (uint64_t)registers[REG_RSI];
	step->registers[4] = (uint64_t)registers[REG_RDI];
	step->registers[5] = (uint64_t)registers[REG_R8];
	step->registers[6] = (uint64_t)registers[REG_R11];
}

static GP_ONLY void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	(*(uint64_t *)context->user_data)++;
}

static struct run {
	struct steps steps;
	unsigned int outside;
	struct machine_state state;
} (*before)[INPUTS], after;

static void run(size_t t, size_t i, uint8_t *stack, struct run *out)
{
	memset(&now, 0, sizeof(now));
	outside = 0;
	lower = target_start(&targets[t]);
	upper = (uintptr_t)targets[t].end;
	memset(&out->state, 0, sizeof(out->state));
	machine_call(targets[t].function, target_inputs[i][0], target_inputs[i][1], stack, &out->state,
		     machine_entry_flags(i) | 0x100);
	out->steps = now;
	out->outside = outside;
}

static const struct way {
	int type, policy, stack;
} ways[] = {
	{ PATCH_EXEC_MODEL_PROBE, PATCH_TRAP_POLICY_ALLOW, PATCH_STACK_OWN },
	{ PATCH_EXEC_MODEL_PROBE, PATCH_TRAP_POLICY_ALLOW, PATCH_STACK_PROGRAM },
	{ PATCH_EXEC_MODEL_PROBE, PATCH_TRAP_POLICY_FORCE, PATCH_STACK_PROGRAM },
	{ PATCH_EXEC_MODEL_PROBE_AROUND, PATCH_TRAP_POLICY_ALLOW, PATCH_STACK_PROGRAM },
};

static uint64_t hits;

static void patch_all(const struct instructions *code, const struct way *way)
{
	for (unsigned int k = 0; k < code->count; k++) {
		struct patch_location location = location_at(code->address[k]);
		struct patch_exec_model model = model_of(way->type, procedure, &hits);
		patch_attr attr = attr_of(way->policy, PATCH_ENABLED);
		patch_t made;

		patch_attr_set_stack(&attr, way->stack);
		(void)patch_make(&location, &model, &attr, &made, NULL);
	}
}

static void steps_are_same(void *argument)
{
	const struct way *way = (const struct way *)argument;
	uint8_t *stack = machine_stack();
	struct instructions code;
	struct sigaction action = { .sa_sigaction = on_step, .sa_flags = SA_SIGINFO };

	before = (struct run(*)[INPUTS])mmap(NULL, TARGET_COUNT * sizeof(*before), PROT_READ | PROT_WRITE,
					     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	REQUIRE((void *)before != MAP_FAILED && sigaction(SIGTRAP, &action, NULL) == 0);
	code = target_decode(target_named("t_syscall"));
	for (unsigned int k = 0; k < code.count; k++)
		if (memcmp((const void *)code.address[k], "\x0f\x05", 2) == 0)
			at_syscall = code.address[k];
	for (size_t t = 0; t < TARGET_COUNT; t++)
		for (size_t i = 1; i < INPUTS && target_runs_here(&targets[t]); i++)
			run(t, i, stack, &before[t][i]);
	REQUIRE_OK(patch_init(NULL, 0));
	for (size_t t = 0; t < TARGET_COUNT; t++)
		if (target_runs_here(&targets[t])) {
			code = target_decode(&targets[t]);
			patch_all(&code, way);
		}
	REQUIRE_OK(patch_commit());
	for (size_t t = 0; t < TARGET_COUNT; t++)
		for (size_t i = 1; i < INPUTS && target_runs_here(&targets[t]); i++) {
			const struct run *wanted = &before[t][i];

			CONTEXT("%s, input %zu", targets[t].name, i);
			/* Its second calls are behind it, and its first ones in front of it once more: doc/limits.md.
			 */
			if (way->type == PATCH_EXEC_MODEL_PROBE_AROUND &&
			    &targets[t] == target_named("t_loop_insn_self"))
				continue;
			run(t, i, stack, &after);
			CHECK_EQ(after.outside, wanted->outside);
			CHECK_EQ(after.steps.count, wanted->steps.count);
			for (unsigned int k = 0; k < after.steps.count && k < wanted->steps.count; k++)
				if (memcmp(&after.steps.step[k], &wanted->steps.step[k], sizeof(after.steps.step[k]))) {
					FAIL("step %u at +%#lx, wanted +%#lx", k,
					     (long)(after.steps.step[k].rip - lower),
					     (long)(wanted->steps.step[k].rip - lower));
					break;
				}
		}
	CHECK(hits > 0);
	REQUIRE_OK(patch_fini());
}

/* TF comes and goes where patches are: the first step ends in the middle of generated code. */
__asm__(".text\n.balign 16\n.type flags_site, @function\nflags_site:\n.cfi_startproc\n"
	"push %rbx\n.cfi_adjust_cfa_offset 8\n"
	"pushfq\norq $0x100, (%rsp)\npopfq\n"
	"mov $5, %ebx\nadd $3, %ebx\nlea 1(%rbx), %eax\nsub $1, %ebx\n"
	"pushfq\nandq $~0x100, (%rsp)\npopfq\n"
	"nop\npop %rbx\n.cfi_adjust_cfa_offset -8\nret\nflags_site_end:\n.cfi_endproc\n"
	".size flags_site, . - flags_site\n");
extern const uint8_t flags_site[], flags_site_end[];

static void flags_are_set_there(void *argument)
{
	const struct way *way = (const struct way *)argument;
	const struct instructions code = code_decode((uintptr_t)flags_site, (uintptr_t)flags_site_end);
	struct sigaction action = { .sa_sigaction = on_step, .sa_flags = SA_SIGINFO };
	static struct steps wanted;
	unsigned int more;

	lower = (uintptr_t)flags_site;
	upper = (uintptr_t)flags_site_end;
	REQUIRE(sigaction(SIGTRAP, &action, NULL) == 0);
	CHECK_EQ(call_code(flags_site), 9);
	wanted = now;
	memset(&now, 0, sizeof(now));
	REQUIRE_OK(patch_init(NULL, 0));
	patch_all(&code, way);
	REQUIRE_OK(patch_commit());
	CHECK_EQ(call_code(flags_site), 9);
	CHECK_EQ(outside, 0);
	/* One more in front, and perhaps one less in the end: doc/limits.md. */
	more = now.count > 0 && now.step[0].rip != wanted.step[0].rip;
	CHECK(now.count - more == wanted.count || now.count - more == wanted.count - 1);
	for (unsigned int k = 0; k + more < now.count && k < wanted.count; k++)
		CHECK_EQ(now.step[k + more].rip, wanted.step[k].rip);
	CHECK(hits > 0);
	REQUIRE_OK(patch_fini());
}

int main(void)
{
	harness_start();
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		harness_isolated("steps", steps_are_same, (void *)&ways[i]);
		harness_isolated("flags", flags_are_set_there, (void *)&ways[i]);
	}
	return harness_end();
}
