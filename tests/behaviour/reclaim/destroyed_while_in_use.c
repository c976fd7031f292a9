/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A patch that was unmade is gone when no thread runs its procedure any more, and not before: its destroy function is
 * called then, once, however often is asked; patch_synchronize() says so. A commit does not wait for that.
 */
#include "targets.h"

#include <pthread.h>

/* More than the library has room for without asking the kernel. */
#define MANY 200

static unsigned int inside, leave, destroyed, calls, used_after;
static char data;

static void wait_for(const unsigned int *flag, unsigned int value)
{
	while (__atomic_load_n(flag, __ATOMIC_ACQUIRE) != value) {
		struct timespec nap = { 0, 500000 };

		nanosleep(&nap, NULL);
	}
}

static void destroy(void *user_data)
{
	CHECK(user_data == &data);
	__atomic_fetch_add(&destroyed, 1, __ATOMIC_SEQ_CST);
}

static void use(void)
{
	if (__atomic_load_n(&destroyed, __ATOMIC_SEQ_CST) != 0)
		__atomic_fetch_add(&used_after, 1, __ATOMIC_SEQ_CST);
}

static __thread bool stays;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	CHECK(context->user_data == &data);
	use();
	__atomic_fetch_add(&calls, 1, __ATOMIC_SEQ_CST);
	if (!stays || __atomic_load_n(&leave, __ATOMIC_ACQUIRE))
		return;
	__atomic_fetch_add(&inside, 1, __ATOMIC_SEQ_CST);
	wait_for(&leave, 1);
	use();
	__atomic_fetch_sub(&inside, 1, __ATOMIC_SEQ_CST);
}

/* Calls of the library from the procedure: the thread is in both. */
static void calling_procedure(struct patch_exec_context *context, uint8_t post)
{
	procedure(context, post);
	CHECK_OK(patch_commit());
	CHECK_OK(patch_commit());
	use();
}

/* In a handler on a stack of its own, above the procedure. */
static void handler(int signo)
{
	(void)signo;
	CHECK_EQ(t_five_bytes(5, 7), target_named("t_five_bytes")->model(5, 7));
	__atomic_fetch_add(&inside, 1, __ATOMIC_SEQ_CST);
	wait_for(&leave, 1);
	__atomic_fetch_sub(&inside, 1, __ATOMIC_SEQ_CST);
}

static void signalled_procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	use();
	__atomic_fetch_add(&calls, 1, __ATOMIC_SEQ_CST);
	if (stays && !__atomic_load_n(&leave, __ATOMIC_ACQUIRE))
		raise(SIGABRT); /* others are put off until the procedure has returned */
	use();
}

static void *run(void *argument)
{
	static char stack[65536];
	stack_t signal_stack = { .ss_sp = stack, .ss_size = sizeof(stack) };
	struct sigaction action = { .sa_handler = handler, .sa_flags = SA_ONSTACK };

	(void)argument;
	stays = true;
	sigaltstack(&signal_stack, NULL);
	sigaction(SIGABRT, &action, NULL);
	CHECK_EQ(t_five_bytes(5, 7), target_named("t_five_bytes")->model(5, 7));
	return NULL;
}

static patch_t make(uintptr_t address, int type, probe_procedure what)
{
	struct patch_location location = location_at(address);
	struct patch_exec_model model = model_of(type, what, &data);
	patch_attr attr = attr_of(PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED);
	patch_t patch = NULL;

	model.probe.destroy = destroy;
	REQUIRE_OK(patch_make(&location, &model, &attr, &patch, NULL));
	return patch;
}

static uint64_t pending(void)
{
	struct patch_statistics statistics;

	memset(&statistics, 0, sizeof(statistics));
	CHECK_OK(patch_statistics(&statistics, sizeof(statistics)));
	return statistics.pending;
}

struct variant {
	const char *what;
	int type;
	probe_procedure procedure;
	bool disabled_first;
	bool neighbour; /* the region stays */
	unsigned int threads;
};

