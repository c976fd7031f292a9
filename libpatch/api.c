/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The public functions: validate, sequence, and let errors out. Every one that changes something does it under the library
 * lock; what must not happen under it (registering unwind tables, installing handlers) is done before or after.
 */
#include "arch/arch.h"
#include "arena.h"
#include "around.h"
#include "base.h"
#include "commit.h"
#include "error.h"
#include "handle.h"
#include "heap.h"
#include "lock.h"
#include "region.h"
#include "registry.h"
#include "signals.h"
#include "site.h"
#include "sync.h"
#include "text.h"

#include <dlfcn.h>
#include <string.h>

enum life { UNBORN, ALIVE, FINISHED };

static _Atomic enum life life;
static uint64_t make_order;
/* Patches with a change for the next commit, and released ones until they are gone. */
static struct patch *queue;

/* ---- entering and leaving --------------------------------------------------------------------------------------- */

static patch_status enter(struct lock_scope *scope, const char *origin)
{
	error_reset();
	if (!lock_acquire(scope))
		return error_raise(PATCH_EFAIL, origin, "called by a handler that interrupted libpatch in this thread",
				   NULL);
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

static patch_status leave(const struct lock_scope *scope, patch_status status)
{
	lock_release(scope);
	arena_register_unwind();
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
	int error;

	error = core_sync_register();
	if (error != 0)
		return error_raise_sys(error == -ENOSYS || error == -EINVAL ? PATCH_ENOTSUP : PATCH_ESYS, "patch_init",
				       "the kernel refuses membarrier(REGISTER_PRIVATE_EXPEDITED_SYNC_CORE)", error);
	if (text_init(allow_wx) != PATCH_OK)
		return error_raise(PATCH_ENOTSUP, "patch_init",
				   "the kernel lets text be written neither through /proc/self/mem nor by other means",
				   NULL);
	arch_xsave_init();
	if (registry_init() != PATCH_OK)
		return error_raise(PATCH_ENOMEM, "patch_init", "out of memory", "registry");
	if (!fork_handled && lock_handle_fork() != 0)
		return error_raise(PATCH_ENOMEM, "patch_init", "out of memory", "pthread_atfork");
	fork_handled = true;
	error = signals_own(SIGTRAP);
	if (error != 0)
		return error_raise_sys(PATCH_ESYS, "patch_init", "the handler for SIGTRAP could not be installed", error);
	return PATCH_OK;
}

EXPORT patch_status patch_init(const struct patch_option *options, size_t n)
{
	static _Atomic bool busy;
	bool allow_wx = false;
	patch_status status;

	error_reset();
	status = read_options(options, n, &allow_wx);
	if (status != PATCH_OK)
		return status;
	if (atomic_load(&life) == FINISHED)
		return error_raise(PATCH_EFINI, "patch_init", "called after patch_fini()", NULL);
	if (atomic_load(&life) == ALIVE || atomic_exchange(&busy, true))
		return error_raise(PATCH_EEXIST, "patch_init", "already initialised", NULL);
	status = atomic_load(&life) == ALIVE ?
			 error_raise(PATCH_EEXIST, "patch_init", "already initialised", NULL) :
			 set_up(allow_wx);
	if (status == PATCH_OK)
		atomic_store(&life, ALIVE);
	atomic_store(&busy, false);
	return status;
}

/* ---- queueing --------------------------------------------------------------------------------------------------- */

static void enqueue(struct patch *patch)
{
	if (patch->queued)
		return;
	patch->queued = true;
	patch->queue_next = queue;
	queue = patch;
}

static void queue_regions(const struct patch *patch)
{
	for (size_t i = 0; i < ARRAY_SIZE(patch->attachments); ++i)
		if (patch->attachments[i].region != NULL)
			region_queue(patch->attachments[i].region);
}

/* ---- making ----------------------------------------------------------------------------------------------------- */

static patch_status check_model(const struct patch_exec_model *model)
{
	switch (model->type) {
	case PATCH_EXEC_MODEL_PROBE:
	case PATCH_EXEC_MODEL_PROBE_AROUND:
		break;
	case PATCH_EXEC_MODEL_PROBE_RETURN:
		return error_raise(PATCH_ENOTSUP, "patch_make", "this version has no probes on function returns",
				   "PATCH_EXEC_MODEL_PROBE_RETURN");
	case PATCH_EXEC_MODEL_DIVERT:
		return error_raise(PATCH_ENOTSUP, "patch_make", "this version does not divert functions",
				   "PATCH_EXEC_MODEL_DIVERT");
	default:
		return error_raise(PATCH_EINVAL, "patch_make", "unknown execution model", "type");
	}
	if (model->probe.procedure == NULL)
		return error_raise(PATCH_EINVAL, "patch_make", "the model has no procedure", "procedure");
	if (model->probe.destroy != NULL)
		return error_raise(PATCH_ENOTSUP, "patch_make", "this version does not call destructors", "destroy");
	return PATCH_OK;
}

static patch_status check_attr(const patch_attr *attr)
{
	if (attr->trap_policy > PATCH_TRAP_POLICY_FORCE || attr->abi != PATCH_ABI_OS ||
	    attr->initial_state > PATCH_ENABLED)
		return error_raise(PATCH_EINVAL, "patch_make", "the attributes were not set by patch_attr_init()", "attr");
	return PATCH_OK;
}

/* The arguments of patch_make(), checked, but for where exactly. */
struct request {
	const struct patch_exec_model *model;
	patch_attr attr;
};

static bool is_call(uintptr_t address, struct arch_insn *insn)
{
	return site_decode(address, insn) && (insn->kind == ARCH_CALL || insn->kind == ARCH_CALL_IND);
}

/* PROBE_AROUND: a hook behind the instruction, or, for a call, at its return address. */
static patch_status attach_after(struct patch *patch, struct refusal *refusal)
{
	uintptr_t address = patch->attachments[ROLE_SITE].address;
	uintptr_t returns_to;
	struct arch_insn insn;

	refusal->irritant = address;
	if (!is_call(address, &insn)) {
		refusal->message = trampoline_refuses_after(&insn);
		return refusal->message != NULL ? PATCH_ENOTSUP : PATCH_OK;
	}
	returns_to = address + insn.length;
	if (insn.kind == ARCH_CALL && insn.target == returns_to) {
		refusal->message = "the call goes to the next instruction: it does not return";
		return PATCH_ENOTSUP;
	}
	if (patch->upper != 0 && returns_to >= patch->upper) {
		refusal->irritant = returns_to;
		refusal->message = "the call is the function's last instruction: it does not return into it";
		return PATCH_ENOTSUP;
	}
	patch->pair->program_counter = returns_to;
	return region_attach(patch, ROLE_RETURN, returns_to, refusal);
}

static patch_status attach(struct patch *patch, struct refusal *refusal)
{
	uintptr_t address = patch->located;
	struct arch_insn insn;
	patch_status status;

	if (patch->model.type == PATCH_EXEC_MODEL_PROBE_AROUND) {
		if (site_decode(address, &insn) && (insn.flags & ARCH_F_ENDBR))
			address += insn.length;
		if (is_call(address, &insn)) {
			patch->pair = heap_alloc(sizeof(*patch->pair));
			if (patch->pair == NULL) {
				refusal->message = "out of memory";
				return PATCH_ENOMEM;
			}
			patch->pair->procedure = patch->model.probe.procedure;
			patch->pair->user_data = patch->model.probe.user_data;
		}
	}
	status = region_attach(patch, ROLE_SITE, patch->located, refusal);
	if (status == PATCH_OK && patch->model.type == PATCH_EXEC_MODEL_PROBE_AROUND)
		status = attach_after(patch, refusal);
	return status;
}

static patch_status make_at(uintptr_t address, const struct request *request, patch_t *out)
{
	struct refusal refusal = { "", 0 };
	patch_status status;
	struct patch *patch;

	patch = handle_alloc(out);
	if (patch == NULL)
		return error_raise(PATCH_ENOMEM, "patch_make", "out of memory", NULL);
	patch->located = address;
	patch->model = *request->model;
	patch->policy = request->attr.trap_policy;
	patch->order = ++make_order;
	status = site_examine(patch, address, &refusal);
	if (status == PATCH_OK)
		status = attach(patch, &refusal);
	if (status != PATCH_OK) {
		region_detach(patch);
		heap_free(patch->pair, sizeof(*patch->pair));
		handle_free(patch);
		*out = NULL;
		return error_raise_at(status, "patch_make", refusal.message, refusal.irritant);
	}
	if (request->attr.initial_state == PATCH_ENABLED) {
		patch->wanted = true;
		enqueue(patch);
	}
	return PATCH_OK;
}

/* Instructions of a range from the end: found from the start, because x86 is not decoded backwards. */
static uintptr_t last_before(uintptr_t lower, uintptr_t upper)
{
	uintptr_t last = 0;
	struct arch_insn insn;

	for (uintptr_t at = lower; at < upper; at += insn.length) {
		last = at;
		if (!site_decode(at, &insn))
			break;
	}
	return last;
}

static patch_status make_in_range(const struct patch_location *location, const struct request *request, patch_t *out)
{
	uintptr_t lower = location->range.lower;
	uintptr_t upper = location->range.upper;
	uintptr_t at = lower;
	patch_status status;
	struct arch_insn insn;

	if (upper == 0)
		return make_at(lower, request, out);
	if (location->direction == PATCH_LOCATION_BACKWARD)
		at = last_before(lower, upper);
	for (;;) {
		size_t errors = error_count();

		status = make_at(at, request, out);
		if (status == PATCH_OK) {
			error_reset();
			return PATCH_OK;
		}
		/* The reason that is told is the first one. */
		error_truncate(MAX(errors, (size_t)1));
		if (location->direction == PATCH_LOCATION_BACKWARD) {
			if (at == lower)
				return status;
			at = last_before(lower, at);
		} else {
			if (!site_decode(at, &insn))
				return status;
			at += insn.length;
			if (at >= upper)
				return status;
		}
	}
}

static patch_status check_location(const struct patch_location *location)
{
	switch (location->type) {
	case PATCH_LOCATION_ADDRESS:
		return PATCH_OK;
	case PATCH_LOCATION_SYMBOL:
		if (location->symbol.name == NULL)
			return error_raise(PATCH_EINVAL, "patch_make", "the location has no name", "symbol.name");
		return PATCH_OK;
	case PATCH_LOCATION_RANGE:
		break;
	default:
		return error_raise(PATCH_EINVAL, "patch_make", "unknown location type", "location.type");
	}
	if (location->direction != PATCH_LOCATION_FORWARD && location->direction != PATCH_LOCATION_BACKWARD)
		return error_raise(PATCH_EINVAL, "patch_make", "unknown direction", "location.direction");
	if (location->algorithm != PATCH_LOCATION_FIRST)
		return error_raise(PATCH_EINVAL, "patch_make", "unknown algorithm", "location.algorithm");
	if (location->range.upper != 0 && location->range.upper <= location->range.lower)
		return error_raise(PATCH_EINVAL, "patch_make", "the range is empty", "location.range");
	return PATCH_OK;
}

EXPORT patch_status patch_make(const struct patch_location *location, const struct patch_exec_model *model,
			       const patch_attr *attr, patch_t *out, void *reserved)
{
	struct request request = { .model = model };
	struct lock_scope scope;
	patch_status status;
	uintptr_t address;

	error_reset();
	if (location == NULL || model == NULL || out == NULL)
		return error_raise(PATCH_EINVAL, "patch_make", "a location, a model and a place for the handle are needed",
				   location == NULL ? "location" : model == NULL ? "model" : "out");
	if (reserved != NULL)
		return error_raise(PATCH_EINVAL, "patch_make", "the last argument must be NULL", "reserved");
	if (attr != NULL)
		request.attr = *attr;
	status = check_location(location);
	if (status == PATCH_OK)
		status = check_model(model);
	if (status == PATCH_OK)
		status = check_attr(&request.attr);
	if (status != PATCH_OK)
		return status;
	address = location->address;
	if (location->type == PATCH_LOCATION_SYMBOL) {
		address = (uintptr_t)dlsym(RTLD_DEFAULT, location->symbol.name);
		if (address == 0)
			return error_raise(PATCH_ENEXIST, "patch_make", "no module defines the symbol",
					   location->symbol.name);
		address += location->symbol.offset;
	}

	status = enter(&scope, "patch_make");
	if (status != PATCH_OK)
		return status;
	status = location->type == PATCH_LOCATION_RANGE ? make_in_range(location, &request, out) :
							  make_at(address, &request, out);
	return leave(&scope, status);
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
	patch_status status = enter(&scope, origin);

	if (status != PATCH_OK)
		return status;
	status = get(handle, &patch, origin);
	if (status == PATCH_OK) {
		patch->wanted = enabled;
		enqueue(patch);
	}
	return leave(&scope, status);
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
	patch->released = true;
	patch->wanted = false;
	enqueue(patch);
}

EXPORT patch_status patch_unmake(patch_t handle)
{
	struct lock_scope scope;
	struct patch *patch;
	patch_status status = enter(&scope, "patch_unmake");

	if (status != PATCH_OK)
		return status;
	status = get(handle, &patch, "patch_unmake");
	if (status == PATCH_OK) {
		handle_revoke(patch);
		release(patch);
	}
	return leave(&scope, status);
}

/* Is any change of the patch still waiting for another commit? */
static bool is_pending(const struct patch *patch)
{
	for (size_t i = 0; i < ARRAY_SIZE(patch->attachments); ++i)
		if (patch->attachments[i].region != NULL && patch->attachments[i].region->queued)
			return true;
	return false;
}

/* With the lock held: everything queued, as one batch. */
static patch_status commit_queue(void)
{
	struct patch *batch = queue;
	patch_status status;

	queue = NULL;
	status = commit_run();
	/* Modules come and go: what was learnt of them is good for one batch. */
	site_forget();
	while (batch != NULL) {
		struct patch *patch = batch;

		batch = patch->queue_next;
		patch->queued = false;
		if (!patch->released)
			continue;
		if (is_pending(patch) || patch->enabled) {
			enqueue(patch);
			continue;
		}
		/* Trampolines built for it stay, and so does the pair that they refer to. */
		region_detach(patch);
		handle_free(patch);
	}
	return status;
}

static void queue_all_regions(void)
{
	for (const struct patch *patch = queue; patch != NULL; patch = patch->queue_next)
		queue_regions(patch);
}

EXPORT patch_status patch_commit(void)
{
	struct lock_scope scope;
	patch_status status = enter(&scope, "patch_commit");

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
		status = enter(&scope, "patch_commit");
		if (status != PATCH_OK)
			return status;
		queue_all_regions();
	}
	return leave(&scope, commit_queue());
}

