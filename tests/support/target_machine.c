/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The machine that the targets run in: every register known before a call, every instruction recorded by
 * single-stepping. It owns SIGTRAP only in a child, before libpatch is there.
 */
#include "targets.h"

#include <sys/ucontext.h>

const char *const machine_register_name[PATCH_ARCH_GREGS_COUNT] = { "rax", "rbx", "rcx", "rdx", "rsi",
								    "rdi", "rbp", "r8",  "r9",  "r10",
								    "r11", "r12", "r13", "r14", "r15" };

static struct {
	struct machine_trace *trace;
	uintptr_t lower, upper, last;
	unsigned int overflows;
} machine_stepper;

uint8_t *machine_stack(void)
{
	uint8_t *memory = (uint8_t *)mmap(NULL, 2 * MACHINE_STACK_SIZE, PROT_READ | PROT_WRITE,
					  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uintptr_t aligned;

	REQUIRE(memory != (uint8_t *)MAP_FAILED);
	aligned = ((uintptr_t)memory + MACHINE_STACK_SIZE - 1) & ~(uintptr_t)(MACHINE_STACK_SIZE - 1);
	return (uint8_t *)aligned + MACHINE_STACK_SIZE;
}

uint64_t machine_entry_flags(size_t input)
{
	static const uint64_t flags[] = { 0x202, 0x203, 0x2c2, 0xa12, 0x2d7, 0x246 };

	return flags[input % (sizeof(flags) / sizeof(flags[0]))];
}

static GP_ONLY bool machine_is_string(uintptr_t rip)
{
	const uint8_t *code = (const uint8_t *)rip;

	return (code[0] == 0xf2 || code[0] == 0xf3) &&
	       ((code[1] >= 0xa4 && code[1] <= 0xaf) || (code[1] == 0x48 && code[2] >= 0xa4 && code[2] <= 0xaf));
}

static GP_ONLY bool machine_is_syscall(uintptr_t rip)
{
	return ((const uint8_t *)rip)[0] == 0x0f && ((const uint8_t *)rip)[1] == 0x05;
}

static GP_ONLY void machine_record_step(struct machine_step *step, uintptr_t rip, const greg_t *registers)
{
	static const int index[PATCH_ARCH_GREGS_COUNT] = { REG_RAX, REG_RBX, REG_RCX, REG_RDX, REG_RSI,
							   REG_RDI, REG_RBP, REG_R8,  REG_R9,  REG_R10,
							   REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };

	step->rip = rip;
	for (int i = 0; i < PATCH_ARCH_GREGS_COUNT; i++)
		step->registers[i] = (uint64_t)registers[index[i]];
	step->flags = (uint64_t)registers[REG_EFL] & MACHINE_FLAGS;
	step->rsp = (uint64_t)registers[REG_RSP];
}

static GP_ONLY void machine_on_step(int signo, siginfo_t *info, void *context)
{
	const greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
	uintptr_t rip = (uintptr_t)registers[REG_RIP];
	struct machine_trace *trace = machine_stepper.trace;
	bool skipped;

	(void)signo;
	(void)info;
	if (rip < machine_stepper.lower || rip >= machine_stepper.upper) {
		machine_stepper.last = rip;
		return;
	}
	if (rip == machine_stepper.last && machine_is_string(rip))
		return;
	machine_stepper.last = rip;
	if (trace->count == MACHINE_MAX_STEPS) {
		machine_stepper.overflows++;
		return;
	}
	/* The processor does not stop between a syscall and the next instruction: the nop that is there. */
	skipped = trace->count > 0 && machine_is_syscall(trace->step[trace->count - 1].rip) &&
		  rip == trace->step[trace->count - 1].rip + 3;
	machine_record_step(&trace->step[trace->count++], rip - (skipped ? 1 : 0), registers);
	if (skipped && trace->count < MACHINE_MAX_STEPS)
		machine_record_step(&trace->step[trace->count++], rip, registers);
}

static void machine_record(void *argument)
{
	struct machine *machine = (struct machine *)argument;
	struct sigaction action;

	memset(&action, 0, sizeof(action));
	action.sa_sigaction = machine_on_step;
	action.sa_flags = SA_SIGINFO;
	REQUIRE(sigaction(SIGTRAP, &action, NULL) == 0);
	for (size_t t = 0; t < TARGET_COUNT; t++) {
		if (!target_runs_here(&targets[t]))
			continue;
		for (size_t i = 0; i < TARGET_INPUTS; i++) {
			struct machine_trace *trace = &machine->trace[t][i];

			machine_stepper.trace = trace;
			machine_stepper.lower = target_start(&targets[t]);
			machine_stepper.upper = (uintptr_t)targets[t].end;
			machine_stepper.last = 0;
			machine_call(targets[t].function, target_inputs[i][0], target_inputs[i][1], machine->stack_top,
				     &trace->final, machine_entry_flags(i) | 0x100);
		}
	}
	CHECK_EQ(machine_stepper.overflows, 0);
}

void machine_prepare(struct machine *machine)
{
	size_t size = TARGET_COUNT * sizeof(*machine->trace);

	machine->stack_top = machine_stack();
	machine->trace =
		(struct machine_trace(*)[TARGET_INPUTS])mmap(NULL, size, PROT_READ | PROT_WRITE,
							     MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	REQUIRE((void *)machine->trace != MAP_FAILED);
	harness_isolated("single-stepping the targets", machine_record, machine);
	for (size_t t = 0; t < TARGET_COUNT; t++) {
		const struct target *target = &targets[t];

		if (!target_runs_here(target))
			continue;
		for (size_t i = 0; i < TARGET_INPUTS; i++) {
			const struct machine_trace *trace = &machine->trace[t][i];

			CONTEXT("%s, input %zu, not patched", target->name, i);
			CHECK(trace->count > 0);
			if (!(target->flags & TARGET_VOID))
				CHECK_EQ(trace->final.registers[PATCH_X86_64_RAX],
					 target->model(target_inputs[i][0], target_inputs[i][1]));
		}
	}
	CONTEXT("%s", "");
	if (harness_failures)
		exit(harness_end());
}

unsigned int machine_count(const struct machine_trace *trace, uintptr_t rip)
{
	unsigned int count = 0;

	for (unsigned int i = 0; i < trace->count; i++)
		count += trace->step[i].rip == rip;
	return count;
}

void machine_run(const struct machine *machine, size_t t, size_t i)
{
	const struct target *target = &targets[t];
	const struct machine_state *expected = &machine->trace[t][i].final;
	struct machine_state state;

	memset(&state, 0xee, sizeof(state));
	machine_call(target->function, target_inputs[i][0], target_inputs[i][1], machine->stack_top, &state,
		     machine_entry_flags(i));
	if (!(target->flags & TARGET_VOID)) {
		uint64_t value = target->model(target_inputs[i][0], target_inputs[i][1]);

		if (state.registers[PATCH_X86_64_RAX] != value)
			FAIL("%s(%#llx, %#llx) returned %#llx, wanted %#llx", target->name,
			     (unsigned long long)target_inputs[i][0], (unsigned long long)target_inputs[i][1],
			     (unsigned long long)state.registers[PATCH_X86_64_RAX], (unsigned long long)value);
	}
	for (int r = 0; r < PATCH_ARCH_GREGS_COUNT; r++)
		if (state.registers[r] != expected->registers[r])
			FAIL("%s, input %zu: %s is %#llx at return, wanted %#llx", target->name, i,
			     machine_register_name[r], (unsigned long long)state.registers[r],
			     (unsigned long long)expected->registers[r]);
	if (state.rsp != expected->rsp)
		FAIL("%s, input %zu: rsp is %#llx at return, wanted %#llx", target->name, i,
		     (unsigned long long)state.rsp, (unsigned long long)expected->rsp);
	if ((state.flags ^ expected->flags) & MACHINE_FLAGS)
		FAIL("%s, input %zu: flags are %#llx at return, wanted %#llx", target->name, i,
		     (unsigned long long)(state.flags & MACHINE_FLAGS),
		     (unsigned long long)(expected->flags & MACHINE_FLAGS));
	for (int x = 0; x < 16; x++)
		if (memcmp(state.xmm[x], expected->xmm[x], 16))
			FAIL("%s, input %zu: xmm%d differs at return", target->name, i, x);
}
