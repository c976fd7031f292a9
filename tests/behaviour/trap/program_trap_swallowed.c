/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Traps that belong to the program: its own int3, `int $3`, ud2, raise() and kill() reach its own handler with the
 * right address and information, whether the handler was installed before or after patch_init(), with patches made
 * and toggled meanwhile. Without a handler the process dies as it would have. A handler that replaces ours and
 * forwards to libpatch_on_trap() keeps probes working, and forwarding in a circle ends. A handler that leaves by
 * siglongjmp() is called the next time, too.
 */
#include "targets.h"

#include <libpatch/tools.h>
#include <pthread.h>
#include <setjmp.h>

extern const uint8_t own_int3[], own_int3_end[], own_cd03[], own_cd03_end[], own_ud2[], own_ud2_end[];
void run_own_int3(void);
void run_own_cd03(void);
void run_own_ud2(void);

__asm__(".text\n"
	".globl run_own_int3\n.type run_own_int3, @function\nrun_own_int3:\n.cfi_startproc\n nop\n"
	".globl own_int3\nown_int3: int3\n.globl own_int3_end\nown_int3_end: nop\n ret\n.cfi_endproc\n"
	".globl run_own_cd03\n.type run_own_cd03, @function\nrun_own_cd03:\n.cfi_startproc\n nop\n"
	".globl own_cd03\nown_cd03: .byte 0xcd, 3\n.globl own_cd03_end\nown_cd03_end: nop\n ret\n.cfi_endproc\n"
	".globl run_own_ud2\n.type run_own_ud2, @function\nrun_own_ud2:\n.cfi_startproc\n nop\n"
	".globl own_ud2\nown_ud2: ud2\n.globl own_ud2_end\nown_ud2_end: nop\n ret\n.cfi_endproc\n");

/* Displaced with the instruction in front of it. */
extern const uint8_t moved_ud2[], moved_int3[];
void run_moved_ud2(void);
void run_moved_int3(void);
__asm__(".text\n.globl run_moved_ud2\n.type run_moved_ud2, @function\nrun_moved_ud2:\n.cfi_startproc\n xor %eax, %eax\n"
	".globl moved_ud2\nmoved_ud2: ud2\n lea 1(%rax), %rax\n ret\n.cfi_endproc\n"
	".globl run_moved_int3\n.type run_moved_int3, @function\nrun_moved_int3:\n.cfi_startproc\n lea 1(%rdi), %rax\n"
	".globl moved_int3\nmoved_int3: int3\n lea 1(%rax), %rax\n ret\n.cfi_endproc\n");

static struct {
	unsigned int calls;
	int signo, code;
	uintptr_t address, rip;
} got;

static unsigned int hits, forwarded;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

static void on_own(int signo, siginfo_t *info, void *context)
{
	greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;

	got.calls++;
	got.signo = signo;
	got.code = info->si_code;
	got.address = (uintptr_t)info->si_addr;
	got.rip = (uintptr_t)registers[REG_RIP];
	if (got.calls > 100) {
		harness_say("the same trap comes again and again\n");
		_exit(1);
	}
	if (signo == SIGILL && (got.rip == (uintptr_t)own_ud2 || got.rip == (uintptr_t)moved_ud2))
		registers[REG_RIP] += 2;
}

static void install(int signo, void (*handler)(int, siginfo_t *, void *))
{
	struct sigaction action;

	memset(&action, 0, sizeof(action));
	action.sa_sigaction = handler;
	action.sa_flags = SA_SIGINFO;
	REQUIRE(sigaction(signo, &action, NULL) == 0);
}

/* Probes of each kind, so that libpatch owns what it needs to own. */
static patch_t patches[3];

static void make_patches(void)
{
	static const char *const names[] = { "t_push_push", "t_five_singles", "t_end1_direct" };

	for (int p = 0; p < 3; p++)
		REQUIRE_OK(make_probe(target_start(target_named(names[p])), procedure, NULL,
				      p == 1 ? PATCH_TRAP_POLICY_FORCE : PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED,
				      &patches[p]));
	CHECK_OK(patch_commit());
}

