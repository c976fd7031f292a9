/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A SIGTRAP that a timer sends arrives while a thread is in a hook, or in the copy of an instruction. What the
 * program's handler sees is the program: the instruction's pc, and its registers. What the handler makes of a register
 * is in effect afterwards, and each execution is counted once.
 */
#include "harness.h"

#include <stdatomic.h>
#include <time.h>
#include <ucontext.h>

#define EXECUTIONS 2000
#define RDI 0x111111
#define RSI 0x222222
#define R12 0x333333

uint64_t loop_rsp __attribute__((used)), loop_changed __attribute__((used));
extern const uint8_t loop_site[], loop_next[], loop_end[];

/* Executes the site so often; loop_changed is how often r12 was another one behind it. */
void loop(uint64_t executions);
__asm__(".text\n.p2align 6\n.type loop, @function\nloop:\n.cfi_startproc\n"
	"	push %r12\n.cfi_adjust_cfa_offset 8\n.cfi_offset %r12, -16\n	mov %rdi, %rcx\n"
	"	mov %rsp, loop_rsp(%rip)\n"
	"1:	mov $0x333333, %r12d\n	mov $0x111111, %edi\n	mov $0x222222, %esi\n"
	"loop_site: add %rsi, %rdi\n	lea 1(%rdi), %rax\n"
	"loop_next: cmp $0x333334, %eax\n	je 2f\n	ud2\n"
	"2:	cmp $0x333333, %r12\n	je 3f\n	incq loop_changed(%rip)\n"
	"3:	dec %rcx\n	jne 1b\n"
	"loop_end:	pop %r12\n.cfi_adjust_cfa_offset -8\n	ret\n.cfi_endproc\n.size loop, . - loop\n");

static unsigned int calls, seen_generated, seen_site, seen_wrong, changed, others;

GP_ONLY static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	++calls;
	context->general_purpose_registers[PATCH_X86_64_R9] ^= 1;
}

static void on_trap(int signo, siginfo_t *info, void *data)
{
	greg_t *registers = ((ucontext_t *)data)->uc_mcontext.gregs;
	const uint64_t pc = (uint64_t)registers[REG_RIP];
	uintptr_t original;

	(void)signo;
	(void)info;
	if (patch_olx_original_pc(pc, &original) == PATCH_OK)
		++seen_generated;
	if (pc != (uintptr_t)loop_site) {
		++others;
		return;
	}
	++seen_site;
	if (registers[REG_RDI] != RDI || registers[REG_RSI] != RSI || registers[REG_RSP] != (greg_t)loop_rsp ||
	    errno != 0)
		++seen_wrong;
	/* The next signal may be there before the instruction is executed. */
	changed += registers[REG_R12] == R12;
	registers[REG_R12] = 0;
}

static void start_timer(timer_t *timer)
{
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGTRAP };
	const struct sigaction action = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO | SA_RESTART };

	REQUIRE(sigaction(SIGTRAP, &action, NULL) == 0);
	REQUIRE(timer_create(CLOCK_MONOTONIC, &event, timer) == 0);
}

static void run(int policy, int type, uint64_t written)
{
	struct patch_location location = location_at((uintptr_t)loop_site);
	struct patch_exec_model model = model_of(type, procedure, NULL);
	patch_attr attr = attr_of(policy, PATCH_ENABLED);
	uint64_t executions = 0;
	timer_t timer;
	patch_t patch;

	calls = seen_generated = seen_site = seen_wrong = changed = others = 0;
	loop_changed = 0;
	model.probe.write_registers = written;
	REQUIRE_OK(patch_make(&location, &model, &attr, &patch, NULL));
	REQUIRE_OK(patch_commit());
	errno = 0;
	start_timer(&timer);
	while (seen_site < 50 && seen_generated == 0) {
		const struct itimerspec soon = { { 0, 0 }, { 0, 20000 + 7 * (executions / EXECUTIONS % 1000) } };

		timer_settime(timer, 0, &soon, NULL);
		loop(EXECUTIONS);
		executions += EXECUTIONS;
	}
	timer_delete(timer);
	atomic_signal_fence(memory_order_seq_cst);
	CHECK_EQ(seen_generated, 0);
	CHECK_EQ(seen_wrong, 0);
	CHECK_EQ(loop_changed, changed);
	CHECK_EQ(calls, executions * (type == PATCH_EXEC_MODEL_PROBE_AROUND ? 2 : 1));
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
}

static void in_hooks(void *unused)
{
	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	run(PATCH_TRAP_POLICY_ALLOW, PATCH_EXEC_MODEL_PROBE, 0);
	run(PATCH_TRAP_POLICY_ALLOW, PATCH_EXEC_MODEL_PROBE, PATCH_REGS_GP_ONLY);
	run(PATCH_TRAP_POLICY_ALLOW, PATCH_EXEC_MODEL_PROBE_AROUND, 0);
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	harness_isolated("in hooks", in_hooks, NULL);
	return harness_end();
}
