/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A storm of SIGTRAPs and SIGILLs that others send, by kill, tgkill and sigqueue, on threads that run functions whose
 * first instructions have one byte, while patches on them come and go. The kernel delivers one signal where the trap
 * byte's and a sent one meet. No instruction is left out or executed twice: every result is right.
 *
 * storm [seconds [threads]]
 */
#include "stress.h"

#include <sys/syscall.h>

#define FUNCTIONS 5
#define WORKERS_MAX 16
#define SENDERS 3

/* Each of these changes what the function returns, or where it returns to, when it is left out or comes twice. */
__asm__(".text\n"
	".macro storm_function name\n"
	".p2align 6, 0xcc\n.globl \\name\n.type \\name, @function\n\\name:\n.cfi_startproc\n"
	".endm\n"
	".macro storm_end name\n"
	"	ret\n.cfi_endproc\n.size \\name, . - \\name\n"
	".endm\n"
	"storm_function storm_frame\n"
	"	push %rbp\n.cfi_adjust_cfa_offset 8\n	mov %rsp, %rbp\n	lea (%rdi, %rsi), %rax\n"
	"	pop %rbp\n.cfi_adjust_cfa_offset -8\n"
	"storm_end storm_frame\n"
	"storm_function storm_saves\n"
	"	push %rbx\n.cfi_adjust_cfa_offset 8\n	push %rbp\n.cfi_adjust_cfa_offset 8\n"
	"	lea (%rdi, %rsi), %rax\n"
	"	pop %rbp\n.cfi_adjust_cfa_offset -8\n	pop %rbx\n.cfi_adjust_cfa_offset -8\n"
	"storm_end storm_saves\n"
	"storm_function storm_swap\n"
	"	xchg %rax, %rdi\n	add %rsi, %rax\n	nop\n"
	"storm_end storm_swap\n"
	"storm_function storm_ones\n"
	"	push %rdi\n.cfi_adjust_cfa_offset 8\n	pop %rax\n.cfi_adjust_cfa_offset -8\n	push %rsi\n"
	".cfi_adjust_cfa_offset 8\n	pop %rcx\n.cfi_adjust_cfa_offset -8\n	stc\n	cmc\n	adc %rcx, %rax\n"
	"storm_end storm_ones\n"
	"storm_function storm_longer\n"
	"	lea (%rdi, %rsi), %rax\n	nop\n	nop\n"
	"storm_end storm_longer\n");

uint64_t storm_frame(uint64_t a, uint64_t b), storm_saves(uint64_t a, uint64_t b), storm_swap(uint64_t a, uint64_t b),
	storm_ones(uint64_t a, uint64_t b), storm_longer(uint64_t a, uint64_t b);

static uint64_t (*const functions[FUNCTIONS])(uint64_t, uint64_t) = { storm_frame, storm_saves, storm_swap, storm_ones,
								      storm_longer };

struct storm_worker {
	pthread_t thread;
	pid_t tid;
	uint64_t calls, wrong;
};

static struct storm_worker storm_workers[WORKERS_MAX];
static unsigned int storm_worker_count;
static patch_t patches[FUNCTIONS];
static uint64_t storm_hits, handled[2], sent[SENDERS], commits;
static bool over;

static GP_ONLY void on_hit(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	__atomic_fetch_add(&storm_hits, 1, __ATOMIC_RELAXED);
}

static void on_sent(int signo, siginfo_t *info, void *context)
{
	(void)context;
	if (info->si_code > 0)
		_exit(4); /* one of ours, or a fault */
	__atomic_fetch_add(&handled[signo == SIGILL], 1, __ATOMIC_RELAXED);
}

static bool is_over(void)
{
	return __atomic_load_n(&over, __ATOMIC_RELAXED);
}

static void *work(void *argument)
{
	struct storm_worker *worker = argument;
	uint64_t number;

	__atomic_store_n(&worker->tid, (pid_t)syscall(SYS_gettid), __ATOMIC_RELAXED);
	for (number = 0; !is_over(); number++)
		for (size_t i = 0; i < FUNCTIONS; i++)
			worker->wrong += functions[i](number, 7 * i) != number + 7 * i;
	__atomic_store_n(&worker->tid, 0, __ATOMIC_RELAXED);
	worker->calls = number * FUNCTIONS;
	return NULL;
}