static void check_probes(void)
{
	const struct target *target = target_named("t_five_singles");

	hits = 0;
	CHECK_EQ(target->function(5, 7), target->model(5, 7));
	CHECK_EQ(target_named("t_push_push")->function(5, 7), 19);
	t_end1_direct(0, 0);
	CHECK_EQ(hits, 3);
}

static void check_own_traps(void)
{
	memset(&got, 0, sizeof(got));
	run_own_int3();
	CHECK_EQ(got.calls, 1);
	CHECK_EQ(got.signo, SIGTRAP);
	CHECK_EQ(got.code, SI_KERNEL);
	CHECK_EQ(got.rip, (uintptr_t)own_int3_end);

	memset(&got, 0, sizeof(got));
	run_own_cd03();
	CHECK_EQ(got.calls, 1);
	CHECK_EQ(got.signo, SIGTRAP);
	CHECK_EQ(got.rip, (uintptr_t)own_cd03_end);

	memset(&got, 0, sizeof(got));
	run_own_ud2();
	CHECK_EQ(got.calls, 1);
	CHECK_EQ(got.signo, SIGILL);
	CHECK_EQ(got.code, ILL_ILLOPN);
	CHECK_EQ(got.rip, (uintptr_t)own_ud2);
	CHECK_EQ(got.address, (uintptr_t)own_ud2);

	memset(&got, 0, sizeof(got));
	CHECK_EQ(raise(SIGTRAP), 0);
	CHECK_EQ(got.calls, 1);
	CHECK_EQ(got.signo, SIGTRAP);
	CHECK_EQ(got.code, SI_TKILL);

	memset(&got, 0, sizeof(got));
	CHECK_EQ(kill(getpid(), SIGILL), 0);
	CHECK_EQ(got.calls, 1);
	CHECK_EQ(got.signo, SIGILL);
	CHECK_EQ(got.code, SI_USER);
}

static void handlers_before(void *argument)
{
	(void)argument;
	install(SIGTRAP, on_own);
	install(SIGILL, on_own);
	REQUIRE_OK(patch_init(NULL, 0));
	check_own_traps();
	make_patches();
	check_own_traps();
	check_probes();
	for (int round = 0; round < 50; round++) {
		CHECK_OK(round % 2 ? patch_enable(patches[1]) : patch_disable(patches[1]));
		CHECK_OK(patch_commit());
		check_own_traps();
	}
	check_probes();
	CHECK_OK(patch_fini());
	check_own_traps();
}

static void on_own_forwarding(int signo, siginfo_t *info, void *context)
{
	uintptr_t rip = (uintptr_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];

	forwarded++;
	if (rip == (uintptr_t)own_int3_end || rip == (uintptr_t)own_cd03_end || rip == (uintptr_t)own_ud2 ||
	    info->si_code <= 0)
		on_own(signo, info, context);
	else
		libpatch_on_trap(signo, info, context);
}

static void handler_after_forwards(void *argument)
{
	struct sigaction action;

	(void)argument;
	REQUIRE_OK(patch_init(NULL, 0));
	install(SIGTRAP, on_own_forwarding);
	install(SIGILL, on_own_forwarding);
	make_patches();
	check_own_traps();
	forwarded = 0;
	check_probes();
	check_own_traps();
	/* what the program installed is what it reads back */
	REQUIRE(sigaction(SIGTRAP, NULL, &action) == 0);
	CHECK(action.sa_sigaction == on_own_forwarding);
	CHECK_OK(patch_fini());
	check_own_traps();
}

/* A handler for foreign traps only: it forwards everything else from an alternate stack with all signals blocked. */
static void handler_after_on_alternate_stack(void *argument)
{
	static uint8_t memory[64 * 1024];
	struct sigaction action;
	stack_t stack;

	(void)argument;
	REQUIRE_OK(patch_init(NULL, 0));
	memset(&stack, 0, sizeof(stack));
	stack.ss_sp = memory;
	stack.ss_size = sizeof(memory);
	REQUIRE(sigaltstack(&stack, NULL) == 0);
	memset(&action, 0, sizeof(action));
	action.sa_sigaction = on_own_forwarding;
	action.sa_flags = SA_SIGINFO | SA_ONSTACK;
	sigfillset(&action.sa_mask);
	REQUIRE(sigaction(SIGTRAP, &action, NULL) == 0);
	REQUIRE(sigaction(SIGILL, &action, NULL) == 0);
	make_patches();
	check_probes();
	check_own_traps();
	CHECK_OK(patch_fini());
}

