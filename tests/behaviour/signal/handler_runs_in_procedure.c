/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Signals that come while a procedure runs: their handlers run when the hook's call has returned, see the program, and
 * may do what handlers do. None is lost, and none comes twice. Enumerated: what is displaced, what is called in which
 * way, where the hook's frame lies, how the call ends, what the procedure does meanwhile.
 */
#include "targets.h"
#include "library.h"

#include <execinfo.h>
#include <pthread.h>
#include <setjmp.h>
#include <spawn.h>
#include <stdatomic.h>
#include <ucontext.h>

static const struct target *target;
static sigjmp_buf out;

/* ---- handlers --------------------------------------------------------------------------------------------------- */

static volatile bool in_procedure, leaves;
static volatile unsigned int handled, seen_in_procedure, seen_ours, wrong_order;
static volatile int next_value;
static int sent;

static void note(uintptr_t pc)
{
	uintptr_t original;

	handled++;
	seen_in_procedure += in_procedure;
	seen_ours += library_has(pc) || patch_olx_original_pc(pc, &original) == PATCH_OK;
}

static void on_signal(int signo, siginfo_t *info, void *data)
{
	(void)signo;
	(void)info;
	note((uintptr_t)((ucontext_t *)data)->uc_mcontext.gregs[REG_RIP]);
	if (leaves)
		siglongjmp(out, 1);
}

static void on_value(int signo, siginfo_t *info, void *data)
{
	wrong_order += info->si_value.sival_int != next_value;
	next_value = info->si_value.sival_int + 1;
	on_signal(signo, info, data);
}

static void set(int signo, void (*handler)(int, siginfo_t *, void *), int flags)
{
	struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags };

	REQUIRE(sigaction(signo, &action, NULL) == 0);
}

static void begin(void)
{
	handled = seen_in_procedure = seen_ours = wrong_order = 0;
	next_value = sent = 0;
	in_procedure = false;
}

static void expect(unsigned int number)
{
	CHECK_EQ(handled, number);
	CHECK_EQ(seen_in_procedure, 0);
	CHECK_EQ(seen_ours, 0);
	CHECK_EQ(wrong_order, 0);
}

static bool is_blocked(int signo)
{
	sigset_t mask;

	sigprocmask(SIG_BLOCK, NULL, &mask);
	return sigismember(&mask, signo);
}

static bool is_pending(int signo)
{
	sigset_t mask;

	sigpending(&mask);
	return sigismember(&mask, signo);
}

static void send_value(void)
{
	REQUIRE(sigqueue(getpid(), SIGRTMIN, (union sigval){ .sival_int = sent++ }) == 0);
}

/* ---- the procedure ---------------------------------------------------------------------------------------------- */

static void (*volatile act)(void);
static unsigned int hits;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	hits++;
	if (act == NULL || post)
		return;
	in_procedure = true;
	act();
	in_procedure = false;
}

static patch_t probe_with(uintptr_t address, int type, int policy, uint64_t clobber)
{
	struct patch_exec_model model = model_of(type, procedure, NULL);
	struct patch_location location = location_at(address);
	patch_attr attr = attr_of(policy, PATCH_ENABLED);
	patch_t patch = 0;

	model.probe.clobber_registers = clobber;
	if (patch_make(&location, &model, &attr, &patch, NULL) != PATCH_OK)
		return 0;
	return patch;
}

/* ---- each hook, each way to be called ---------------------------------------------------------------------------- */

static void raise_some(void)
{
	const unsigned int before = handled;

	raise(SIGUSR1);
	/* The same again, which merges, as it does in a program that blocks it. */
	raise(SIGUSR1);
	for (int i = 0; i < 3; i++)
		send_value();
	CHECK_EQ(handled, before);
	CHECK(!is_blocked(SIGUSR1) && !is_blocked(SIGRTMIN));
	CHECK(is_pending(SIGUSR1) && is_pending(SIGRTMIN));
}

