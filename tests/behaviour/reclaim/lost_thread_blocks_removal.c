/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A procedure is left not only by returning: the thread ends in it, jumps out of it, throws; or the process is a child
 * of fork(), in which the other threads, and their procedures, are not. None of them keeps a patch from being gone for
 * ever; but a procedure that forks, by whatever means, is in the child, too.
 */
#include "targets.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <sys/syscall.h>

static unsigned int inside, leave, destroyed;

static void destroy(void *user_data)
{
	(void)user_data;
	destroyed++;
}

static patch_t make(probe_procedure procedure)
{
	struct patch_location location = location_at((uintptr_t)t_five_bytes);
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE, procedure, NULL);
	patch_attr attr = attr_of(PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED);
	patch_t patch = NULL;

	model.probe.destroy = destroy;
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(patch_make(&location, &model, &attr, &patch, NULL));
	CHECK_OK(patch_commit());
	return patch;
}

static void remove_and_wait(patch_t patch)
{
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
	CHECK_OK(patch_synchronize(-1));
	CHECK_EQ(destroyed, 1);
}

static void *call(void *argument)
{
	t_five_bytes(1, 2);
	return argument;
}

/* ---- threads that end ------------------------------------------------------------------------------------------- */

static void exit_procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	pthread_exit(NULL);
}

static void vanish_procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	syscall(SYS_exit, 0);
}

struct end {
	probe_procedure procedure;
	size_t stack; /* libc keeps small ones */
};

static void thread_ends(void *argument)
{
	const struct end *end = (const struct end *)argument;
	patch_t patch = make(end->procedure);
	pthread_attr_t attr;
	pthread_t thread;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, end->stack);
	REQUIRE(pthread_create(&thread, &attr, call, NULL) == 0);
	pthread_join(thread, NULL);
	remove_and_wait(patch);
	CHECK_OK(patch_fini());
}

/* ---- jumps out -------------------------------------------------------------------------------------------------- */

static jmp_buf back;

static void jumping_procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	longjmp(back, 1);
}

static NOINLINE void jump_out(void)
{
	volatile char deeper[4096];

	deeper[0] = 0;
	if (setjmp(back) == 0)
		t_five_bytes(1, 2);
	deeper[1] = deeper[0];
}

static void jumps(void *unused)
{
	patch_t patch;

	(void)unused;
	patch = make(jumping_procedure);
	jump_out();
	remove_and_wait(patch);
	CHECK_OK(patch_fini());
}

/* ---- forks ------------------------------------------------------------------------------------------------------ */

static void parked_procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	__atomic_store_n(&inside, 1, __ATOMIC_SEQ_CST);
	while (!__atomic_load_n(&leave, __ATOMIC_SEQ_CST))
		sched_yield();
}

static pid_t by_libc(void)
{
	return fork();
}