/* A handler that was there before, and forwards what it does not know: a circle with our hand-on. */
static void on_circle(int signo, siginfo_t *info, void *context)
{
	greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;

	if (++got.calls > 100) {
		harness_say("forwarding goes round in circles\n");
		_exit(1);
	}
	got.rip = (uintptr_t)registers[REG_RIP];
	libpatch_on_trap(signo, info, context);
}

static void forwarding_in_a_circle(void *argument)
{
	(void)argument;
	install(SIGTRAP, on_circle);
	REQUIRE_OK(patch_init(NULL, 0));
	make_patches();
	memset(&got, 0, sizeof(got));
	run_own_int3(); /* either ends: passed over, or with the default action, in this child */
	harness_say("circle: survived\n");
	CHECK(got.calls >= 1);
	CHECK_EQ(got.rip, (uintptr_t)own_int3_end);
}

static sigjmp_buf out_of_handler;

static void on_own_leaving(int signo, siginfo_t *info, void *context)
{
	(void)info;
	(void)context;
	got.calls++;
	siglongjmp(out_of_handler, signo);
}

/* Run it; the signal whose handler left it, or 0. */
static NOINLINE int left_by(void (*run)(void))
{
	int signo = sigsetjmp(out_of_handler, 1);

	if (signo == 0)
		run();
	return signo;
}

static void raise_trap(void)
{
	raise(SIGTRAP);
}

static void app_handlers_leave(void *argument)
{
	(void)argument;
	install(SIGTRAP, on_own_leaving);
	install(SIGILL, on_own_leaving);
	REQUIRE_OK(patch_init(NULL, 0));
	make_patches();
	memset(&got, 0, sizeof(got));
	for (unsigned int round = 0; round < 20; round++) {
		CHECK_EQ(left_by(run_own_int3), SIGTRAP);
		CHECK_EQ(left_by(run_own_ud2), SIGILL);
		CHECK_EQ(left_by(run_own_cd03), SIGTRAP);
		CHECK_EQ(left_by(raise_trap), SIGTRAP);
		CHECK_EQ(got.calls, 4 * (round + 1));
		check_probes();
	}
	CHECK_OK(patch_fini());
	CHECK_EQ(left_by(run_own_int3), SIGTRAP);
	CHECK_EQ(left_by(run_own_int3), SIGTRAP);
}

static void die(void *argument)
{
	int what = *(const int *)argument;

	if (what & 1)
		REQUIRE_OK(patch_init(NULL, 0));
	if (what & 1) {
		make_patches();
		check_probes();
	}
	if (harness_failures)
		_exit(1);
	switch (what >> 1) {
	case 0:
		run_own_int3();
		break;
	case 1:
		run_own_ud2();
		break;
	case 2:
		raise(SIGTRAP);
		break;
	case 3:
		run_own_cd03();
		break;
	case 4:
		raise(SIGILL);
		break;
	case 5:
		__asm__ volatile("movl $1, 16" : : : "memory");
		break;
	}
	_exit(42);
}

static void ignored_raise(void *argument)
{
	(void)argument;
	/* a program that ignores SIGTRAP survives raise(), and its probes work all the same */
	signal(SIGTRAP, SIG_IGN);
	REQUIRE_OK(patch_init(NULL, 0));
	make_patches();
	check_probes();
	raise(SIGTRAP);
	check_probes();
}

static void *wait_then_own(void *argument)
{
	unsigned int *stop = argument;
	unsigned int wrong = 0;

	while (!__atomic_load_n(stop, __ATOMIC_RELAXED))
		if (target_named("t_five_singles")->function(5, 7) != 12)
			wrong++;
	return (void *)(uintptr_t)wrong;
}