static void with_hooks(int type, int policy, uint64_t clobber, int number)
{
	const struct instructions list = target_decode(target);
	patch_t patches[2];

	for (unsigned int n = 0; n < list.count; n++) {
		int made = 0;

		CONTEXT("%s+%#zx, %s, model %d, clobber %#llx, %d patches", target->name,
			(size_t)(list.address[n] - list.address[0]), policy_name(policy), type,
			(unsigned long long)clobber, number);
		while (made < number &&
		       (patches[made] = probe_with(list.address[n], type, policy, clobber)) != 0)
			made++;
		if (made == number) {
			CHECK_OK(patch_commit());
			begin();
			act = raise_some;
			/* Once, of those that are called more often. */
			for (int i = 0; i < 2; i++) {
				hits = 0;
				CHECK_EQ(target->function(5, 7), target->model(5, 7));
				/* Those of SIGUSR1 merge that procedures of one hook send. */
				if (act != NULL)
					expect((unsigned int)(sent + sent / 3 / number));
				act = NULL;
			}
			CHECK_EQ(seen_in_procedure + seen_ours, 0);
			CHECK(!is_blocked(SIGUSR1) && !is_pending(SIGUSR1));
		}
		while (made > 0)
			CHECK_OK(patch_unmake(patches[--made]));
		CHECK_OK(patch_commit());
	}
}

static void with_target(void *argument)
{
	target = argument;
	REQUIRE_OK(patch_init(NULL, 0));
	library_find();
	set(SIGUSR1, on_signal, 0);
	set(SIGRTMIN, on_value, 0);
	with_hooks(PATCH_EXEC_MODEL_PROBE, PATCH_TRAP_POLICY_ALLOW, PATCH_REGS_GP_ONLY, 1);
	with_hooks(PATCH_EXEC_MODEL_PROBE, PATCH_TRAP_POLICY_FORCE, PATCH_REGS_GP_ONLY, 2);
	with_hooks(PATCH_EXEC_MODEL_PROBE, PATCH_TRAP_POLICY_ALLOW, PATCH_REGS_ALL, 1);
	with_hooks(PATCH_EXEC_MODEL_PROBE, PATCH_TRAP_POLICY_ALLOW, 0, 2);
	with_hooks(PATCH_EXEC_MODEL_PROBE_AROUND, PATCH_TRAP_POLICY_ALLOW, PATCH_REGS_GP_ONLY, 1);
	with_hooks(PATCH_EXEC_MODEL_PROBE_AROUND, PATCH_TRAP_POLICY_ALLOW, PATCH_REGS_ALL, 2);
	CHECK_OK(patch_fini());
}

/* ---- ways out, and what a procedure does meanwhile --------------------------------------------------------------- */

NOINLINE static uint64_t call(void)
{
	return target->function(5, 7);
}

/* One probe, which acts once. */
static void once(void (*what)(void))
{
	begin();
	act = what;
	CHECK_EQ(call(), target->model(5, 7));
	act = NULL;
}

static void raise_one(void)
{
	raise(SIGUSR1);
}

static void handler_jumps(void)
{
	volatile int jumps = 0;

	begin();
	leaves = true;
	act = raise_one;
	if (sigsetjmp(out, 1) == 0)
		call();
	else
		jumps++;
	act = NULL;
	leaves = false;
	CHECK_EQ(jumps, 1);
	expect(1);
	CHECK(!is_blocked(SIGUSR1));
	once(raise_one);
	expect(1);
}

static void raise_and_jump(void)
{
	raise(SIGUSR1);
	in_procedure = false;
	siglongjmp(out, 1);
}

/* At the next hook at the latest. */
static void procedure_jumps_to(int saved)
{
	begin();
	act = raise_and_jump;
	if (sigsetjmp(out, saved) == 0)
		call();
	act = NULL;
	call();
	CHECK(!is_blocked(SIGUSR1));
	CHECK_EQ(handled, 1);
	CHECK_EQ(seen_in_procedure, 0);
	once(raise_one);
	expect(1);
}

static void procedure_jumps(void)
{
	procedure_jumps_to(0);
	procedure_jumps_to(1);
}

static void raise_and_exit(void)
{
	raise(SIGUSR1);
	CHECK_EQ(handled, 0);
	in_procedure = false;
	pthread_exit(NULL);
}

