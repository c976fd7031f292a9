/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * PATCH_STACK_OWN: nothing below the program's stack pointer is touched. Directly under it is a page that cannot be:
 * every model, masks of each kind, a thread's first hits and later ones. Then a signal comes at each instruction from
 * the site to the one behind it, in a thread with a stack of its own and in one without: its handler sees the program,
 * and runs into the same site itself. And whatever has left the stack without giving it back, the next hit is served.
 */
#include "harness.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <spawn.h>
#include <sys/ptrace.h>
#include <ucontext.h>

extern const uint8_t touched_entry[], touched_call[], touched_behind[];

/* With this stack pointer at the site. Flags and registers are to be the same behind it, or 1000 is added. */
long touched_run(uintptr_t stack_pointer, long argument);
long touched_function(long argument);
__asm__(".text\n.p2align 6\n.type touched_run, @function\ntouched_run:\n.cfi_startproc\n"
	"	push %rbp\n.cfi_adjust_cfa_offset 8\n.cfi_offset %rbp, -16\n	mov %rsp, %rbp\n"
	".cfi_def_cfa_register %rbp\n"
	"	lea 8(%rdi), %rsp\n	mov %rsi, %rdi\n	mov $0x11, %esi\n	mov $0x22, %edx\n"
	"	mov $0x33, %r11d\n	mov $0x7fffffff, %ecx\n	add $1, %ecx\n"
	"touched_call: call touched_function\n"
	"touched_behind: lea 0(%rax), %rax\n	nopl 0(%rax)\n"
	"	jno 1f\n	jns 1f\n	cmp $0x11, %esi\n	jne 1f\n	cmp $0x22, %edx\n"
	"	jne 1f\n	cmp $0x33, %r11d\n	jne 1f\n	cmp $0x80000000, %ecx\n	je 2f\n"
	"1:	add $1000, %rax\n"
	"2:	mov %rbp, %rsp\n	pop %rbp\n.cfi_def_cfa %rsp, 8\n	ret\n.cfi_endproc\n"
	".size touched_run, . - touched_run\n"
	".p2align 6\n.type touched_function, @function\ntouched_function:\n.cfi_startproc\n"
	"touched_entry: lea 1(%rdi), %rax\n	nopl 0x12345678(%rax,%rax)\n	ret\n.cfi_endproc\n"
	".size touched_function, . - touched_function\n");

/* What copies of calls, and of returns with something behind them, need by themselves: as a counter. */
#define ALLOWED 144

static uintptr_t edge; /* below it nothing can be touched */
static volatile unsigned int calls, posts;
static volatile uintptr_t seen_stack_pointer;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	volatile char much[8192];

	much[0] = much[sizeof(much) - 1] = 1;
	calls++;
	posts += post;
	seen_stack_pointer = (uintptr_t)context->stack_pointer;
}

GP_ONLY static void small_procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	calls++;
	posts += post;
}

