/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A signal comes at one instruction after the other of a system call that the library makes in the program's stead,
 * from the one in front of it to the one behind it, and its handler returns. What the program is told, and what is in
 * effect behind it, is the same wherever that was: the call begins anew, or is over.
 */
#include "harness.h"
#include "traced.h"

#include <sched.h>
#include <sys/ptrace.h>
#include <sys/user.h>

#define BIT(signo) ((uint64_t)1 << ((signo)-1))
#define SET_SIZE 8

/* The kernel's. */
struct action {
	uintptr_t handler;
	uint64_t flags;
	uintptr_t restorer;
	uint64_t mask;
};

/* Shared: of one round. */
static struct seen {
	uint64_t told[8];
	unsigned int handled; /* SIGUSR1 */
	volatile bool over;   /* the call has returned */
} *seen;

/* ---- the child --------------------------------------------------------------------------------------------------- */

static volatile unsigned int traps;
static struct action asked;
static siginfo_t info;
static uint64_t set, before;
static long result;

static void on_usr1(int signo)
{
	(void)signo;
	seen->handled++;
}

static void on_trap(int signo)
{
	(void)signo;
	traps++;
}

/* `told` by errno where that says so. */
static void tell(unsigned int index, long value)
{
	seen->told[index] = (uint64_t)(value == -1 ? -errno : value);
}

static uint64_t pending(void)
{
	uint64_t signals = 0;

	REQUIRE(syscall(SYS_rt_sigpending, &signals, SET_SIZE) == 0);
	return signals;
}

static uint64_t change_mask(uint64_t mask)
{
	uint64_t old = 0;

	REQUIRE(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, &old, SET_SIZE) == 0);
	return old;
}

static void hold_trap(void)
{
	traps = 0;
	REQUIRE(signal(SIGTRAP, on_trap) != SIG_ERR);
	change_mask(BIT(SIGTRAP) | BIT(SIGHUP));
	send_to_itself(SIGTRAP);
}

static void end_trap(void)
{
	REQUIRE(signal(SIGTRAP, on_trap) != SIG_ERR);
	seen->told[2] = pending();
	send_to_itself(SIGTRAP);
	seen->told[3] = pending();
	seen->told[4] = traps;
	seen->told[5] = change_mask(0);
	seen->told[6] = traps;
}

static void prepare_action(void)
{
	struct sigaction action = { .sa_handler = on_trap, .sa_flags = SA_NODEFER | SA_RESTART };

	sigaddset(&action.sa_mask, SIGHUP);
	sigaddset(&action.sa_mask, SIGTRAP);
	REQUIRE(sigaction(SIGUSR2, &action, NULL) == 0);
}

static void ask_for_action(void)
{
	result = syscall(SYS_rt_sigaction, SIGUSR2, NULL, &asked, SET_SIZE);
}

static void tell_action(void)
{
	tell(0, result);
	memcpy(seen->told + 1, &asked, sizeof(asked));
}

static void ignore_trap(void)
{
	static const struct action ignored = { .handler = (uintptr_t)SIG_IGN };

	result = syscall(SYS_rt_sigaction, SIGTRAP, &ignored, &asked, SET_SIZE);
}

static void tell_ignored(void)
{
	tell(0, result);
	seen->told[1] = asked.handler;
	end_trap();
}

static void set_unreadable_mask(void)
{
	result = syscall(SYS_rt_sigprocmask, SIG_BLOCK, 8, NULL, SET_SIZE);
}

static void set_mask(void)
{
	set = BIT(SIGILL) | BIT(SIGWINCH);
	result = syscall(SYS_rt_sigprocmask, SIG_SETMASK, &set, &before, SET_SIZE);
}

static void set_mask_unasked(void)
{
	set = BIT(SIGILL) | BIT(SIGWINCH);
	result = syscall(SYS_rt_sigprocmask, SIG_BLOCK, &set, NULL, SET_SIZE);
}

static void tell_mask(void)
{
	tell(0, result);
	seen->told[1] = before;
	seen->told[2] = traps;
	seen->told[3] = change_mask(0);
}

static void take_trap(void)
{
	static const struct timespec no_time;

	set = BIT(SIGTRAP);
	result = syscall(SYS_rt_sigtimedwait, &set, &info, &no_time, SET_SIZE);
}

static void tell_taken(void)
{
	tell(0, result);
	seen->told[1] = (uint64_t)info.si_code;
	end_trap();
}

static const struct part {
	const char *name;
	void (*prepare)(void);
	void (*call)(void);
	void (*tell)(void);
} parts[] = {
	{ "an action is asked for", prepare_action, ask_for_action, tell_action },
	{ "a held signal is ignored", hold_trap, ignore_trap, tell_ignored },
	{ "a mask that is not there", hold_trap, set_unreadable_mask, tell_mask },
	{ "a held signal is unblocked", hold_trap, set_mask, tell_mask },
	{ "more is blocked", hold_trap, set_mask_unasked, tell_mask },
	{ "a held signal is taken", hold_trap, take_trap, tell_taken },
};