EXPORT patch_status patch_fini(void)
{
	struct lock_scope scope;
	patch_status status = enter(&scope, "patch_fini");

	if (status != PATCH_OK)
		return status;
	handle_revoke_all(release);
	queue_all_regions();
	status = commit_queue();
	/* The handler and the registry live on, for traps that were raised before. */
	if (status == PATCH_OK)
		atomic_store(&life, FINISHED);
	return leave(&scope, status);
}

/* ---- attributes ------------------------------------------------------------------------------------------------- */

EXPORT patch_status patch_attr_init(patch_attr *attr, size_t sizeof_attr)
{
	error_reset();
	if (attr == NULL)
		return error_raise(PATCH_EINVAL, "patch_attr_init", "a pointer is NULL", "attr");
	if (sizeof_attr != sizeof(*attr))
		return error_raise(PATCH_EINVAL, "patch_attr_init", "the caller was built for another size of patch_attr",
				   "sizeof_attr");
	*attr = (patch_attr){ .trap_policy = PATCH_TRAP_POLICY_ALLOW, .abi = PATCH_ABI_OS };
	return PATCH_OK;
}

EXPORT patch_status patch_attr_fini(patch_attr *attr)
{
	error_reset();
	if (attr == NULL)
		return error_raise(PATCH_EINVAL, "patch_attr_fini", "a pointer is NULL", "attr");
	return PATCH_OK;
}