static void in_procedure(void *argument)
{
	const struct variant *v = argument;
	patch_t patch, other = NULL;
	static pthread_t threads[MANY];

	REQUIRE_OK(patch_init(NULL, 0));
	patch = make((uintptr_t)t_five_bytes, v->type, v->procedure);
	CHECK_OK(patch_commit());
	for (unsigned int i = 0; i < v->threads; i++)
		REQUIRE(pthread_create(&threads[i], NULL, run, NULL) == 0);
	wait_for(&inside, v->threads);
	if (v->neighbour)
		REQUIRE_OK(make_probe((uintptr_t)t_five_bytes, procedure, &data, PATCH_TRAP_POLICY_ALLOW,
				      PATCH_DISABLED, &other));
	CHECK_OK(patch_synchronize(0)); /* nothing was disabled yet */
	if (v->disabled_first) {
		CHECK_OK(patch_disable(patch));
		CHECK_OK(patch_commit());
		CHECK_STATUS(patch_synchronize(0), PATCH_EBUSY);
		CHECK_STATUS(patch_synchronize(1000000), PATCH_EBUSY);
		CHECK_MSG(harness_error_is_at((uintptr_t)t_five_bytes), "%s", harness_last_error());
	}
	CHECK_EQ(pending(), 0);
	CHECK_OK(patch_unmake(patch));
	CHECK_EQ(pending(), 1);
	CHECK_OK(patch_commit());
	calls = 0;
	CHECK_EQ(t_five_bytes(5, 7), target_named("t_five_bytes")->model(5, 7));
	CHECK_EQ(calls, 0);
	for (int i = 0; i < 3; i++) {
		CHECK_OK(patch_commit());
		CHECK_STATUS(patch_synchronize(0), PATCH_EBUSY);
		CHECK_MSG(harness_error_is_at((uintptr_t)t_five_bytes), "%s", harness_last_error());
	}
	CHECK_EQ(destroyed, 0);
	CHECK_EQ(pending(), 1);
	__atomic_store_n(&leave, 1, __ATOMIC_SEQ_CST);
	CHECK_OK(patch_synchronize(-1));
	CHECK_EQ(destroyed, 1);
	CHECK_EQ(pending(), 0);
	for (unsigned int i = 0; i < v->threads; i++)
		pthread_join(threads[i], NULL);
	CHECK_OK(patch_commit());
	CHECK_OK(patch_synchronize(-1));
	CHECK_OK(patch_fini());
	CHECK_OK(patch_synchronize(-1));
	CHECK_EQ(destroyed, 1);
	CHECK_EQ(used_after, 0);
}

/* patch_fini() does not wait either; a later patch_synchronize() completes what it removed. */
static void at_the_end(void *unused)
{
	pthread_t thread;

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	make((uintptr_t)t_five_bytes, PATCH_EXEC_MODEL_PROBE, procedure);
	CHECK_OK(patch_commit());
	REQUIRE(pthread_create(&thread, NULL, run, NULL) == 0);
	wait_for(&inside, 1);
	CHECK_OK(patch_fini());
	CHECK_EQ(destroyed, 0);
	CHECK_STATUS(patch_synchronize(0), PATCH_EBUSY);
	__atomic_store_n(&leave, 1, __ATOMIC_SEQ_CST);
	CHECK_OK(patch_synchronize(-1));
	CHECK_EQ(destroyed, 1);
	pthread_join(thread, NULL);
	CHECK_EQ(used_after, 0);
}

int main(void)
{
	static const struct variant variants[] = {
		{ "in a procedure", PATCH_EXEC_MODEL_PROBE, procedure, false, false, 1 },
		{ "in a procedure, three threads", PATCH_EXEC_MODEL_PROBE, procedure, false, false, 3 },
		{ "in a procedure, disabled first", PATCH_EXEC_MODEL_PROBE, procedure, true, false, 1 },
		{ "in a procedure, the window stays", PATCH_EXEC_MODEL_PROBE, procedure, false, true, 2 },
		{ "in a procedure, many threads", PATCH_EXEC_MODEL_PROBE, procedure, false, false, MANY },
		{ "around", PATCH_EXEC_MODEL_PROBE_AROUND, procedure, false, false, 1 },
		{ "in the library, in a procedure", PATCH_EXEC_MODEL_PROBE, calling_procedure, false, false, 1 },
		{ "in a handler, in a procedure", PATCH_EXEC_MODEL_PROBE, signalled_procedure, false, false, 1 },
	};

	harness_start();
	for (size_t i = 0; i < sizeof(variants) / sizeof(variants[0]); i++)
		harness_isolated(variants[i].what, in_procedure, (void *)&variants[i]);
	harness_isolated("patch_fini()", at_the_end, NULL);
	return harness_end();
}