static void make_edge(void)
{
	char *pages = mmap(NULL, 64 << 10, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	REQUIRE(pages != MAP_FAILED && mprotect(pages, 32 << 10, PROT_NONE) == 0);
	edge = (uintptr_t)pages + (32 << 10);
}

static patch_t make(uintptr_t address, int type, uint64_t read, uint64_t clobber, int policy, int stack)
{
	struct patch_location location = location_at(address);
	struct patch_exec_model model =
		model_of(type, clobber == PATCH_REGS_GP_ONLY ? small_procedure : procedure, NULL);
	patch_attr attr = attr_of(policy, PATCH_ENABLED);
	patch_t patch;

	model.probe.read_registers = read;
	model.probe.write_registers = read;
	model.probe.clobber_registers = clobber;
	CHECK_OK(patch_attr_set_stack(&attr, stack));
	REQUIRE_OK(patch_make(&location, &model, &attr, &patch, NULL));
	REQUIRE_OK(patch_commit());
	return patch;
}

static void unmake(patch_t patch)
{
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
}

static unsigned int each_hit, room;

/* A call pushes the address right at the edge; more is allowed of models that hook a call. */
static void *hit(void *data)
{
	for (unsigned int i = 0; i < 3; i++) {
		calls = posts = 0;
		CHECK_EQ(touched_run(edge + room, 41), 42);
		CHECK_EQ(calls, each_hit);
		CHECK_EQ(posts, each_hit / 2);
	}
	return data;
}

static void *hit_by_traps(void *data)
{
	static char signals[65536];
	const stack_t stack = { .ss_sp = signals, .ss_size = sizeof(signals) };

	REQUIRE(sigaltstack(&stack, NULL) == 0);
	return hit(data);
}

static void in_thread(void *(*run)(void *))
{
	pthread_t thread;

	REQUIRE(pthread_create(&thread, NULL, run, NULL) == 0);
	pthread_join(thread, NULL);
}

static void below(void *unused)
{
	static const struct {
		int type;
		const uint8_t *at;
		unsigned int calls, room;
	} models[] = {
		{ PATCH_EXEC_MODEL_PROBE, touched_entry, 1, 0 },
		{ PATCH_EXEC_MODEL_PROBE_AROUND, touched_entry, 2, 0 },
		{ PATCH_EXEC_MODEL_PROBE_RETURN, touched_entry, 2, 0 },
		{ PATCH_EXEC_MODEL_PROBE_CALL, touched_call, 2, ALLOWED },
		{ PATCH_EXEC_MODEL_PROBE_AROUND, touched_call, 2, ALLOWED },
	};
	static const struct {
		uint64_t read, clobber;
	} masks[] = {
		{ 0, 0 },
		{ 0, PATCH_REGS_GP_ONLY },
		{ PATCH_REGS_ALL, 0 },
		{ PATCH_REGS_ALL, PATCH_REGS_ALL },
		{ 0, PATCH_REGS_NO_STATE },
	};
	static const int policies[] = { PATCH_TRAP_POLICY_ALLOW, PATCH_TRAP_POLICY_FORCE };

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	make_edge();
	for (size_t m = 0; m < sizeof(models) / sizeof(models[0]); m++)
		for (size_t k = 0; k < sizeof(masks) / sizeof(masks[0]); k++)
			for (size_t p = 0; p < 2; p++) {
				patch_t patch = make((uintptr_t)models[m].at, models[m].type, masks[k].read,
						     masks[k].clobber, policies[p], PATCH_STACK_OWN);

				CONTEXT("model %zu, mask %zu, policy %zu", m, k, p);
				each_hit = models[m].calls;
				room = models[m].room;
				if (policies[p] == PATCH_TRAP_POLICY_ALLOW)
					hit(NULL);
				in_thread(policies[p] == PATCH_TRAP_POLICY_ALLOW ? hit : hit_by_traps);
				unmake(patch);
			}
	CHECK_OK(patch_fini());
}

/* Two patches at a place: both are called on the thread's own stack if one of them is to be. */
static void together(void *unused)
{
	patch_t first, second;

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	make_edge();
	room = 0;
	first = make((uintptr_t)touched_entry, PATCH_EXEC_MODEL_PROBE, 0, 0, PATCH_TRAP_POLICY_ALLOW,
		     PATCH_STACK_PROGRAM);
	second = make((uintptr_t)touched_entry, PATCH_EXEC_MODEL_PROBE_RETURN, 0, 0, PATCH_TRAP_POLICY_ALLOW,
		      PATCH_STACK_OWN);
	calls = posts = 0;
	CHECK_EQ(touched_run(edge, 41), 42);
	CHECK_EQ(calls, 3);
	CHECK_EQ(posts, 1);
	unmake(second);
	calls = posts = 0;
	CHECK_EQ(touched_run(edge + 16384, 41), 42);
	CHECK_EQ(calls, 1);
	unmake(first);
	CHECK_OK(patch_fini());
}

/* ---- signals ---------------------------------------------------------------------------------------------------- */

/* Shared with the tracer. */
static struct round {
	unsigned int handled, wrong, calls, made;
	long result;
	uintptr_t seen_pc, seen_rsp;
} *round_;

static bool on_signals_stack, is_warm;
static uintptr_t site_stack_pointer;

/* Few instructions, as it is stepped through. */
GP_ONLY static void counting_procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	round_->calls++;
}

