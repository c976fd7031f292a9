/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The public functions: validate, sequence, and let errors out. Every one that changes something does it under the library
 * lock; what must not happen under it (registering unwind tables, installing handlers) is done before or after.
 */
#include "api/api.h"

#include "arch/arch.h"
#include "code/arena.h"
#include "base/base.h"
#include "commit/commit.h"
#include "interpose/mask_audit.h"
#include "base/error.h"
#include "patch/unmapped.h"
#include "patch/handle.h"
#include "runtime/app_handlers.h"
#include "base/heap.h"
#include "runtime/lock.h"
#include "interpose/syscall_emul.h"
#include "elf/module.h"
#include "sys/process.h"
#include "patch/quiesce.h"
#include "patch/region.h"
#include "trap/registry.h"
#include "commit/replan.h"
#include "trap/signals.h"
#include "plan/site.h"
#include "sys/maps.h"
#include "sys/membarrier.h"
#include "interpose/syscall_sites.h"
#include "sys/text.h"
#include "runtime/hook_threads.h"
#include "trap/trap.h"

#include <time.h>

enum life { UNBORN, ALIVE, FINISHED };

static _Atomic enum life life;

/* ---- entering and leaving --------------------------------------------------------------------------------------- */

patch_status api_enter(struct lock_scope *scope, const char *origin)
{
	error_reset();
	if (!lock_acquire(scope))
		return error_raise(PATCH_EFAIL, origin, lock_refusal(), NULL);
	switch (atomic_load(&life)) {
	case ALIVE:
		return PATCH_OK;
	case FINISHED:
		lock_release(scope);
		return error_raise(PATCH_EFINI, origin, "called after patch_fini()", NULL);
	default:
		lock_release(scope);
		return error_raise(PATCH_EINIT, origin, "called before patch_init()", NULL);
	}
}

patch_status api_leave(const struct lock_scope *scope, patch_status status)
{
	text_trust(0, 0);
	lock_release(scope);
	return status;
}

/* ---- life cycle ------------------------------------------------------------------------------------------------- */

static patch_status read_options(const struct patch_option *options, size_t n, bool *allow_wx)
{
	if (options == NULL && n > 0)
		return error_raise(PATCH_EINVAL, "patch_init", "options are NULL but their number is not 0", "options");
	for (size_t i = 0; i < n; ++i) {
		if (options[i].type != PATCH_OPT_ENABLE_WXE)
			return error_raise_at(PATCH_EINVAL, "patch_init", "unknown option", (uintptr_t)options[i].type);
		*allow_wx = !options[i].enable_wxe;
	}
	return PATCH_OK;
}

static patch_status set_up(bool allow_wx)
{
	static bool fork_handled;
	struct lock_scope scope;
	int error;

	/* Before the loader's lock is asked for, which a copy may have from a thread that is not there. */
	if (!lock_acquire(&scope))
		return error_raise(PATCH_EFAIL, "patch_init", lock_refusal(), NULL);
	lock_release(&scope);
	error = core_sync_register();
	if (error != 0)
		return error_raise_sys(error == -ENOSYS || error == -EINVAL ? PATCH_ENOTSUP : PATCH_ESYS, "patch_init",
				       "the kernel refuses membarrier(REGISTER_PRIVATE_EXPEDITED_SYNC_CORE)", error);
	error = (int)maps_refusal();
	if (error != 0)
		return error_raise_sys(PATCH_ESYS, "patch_init",
				       "/proc/self/maps, which tells what code is and where memory is free, cannot be read", error);
	if (!mask_audit_can_look())
		return error_raise(PATCH_ESYS, "patch_init",
				   "/proc/self/task, which tells what signals the threads block, cannot be read", NULL);
	heap_take_refusal();
	if (text_init(allow_wx) != PATCH_OK) {
		error = (int)heap_take_refusal();
		if (error == 0)
			return error_raise(PATCH_ENOTSUP, "patch_init", text_refusal(), NULL);
		return error_raise_sys(error == -ENOMEM ? PATCH_ENOMEM : PATCH_ENOTSUP, "patch_init", text_refusal(), error);
	}
	arch_xsave_init();
	hook_threads_init();
	if (registry_init() != PATCH_OK)
		return error_raise(PATCH_ENOMEM, "patch_init", "out of memory", "registry");
	if (!fork_handled && lock_handle_fork() != 0)
		return error_raise(PATCH_ENOMEM, "patch_init", "out of memory", "pthread_atfork");
	fork_handled = true;
	/* After an initialisation that failed, or in a child of one, the program may have put one of its own there. */
	signals_doubt(SIGTRAP);
	error = signals_own(SIGTRAP);
	if (error != 0)
		return error_raise_sys(PATCH_ESYS, "patch_init", "the handler for SIGTRAP could not be installed", error);
	return PATCH_OK;
}