static void check_thread(void *unused)
{
	(void)unused;
	act = NULL;
	CHECK_EQ(handled, 1);
	CHECK(!is_blocked(SIGUSR1));
	once(raise_one);
	CHECK_EQ(handled, 1);
}

static void *run_thread(void *unused)
{
	pthread_cleanup_push(check_thread, unused);
	begin();
	act = raise_and_exit;
	call();
	pthread_cleanup_pop(0);
	FAIL("the thread did not end");
	return unused;
}

static void thread_exits(void)
{
	pthread_t thread;

	REQUIRE(pthread_create(&thread, NULL, run_thread, NULL) == 0);
	pthread_join(thread, NULL);
}

static void raise_and_block(void)
{
	sigset_t set;

	raise(SIGUSR1);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
}

static void procedure_blocks(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	once(raise_and_block);
	expect(0);
	CHECK(is_blocked(SIGUSR1) && is_pending(SIGUSR1));
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	expect(1);
}

static void raise_with_mask(void)
{
	sigset_t all, before;

	raise(SIGUSR1);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	CHECK(!sigismember(&before, SIGUSR1));
	raise(SIGUSR2);
	sigprocmask(SIG_SETMASK, &before, NULL);
	CHECK_EQ(handled, 0);
}

static void procedure_saves_mask(void)
{
	once(raise_with_mask);
	expect(2);
}

extern char **environ;

static void raise_and_spawn(void)
{
	char *const arguments[] = { "sh", "-c", "grep -q '^SigBlk:.*0000000000000000$' /proc/self/status", NULL };
	pid_t pid;
	int status;

	raise(SIGUSR1);
	REQUIRE(posix_spawn(&pid, "/bin/sh", NULL, NULL, arguments, environ) == 0);
	while (waitpid(pid, &status, 0) < 0)
		REQUIRE(errno == EINTR);
	CHECK_EQ(status, 0);
}

static void procedure_spawns(void)
{
	once(raise_and_spawn);
	expect(1);
}

static pid_t child;

static void raise_and_fork(void)
{
	raise(SIGUSR1);
	child = fork();
}

static void procedure_forks(void)
{
	int status;

	begin();
	act = raise_and_fork;
	CHECK_EQ(call(), target->model(5, 7));
	act = NULL;
	if (child == 0) {
		harness_failures = 0;
		CHECK_EQ(handled, 0);
		CHECK(!is_blocked(SIGUSR1));
		once(raise_one);
		expect(1);
		_exit(harness_failures != 0);
	}
	expect(1);
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 0);
}

static void handler_is_reset(void)
{
	struct sigaction action;

	set(SIGUSR1, on_signal, SA_RESETHAND);
	once(raise_one);
	expect(1);
	REQUIRE(sigaction(SIGUSR1, NULL, &action) == 0);
	CHECK(action.sa_handler == SIG_DFL);
	set(SIGUSR1, on_signal, 0);
}

static void raise_and_walk(void)
{
	void *before[32], *after[32];
	int depth = backtrace(before, 32), same = 0;

	raise(SIGUSR1);
	/* One more: where the call returns to meanwhile. */
	CHECK_EQ(backtrace(after, 32), depth + 1);
	while (same < depth - 1 && after[depth - same] == before[depth - 1 - same])
		same++;
	CHECK_MSG(same >= 4, "%d of %d frames are the same", same, depth);
}

static void callers_are_seen(void)
{
	once(raise_and_walk);
	expect(1);
}

/* What cannot wait: a procedure's own fault, and abort(). */
static volatile int faults;

static void on_fault(int signo, siginfo_t *info, void *data)
{
	(void)signo;
	(void)info;
	(void)data;
	faults += in_procedure;
	siglongjmp(out, 1);
}

static void fault(void)
{
	static int *volatile nowhere = (int *)8;

	*nowhere = 0;
}

static void faults_come_at_once(void)
{
	void (*const what[])(void) = { fault, abort };

	set(SIGSEGV, on_fault, 0);
	set(SIGABRT, on_fault, 0);
	for (size_t i = 0; i < sizeof(what) / sizeof(what[0]); i++) {
		faults = 0;
		begin();
		act = what[i];
		if (sigsetjmp(out, 1) == 0)
			call();
		act = NULL;
		CHECK_EQ(faults, 1);
		once(raise_one);
		expect(1);
	}
}

