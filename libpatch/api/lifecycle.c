/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * patch_init() and patch_fini(): the parts of the library are prepared from the bottom up, and end in the opposite
 * order. What must not happen under the library lock (installing handlers, asking for the loader's lock) is done before
 * it is taken.
 */
#include "api/enter.h"

#include "api/patch_commit.h"
#include "arch/cpu.h"
#include "arch/insn.h"
#include "base/compiler.h"
#include "base/error.h"
#include "base/heap.h"
#include "code/perf.h"
#include "code/unwinders.h"
#include "elf/dependency.h"
#include "elf/loaded.h"
#include "elf/module_files.h"
#include "elf/module_span.h"
#include "interpose/interpose.h"
#include "interpose/mask_audit.h"
#include "interpose/syscall_emul.h"
#include "patch/handle.h"
#include "runtime/app_handlers.h"
#include "runtime/hook_threads.h"
#include "runtime/fork.h"
#include "runtime/lock.h"
#include "sys/claim.h"
#include "sys/gaps.h"
#include "sys/maps.h"
#include "sys/membarrier.h"
#include "sys/process.h"
#include "sys/tasks.h"
#include "sys/text.h"
#include "sys/tls.h"
#include "trap/forward.h"

#include <errno.h>

struct lifecycle_options {
	bool enable_wxe;
	bool adopt_threads;
	struct perf_files perf;
};

static patch_status lifecycle_read_options(const struct patch_option *options, size_t n,
					   struct lifecycle_options *out)
{
	if (options == NULL && n > 0)
		return error_raise(PATCH_EINVAL, "patch_init", "options are NULL but their number is not 0", "options");
	for (size_t i = 0; i < n; ++i) {
		if (options[i].type == PATCH_OPT_ENABLE_WXE)
			out->enable_wxe = options[i].enable_wxe;
		else if (options[i].type == PATCH_OPT_ADOPT_THREADS)
			out->adopt_threads = options[i].adopt_threads;
		else if (options[i].type == PATCH_OPT_PERF_MAP)
			out->perf.map = options[i].perf_map;
		else if (options[i].type == PATCH_OPT_PERF_DUMP)
			out->perf.dump = options[i].perf_dump;
		else
			return error_raise_at(PATCH_EINVAL, "patch_init", "unknown option", (uintptr_t)options[i].type);
	}
	return PATCH_OK;
}

/* The loader's lock must not be asked for in a copy that has it from a thread that is not there. */
static bool lifecycle_may_ask_loader(void)
{
	struct lock_scope scope;

	if (!lock_acquire(&scope))
		return false;
	lock_release(&scope);
	return true;
}

static patch_status lifecycle_set_up(const struct lifecycle_options *options)
{
	static bool fork_handled;
	int error;

	if (!lifecycle_may_ask_loader())
		return error_raise(PATCH_EFAIL, "patch_init", lock_refusal(), NULL);
	/* Its names lead to it. */
	if (!dependency_bind(&arch_decoder_dependency))
		return error_raise(PATCH_ECONF, "patch_init",
				   "the program has functions with the names of a library's that libpatch calls, and "
				   "that library could not be loaded apart from them",
				   "Zydis");
	unwinders_find();
	/* With other threads it would wait, which the first commit may not have to. */
	error = tasks_is_single() ? core_sync_register() : core_sync_query();
	if (error != 0)
		return error_raise_sys(error == -ENOSYS || error == -EINVAL ? PATCH_ENOTSUP : PATCH_ESYS, "patch_init",
				       "the kernel refuses membarrier(REGISTER_PRIVATE_EXPEDITED_SYNC_CORE)", error);
	error = (int)maps_refusal();
	if (error != 0)
		return error_raise_sys(PATCH_ESYS, "patch_init",
				       "/proc/self/maps, which tells what code is and where memory is free, cannot "
				       "be read",
				       error);
	if (!mask_audit_can_look())
		return error_raise(PATCH_ESYS, "patch_init",
				   "/proc/self/task, which tells what signals the threads block, cannot be read", NULL);
	heap_take_refusal();
	gaps_try_again();
	mask_audit_set_adopts(options->adopt_threads);
	if (text_init(!options->enable_wxe) != PATCH_OK) {
		error = (int)heap_take_refusal();
		if (error == 0)
			return error_raise(PATCH_ENOTSUP, "patch_init", text_refusal(), NULL);
		return error_raise_sys(error == -ENOMEM ? PATCH_ENOMEM : PATCH_ENOTSUP, "patch_init", text_refusal(),
				       error);
	}
	arch_xsave_init();
	hook_threads_init();
	if (!fork_handled && lock_handle_fork() != 0)
		return error_raise(PATCH_ENOMEM, "patch_init", "out of memory", "pthread_atfork");
	fork_handled = true;
	lock_look_for_filters();
	error = forward_own_signals();
	if (error != 0)
		return error_raise_sys(PATCH_ESYS, "patch_init",
				       "the handlers for SIGTRAP and SIGILL could not be installed", error);
	return PATCH_OK;
}

struct lifecycle_start {
	struct lock_scope scope;
	bool locked;
};

/* No module goes away while its system calls are looked for. Not analysed: the lock is held when it returns, or not. */
static void lifecycle_start_with_modules(const struct others *others, void *data) NO_THREAD_SAFETY_ANALYSIS
{
	struct lifecycle_start *start = data;

	start->locked = lock_acquire(&start->scope);
	if (!start->locked)
		return;
	interpose_system_calls(others);
	syscall_emul_adopt(&start->scope.mask);
	api_set_life(API_ALIVE);
}

/*
 * Nobody forks in the middle of it: the child would have a library that is not initialised, and the calls patched. The
 * lock outlasts the loader's, under which nothing else may be asked for.
 */
static patch_status lifecycle_start(void) NO_THREAD_SAFETY_ANALYSIS
{
	struct lifecycle_start start = { .locked = false };

	loaded_hold(lifecycle_start_with_modules, &start);
	if (!start.locked)
		return error_raise(PATCH_EFAIL, "patch_init", lock_refusal(), NULL);
	lock_release_and_register_unwind(&start.scope);
	return PATCH_OK;
}

/* Before any code is generated. */
static patch_status lifecycle_tell_perf(const struct lifecycle_options *options)
{
	const char *path = NULL;
	long error = perf_begin(&options->perf, &path);

	if (error == 0)
		return PATCH_OK;
	error_raise_name(PATCH_ESYS, "patch_init", "a file for perf could not be made, or not be mapped", path);
	return error_raise_sys(PATCH_ESYS, "patch_init", "the kernel refused it", error);
}

struct lifecycle_copy {
	uintptr_t owner;
	patch_status status; /* PATCH_OK: not told yet */
};

#define COPY_MESSAGE "another copy of libpatch, in this file, patches this process: two would patch each other"

/* A loaded_visit_fn. Of the file's path the end says most. */
static bool lifecycle_tell_copy(const struct loaded *loaded, void *data)
{
	struct lifecycle_copy *copy = data;
	const char *path = loaded->path;

	if (module_room(&loaded->module, copy->owner) == 0)
		return true;
	for (const char *at = path; *at != '\0'; ++at)
		path += at - path >= ERROR_IRRITANT_SIZE - 1;
	copy->status =
		error_raise_name(PATCH_EEXIST, "patch_init", COPY_MESSAGE, *path == '\0' ? "the program" : path);
	return false;
}

/* Another copy has the process. Which one is told by its file. */
static patch_status lifecycle_refuse_copy(void)
{
	struct lifecycle_copy copy = { .owner = claim_owner(), .status = PATCH_OK };

	if (copy.owner == 0 || !lifecycle_may_ask_loader())
		return error_raise(PATCH_EEXIST, "patch_init", COPY_MESSAGE, "unknown");
	loaded_visit(false, lifecycle_tell_copy, &copy);
	if (copy.status == PATCH_OK)
		loaded_visit(true, lifecycle_tell_copy, &copy);
	if (copy.status == PATCH_OK)
		copy.status = error_raise_at(PATCH_EEXIST, "patch_init", COPY_MESSAGE, copy.owner);
	return copy.status;
}

/* Called by one thread at a time. */
static patch_status lifecycle_begin(const struct lifecycle_options *options)
{
	patch_status status;

	if (api_life() == API_ALIVE)
		return error_raise(PATCH_EEXIST, "patch_init", "already initialised", NULL);
	if (!claim_process())
		return lifecycle_refuse_copy();
	status = lifecycle_set_up(options);
	if (status == PATCH_OK)
		status = lifecycle_tell_perf(options);
	if (status == PATCH_OK)
		status = lifecycle_start();
	if (status != PATCH_OK)
		claim_release();
	return status;
}

EXPORT patch_status patch_init(const struct patch_option *options, size_t n)
{
	/* In a child it is nobody, whoever was here in the parent. */
	_Atomic int *busy = &libpatch_process_own.initialising;
	struct lifecycle_options wanted = { .enable_wxe = true, .adopt_threads = true };
	patch_status status;

	error_begin();
	status = lifecycle_read_options(options, n, &wanted);
	if (status != PATCH_OK)
		return status;
	if (api_life() == API_FINISHED)
		return error_raise(PATCH_EFINI, "patch_init",
				   "called after patch_fini(): a process cannot start again", NULL);
	if (api_life() == API_UNBORN)
		process_begin();
	tls_begin();
	if (api_life() == API_ALIVE)
		return error_raise(PATCH_EEXIST, "patch_init", "already initialised", NULL);
	if (atomic_exchange(busy, 1))
		return error_raise(PATCH_EEXIST, "patch_init", "another thread is initialising the library", NULL);
	status = lifecycle_begin(&wanted);
	atomic_store(busy, 0);
	return status;
}

EXPORT patch_status patch_fini(void)
{
	struct lock_scope scope;
	patch_status status;
	bool finished;

	error_begin();
	if (api_life() == API_ALIVE && process_is_borrowed())
		return error_raise(PATCH_EFAIL, "patch_fini",
				   "called in a child that runs in its parent's memory (vfork(2)): the patches "
				   "are the parent's",
				   NULL);
	/* Nobody will tell of them any more. */
	if (api_life() == API_ALIVE)
		app_handlers_expect();
	api_wait_for_start();
	if (!api_enter(&scope, "patch_fini", &status))
		return status;
	handle_revoke_all(api_release_patch);
	api_queue_regions();
	status = api_check_threads("patch_fini");
	if (status == PATCH_OK)
		status = api_commit_queue(true);
	if (status == PATCH_OK)
		status = interpose_restore();
	/* The handler and the registry live on, for traps that were raised before. */
	finished = status == PATCH_OK;
	if (finished)
		api_set_life(API_FINISHED);
	status = api_leave_and_destroy(&scope, status);
	if (finished) {
		syscall_emul_release();
		module_files_forget();
	}
	return status;
}