static void rounds(const struct part *part)
{
	REQUIRE(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
	for (;;) {
		part->prepare();
		send_to_itself(SIGSTOP);
		part->call();
		seen->over = true;
		part->tell();
		send_to_itself(SIGSTOP);
	}
}

/* ---- the tracer -------------------------------------------------------------------------------------------------- */

/* All other signals come. */
static void go_to_stop(pid_t pid, int signo)
{
	do
		signo = go(pid, PTRACE_CONT, signo);
	while (signo != SIGSTOP);
}

static bool blocks_traps(pid_t pid)
{
	uint64_t mask = 0;

	REQUIRE(ptrace(PTRACE_GETSIGMASK, pid, (void *)sizeof(mask), &mask) == 0);
	return (mask & BIT(SIGTRAP)) != 0;
}

#define AT_SYSTEM_CALL (SIGTRAP | 0x80)

/*
 * While the thread blocks SIGTRAP nothing can come to it, and a step would have the kernel unblock that and take its
 * action away: from a call that blocks it on to where it does not. Returns the signal that comes there; 0: none.
 */
static int go_where_traps_come(pid_t pid)
{
	int signo;

	do {
		signo = go(pid, PTRACE_SYSCALL, 0);
		if (signo == AT_SYSTEM_CALL)
			signo = go(pid, PTRACE_SYSCALL, 0);
	} while (signo == AT_SYSTEM_CALL && blocks_traps(pid));
	return signo == AT_SYSTEM_CALL ? 0 : signo;
}

/*
 * One instruction, and before that the signal. Returns the next one. A pushfq stores the flag by which it is stepped,
 * which would be put back. The child's code is where this one's is.
 */
static int step_one(pid_t pid, int signo)
{
	struct user_regs_struct registers;
	const uint8_t *code;
	siginfo_t what;
	long word;

	REQUIRE(ptrace(PTRACE_GETREGS, pid, NULL, &registers) == 0);
	code = (const uint8_t *)(uintptr_t)registers.rip;
	if (signo == 0 && code[0] == 0x0F && code[1] == 0x05 && registers.rax == SYS_rt_sigprocmask)
		return go_where_traps_come(pid);
	REQUIRE(go(pid, PTRACE_SINGLESTEP, signo) == SIGTRAP);
	if (signo != 0)
		return blocks_traps(pid) ? go_where_traps_come(pid) : 0;
	REQUIRE(ptrace(PTRACE_GETSIGINFO, pid, NULL, &what) == 0);
	if (what.si_code <= 0)
		return SIGTRAP;
	if (code[0] != 0x9C)
		return 0;
	REQUIRE(ptrace(PTRACE_GETREGS, pid, NULL, &registers) == 0);
	word = ptrace(PTRACE_PEEKDATA, pid, (void *)(uintptr_t)registers.rsp, NULL);
	REQUIRE(ptrace(PTRACE_POKEDATA, pid, (void *)(uintptr_t)registers.rsp, word & ~0x100L) == 0);
	return 0;
}

/* So many steps, and then SIGUSR1; false: the call is over before that, and it does not come. */
static bool play(pid_t pid, unsigned int steps)
{
	int signo = 0;
	bool in_time;

	memset(seen, 0, sizeof(*seen));
	for (; steps > 0 && !seen->over; steps--)
		signo = step_one(pid, signo);
	in_time = !seen->over;
	if (in_time)
		REQUIRE(syscall(SYS_tgkill, pid, pid, SIGUSR1) == 0);
	go_to_stop(pid, signo);
	return in_time;
}

static void each_instruction(void *data)
{
	const struct part *part = data;
	struct seen reference;
	unsigned int steps = 0;
	cpu_set_t one;
	int status;
	pid_t pid;

	seen = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(seen != MAP_FAILED);
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE(signal(SIGUSR1, on_usr1) == SIG_DFL);
	/* On one processor, as one waits for the other all the time. */
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	sched_setaffinity(0, sizeof(one), &one);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		rounds(part);
	}
	do
		REQUIRE(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
	while (WSTOPSIG(status) != SIGSTOP && ptrace(PTRACE_CONT, pid, NULL, WSTOPSIG(status)) == 0);
	REQUIRE(ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_TRACESYSGOOD) == 0);
	memset(seen, 0, sizeof(*seen));
	go_to_stop(pid, 0);
	reference = *seen;
	for (bool in_time = true; in_time && harness_failures < 10; steps++) {
		CONTEXT("%s, %u instructions", part->name, steps);
		go_to_stop(pid, 0);
		in_time = play(pid, steps);
		CHECK_EQ(seen->handled, in_time ? 1 : 0);
		for (size_t i = 0; i < sizeof(seen->told) / sizeof(seen->told[0]); i++)
			CHECK_MSG(seen->told[i] == reference.told[i], "word %zu is %#lx, not %#lx", i,
				  seen->told[i], reference.told[i]);
	}
	CHECK_MSG(steps > 100 || harness_failures != 0, "%u steps", steps);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		harness_isolated(parts[i].name, each_instruction, (void *)&parts[i]);
	return harness_end();
}
