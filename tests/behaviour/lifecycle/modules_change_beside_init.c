/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * patch_init() looks through the code of all modules. One that another thread closes meanwhile stays until it is done.
 * And generated code is registered with the unwinder before anybody returns who uses it, by whichever thread.
 */
#include "targets.h"

#include "base/inject.h"

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

/* ---- unwind descriptions ---------------------------------------------------------------------------------------- */

static _Thread_local bool is_to_hold;
static void (*next)(const void *, void *);

__attribute__((constructor)) static void find_next(void)
{
	next = (void (*)(const void *, void *))dlsym(RTLD_NEXT, "__register_frame_info");
}

void __register_frame_info(const void *begin, void *object)
{
	if (is_to_hold) {
		is_to_hold = false;
		hold();
		CHECK(!done);
	}
	next(begin, object);
}

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static void *commit_beside(void *unused)
{
	patch_t patch;

	(void)unused;
	while (!held)
		sched_yield();
	other = (pid_t)syscall(SYS_gettid);
	CHECK_OK(make_probe((uintptr_t)t_five_bytes, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
	done = true;
	return NULL;
}

/* push rbp; mov rbp, rsp; mov eax, 42; pop rbp; ret */
static const uint8_t function[] = { 0x55, 0x48, 0x89, 0xE5, 0xB8, 42, 0, 0, 0, 0x5D, 0xC3 };

/* The other thread's patch needs no memory of its own, but could be in the memory that is being registered. */
static void registered_by_another(void *unused)
{
	uint8_t *far = mmap((void *)0x100000000000, 4096, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	pthread_t thread;
	patch_t patch;

	(void)unused;
	REQUIRE(far != MAP_FAILED);
	memcpy(far, function, sizeof(function));
	REQUIRE(mprotect(far, 4096, PROT_READ | PROT_EXEC) == 0);
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
	REQUIRE(pthread_create(&thread, NULL, commit_beside, NULL) == 0);
	is_to_hold = true;
	CHECK_OK(make_probe((uintptr_t)far, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
	CHECK_OK(patch_commit());
	CHECK(held);
	pthread_join(thread, NULL);
	CHECK(done);
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	module_path = harness_module();
	harness_isolated("a module is closed", closed_beside_init, NULL);
	harness_isolated("another thread registers", registered_by_another, NULL);
	return harness_end();
}