static bool is_in_library(uintptr_t pc)
{
	Dl_info own, other;

	return dladdr((void *)(uintptr_t)patch_init, &own) && dladdr((void *)pc, &other) &&
	       own.dli_fbase == other.dli_fbase;
}

static void on_signal(int signo, siginfo_t *info, void *data)
{
	const greg_t *registers = ((ucontext_t *)data)->uc_mcontext.gregs;
	const uintptr_t pc = (uintptr_t)registers[REG_RIP], rsp = (uintptr_t)registers[REG_RSP];

	(void)signo;
	(void)info;
	round_->handled++;
	round_->seen_pc = pc;
	round_->seen_rsp = rsp;
	/*
	 * The patched instruction, or one of the window behind it. Before a thread is known it is not known either that
	 * the library is called by a hook, whatever stack that is on.
	 */
	if ((rsp != site_stack_pointer || pc - (uintptr_t)touched_entry > 12) && (is_warm || !is_in_library(pc)))
		round_->wrong++;
	round_->wrong += touched_function(7) != 8;
}

/* All up to the site is stepped through each time: raise() of glibc 2.31 makes calls that are mediated. */
static void stop(void)
{
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"((long)SYS_kill), "D"((long)getpid()), "S"((long)SIGSTOP)
			 : "rcx", "r11", "memory");
	REQUIRE(result == 0);
}

static void start_child(bool warm)
{
	static char signals[128 << 10];
	const stack_t stack = { .ss_sp = signals, .ss_size = sizeof(signals) };
	const struct sigaction action = { .sa_sigaction = on_signal,
					  .sa_flags = SA_SIGINFO | (on_signals_stack ? SA_ONSTACK : 0) };

	REQUIRE(sigaltstack(&stack, NULL) == 0);
	REQUIRE(sigaction(SIGUSR1, &action, NULL) == 0);
	is_warm = warm;
	if (warm)
		touched_run(site_stack_pointer, 1);
	memset(round_, 0, sizeof(*round_));
	REQUIRE(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
	stop();
	round_->result = touched_run(site_stack_pointer, 41);
	/* Whatever has happened, the next one is served, and uses no more. */
	touched_run(site_stack_pointer, 1);
	round_->made = 1;
	_exit(0);
}

#define BEHIND ((uintptr_t)touched_entry + 12)

/* The signal comes when so many instructions have been executed from the site on. Returns where that is. */
static uintptr_t interrupt_at(unsigned int steps, bool warm)
{
	uintptr_t pc;
	pid_t child = fork();
	int stopped;

	REQUIRE(child >= 0);
	if (child == 0)
		start_child(warm);
	REQUIRE(harness_stop_of(child) == SIGSTOP);
	do {
		REQUIRE(ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) == 0);
		REQUIRE(harness_stop_of(child) == SIGTRAP);
	} while (harness_pc_of(child) != (uintptr_t)touched_entry);
	for (unsigned int i = 0; i < steps && harness_pc_of(child) != BEHIND; i++) {
		REQUIRE(ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) == 0);
		stopped = harness_stop_of(child);
		if (stopped != SIGTRAP)
			FAIL("step %u: signal %d at %#lx", i, stopped, harness_pc_of(child));
	}
	pc = harness_pc_of(child);
	REQUIRE(ptrace(PTRACE_DETACH, child, NULL, (void *)SIGUSR1) == 0);
	stopped = harness_stop_of(child);
	CONTEXT("step %u, %s, %s", steps, warm ? "later" : "first", on_signals_stack ? "own stack" : "program's stack");
	if (stopped != 0 || round_->made != 1 || round_->result != 42 || round_->handled != 1 || round_->wrong != 0 ||
	    round_->calls != 3)
		FAIL("at %#lx: ends with %d, result %ld, %u handled, %u wrong, %u calls; seen %#lx, %#lx not %#lx", pc,
		     -stopped, round_->result, round_->handled, round_->wrong, round_->calls, round_->seen_pc,
		     round_->seen_rsp, site_stack_pointer);
	return pc;
}