struct beginning {
	struct lock_scope scope;
	bool locked;
};

/* No module goes away while its system calls are looked for. */
static void begin_with_modules(void *data)
{
	struct beginning *beginning = data;

	beginning->locked = lock_acquire(&beginning->scope);
	if (!beginning->locked)
		return;
	interpose_system_calls();
	syscall_emul_adopt(&beginning->scope.mask);
	atomic_store(&life, ALIVE);
}

/*
 * Nobody forks in the middle of it: the child would have a library that is not initialised, and the calls patched. The lock
 * outlasts the loader's, under which nothing else may be asked for.
 */
static patch_status begin(void)
{
	struct beginning beginning = { .locked = false };

	module_hold_all(begin_with_modules, &beginning);
	if (!beginning.locked)
		return error_raise(PATCH_EFAIL, "patch_init", lock_refusal(), NULL);
	lock_release(&beginning.scope);
	mask_audit_wait_for_libc();
	return PATCH_OK;
}

EXPORT patch_status patch_init(const struct patch_option *options, size_t n)
{
	/* In a child it is nobody, whoever was here in the parent. */
	_Atomic int *busy = &libpatch_process_own.initialising;
	bool allow_wx = false;
	patch_status status;

	error_reset();
	status = read_options(options, n, &allow_wx);
	if (status != PATCH_OK)
		return status;
	if (atomic_load(&life) == FINISHED)
		return error_raise(PATCH_EFINI, "patch_init", "called after patch_fini()", NULL);
	if (atomic_load(&life) == UNBORN)
		process_begin();
	if (atomic_load(&life) == ALIVE || atomic_exchange(busy, 1))
		return error_raise(PATCH_EEXIST, "patch_init", "already initialised", NULL);
	status = atomic_load(&life) == ALIVE ? error_raise(PATCH_EEXIST, "patch_init", "already initialised", NULL) :
					       set_up(allow_wx);
	if (status == PATCH_OK)
		status = begin();
	atomic_store(busy, 0);
	return status;
}

/* ---- queueing --------------------------------------------------------------------------------------------------- */

/* One that is, and was, without effect, on a region of which nothing is in the text, is none of the region's business. */
static void queue_regions(struct patch *patch)
{
	bool has_effect = patch->wanted || patch->enabled || patch->open;

	for (size_t i = 0; i < patch->roles; ++i) {
		struct region *region = patch->sites[i].attachment.region;

		if (region != NULL && (has_effect || region->installed))
			region_queue(region);
	}
}

/* ---- changing --------------------------------------------------------------------------------------------------- */

static patch_status get(patch_t handle, struct patch **patch, const char *origin)
{
	*patch = handle_get(handle);
	if (*patch == NULL)
		return error_raise_at(PATCH_ENEXIST, origin, "no such patch: it was released, or never made",
				      (uintptr_t)handle);
	return PATCH_OK;
}