static pid_t by_system_call(void)
{
	return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

static void end_child(pid_t pid)
{
	int status = -1;

	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
}

static void others_parked(void *argument)
{
	pid_t (*const fork_by)(void) = (pid_t(*)(void))argument;
	patch_t patch = make(parked_procedure);
	pthread_t thread;
	pid_t pid;

	REQUIRE(pthread_create(&thread, NULL, call, NULL) == 0);
	while (!__atomic_load_n(&inside, __ATOMIC_SEQ_CST))
		sched_yield();
	pid = fork_by();
	if (pid == 0) {
		remove_and_wait(patch);
		_exit(harness_failures != 0);
	}
	end_child(pid);
	/* Nothing of this happened here. */
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
	CHECK_STATUS(patch_synchronize(0), PATCH_EBUSY);
	CHECK_EQ(destroyed, 0);
	__atomic_store_n(&leave, 1, __ATOMIC_SEQ_CST);
	pthread_join(thread, NULL);
	CHECK_OK(patch_synchronize(-1));
	CHECK_EQ(destroyed, 1);
	CHECK_OK(patch_fini());
}

static patch_t own;
static pid_t (*own_fork)(void);

static void forking_procedure(struct patch_exec_context *context, uint8_t post)
{
	pid_t pid;

	(void)context;
	(void)post;
	pid = own_fork();
	if (pid == 0) {
		CHECK_OK(patch_unmake(own));
		CHECK_OK(patch_commit());
		CHECK_STATUS(patch_synchronize(-1), PATCH_EBUSY);
		CHECK_EQ(destroyed, 0);
		inside = 2;
		return;
	}
	end_child(pid);
}

static void forks_itself(void *argument)
{
	own_fork = (pid_t(*)(void))argument;
	own = make(forking_procedure);
	t_five_bytes(1, 2);
	if (inside == 2) {
		CHECK_OK(patch_synchronize(-1));
		CHECK_EQ(destroyed, 1);
		_exit(harness_failures != 0);
	}
	remove_and_wait(own);
	CHECK_OK(patch_fini());
}

/* ---- a child with the parent's memory --------------------------------------------------------------------------- */

static unsigned int hits;

static void *volatile top_of_stack;

static int child(void *argument)
{
	(void)argument;
	t_cmov(1, 2);
	return 0;
}

static void counting_procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

/* As posix_spawn() does it. The child's stack is above the procedure's. */
static void spawning_procedure(struct patch_exec_context *context, uint8_t post)
{
	pid_t pid;

	(void)context;
	(void)post;
	pid = clone(child, top_of_stack, CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
	REQUIRE(pid > 0);
	end_child(pid);
	__atomic_store_n(&inside, 1, __ATOMIC_SEQ_CST);
	while (!__atomic_load_n(&leave, __ATOMIC_SEQ_CST))
		sched_yield();
}

static void spawns(void *unused)
{
	patch_t patch = make(spawning_procedure);
	char *stack = (char *)mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_attr_t attr;
	pthread_t thread;
	patch_t other;

	(void)unused;
	REQUIRE(stack != MAP_FAILED);
	top_of_stack = stack + (1 << 20);
	pthread_attr_init(&attr);
	pthread_attr_setstack(&attr, stack, 1 << 19);
	REQUIRE_OK(make_probe((uintptr_t)t_cmov, counting_procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED,
			      &other));
	CHECK_OK(patch_commit());
	REQUIRE(pthread_create(&thread, &attr, call, NULL) == 0);
	while (!__atomic_load_n(&inside, __ATOMIC_SEQ_CST))
		sched_yield();
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
	CHECK_STATUS(patch_synchronize(0), PATCH_EBUSY);
	CHECK_EQ(destroyed, 0);
	CHECK_EQ(hits, 0); /* inside a procedure */
	__atomic_store_n(&leave, 1, __ATOMIC_SEQ_CST);
	pthread_join(thread, NULL);
	CHECK_OK(patch_synchronize(-1));
	CHECK_EQ(destroyed, 1);
	CHECK_OK(patch_fini());
}

int main(void)
{
	struct end ends[] = { { exit_procedure, 1 << 20 },
			      { exit_procedure, 64 << 20 },
			      { vanish_procedure, 64 << 20 } };

	harness_start();
	harness_isolated("pthread_exit()", thread_ends, &ends[0]);
	harness_isolated("pthread_exit(), the stack is unmapped", thread_ends, &ends[1]);
	harness_isolated("the system call exit", thread_ends, &ends[2]);
	harness_isolated("longjmp()", jumps, NULL);
	harness_isolated("others parked, fork()", others_parked, (void *)by_libc);
	harness_isolated("others parked, clone", others_parked, (void *)by_system_call);
	harness_isolated("a procedure forks, fork()", forks_itself, (void *)by_libc);
	harness_isolated("a procedure forks, clone", forks_itself, (void *)by_system_call);
	harness_isolated("a procedure spawns", spawns, NULL);
	return harness_end();
}
