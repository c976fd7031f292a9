/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A module goes by dlclose() while its procedure is in a patch, and while a thread is in that procedure; or while its
 * own functions are patched. The patches end, and say so; what a thread runs stays there.
 */
#include "targets.h"

#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <semaphore.h>

static unsigned int hits;
static sem_t inside, leave;
static bool park;
static const char *module_path;

static void called(void)
{
	__atomic_fetch_add(&hits, 1, __ATOMIC_RELAXED);
	if (park) {
		sem_post(&inside);
		while (sem_wait(&leave) != 0)
			;
	}
}

static void *load(void **function, void **procedure)
{
	void *module = dlopen(module_path, RTLD_NOW | RTLD_LOCAL);

	if (module == NULL)
		FAIL("%s", dlerror());
	REQUIRE(module != NULL);
	*function = dlsym(module, "module_function");
	*procedure = dlsym(module, "module_procedure");
	REQUIRE(*function != NULL && *procedure != NULL);
	return module;
}

static patch_t make(void *address, void *procedure, int policy)
{
	struct patch_location location = { .type = PATCH_LOCATION_ADDRESS };
	struct patch_exec_model model = { .type = PATCH_EXEC_MODEL_PROBE };
	patch_attr attr;
	patch_t patch;

	location.address = (uintptr_t)address;
	model.probe.clobber_registers = PATCH_REGS_ALL;
	model.probe.procedure = (void (*)(struct patch_exec_context *, uint8_t))(uintptr_t)procedure;
	model.probe.user_data = (void *)(uintptr_t)called;
	REQUIRE_OK(patch_attr_init(&attr, sizeof(attr)));
	REQUIRE_OK(patch_attr_set_trap_policy(&attr, policy));
	REQUIRE_OK(patch_attr_set_initial_state(&attr, PATCH_ENABLED));
	REQUIRE_OK(patch_make(&location, &model, &attr, &patch, NULL));
	return patch;
}

static bool is_mapped(void *address)
{
	return msync((void *)((uintptr_t)address & ~4095UL), 4096, MS_ASYNC) == 0;
}

/* Who is in the target of a diversion is not known: it stays, and nobody comes any more. */
static void target_goes(void *argument)
{
	struct patch_location location = { .type = PATCH_LOCATION_ADDRESS };
	struct patch_exec_model model = { .type = PATCH_EXEC_MODEL_DIVERT };
	void *module, *function, *procedure;
	patch_t patch;

	(void)argument;
	REQUIRE_OK(patch_init(NULL, 0));
	module = load(&function, &procedure);
	location.address = (uintptr_t)t_push_push;
	model.divert.target = function;
	REQUIRE_OK(patch_make(&location, &model, NULL, &patch, NULL));
	CHECK_OK(patch_enable(patch));
	CHECK_OK(patch_commit());
	CHECK_EQ((uint32_t)t_push_push(1, 2), 2);
	CHECK_OK(patch_disable(patch));
	CHECK_OK(patch_commit());
	CHECK_OK(patch_enable(patch));
	CHECK_OK(patch_commit());
	CHECK(dlclose(module) == 0);
	CHECK_EQ(t_push_push(1, 2), 5);
	CHECK(is_mapped(function));
	CHECK_STATUS(patch_enable(patch), PATCH_EFAULT);
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
	CHECK_OK(patch_fini());
}

