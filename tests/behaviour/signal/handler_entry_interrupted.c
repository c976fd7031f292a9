/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A handler is entered and left, and a second signal comes at one instruction of that after the other, from the first
 * one that the thread executes for the signal to the one behind the handler's return. Both handlers run once; each has
 * the mask that it has without the library, and sees a state of the program with the mask of that state: between the
 * two, or behind the first. The mask that the second one writes to its frame is in effect until the first one's end
 * only.
 */
#include "targets.h"
#include "library.h"
#include "traced.h"

#include <sched.h>
#include <sys/ptrace.h>
#include <ucontext.h>

#define BIT(signo) ((uint64_t)1 << ((signo)-1))
#define OWNED (BIT(SIGTRAP) | BIT(SIGILL))

/*
 * What the program blocks outside of handlers; what the handlers of SIGUSR1 and SIGUSR2 do besides. Without owned
 * signals there is nothing to be done at the end of a handler.
 */
struct masks {
	uint64_t outside, first, second;
};
static const struct masks with_owned = { BIT(SIGTRAP) | BIT(SIGHUP), BIT(SIGUSR1) | BIT(SIGILL),
					 BIT(SIGUSR2) | BIT(SIGWINCH) };
static const struct masks without_owned = { BIT(SIGHUP), BIT(SIGUSR1), BIT(SIGUSR2) | BIT(SIGWINCH) };
static const struct masks in_handler_only = { BIT(SIGHUP), BIT(SIGUSR1) | BIT(SIGILL), BIT(SIGUSR2) | OWNED };
static const struct masks *masks;

/* Shared: of SIGUSR1, SIGUSR2, and behind them. */
static struct seen {
	unsigned int count;
	uint64_t frame; /* the mask of what the handler interrupted */
	uint64_t mask;  /* in the handler of SIGUSR2, and behind both */
	uintptr_t pc;
	bool returns;   /* the handler of SIGUSR1 is over, and the library is next */
	bool is_behind; /* the handler of SIGUSR2 has interrupted that */
} *seen;

static uint64_t now_blocked(void)
{
	sigset_t now;
	uint64_t mask;

	sigprocmask(SIG_BLOCK, NULL, &now);
	memcpy(&mask, &now, sizeof(mask));
	return mask;
}

static void block_in_frame(ucontext_t *context, int signo)
{
	*(uint64_t *)&context->uc_sigmask |= BIT(signo);
}

static void note(struct seen *what, const ucontext_t *context)
{
	what->count++;
	memcpy(&what->frame, &context->uc_sigmask, sizeof(what->frame));
	what->pc = (uintptr_t)context->uc_mcontext.gregs[REG_RIP];
}

/* Few instructions, as it is stepped through time and again. Its mask is in the frame of what interrupts it. */
static void on_first(int signo, siginfo_t *info, void *data)
{
	(void)signo;
	(void)info;
	note(&seen[0], data);
	seen[0].returns = true;
}

static void on_second(int signo, siginfo_t *info, void *data)
{
	(void)signo;
	(void)info;
	seen[1].is_behind = seen[0].returns;
	note(&seen[1], data);
	seen[1].mask = now_blocked();
	/* What the first handler's end finds: it may have found something else before. */
	if (seen[1].is_behind && (seen[1].frame & BIT(SIGUSR1)) != 0)
		block_in_frame(data, SIGTRAP);
}

static void set_mask(uint64_t mask)
{
	sigset_t set;

	sigemptyset(&set);
	memcpy(&set, &mask, sizeof(mask));
	REQUIRE(sigprocmask(SIG_SETMASK, &set, NULL) == 0);
}

static void set_handler(int signo, void (*handler)(int, siginfo_t *, void *), uint64_t mask)
{
	struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO };

	memcpy(&action.sa_mask, &mask, sizeof(mask));
	REQUIRE(sigaction(signo, &action, NULL) == 0);
}

/* ---- the child --------------------------------------------------------------------------------------------------- */