static patch_status want(patch_t handle, bool enabled, const char *origin)
{
	struct lock_scope scope;
	struct patch *patch;
	patch_status status = api_enter(&scope, origin);

	if (status != PATCH_OK)
		return status;
	status = get(handle, &patch, origin);
	if (status == PATCH_OK) {
		if (enabled && patch->gone) {
			status = error_raise_at(PATCH_EFAULT, origin, "its code, or its procedure's, was unmapped", patch->located);
		} else {
			patch->wanted = enabled;
			handle_change(patch);
		}
	}
	return api_leave(&scope, status);
}

EXPORT patch_status patch_enable(patch_t patch)
{
	return want(patch, true, "patch_enable");
}

EXPORT patch_status patch_disable(patch_t patch)
{
	return want(patch, false, "patch_disable");
}

static void release(struct patch *patch)
{
	static uint64_t order;

	patch->unmade = ++order;
	patch->released = true;
	patch->wanted = false;
	handle_change(patch);
}

EXPORT patch_status patch_unmake(patch_t handle)
{
	struct lock_scope scope;
	struct patch *patch;
	patch_status status = api_enter(&scope, "patch_unmake");

	if (status != PATCH_OK)
		return status;
	status = get(handle, &patch, "patch_unmake");
	if (status == PATCH_OK) {
		handle_revoke(patch);
		release(patch);
	}
	return api_leave(&scope, status);
}

/* After a commit: false when it has a change still. */
static bool settle(struct patch *patch)
{
	if (!patch->released)
		return true;
	if (patch_is_pending(patch) || patch->enabled)
		return false;
	region_detach(patch);
	quiesce_detached(patch);
	return true;
}

/* With the lock held: everything queued, as one batch. */
static patch_status commit_queue(void)
{
	patch_status status;

	text_trust(0, 0);
	unmapped_collect();
	status = commit_run();
	/* Modules come and go: what was learnt of them is good for one batch. */
	site_forget();
	heap_tidy();
	handle_settle(settle);
	return status;
}

/* Destroy functions are code of the host: they run without the lock, may call the library, and change no error of ours. */
static void destroy_due(void)
{
	struct error_chain errors;
	struct lock_scope scope;
	struct patch *patch;

	error_save(&errors);
	while (lock_acquire(&scope)) {
		patch = quiesce_take();
		lock_release(&scope);
		if (patch == NULL)
			break;
		patch->destroy(patch_procedure(patch).user_data);
		lock_acquire(&scope);
		quiesce_destroyed(patch);
		lock_release(&scope);
	}
	error_restore(&errors);
}

/* After a commit: what is gone goes. */
static patch_status leave_and_destroy(const struct lock_scope *scope, patch_status status)
{
	bool due;

	quiesce_poll();
	due = quiesce_is_due();
	status = api_leave(scope, status);
	if (due)
		destroy_due();
	return status;
}

static void queue_all_regions(void)
{
	handle_visit_changed(queue_regions);
}

/* A thread that meets a trap byte with SIGTRAP blocked is the process's end (kernel/signal.c, force_sig_info_to_task()). */
static patch_status check_threads(const char *origin)
{
	int thread = commit_changes_text() ? mask_audit_blocking_thread() : 0;

	if (thread == 0)
		return PATCH_OK;
	if (thread == MASK_AUDIT_UNKNOWN)
		return error_raise(PATCH_ESYS, origin, "/proc/self/task, which tells what signals the threads block, cannot be read: "
				   "one that blocks SIGTRAP or SIGILL would be killed", NULL);
	return error_raise_at(PATCH_EBLOCKED, origin, "a thread blocks SIGTRAP or SIGILL by means that libpatch does not see, and "
			      "would be killed: its number is", (uintptr_t)thread);
}