static void procedure_goes(void *argument)
{
	struct text_copy before = text_of_target(target_named("t_push_push"));
	struct patch_statistics statistics;
	void *module, *function, *procedure;

	(void)argument;
	REQUIRE_OK(patch_init(NULL, 0));
	for (int round = 0; round < 50; round++) {
		patch_t patch, refused;

		module = load(&function, &procedure);
		patch = make((void *)(uintptr_t)t_push_push, procedure, round % 3);
		REQUIRE_OK(patch_commit());
		hits = 0;
		CHECK_EQ(t_push_push(1, 2), 5);
		CHECK_EQ(hits, 1);
		REQUIRE(dlclose(module) == 0);
		CHECK(!is_mapped(procedure));
		CHECK_TEXT_SAME(&before);
		/* It was there a moment ago. */
		CHECK_STATUS(make_probe((uintptr_t)t_push_push, (probe_procedure)(uintptr_t)procedure, NULL,
					PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &refused),
			     PATCH_EFAULT);
		CHECK_EQ(t_push_push(1, 2), 5);
		CHECK_EQ(hits, 1);
		CHECK_STATUS(patch_enable(patch), PATCH_EFAULT);
		CHECK_OK(patch_commit());
		CHECK_OK(patch_unmake(patch));
		CHECK_OK(patch_commit());
	}
	CHECK_OK(patch_statistics(&statistics, sizeof(statistics)));
	CHECK_EQ(statistics.modules_kept, 0);
	CHECK_EQ(statistics.patches, 0);
	CHECK_OK(patch_fini());
}

static void *call(void *argument)
{
	CHECK_EQ(t_push_push(1, 2), 5);
	return argument;
}

static void thread_is_inside(void *argument)
{
	struct text_copy before = text_of_target(target_named("t_push_push"));
	struct patch_statistics statistics;
	void *module, *function, *procedure;
	pthread_t thread;
	patch_t patch;

	(void)argument;
	sem_init(&inside, 0, 0);
	sem_init(&leave, 0, 0);
	park = true;
	REQUIRE_OK(patch_init(NULL, 0));
	module = load(&function, &procedure);
	patch = make((void *)(uintptr_t)t_push_push, procedure, PATCH_TRAP_POLICY_ALLOW);
	REQUIRE_OK(patch_commit());
	REQUIRE(pthread_create(&thread, NULL, call, NULL) == 0);
	sem_wait(&inside);
	REQUIRE(dlclose(module) == 0);
	CHECK(is_mapped(procedure));
	CHECK_TEXT_SAME(&before);
	CHECK_STATUS(patch_enable(patch), PATCH_EFAULT);
	CHECK_OK(patch_statistics(&statistics, sizeof(statistics)));
	CHECK_EQ(statistics.modules_kept, 1);
	sem_post(&leave);
	pthread_join(thread, NULL);
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
	CHECK_OK(patch_fini());
}

GP_ONLY static void count(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

static void function_goes(void *argument)
{
	void *module, *function, *procedure;
	struct patch_statistics first, last;

	(void)argument;
	REQUIRE_OK(patch_init(NULL, 0));
	for (int round = 0; round < 300; round++) {
		patch_t patch;

		module = load(&function, &procedure);
		REQUIRE_OK(make_probe((uintptr_t)function, count, NULL, round % 3, PATCH_ENABLED, &patch));
		REQUIRE_OK(patch_commit());
		hits = 0;
		CHECK_EQ(((int (*)(int))(uintptr_t)function)(round), round + 1);
		CHECK_EQ(hits, 1);
		REQUIRE(dlclose(module) == 0);
		CHECK(!is_mapped(function));
		CHECK_STATUS(patch_enable(patch), PATCH_EFAULT);
		CHECK_OK(patch_unmake(patch));
		CHECK_OK(patch_commit());
		if (round == 50)
			CHECK_OK(patch_statistics(&first, sizeof(first)));
	}
	CHECK_OK(patch_statistics(&last, sizeof(last)));
	CHECK_EQ(last.heap_bytes, first.heap_bytes);
	CHECK_EQ(last.arenas, first.arenas);
	CHECK_EQ(last.code_bytes, first.code_bytes);
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	module_path = harness_module();
	harness_isolated("the procedure's module", procedure_goes, NULL);
	harness_isolated("a target goes", target_goes, NULL);
	harness_isolated("the procedure's module, with a thread in it", thread_is_inside, NULL);
	harness_isolated("the patched module", function_goes, NULL);
	return harness_end();
}