static void *send_for_ever(void *argument)
{
	size_t way = (size_t)(uintptr_t)argument;
	uint64_t number;

	for (number = 0; !is_over(); number++) {
		int signo = number % 4 ? SIGTRAP : SIGILL;
		pid_t tid = __atomic_load_n(&storm_workers[number % storm_worker_count].tid, __ATOMIC_RELAXED);
		union sigval value = { .sival_int = 1 };

		if (way == 0 && tid != 0)
			syscall(SYS_tgkill, getpid(), tid, signo);
		else if (way == 1)
			kill(getpid(), signo);
		else if (way == 2)
			sigqueue(getpid(), signo, value);
		if (number % 64 == 0)
			sched_yield();
	}
	sent[way] = number;
	return NULL;
}

/* Each function has a jump. */
static void make(size_t i, int policy)
{
	CHECK_OK(make_probe((uintptr_t)functions[i], on_hit, NULL, policy, PATCH_ENABLED, &patches[i]));
}

static void toggle(double seconds)
{
	double begun = stress_now();
	uint64_t seed = 0x853c49e6748fea9b;

	while (stress_now() - begun < seconds || commits < 100) {
		uint64_t bits = stress_random(&seed) >> 20;
		size_t i = bits % FUNCTIONS;

		if (bits >> 8 & 1) {
			CHECK_OK(bits >> 9 & 1 ? patch_enable(patches[i]) : patch_disable(patches[i]));
		} else {
			CHECK_OK(patch_unmake(patches[i]));
			make(i, bits >> 9 & 1 ? PATCH_TRAP_POLICY_FORBID : PATCH_TRAP_POLICY_ALLOW);
		}
		CHECK_OK(patch_commit());
		commits++;
		if (harness_failures)
			return;
	}
}

static void storm(void *argument)
{
	double seconds = *(unsigned int *)argument;
	pthread_t senders[SENDERS];
	struct sigaction action;
	uint64_t calls = 0, wrong = 0;

	memset(&action, 0, sizeof(action));
	action.sa_sigaction = on_sent;
	action.sa_flags = SA_SIGINFO | SA_RESTART;
	REQUIRE(sigaction(SIGTRAP, &action, NULL) == 0 && sigaction(SIGILL, &action, NULL) == 0);
	REQUIRE_OK(patch_init(NULL, 0));
	for (size_t i = 0; i < FUNCTIONS; i++)
		make(i, i % 2 ? PATCH_TRAP_POLICY_FORBID : PATCH_TRAP_POLICY_ALLOW);
	REQUIRE_OK(patch_commit());
	for (unsigned int n = 0; n < storm_worker_count; n++)
		REQUIRE(pthread_create(&storm_workers[n].thread, NULL, work, &storm_workers[n]) == 0);
	for (size_t way = 0; way < SENDERS; way++)
		REQUIRE(pthread_create(&senders[way], NULL, send_for_ever, (void *)(uintptr_t)way) == 0);
	toggle(seconds);
	__atomic_store_n(&over, true, __ATOMIC_RELAXED);
	for (size_t way = 0; way < SENDERS; way++)
		pthread_join(senders[way], NULL);
	for (unsigned int n = 0; n < storm_worker_count; n++) {
		pthread_join(storm_workers[n].thread, NULL);
		calls += storm_workers[n].calls;
		wrong += storm_workers[n].wrong;
	}
	harness_say("%llu calls, %llu hits, %llu commits, %llu + %llu + %llu signals sent, %llu + %llu handled\n",
		    (unsigned long long)calls, (unsigned long long)storm_hits, (unsigned long long)commits,
		    (unsigned long long)sent[0], (unsigned long long)sent[1], (unsigned long long)sent[2],
		    (unsigned long long)handled[0], (unsigned long long)handled[1]);
	CHECK_EQ(wrong, 0);
	CHECK(storm_hits > 0 && handled[0] > 0 && handled[1] > 0);
	CHECK_OK(patch_fini());
}

int main(int argc, char **argv)
{
	unsigned int seconds = 3;

	storm_worker_count = 2;
	stress_arguments(argc, argv, &seconds, &storm_worker_count);
	if (storm_worker_count > WORKERS_MAX)
		storm_worker_count = WORKERS_MAX;
	harness_start_seconds(seconds + 200);
	harness_isolated("storm", storm, &seconds);
	return harness_end();
}
