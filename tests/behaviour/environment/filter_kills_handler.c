/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A program has set a filter that ends it for nearly all system calls, but not for the return from a handler: its
 * handlers run, and return, with the library as without, and probes are met.
 */
#include "targets.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <ucontext.h>

static volatile int handled, nested, hits, wrong;
static char alternate[65536];

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

/* ---- filters ----------------------------------------------------------------------------------------------------- */

#define KILL_UNLESS(count, ...) \
	{ BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)), __VA_ARGS__, \
	  BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW) }
#define ALLOW(number, rest) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, rest, 0)

static struct sock_filter few[] = KILL_UNLESS(4, ALLOW(SYS_read, 4), ALLOW(SYS_write, 3), ALLOW(SYS_exit, 2),
					      ALLOW(SYS_rt_sigreturn, 1));
/* As above, but the other way round: rt_sigprocmask alone is not allowed. */
static struct sock_filter one[] = {
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigprocmask, 0, 1),
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
};
static const struct sock_fprog program_few = { sizeof(few) / sizeof(few[0]), few };
static const struct sock_fprog program_one = { sizeof(one) / sizeof(one[0]), one };

static bool strict(void)
{
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0;
}

static bool strict_by_seccomp(void)
{
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 0, NULL) == 0;
}

static bool few_by_prctl(void)
{
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program_few) == 0;
}

static bool few_by_seccomp(void)
{
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program_few) == 0;
}

static bool one_by_seccomp(void)
{
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program_one) == 0;
}

static const struct {
	const char *name;
	bool (*set)(void);
	bool asks; /* other calls are allowed */
} filters[] = {
	{ "prctl, strict", strict, false },	{ "seccomp, strict", strict_by_seccomp, false },
	{ "prctl, few", few_by_prctl, false },	{ "seccomp, few", few_by_seccomp, false },
	{ "seccomp, one", one_by_seccomp, true },
};

/* ---- handlers ---------------------------------------------------------------------------------------------------- */

static bool asks;

/* What the kernel has for the time of a handler. */
static void check_stack(bool is_disarmed)
{
	stack_t now;

	if (asks && (syscall(SYS_sigaltstack, NULL, &now) != 0 || (now.ss_size == 0) != is_disarmed))
		wrong++;
}

/* It is blocked while the other runs, which has it in its mask. */
static void on_second(int signo)
{
	(void)signo;
	nested++;
	hits += t_push_push(5, 7) != 19;
}

static void on_signal(int signo, siginfo_t *info, void *context)
{
	const ucontext_t *frame = context;

	wrong += info->si_signo != signo || sigismember(&frame->uc_sigmask, SIGUSR2) != 0;
	check_stack(true);
	hits += t_push_push(5, 7) != 19;
	handled++;
	wrong += nested != 0 && handled == 1;
	/* In effect when it has returned. */
	sigaddset((sigset_t *)&frame->uc_sigmask, SIGHUP);
}

struct choice {
	size_t filter;
	int policy;
};

/* Until the parent has sent what it sends. */
static void in_filter(const struct choice *choice)
{
	struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	struct sigaction second = { .sa_handler = on_second };
	const stack_t stack = { .ss_sp = alternate, .ss_size = sizeof(alternate), .ss_flags = (int)(1U << 31) };
	patch_t patch;

	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, choice->policy, PATCH_ENABLED, &patch));
	REQUIRE_OK(patch_commit());
	/* SS_AUTODISARM */
	REQUIRE(sigaltstack(&stack, NULL) == 0);
	sigaddset(&action.sa_mask, SIGUSR2);
	sigaddset(&second.sa_mask, SIGUSR1);
	REQUIRE(sigaction(SIGUSR1, &action, NULL) == 0);
	REQUIRE(sigaction(SIGUSR2, &second, NULL) == 0);
	asks = filters[choice->filter].asks;
	REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	if (!filters[choice->filter].set())
		syscall(SYS_exit, 3);
	while (handled < 2 || nested < 2)
		wrong += t_push_push(5, 7) != 19;
	check_stack(false);
	syscall(SYS_exit, wrong != 0 || hits == 0);
}

static void run(void *argument)
{
	const struct choice *choice = argument;
	pid_t child = fork();
	int status, ended;

	if (child == 0)
		in_filter(choice);
	while ((ended = waitpid(child, &status, WNOHANG)) == 0) {
		/* With what is there before its handlers are it ends; with it, it goes on. */
		char path[64], line[4096] = "";
		uint64_t caught;
		FILE *file;

		snprintf(path, sizeof(path), "/proc/%d/status", child);
		file = fopen(path, "r");
		while (file != NULL && fgets(line, sizeof(line), file) != NULL &&
		       sscanf(line, "SigCgt: %lx", &caught) != 1)
			;
		if (file != NULL)
			fclose(file);
		if (strstr(line, "SigCgt") != NULL && (caught & (uint64_t)1 << (SIGUSR2 - 1)) != 0) {
			kill(child, SIGUSR1);
			kill(child, SIGUSR2);
		}
		sched_yield();
	}
	REQUIRE(ended == child);
	CHECK_EQ(status, 0);
}

int main(void)
{
	static const int policies[] = { PATCH_TRAP_POLICY_FORBID, PATCH_TRAP_POLICY_FORCE };
	char name[64];

	harness_start();
	for (size_t i = 0; i < sizeof(filters) / sizeof(filters[0]); i++)
		for (size_t k = 0; k < 2; k++) {
			struct choice choice = { i, policies[k] };

			snprintf(name, sizeof(name), "%s, policy %d", filters[i].name, choice.policy);
			harness_isolated(name, run, &choice);
		}
	return harness_end();
}