static patch_status set_attr(patch_attr *attr, uint8_t *field, int value, int greatest, const char *origin)
{
	error_reset();
	if (attr == NULL)
		return error_raise(PATCH_EINVAL, origin, "a pointer is NULL", "attr");
	if (value < 0 || value > greatest)
		return error_raise(PATCH_EINVAL, origin, "the value is out of range", "value");
	*field = (uint8_t)value;
	return PATCH_OK;
}

EXPORT patch_status patch_attr_set_trap_policy(patch_attr *attr, int policy)
{
	return set_attr(attr, &attr->trap_policy, policy, PATCH_TRAP_POLICY_FORCE, "patch_attr_set_trap_policy");
}

EXPORT patch_status patch_attr_set_abi(patch_attr *attr, int abi)
{
	return set_attr(attr, &attr->abi, abi, PATCH_ABI_OS, "patch_attr_set_abi");
}

EXPORT patch_status patch_attr_set_initial_state(patch_attr *attr, int state)
{
	return set_attr(attr, &attr->initial_state, state, PATCH_ENABLED, "patch_attr_set_initial_state");
}

/* ---- asking ----------------------------------------------------------------------------------------------------- */

EXPORT patch_status patch_last_error(struct patch_error *error)
{
	if (error == NULL)
		return PATCH_EINVAL;
	return error_last(error);
}

