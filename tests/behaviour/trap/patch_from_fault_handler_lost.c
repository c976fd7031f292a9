/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A program's SIGSEGV handler patches the very instruction that faulted, with a probe that repairs its register, and
 * returns: the instruction is executed again at once, through the probe. On the thread's stack and on an alternate
 * stack of 8 KiB; under each policy; many sites.
 */
#include "targets.h"

#include <sys/ucontext.h>

static uint64_t word = 0x4711;
static unsigned int faults, repairs;
static int policy;
static patch_status handler_status;
static const char *handler_call;
static patch_t patch;
static uintptr_t fault_pc;

static GP_ONLY void repair(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	repairs++;
	context->general_purpose_registers[PATCH_X86_64_RDI] = (uintptr_t)&word;
}

static void on_segv(int signo, siginfo_t *info, void *context)
{
	const greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
	struct patch_location location;
	struct patch_exec_model model;
	patch_attr attr;

	(void)signo;
	(void)info;
	if (++faults > 1) {
		static const char message[] = "the instruction faulted again, the probe was not met\n";

		if (write(STDERR_FILENO, message, sizeof(message) - 1) < 0)
			_exit(2);
		_exit(1);
	}
	fault_pc = (uintptr_t)registers[REG_RIP];
	location = location_at(fault_pc);
	model = model_of(PATCH_EXEC_MODEL_PROBE, repair, NULL);
	model.probe.read_registers = 0;
	model.probe.write_registers = (uint64_t)1 << PATCH_X86_64_RDI;
	model.probe.clobber_registers = PATCH_REGS_GP_ONLY;
	handler_call = "patch_attr";
	handler_status = patch_attr_init(&attr, sizeof(attr));
	if (handler_status == PATCH_OK)
		handler_status = patch_attr_set_trap_policy(&attr, policy);
	if (handler_status == PATCH_OK)
		handler_status = patch_attr_set_initial_state(&attr, PATCH_ENABLED);
	if (handler_status != PATCH_OK)
		_exit(3);
	handler_call = "patch_make";
	handler_status = patch_make(&location, &model, &attr, &patch, NULL);
	patch_attr_fini(&attr);
	if (handler_status != PATCH_OK && policy == PATCH_TRAP_POLICY_FORBID) {
		/* as the memory checker does: again, with a trap */
		patch_attr_init(&attr, sizeof(attr));
		patch_attr_set_trap_policy(&attr, PATCH_TRAP_POLICY_FORCE);
		patch_attr_set_initial_state(&attr, PATCH_ENABLED);
		handler_status = patch_make(&location, &model, &attr, &patch, NULL);
		patch_attr_fini(&attr);
	}
	if (handler_status == PATCH_OK) {
		handler_call = "patch_commit";
		handler_status = patch_commit();
	}
	if (handler_status != PATCH_OK) {
		harness_say("%s: %s: %s\n", handler_call, patch_status_string(handler_status), harness_last_error());
		_exit(1);
	}
}

static void fault_once(void)
{
	struct text_copy before = text_save((uintptr_t)t_load, (size_t)(t_load_end - (const uint8_t *)t_load));

	faults = repairs = 0;
	CHECK_EQ(t_load((const uint64_t *)8), word);
	CHECK_EQ(faults, 1);
	CHECK_EQ(repairs, 1);
	CHECK_EQ(fault_pc, (uintptr_t)t_load_site);
	CHECK_EQ(t_load((const uint64_t *)16), word);
	CHECK_EQ(faults, 1);
	CHECK_EQ(repairs, 2);
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
	CHECK_TEXT_SAME(&before);
	word++;
	CHECK_EQ(t_load(&word), word);
	CHECK_EQ(repairs, 2);
}

struct job {
	bool small_stack;
	bool block_all;
	int policy;
};

static void run(void *argument)
{
	const struct job *job = argument;
	struct sigaction action;

	REQUIRE_OK(patch_init(NULL, 0));
	memset(&action, 0, sizeof(action));
	action.sa_sigaction = on_segv;
	action.sa_flags = SA_SIGINFO | (job->small_stack ? SA_ONSTACK : 0);
	if (job->block_all)
		sigfillset(&action.sa_mask);
	if (job->small_stack) {
		/* guard pages below and above: an overflow is a crash, not a matter of luck */
		uint8_t *area = mmap(NULL, 0x1000 + 0x2000 + 0x1000, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		stack_t stack;

		REQUIRE(area != MAP_FAILED);
		REQUIRE(mprotect(area + 0x1000, 0x2000, PROT_READ | PROT_WRITE) == 0);
		memset(&stack, 0, sizeof(stack));
		stack.ss_sp = area + 0x1000;
		stack.ss_size = 0x2000;
		if (sigaltstack(&stack, NULL))
			SKIP("an alternate stack of 8 KiB is refused here (%s)", strerror(errno));
	}
	REQUIRE(sigaction(SIGSEGV, &action, NULL) == 0);
	policy = job->policy;
	for (int round = 0; round < 20; round++)
		fault_once();
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	for (int small_stack = 0; small_stack < 2; small_stack++)
		for (int block_all = 0; block_all < 2; block_all++)
			for (int p = PATCH_TRAP_POLICY_ALLOW; p <= PATCH_TRAP_POLICY_FORCE; p++) {
				struct job job = { small_stack, block_all, p };
				char what[96];

				snprintf(what, sizeof(what), "%s stack, %s, %s", small_stack ? "8 KiB" : "normal",
					 block_all ? "all signals blocked" : "none blocked", policy_name(p));
				harness_isolated(what, run, &job);
			}
	return harness_end();
}
