/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A commit is refused, because a thread blocks SIGTRAP and must not be adopted; then a module comes, and one goes whose
 * procedure is in a patch. The library commits by itself for both: what was refused must not come with that, nor is a
 * trap byte written for what goes.
 */
#include "targets.h"

#include "raw_mask.h"

#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>

#define SIGTRAP_BIT ((uint64_t)1 << (SIGTRAP - 1))

static unsigned int hits, module_hits;
static sem_t blocked, go_on, unblocked;
static const char *module_path;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

static void called(void)
{
	module_hits++;
}

static void *block(void *unused)
{
	raw_mask(SIG_BLOCK, SIGTRAP_BIT);
	sem_post(&blocked);
	sem_wait(&go_on);
	raw_mask(SIG_UNBLOCK, SIGTRAP_BIT);
	sem_post(&unblocked);
	return unused;
}

static void *load(void)
{
	void *module = dlopen(module_path, RTLD_NOW | RTLD_LOCAL);

	if (module == NULL)
		FAIL("%s", dlerror());
	REQUIRE(module != NULL);
	return module;
}

/* Returns the module, whose procedure is in a patch of t_push_push(); another thread blocks SIGTRAP. */
static void *begin(bool adopts, pthread_t *thread)
{
	const struct patch_option option = { .type = PATCH_OPT_ADOPT_THREADS, .adopt_threads = adopts };
	void (*module_procedure)(struct patch_exec_context *, uint8_t);
	patch_t patch;
	void *module;

	sem_init(&blocked, 0, 0);
	sem_init(&go_on, 0, 0);
	sem_init(&unblocked, 0, 0);
	REQUIRE_OK(patch_init(&option, 1));
	module = load();
	*(void **)&module_procedure = dlsym(module, "module_procedure");
	REQUIRE(module_procedure != NULL);
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, module_procedure, (void *)(uintptr_t)called,
			      PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
	REQUIRE_OK(patch_commit());
	CHECK_EQ(t_push_push(1, 2), 5);
	CHECK_EQ(module_hits, 1);
	REQUIRE(pthread_create(thread, NULL, block, NULL) == 0);
	sem_wait(&blocked);
	return module;
}

static void refused(void *policy)
{
	const struct target *target = target_named("t_five_bytes"), *open = target_named("t_push_push");
	const struct text_copy before = text_of_target(target), open_before = text_of_target(open);
	struct text_copy open_patched;
	pthread_t thread;
	void *module = begin(false, &thread);
	patch_t patch;

	open_patched = text_of_target(open);
	REQUIRE_OK(make_probe(target_start(target), procedure, NULL, *(const int *)policy, PATCH_ENABLED, &patch));
	CHECK_STATUS(patch_commit(), PATCH_EBLOCKED);
	CHECK_TEXT_SAME(&before);
	dlclose(module);
	CHECK_TEXT_SAME(&before);
	CHECK_TEXT_SAME(&open_patched);
	CHECK_EQ(t_push_push(1, 2), 5);
	CHECK_EQ(module_hits, 1);
	load();
	CHECK_TEXT_SAME(&before);
	CHECK_EQ(target->function(5, 7), target->model(5, 7));
	CHECK_EQ(hits, 0);

	sem_post(&go_on);
	sem_wait(&unblocked);
	CHECK_OK(patch_commit());
	CHECK_TEXT_SAME(&open_before);
	CHECK_EQ(target->function(5, 7), target->model(5, 7));
	CHECK_EQ(hits, 1);
	pthread_join(thread, NULL);
	CHECK_OK(patch_fini());
	CHECK_TEXT_SAME(&before);
}

/* Where it may be adopted, it is: what goes leaves the text at once. */
static void adopted(void *unused)
{
	const struct text_copy before = text_of_target(target_named("t_push_push"));
	pthread_t thread;
	void *module = begin(true, &thread);

	(void)unused;
	dlclose(module);
	CHECK_TEXT_SAME(&before);
	CHECK_EQ(t_push_push(1, 2), 5);
	CHECK_EQ(module_hits, 1);
	sem_post(&go_on);
	sem_wait(&unblocked);
	pthread_join(thread, NULL);
	CHECK_OK(patch_fini());
}

int main(void)
{
	int trap = PATCH_TRAP_POLICY_FORCE, jump = PATCH_TRAP_POLICY_FORBID;

	module_path = harness_module();
	harness_start();
	harness_isolated("a trap", refused, &trap);
	harness_isolated("a jump", refused, &jump);
	harness_isolated("adopted", adopted, NULL);
	return harness_end();
}
