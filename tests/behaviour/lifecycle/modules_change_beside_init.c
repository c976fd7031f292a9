/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * patch_init() looks through the code of all modules. One that another thread closes meanwhile stays until it is done;
 * and when modules come and go whenever it has listed them, it comes to an end.
 */
#include "targets.h"

#include "base/inject.h"
#include "runtime/lock.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>

static const char *module_path;
static void *module;
static uintptr_t in_module;
static _Atomic pid_t other;
static _Atomic bool done, held;

/* Until the other thread waits, or did not. */
static void hold(void)
{
	held = true;
	while (!done && (other == 0 || !harness_waits(other)))
		sched_yield();
}

/* ---- modules ---------------------------------------------------------------------------------------------------- */

static int hold_commit(enum inject_point point)
{
	uint64_t word;

	if (point != INJECT_COMMIT_CHECKED || held)
		return 0;
	hold();
	CHECK(!done);
	/* Its code is there. */
	CHECK_EQ(syscall(SYS_rt_sigprocmask, SIG_BLOCK, in_module, &word, sizeof(word)), 0);
	return 0;
}

static void *close_module(void *unused)
{
	(void)unused;
	while (!held)
		sched_yield();
	other = (pid_t)syscall(SYS_gettid);
	CHECK(dlclose(module) == 0);
	done = true;
	return NULL;
}

static void closed_beside_init(void *unused)
{
	pthread_t thread;

	(void)unused;
	module = dlopen(module_path, RTLD_NOW | RTLD_LOCAL);
	REQUIRE(module != NULL);
	in_module = (uintptr_t)dlsym(module, "module_function");
	REQUIRE(in_module != 0);
	libpatch_inject = hold_commit;
	REQUIRE(pthread_create(&thread, NULL, close_module, NULL) == 0);
	CHECK_OK(patch_init(NULL, 0));
	CHECK(held);
	pthread_join(thread, NULL);
	CHECK(done);
	CHECK_OK(patch_fini());
}

/* In the thread itself, as often as a thread beside it could. */
static int load_and_unload(enum inject_point point)
{
	static bool loads;

	if (point != INJECT_SYSCALL || loads || lock_is_inside())
		return 0;
	loads = true;
	CHECK(dlclose(dlopen(module_path, RTLD_NOW | RTLD_LOCAL)) == 0);
	loads = false;
	return 0;
}

GP_ONLY static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static void loads_beside_init(void *unused)
{
	patch_t patch;

	(void)unused;
	libpatch_inject = load_and_unload;
	CHECK_OK(patch_init(NULL, 0));
	libpatch_inject = NULL;
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	CHECK_OK(patch_commit());
	CHECK_EQ(t_push_push(1, 2), 5);
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	module_path = harness_module();
	harness_isolated("a module is closed", closed_beside_init, NULL);
	harness_isolated("modules come and go", loads_beside_init, NULL);
	return harness_end();
}