static void signals(void *unused)
{
	struct patch_location location = location_at((uintptr_t)touched_entry);
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE, counting_procedure, NULL);
	patch_attr attr = attr_of(PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED);
	unsigned int most = 0;
	patch_t patch;

	(void)unused;
	round_ = mmap(NULL, sizeof(*round_), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(round_ != MAP_FAILED);
	REQUIRE_OK(patch_init(NULL, 0));
	make_edge();
	model.probe.clobber_registers = PATCH_REGS_GP_ONLY;
	CHECK_OK(patch_attr_set_stack(&attr, PATCH_STACK_OWN));
	REQUIRE_OK(patch_make(&location, &model, &attr, &patch, NULL));
	REQUIRE_OK(patch_commit());
	for (unsigned int form = 0; form < 4; form++) {
		unsigned int steps = 0, in_library = 0;
		uintptr_t pc = 0;

		on_signals_stack = form & 1;
		/* A handler that is not on the signals' stack may be on the program's. */
		site_stack_pointer = on_signals_stack ? edge : edge + (24 << 10);
		/* Of what the library does when it is called by a thread's first hook, a part will do. */
		while (harness_failures == 0 && pc != BEHIND) {
			pc = interrupt_at(steps, form & 2);
			in_library = is_in_library(pc) ? in_library + 1 : 0;
			steps += in_library > 60 ? 67 : 1;
		}
		most = steps > most ? steps : most;
	}
	CHECK(most > 60);
	CHECK_OK(patch_fini());
}

/* ---- ways out --------------------------------------------------------------------------------------------------- */

static jmp_buf out;
static volatile int leaves;

static void leaving_procedure(struct patch_exec_context *context, uint8_t post)
{
	procedure(context, post);
	/* A probe that is met meanwhile is passed over, and leaves the frame alone. */
	touched_function(1);
	if (leaves == 1)
		longjmp(out, 1);
	if (leaves == 2)
		pthread_exit(NULL);
}

static void run_and_leave(void)
{
	leaves = 1;
	if (setjmp(out) == 0)
		touched_run(edge, 41);
	leaves = 0;
}

static void *exit_in_procedure(void *data)
{
	leaves = 2;
	touched_run(edge + 16384, 41);
	return data;
}

static void on_fault(int signo, siginfo_t *info, void *data)
{
	(void)signo;
	(void)info;
	/* On the stack of signals, or on the thread's own, above the procedure. */
	touched_function(1);
	((ucontext_t *)data)->uc_mcontext.gregs[REG_RIP] += 2;
}

static void faulting_procedure(struct patch_exec_context *context, uint8_t post)
{
	volatile uint64_t kept[64];

	procedure(context, post);
	for (size_t i = 0; i < 64; i++)
		kept[i] = i;
	__asm__ volatile("ud2" : : : "memory");
	for (size_t i = 0; i < 64; i++)
		CHECK_EQ(kept[i], i);
}

/* In the memory of its parent, which is in a procedure; not on its stack. */
static int in_borrowed_memory(void *data)
{
	(void)data;
	_exit(touched_function(6) == 7 ? 0 : 1);
}