/* Own int3 and raise() while other threads toggle and trap on the same signal. */
static void own_traps_in_a_storm(void *argument)
{
	unsigned int stop = 0;
	pthread_t thread;
	void *wrong;

	(void)argument;
	install(SIGTRAP, on_own);
	install(SIGILL, on_own);
	REQUIRE_OK(patch_init(NULL, 0));
	make_patches();
	REQUIRE(pthread_create(&thread, NULL, wait_then_own, &stop) == 0);
	for (int round = 0; round < 500; round++) {
		CHECK_OK(round % 2 ? patch_enable(patches[1]) : patch_disable(patches[1]));
		CHECK_OK(patch_commit());
		memset(&got, 0, sizeof(got));
		run_own_int3();
		CHECK_EQ(got.calls, 1);
		CHECK_EQ(got.rip, (uintptr_t)own_int3_end);
		run_own_ud2();
		CHECK_EQ(got.calls, 2);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread, &wrong);
	CHECK_EQ((uintptr_t)wrong, 0);
}

static void own_traps_displaced(void *unused)
{
	void (*const run[])(void) = { run_moved_ud2, run_moved_int3 };

	(void)unused;
	install(SIGTRAP, on_own);
	install(SIGILL, on_own);
	REQUIRE_OK(patch_init(NULL, 0));
	for (int patched = 0; patched < 2; patched++) {
		patch_t patch;

		for (int i = 0; patched && i < 2; i++)
			REQUIRE_OK(make_probe((uintptr_t)run[i], procedure, NULL, PATCH_TRAP_POLICY_ALLOW,
					      PATCH_ENABLED, &patch));
		CHECK_OK(patch_commit());
		CONTEXT("displaced: %d", patched);
		hits = 0;
		memset(&got, 0, sizeof(got));
		run_moved_ud2();
		CHECK_EQ(got.calls, 1);
		CHECK_EQ(got.rip, (uintptr_t)moved_ud2);
		CHECK_EQ(got.address, (uintptr_t)moved_ud2);
		run_moved_int3();
		CHECK_EQ(got.calls, 2);
		CHECK_EQ(got.rip, (uintptr_t)moved_int3 + 1);
		CHECK_EQ(hits, patched ? 2 : 0);
	}
	CHECK_OK(patch_fini());
}

int main(void)
{
	static const int wanted[] = { SIGTRAP, SIGILL, SIGTRAP, SIGTRAP, SIGILL, SIGSEGV };
	static const char *const name[] = { "int3", "ud2", "raise(SIGTRAP)", "int $3", "raise(SIGILL)", "null store" };
	int status;

	harness_start();
	for (int what = 0; what < 12; what++) {
		CONTEXT("%s, no handler, %s", name[what >> 1], what & 1 ? "patched" : "not patched");
		status = harness_child(die, &what);
		if (!WIFSIGNALED(status) || WTERMSIG(status) != wanted[what >> 1]) {
			if (what >> 1 == 3 && !(what & 1))
				SKIP("int $3 is not a trap here");
			FAIL("wait status %#x, wanted death by %s", (unsigned int)status,
			     strsignal(wanted[what >> 1]));
		}
	}
	harness_isolated("handlers installed before patch_init()", handlers_before, NULL);
	harness_isolated("handlers installed afterwards, forwarding", handler_after_forwards, NULL);
	harness_isolated("forwarding from an alternate stack", handler_after_on_alternate_stack, NULL);
	harness_isolated("handlers that leave by siglongjmp()", app_handlers_leave, NULL);
	CONTEXT("forwarding in a circle");
	status = harness_child(forwarding_in_a_circle, NULL);
	if (!(WIFEXITED(status) && WEXITSTATUS(status) == 0) && !(WIFSIGNALED(status) && WTERMSIG(status) == SIGTRAP))
		FAIL("wait status %#x", (unsigned int)status);
	harness_isolated("own traps, displaced", own_traps_displaced, NULL);
	harness_isolated("SIGTRAP ignored", ignored_raise, NULL);
	harness_isolated("own traps while others toggle", own_traps_in_a_storm, NULL);
	return harness_end();
}
