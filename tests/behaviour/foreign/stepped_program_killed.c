/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A debugger steps through generated code, instruction by instruction, and lets go, or goes on: TF, by which the
 * processor steps, must not be left set, or the program dies of SIGTRAP. Enumerated: each kind of code that keeps the
 * flags, in each way out of it; a handler that comes at each instruction; a debugger that lets go there, or that goes
 * on to the end. Not with DF or AC set (arch/x86_64/flags.h).
 */
#include "targets.h"

#include <stddef.h>
#include <sys/ptrace.h>
#include <ucontext.h>

/* The kernel's, at `stepped_call`, and a function that begins at `stepped_entry`. */
long stepped_run(long number, long a, long b, long c, long d);
extern const uint8_t stepped_begin[], stepped_call[], stepped_entry[], stepped_end[];
__asm__(".text\n.p2align 4\n.globl stepped_run\n.type stepped_run, @function\nstepped_run:\n.cfi_startproc\n"
	"	mov %r8, %r10\n	mov %rdi, %rax\n	mov %rsi, %rdi\n"
	"	mov %rdx, %rsi\n	mov %rcx, %rdx\n"
	"stepped_begin: nopl 0(%rax)\n	nopl 0x12345678(%rax,%rax)\n"
	"stepped_call: syscall\n"
	"	push %rax\n	.cfi_adjust_cfa_offset 8\n	call stepped_function\n"
	"	pop %rax\n	.cfi_adjust_cfa_offset -8\n"
	"stepped_end: cld\n	ret\n.cfi_endproc\n.size stepped_run, . - stepped_run\n"
	".p2align 4\n.type stepped_function, @function\nstepped_function:\n.cfi_startproc\n"
	"stepped_entry: nopl 0x12345678(%rax,%rax)\n	lea 1(%rdi), %rdx\n	ret\n.cfi_endproc\n"
	".size stepped_function, . - stepped_function\n");

static volatile unsigned int hits;

GP_ONLY static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

static const struct kind {
	const char *name;
	long number, a, b, c, d; /* a mediated call that is made, or is not */
	bool patched;            /* the function, by a patch of this type */
	int type;
	int stack;
} kinds[] = {
	{ .name = "mask read", .number = SYS_rt_sigprocmask, .a = SIG_BLOCK, .d = 8 },
	{ .name = "action read", .number = SYS_rt_sigaction, .a = SIGUSR2, .d = 8 },
	{ .name = "call not made", .number = SYS_rt_sigprocmask, .a = SIG_BLOCK, .d = 4 },
	{ .name = "call of another number", .number = SYS_getppid },
	{ .name = "probe", .number = SYS_getppid, .patched = true, .type = PATCH_EXEC_MODEL_PROBE },
	{ .name = "around", .number = SYS_getppid, .patched = true, .type = PATCH_EXEC_MODEL_PROBE_AROUND },
	{ .name = "own stack", .number = SYS_getppid, .patched = true, .type = PATCH_EXEC_MODEL_PROBE,
	  .stack = PATCH_STACK_OWN },
	{ .name = "counter", .number = SYS_getppid, .patched = true, .type = PATCH_EXEC_MODEL_COUNT },
};

#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static const struct kind *kind;
static volatile sig_atomic_t handled;
static uint64_t counter;

static void on_signal(int signo)
{
	(void)signo;
	handled++;
}

static long run(void)
{
	return stepped_run(kind->number, kind->a, kind->b, kind->c, kind->d);
}

static void child(bool with_signal)
{
	const sig_atomic_t wanted = with_signal ? 1 : 0;
	const unsigned int before = hits;
	long result;

	run();
	REQUIRE(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
	syscall(SYS_kill, getpid(), SIGSTOP);
	result = run();
	/* As far as that, TF would have killed. */
	if (handled != wanted || (result >= 0) != (kind->d != 4) ||
	    (hits != before) != (kind->patched && kind->type != PATCH_EXEC_MODEL_COUNT))
		_exit(1);
	_exit(0);
}

/*
 * Step from the beginning so many instructions, or to the end; then let go, with a signal or without, there or behind
 * all of the code. Returns the steps.
 */
static unsigned int step(unsigned int steps, int signo, bool goes_on)
{
	unsigned int i = 0;
	pid_t pid = fork();
	int stopped;

	REQUIRE(pid >= 0);
	if (pid == 0)
		child(signo != 0);
	REQUIRE(harness_stop_of(pid) == SIGSTOP);
	do {
		REQUIRE(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0);
		REQUIRE(harness_stop_of(pid) == SIGTRAP);
	} while (harness_pc_of(pid) != (uintptr_t)stepped_begin);
	for (; (i < steps || goes_on) && harness_pc_of(pid) != (uintptr_t)stepped_end; i++) {
		REQUIRE(ptrace(PTRACE_SINGLESTEP, pid, NULL, (void *)(intptr_t)(i == steps ? signo : 0)) == 0);
		stopped = harness_stop_of(pid);
		/* A signal that is put off is sent again. */
		if (stopped == signo)
			REQUIRE(ptrace(PTRACE_SINGLESTEP, pid, NULL, (void *)(intptr_t)signo) == 0 &&
				harness_stop_of(pid) == SIGTRAP);
		else if (stopped != SIGTRAP)
			FAIL("%s: step %u: stops with %d", kind->name, i, stopped);
	}
	REQUIRE(ptrace(PTRACE_DETACH, pid, NULL, (void *)(intptr_t)(goes_on ? 0 : signo)) == 0);
	stopped = harness_stop_of(pid);
	if (stopped != 0)
		FAIL("%s, signal %d behind %u steps, let go %s: ends with status %#x", kind->name, signo, steps,
		     goes_on ? "at the end" : "there", -stopped);
	return i;
}

static patch_t patched(void)
{
	struct patch_location location = location_at((uintptr_t)stepped_entry);
	struct patch_exec_model model = model_of(kind->type, procedure, NULL);
	patch_attr attr = attr_of(PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED);
	patch_t patch;

	if (kind->type == PATCH_EXEC_MODEL_COUNT) {
		memset(&model, 0, sizeof(model));
		model.type = kind->type;
		model.count.counter = &counter;
	}
	CHECK_OK(patch_attr_set_stack(&attr, kind->stack == PATCH_STACK_OWN ? PATCH_STACK_OWN : PATCH_STACK_PROGRAM));
	REQUIRE_OK(patch_make(&location, &model, &attr, &patch, NULL));
	REQUIRE_OK(patch_commit());
	return patch;
}

int main(void)
{
	const struct sigaction action = { .sa_handler = on_signal };

	harness_start();
	REQUIRE(sigaction(SIGUSR1, &action, NULL) == 0);
	REQUIRE_OK(patch_init(NULL, 0));
	for (kind = kinds; kind < kinds + KINDS && harness_failures == 0; kind++) {
		patch_t patch = 0;
		unsigned int all;

		if (kind->patched)
			patch = patched();
		all = step(UINT32_MAX, 0, true);
		CHECK(all > 8);
		/* In the library's own code, whatever place will do. */
		for (unsigned int steps = 0; steps < all && harness_failures == 0;
		     steps += steps > 40 && steps + 40 < all ? 29 : 1) {
			step(steps, SIGUSR1, false);
			if (steps % 3 == 0)
				step(steps, SIGUSR1, true);
		}
		if (kind->patched) {
			CHECK_OK(patch_unmake(patch));
			CHECK_OK(patch_commit());
		}
	}
	CHECK_OK(patch_fini());
	return harness_end();
}