EXPORT patch_status patch_commit(void)
{
	struct lock_scope scope;
	patch_status status = api_enter(&scope, "patch_commit");

	if (status != PATCH_OK)
		return status;
	queue_all_regions();
	/* Installing a handler may run code of the host: not under the lock. */
	while (!signals_owned(SIGILL) && commit_needs_sigill()) {
		int error;

		lock_release(&scope);
		error = signals_own(SIGILL);
		if (error != 0)
			return error_raise_sys(PATCH_ESYS, "patch_commit",
					       "the handler for SIGILL could not be installed", error);
		status = api_enter(&scope, "patch_commit");
		if (status != PATCH_OK)
			return status;
		queue_all_regions();
	}
	status = check_threads("patch_commit");
	if (status != PATCH_OK)
		return api_leave(&scope, status);
	status = commit_queue();
	syscall_emul_look_for_handlers();
	if (status == PATCH_OK && replan_begin()) {
		/* Nobody asked for this. What fails of it works as it is, and is on the list for the next commit. */
		commit_queue();
		replan_go_on();
		commit_queue();
		error_reset();
	}
	return leave_and_destroy(&scope, status);
}

EXPORT patch_status patch_fini(void)
{
	struct lock_scope scope;
	patch_status status;
	bool finished;

	/* Nobody will tell of them any more. */
	if (atomic_load(&life) == ALIVE)
		app_handlers_expect();
	status = api_enter(&scope, "patch_fini");
	if (status != PATCH_OK)
		return status;
	handle_revoke_all(release);
	queue_all_regions();
	status = check_threads("patch_fini");
	if (status == PATCH_OK)
		status = commit_queue();
	if (status == PATCH_OK)
		status = interpose_restore();
	/* The handler and the registry live on, for traps that were raised before. */
	finished = status == PATCH_OK;
	if (finished)
		atomic_store(&life, FINISHED);
	status = leave_and_destroy(&scope, status);
	if (finished)
		syscall_emul_release();
	return status;
}

/* ---- waiting ---------------------------------------------------------------------------------------------------- */

#define FIRST_NAP_NS 20000
#define LONGEST_NAP_NS 2000000

/* -1: the clock cannot be read. */
static int64_t now(void)
{
	struct timespec time = { 0 };

	if (raw_syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &time) < 0)
		return -1;
	return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Also after patch_fini(), which does not wait for what it removed. */
static patch_status enter_to_wait(struct lock_scope *scope)
{
	error_reset();
	if (!lock_acquire(scope))
		return error_raise(PATCH_EFAIL, "patch_synchronize", lock_refusal(), NULL);
	if (atomic_load(&life) != UNBORN)
		return PATCH_OK;
	lock_release(scope);
	return error_raise(PATCH_EINIT, "patch_synchronize", "called before patch_init()", NULL);
}

/* One look at what has a ticket up to the given one; 0: up to now. Destroys what is due. */
static patch_status look(uint64_t *ticket, enum quiesce_state *state)
{
	struct lock_scope scope;
	patch_status status = enter_to_wait(&scope);

	if (status != PATCH_OK)
		return status;
	if (*ticket == 0)
		*ticket = quiesce_ticket();
	leave_and_destroy(&scope, PATCH_OK);
	status = enter_to_wait(&scope);
	if (status != PATCH_OK)
		return status;
	*state = quiesce_state(*ticket);
	return api_leave(&scope, PATCH_OK);
}

EXPORT patch_status patch_synchronize(int64_t timeout_ns)
{
	int64_t start = now();
	struct timespec nap = { 0, FIRST_NAP_NS };
	int64_t napped = 0;
	uint64_t ticket = 0;

	for (;;) {
		enum quiesce_state state;
		patch_status status = look(&ticket, &state);

		if (status != PATCH_OK || state == QUIESCE_QUIET)
			return status;
		if (state == QUIESCE_SELF)
			return error_raise(PATCH_EBUSY, "patch_synchronize",
					   "called from a procedure of a patch that it would wait for", NULL);
		if (timeout_ns >= 0 && (start >= 0 ? now() - start : napped) >= timeout_ns)
			return error_raise(PATCH_EBUSY, "patch_synchronize", "a thread is still in a procedure", NULL);
		raw_syscall(SYS_nanosleep, &nap, NULL);
		napped += nap.tv_nsec;
		nap.tv_nsec = MIN(nap.tv_nsec * 2, LONGEST_NAP_NS);
	}
}