static void with_ways(void *clobber)
{
	static void (*const ways[])(void) = {
		handler_jumps, procedure_jumps, thread_exits, procedure_blocks, procedure_saves_mask, procedure_spawns,
		procedure_forks, handler_is_reset, callers_are_seen, faults_come_at_once,
	};

	target = target_named("t_push_push");
	REQUIRE_OK(patch_init(NULL, 0));
	library_find();
	set(SIGUSR1, on_signal, 0);
	set(SIGUSR2, on_signal, 0);
	REQUIRE(probe_with(target_start(target), PATCH_EXEC_MODEL_PROBE, PATCH_TRAP_POLICY_ALLOW,
			   (uint64_t)(uintptr_t)clobber) != 0);
	REQUIRE_OK(patch_commit());
	for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		CONTEXT("way %zu", i);
		ways[i]();
	}
	CHECK_OK(patch_fini());
}

/* ---- from another thread ---------------------------------------------------------------------------------------- */

#define VALUES 20000
#define PER_CALL 50

static pthread_t victim;
static _Atomic int calls_made;

/* Not all before the next call: with more of them there would be no end of the first one before they have all come. */
static void *send_all(void *unused)
{
	for (int i = 0; i < VALUES;) {
		if (i / PER_CALL <= calls_made &&
		    pthread_sigqueue(victim, SIGRTMIN, (union sigval){ .sival_int = i }) == 0)
			i++;
		else
			sched_yield();
	}
	return unused;
}

static void spin(void)
{
	for (volatile int i = 0; i < 50; i++)
		;
}

static uint8_t got[VALUES];

/* Their order may change by what was put off (limits.md). */
static void on_value_once(int signo, siginfo_t *info, void *data)
{
	wrong_order += got[info->si_value.sival_int]++ != 0;
	next_value++;
	on_signal(signo, info, data);
}

static void with_storm(void *clobber)
{
	pthread_t sender;

	target = target_named("t_call_twice");
	REQUIRE_OK(patch_init(NULL, 0));
	library_find();
	set(SIGRTMIN, on_value_once, 0);
	for (unsigned int n = 0; n < target_decode(target).count; n++)
		probe_with(target_decode(target).address[n],
			   n % 2 ? PATCH_EXEC_MODEL_PROBE_AROUND : PATCH_EXEC_MODEL_PROBE, PATCH_TRAP_POLICY_ALLOW,
			   (uint64_t)(uintptr_t)clobber);
	REQUIRE_OK(patch_commit());
	begin();
	act = spin;
	victim = pthread_self();
	call(); /* the thread's first hook */
	REQUIRE(pthread_create(&sender, NULL, send_all, NULL) == 0);
	while (next_value < VALUES) {
		CHECK_EQ(call(), target->model(5, 7));
		calls_made++;
	}
	act = NULL;
	pthread_join(sender, NULL);
	expect(VALUES);
	CHECK_OK(patch_fini());
}

int main(void)
{
	static const char *const names[] = { "t_push_push", "t_2_2_1", "t_loop_to_second", "t_call_last",
					     "t_call_twice", "t_call_indirect", "t_call_memory", "t_call_stack_operand",
					     "t_redzone", "t_misaligned", "t_endbr_push", "t_ret_after_one" };

	harness_start();
	for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++)
		harness_isolated(names[n], with_target, (void *)target_named(names[n]));
	harness_isolated("ways, general registers", with_ways, (void *)(uintptr_t)PATCH_REGS_GP_ONLY);
	harness_isolated("ways, all registers", with_ways, (void *)(uintptr_t)PATCH_REGS_ALL);
	harness_isolated("storm, general registers", with_storm, (void *)(uintptr_t)PATCH_REGS_GP_ONLY);
	harness_isolated("storm, all registers", with_storm, (void *)(uintptr_t)PATCH_REGS_ALL);
	return harness_end();
}
