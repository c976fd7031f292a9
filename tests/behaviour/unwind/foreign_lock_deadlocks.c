/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A thread holds libgcc's mutex and is in malloc(), another one waits for the mutex to register new memory for
 * generated code. Whatever a third thread or a procedure in the first one asks of the library meanwhile waits for
 * neither, and a handler that interrupts the one that waits runs. In the end libgcc knows all of the generated code.
 */
#include "harness.h"

#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include <sched.h>

#define FAR 4

enum operation { FORK, MAKE, MAKE_FAR, ENABLE, DISABLE, UNMAKE, SYNCHRONIZE, STATISTICS, OPERATIONS };
static const char *const names[] = { "fork",	"make",	  "make far away", "enable",
				     "disable", "unmake", "synchronize",   "statistics" };

struct part {
	enum operation operation;
	bool holder; /* it is asked for in the thread that holds the mutex, by a procedure */
};

struct bases {
	void *text, *data, *function;
};
extern const void *_Unwind_Find_FDE(void *pc, struct bases *bases);
extern void *__libc_malloc(size_t size);

static const struct part *part;
static uint8_t *code[FAR];
static patch_t near, fresh;
static __thread bool holder;
static uintptr_t libgcc;
static sem_t held, waiting, done;
static bool was_held;
static volatile pid_t waiter;
static volatile sig_atomic_t handled;
static void *generated;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	generated = __builtin_return_address(0);
}

static NOINLINE int near_function(int a)
{
	__asm__ volatile("" : "+r"(a));
	return a + 1;
}

static NOINLINE int other_function(int a)
{
	__asm__ volatile("" : "+r"(a));
	return a + 2;
}

static patch_status patch_far(int index)
{
	patch_t patch;
	patch_status status = make_probe((uintptr_t)code[index], procedure, NULL, PATCH_TRAP_POLICY_ALLOW,
					 PATCH_ENABLED, &patch);

	return status == PATCH_OK ? patch_commit() : status;
}

static void operate(void)
{
	struct patch_statistics statistics;
	pid_t pid;

	switch (part->operation) {
	case FORK:
		pid = fork();
		if (pid == 0)
			_exit(0);
		waitpid(pid, NULL, 0);
		return;
	case MAKE:
		CHECK_OK(make_probe((uintptr_t)other_function, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED,
				    &fresh));
		break;
	case MAKE_FAR:
		CHECK_OK(patch_far(2));
		return;
	case ENABLE:
		CHECK_OK(patch_enable(near));
		break;
	case DISABLE:
		CHECK_OK(patch_disable(near));
		break;
	case UNMAKE:
		CHECK_OK(patch_unmake(near));
		break;
	case SYNCHRONIZE:
		/* A procedure cannot wait for itself. */
		if (!part->holder)
			CHECK_OK(patch_synchronize(1000000000));
		break;
	default:
		CHECK_OK(patch_statistics(&statistics, sizeof(statistics)));
	}
	CHECK_OK(patch_commit());
}

static void operating_procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	operate();
}

/* Probed: what it is called for is done by a procedure. */
static NOINLINE void as_holder(void)
{
	__asm__ volatile("" ::: "memory");
}

static void handle(int signal)
{
	(void)signal;
	handled = 1;
}

/* libgcc has called malloc() with its mutex held. */
static void hold(void)
{
	holder = false;
	was_held = true;
	sem_post(&held);
	while (waiter == 0 || !harness_waits(waiter))
		sched_yield();
	REQUIRE(syscall(SYS_tgkill, getpid(), waiter, SIGUSR1) == 0);
	while (!handled)
		sched_yield();
	if (part->holder) {
		as_holder();
	} else {
		sem_post(&waiting);
		while (sem_wait(&done) != 0)
			;
	}
}

void *malloc(size_t size)
{
	if (holder && (uintptr_t)__builtin_return_address(0) - libgcc < 1 << 20)
		hold();
	return __libc_malloc(size);
}

static void *look_up(void *unused)
{
	struct bases bases;

	(void)unused;
	holder = true;
	/* Objects that it has not seen are sorted first. */
	(void)_Unwind_Find_FDE(code[0], &bases);
	holder = false;
	if (!was_held)
		sem_post(&held);
	return NULL;
}

static void *patch_beside(void *unused)
{
	(void)unused;
	waiter = gettid();
	CHECK_OK(patch_far(1));
	return NULL;
}

static void check(void *argument)
{
	pthread_t looking, patching;
	struct bases bases;
	Dl_info info;
	patch_t patch;

	part = argument;
	sem_init(&held, 0, 0);
	sem_init(&waiting, 0, 0);
	sem_init(&done, 0, 0);
	signal(SIGUSR1, handle);
	REQUIRE(dladdr((void *)(uintptr_t)&_Unwind_Find_FDE, &info) != 0);
	libgcc = (uintptr_t)info.dli_fbase;
	for (int i = 0; i < FAR; i++) {
		static const uint8_t function[] = { 0x55, 0x48, 0x89, 0xE5, 0xB8, 42, 0, 0, 0, 0x5D, 0xC3 };

		code[i] = mmap((void *)(0x100000000000 + i * 0x400000000), 4096, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		REQUIRE(code[i] != MAP_FAILED);
		memcpy(code[i], function, sizeof(function));
		REQUIRE(mprotect(code[i], 4096, PROT_READ | PROT_EXEC) == 0);
	}
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)near_function, procedure, NULL, PATCH_TRAP_POLICY_ALLOW,
			      part->operation != ENABLE, &near));
	REQUIRE_OK(make_probe((uintptr_t)as_holder, operating_procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED,
			      &patch));
	REQUIRE_OK(patch_far(0));

	REQUIRE(pthread_create(&looking, NULL, look_up, NULL) == 0);
	while (sem_wait(&held) != 0)
		;
	if (!was_held)
		SKIP("this libgcc does not call malloc() with its mutex held");
	REQUIRE(pthread_create(&patching, NULL, patch_beside, NULL) == 0);
	if (!part->holder) {
		while (sem_wait(&waiting) != 0)
			;
		operate();
		sem_post(&done);
	}
	REQUIRE(pthread_join(looking, NULL) == 0 && pthread_join(patching, NULL) == 0);

	/* What was left is registered by the next call. */
	CHECK_OK(patch_commit());
	for (int i = 0; i < 3; i++) {
		generated = NULL;
		CHECK_EQ(call_code(code[i]), 42);
		CHECK((generated != NULL) == (i < 2 || part->operation == MAKE_FAR));
		CHECK(generated == NULL || _Unwind_Find_FDE((uint8_t *)generated - 1, &bases) != NULL);
	}
	CHECK_EQ(near_function(1), 2);
	CHECK_EQ(other_function(1), 3);
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	for (int i = 0; i < 2 * OPERATIONS; i++) {
		struct part now = { i / 2, i % 2 };
		char what[64];

		/* Another thread's new memory waits for the mutex, as it must. */
		if (now.operation == MAKE_FAR && !now.holder)
			continue;
		snprintf(what, sizeof(what), "%s by %s", names[now.operation], now.holder ? "the holder" : "another");
		harness_isolated(what, check, &now);
	}
	return harness_end();
}