/* ---- asking ----------------------------------------------------------------------------------------------------- */

EXPORT patch_status patch_olx_original_pc(uintptr_t pc, uintptr_t *original)
{
	error_reset();
	if (original == NULL)
		return error_raise(PATCH_EINVAL, "patch_olx_original_pc", "a pointer is NULL", "original");
	if (!arena_original_pc(pc, original))
		return error_raise_at(PATCH_ENEXIST, "patch_olx_original_pc", "the address is not in generated code", pc);
	return PATCH_OK;
}

static uint64_t trap_hits(const struct region *region)
{
	uint64_t hits = 0;

	for (unsigned int i = 0; i < region->count; ++i)
		hits += atomic_load_explicit(&region->entries[i]->hits, memory_order_relaxed);
	return hits;
}

EXPORT patch_status patch_info(patch_t handle, struct patch_info *info)
{
	struct lock_scope scope;
	struct patch *patch;
	patch_status status;

	error_reset();
	if (info == NULL)
		return error_raise(PATCH_EINVAL, "patch_info", "a pointer is NULL", "info");
	status = api_enter(&scope, "patch_info");
	if (status != PATCH_OK)
		return status;
	status = get(handle, &patch, "patch_info");
	if (status == PATCH_OK && patch->gone)
		status = error_raise_at(PATCH_EFAULT, "patch_info", "its code, or its procedure's, was unmapped", patch->located);
	if (status == PATCH_OK) {
		const struct attachment *site = &patch->sites[ROLE_SITE].attachment;
		const struct region *region = site->region;
		unsigned int index = 0;

		while (region->start + region->offsets[index] != site->address)
			++index;
		info->address = patch->located;
		info->lower = region->start;
		info->upper = region->start + region->length;
		info->trampoline = trampoline_entry(region_trampoline(region), index);
		info->trap_hits = trap_hits(region);
		info->strategy = region->strategy;
		info->state = patch->enabled ? PATCH_ENABLED : PATCH_DISABLED;
	}
	return api_leave(&scope, status);
}

EXPORT patch_status patch_statistics(struct patch_statistics *statistics)
{
	struct arena_usage arenas;
	struct region_usage regions;
	struct interpose_usage own;
	struct hook_threads_usage threads;
	struct lock_scope scope;
	patch_status status;

	error_reset();
	if (statistics == NULL)
		return error_raise(PATCH_EINVAL, "patch_statistics", "a pointer is NULL", "statistics");
	status = api_enter(&scope, "patch_statistics");
	if (status != PATCH_OK)
		return status;
	arena_usage(&arenas);
	region_usage(&regions);
	interpose_usage(&own);
	hook_threads_usage(&threads);
	*statistics = (struct patch_statistics){
		.patches = handle_count(),
		.regions = regions.regions - own.regions,
		.regions_installed = regions.installed - own.regions,
		.arenas = arenas.mappings,
		.code_bytes = arenas.code_bytes,
		.retired_bytes = regions.retired_bytes,
		.commits = commit_count(),
		.core_syncs = core_sync_count(),
		.text_writes = text_write_count(),
		.traps = trap_count(),
		.pads = arenas.pads,
		.pad_bytes = arenas.pad_bytes,
		.heap_bytes = heap_mapped() + threads.bytes,
		.pending = handle_revoked_count(),
		.threads = threads.known,
		.missed = threads.missed,
		.mediated = own.mediated,
		.modules_kept = own.kept,
	};
	return api_leave(&scope, status);
}