static void spawning_procedure(struct patch_exec_context *context, uint8_t post)
{
	char *arguments[] = { (char *)(uintptr_t)"true", NULL }, *environment[] = { NULL };
	static char child_stack[65536] __attribute__((aligned(16)));
	int status = -1;
	pid_t child;

	procedure(context, post);
	CHECK_EQ(posix_spawn(&child, "/bin/true", NULL, NULL, arguments, environment), 0);
	waitpid(child, &status, 0);
	CHECK_EQ(status, 0);
	child = clone(in_borrowed_memory, child_stack + sizeof(child_stack), CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 0);
	child = fork();
	if (child == 0)
		_exit(7);
	waitpid(child, &status, 0);
	CHECK_EQ(WEXITSTATUS(status), 7);
}

static void ways_out(void *unused)
{
	static char signals_stack[65536];
	const stack_t stack = { .ss_sp = signals_stack, .ss_size = sizeof(signals_stack) };
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
	static void (*const procedures[])(struct patch_exec_context *, uint8_t) = { leaving_procedure,
										    faulting_procedure,
										    spawning_procedure };
	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	make_edge();
	REQUIRE(sigaltstack(&stack, NULL) == 0);
	for (unsigned int i = 0; i < 4; i++) {
		struct patch_location location = location_at((uintptr_t)touched_entry);
		struct patch_exec_model model =
			model_of(PATCH_EXEC_MODEL_PROBE, procedures[i < 2 ? i : i - 1], NULL);
		patch_attr attr = attr_of(PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED);
		patch_t patch;

		CONTEXT("way %u", i);
		action.sa_flags = SA_SIGINFO | (i == 1 ? SA_ONSTACK : 0);
		REQUIRE(sigaction(SIGILL, &action, NULL) == 0);
		CHECK_OK(patch_attr_set_stack(&attr, PATCH_STACK_OWN));
		REQUIRE_OK(patch_make(&location, &model, &attr, &patch, NULL));
		REQUIRE_OK(patch_commit());
		for (unsigned int k = 0; k < 3; k++) {
			if (i == 0) {
				run_and_leave();
				in_thread(exit_in_procedure);
				leaves = 0;
			}
			calls = 0;
			CHECK_EQ(touched_run(edge, 41), 42);
			CHECK_EQ(calls, 1);
			CHECK_EQ(seen_stack_pointer, edge);
		}
		unmake(patch);
	}
	CHECK_OK(patch_fini());
}

/* Threads that end leave no stacks behind. */
static void *hit_once(void *data)
{
	touched_run(edge, 1);
	return data;
}

static unsigned long mapped(void)
{
	FILE *file = fopen("/proc/self/statm", "r");
	unsigned long pages = 0;

	REQUIRE(file != NULL && fscanf(file, "%lu", &pages) == 1);
	fclose(file);
	return pages;
}

static void threads_end(void *unused)
{
	unsigned long before = 0;
	patch_t patch;

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	make_edge();
	patch = make((uintptr_t)touched_entry, PATCH_EXEC_MODEL_PROBE, 0, 0, PATCH_TRAP_POLICY_ALLOW, PATCH_STACK_OWN);
	for (unsigned int i = 0; i < 200; i++) {
		in_thread(hit_once);
		if (i == 50)
			before = mapped();
	}
	CHECK(mapped() < before + 200);
	CHECK_EQ(calls, 200);
	unmake(patch);
	CHECK_OK(patch_fini());
}

int main(void)
{
	patch_attr attr;

	harness_start();
	CHECK_OK(patch_attr_init(&attr, sizeof(attr)));
	CHECK_STATUS(patch_attr_set_stack(&attr, 2), PATCH_EINVAL);
	CHECK_STATUS(patch_attr_set_stack(NULL, 1), PATCH_EINVAL);
	harness_isolated("below the stack pointer", below, NULL);
	harness_isolated("together", together, NULL);
	harness_isolated("ways out", ways_out, NULL);
	harness_isolated("threads end", threads_end, NULL);
	harness_isolated("signals", signals, NULL);
	return harness_end();
}