EXPORT const char *patch_status_string(patch_status status)
{
	switch (status) {
	case PATCH_BUG:
		return "library bug";
	case PATCH_OK:
		return "success";
	case PATCH_EINVAL:
		return "invalid argument";
	case PATCH_ENOTSUP:
		return "not supported";
	case PATCH_EFINI:
		return "library finished";
	case PATCH_EFAIL:
		return "part of the batch failed";
	case PATCH_ESYS:
		return "system call failed";
	case PATCH_ECONF:
		return "conflict";
	case PATCH_ENEXIST:
		return "does not exist";
	case PATCH_EEXIST:
		return "exists already";
	case PATCH_EDISASM:
		return "not an instruction";
	case PATCH_EINIT:
		return "library not initialised";
	case PATCH_ENOMEM:
		return "out of memory";
	case PATCH_EFAULT:
		return "not executable memory";
	case PATCH_EBOUNDARY:
		return "not the start of an instruction";
	case PATCH_ECHANGED:
		return "bytes changed by somebody else";
	case PATCH_ENOJUMP:
		return "no jump possible";
	case PATCH_EPROTECTED:
		return "protected code";
	case PATCH_ERELOCATE:
		return "instruction cannot be displaced";
	}
	return "unknown status";
}

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
	status = enter(&scope, "patch_info");
	if (status != PATCH_OK)
		return status;
	status = get(handle, &patch, "patch_info");
	if (status == PATCH_OK) {
		const struct attachment *site = &patch->attachments[ROLE_SITE];
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
	return leave(&scope, status);
}

EXPORT patch_status patch_statistics(struct patch_statistics *statistics)
{
	struct arena_usage arenas;
	struct region_usage regions;
	struct lock_scope scope;
	patch_status status;

	error_reset();
	if (statistics == NULL)
		return error_raise(PATCH_EINVAL, "patch_statistics", "a pointer is NULL", "statistics");
	status = enter(&scope, "patch_statistics");
	if (status != PATCH_OK)
		return status;
	arena_usage(&arenas);
	region_usage(&regions);
	*statistics = (struct patch_statistics){
		.patches = handle_count(),
		.regions = regions.regions,
		.regions_installed = regions.installed,
		.arenas = arenas.mappings,
		.code_bytes = arenas.code_bytes,
		.retired_bytes = regions.retired_bytes,
		.commits = commit_count(),
		.core_syncs = core_sync_count(),
		.text_writes = text_write_count(),
	};
	return leave(&scope, status);
}