static void rounds(void)
{
	REQUIRE(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
	raise(SIGSTOP);
	for (;;) {
		set_mask(masks->outside);
		send_to_itself(SIGUSR1);
		seen[2].count++;
		/* The tracer looks at it before it is asked what is blocked. */
		__asm__ volatile("" : : : "memory");
		seen[2].mask = now_blocked();
		raise(SIGSTOP);
	}
}

/* ---- the tracer -------------------------------------------------------------------------------------------------- */

/* Until it stops; the signal. */
static int stops(pid_t child)
{
	int status;

	REQUIRE(waitpid(child, &status, 0) == child);
	REQUIRE(WIFSTOPPED(status));
	return WSTOPSIG(status);
}

static int go_on(pid_t child, int request, int signo)
{
	REQUIRE(ptrace((enum __ptrace_request)request, child, NULL, (long)signo) == 0);
	return stops(child);
}

/*
 * Nested in the first handler, or behind it. Where the second handler came in the middle of the library's code, the
 * program is at the first one's first instruction, or where it was when the first signal came.
 */
static void check_round(unsigned int step)
{
	const uint64_t outside = masks->outside, first = outside | masks->first;
	const bool nested = seen[1].frame != outside;

	CONTEXT("step %u, %s", step, nested ? "nested" : "behind");
	CHECK_EQ(seen[0].count, 1);
	CHECK_EQ(seen[1].count, 1);
	CHECK_EQ(seen[0].frame, outside);
	CHECK_EQ(seen[1].frame, nested ? first : outside);
	CHECK_EQ(seen[1].mask, (nested ? first : outside) | masks->second);
	CHECK_EQ(seen[2].count, 1);
	CHECK_EQ(seen[2].mask, outside);
	/* The restorer is libpatch's as it is libc's else. */
	CHECK_MSG((nested && seen[1].is_behind) || !library_has(seen[1].pc),
		  "it sees libpatch + %#zx", (size_t)(seen[1].pc - library_lower));
}

/*
 * True: so many instructions were executed, and then the second signal came. A step over `pushf` leaves the flag of
 * steps in what it pushes, so that there may be a SIGTRAP of that later.
 */
static bool play(pid_t child, unsigned int step)
{
	int signo;

	memset(seen, 0, 3 * sizeof(*seen));
	do
		signo = go_on(child, PTRACE_CONT, 0);
	while (signo == SIGTRAP);
	REQUIRE(signo == SIGUSR1);
	signo = go_on(child, PTRACE_SINGLESTEP, SIGUSR1);
	for (unsigned int i = 0; i < step; i++) {
		REQUIRE(signo == SIGTRAP);
		signo = go_on(child, PTRACE_SINGLESTEP, 0);
		if (seen[2].count != 0)
			return false;
	}
	REQUIRE(syscall(SYS_tgkill, child, child, SIGUSR2) == 0);
	for (signo = 0; signo != SIGSTOP;) {
		signo = go_on(child, PTRACE_CONT, signo == SIGTRAP ? 0 : signo);
		REQUIRE(signo == SIGUSR2 || signo == SIGSTOP || signo == SIGTRAP);
	}
	return true;
}

static void each_step(void *data)
{
	unsigned int step = 0, nested = 0;
	cpu_set_t one;
	pid_t child;

	masks = data;
	seen = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(seen != MAP_FAILED);
	REQUIRE_OK(patch_init(NULL, 0));
	library_find();
	set_handler(SIGUSR1, on_first, masks->first);
	set_handler(SIGUSR2, on_second, masks->second);
	/* On one processor, as one waits for the other all the time. */
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	sched_setaffinity(0, sizeof(one), &one);
	child = fork();
	if (child == 0)
		rounds();
	REQUIRE(stops(child) == SIGSTOP);
	while (play(child, step)) {
		check_round(step++);
		nested += seen[1].frame != masks->outside;
	}
	kill(child, SIGKILL);
	/* With nothing to be done the second handler comes behind the first one at the last instructions only. */
	CHECK_MSG(nested > 10 && step > nested + (masks == &without_owned ? 0 : 10), "%u steps, %u nested", step,
		  nested);
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	harness_isolated("owned signals are blocked", each_step, (void *)&with_owned);
	harness_isolated("none are", each_step, (void *)&without_owned);
	harness_isolated("the handlers block them", each_step, (void *)&in_handler_only);
	return harness_end();
}
