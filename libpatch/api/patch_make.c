/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * patch_make(): arguments, locations, and the one or two places that a patch takes.
 */
#include "api/enter.h"

#include "arch/cpu.h"
#include "arch/hook.h"
#include "arch/thread_pointer.h"
#include "runtime/call_pairs.h"
#include "plan/attach.h"
#include "base/error.h"
#include "patch/handle.h"
#include "base/heap.h"
#include "patch/region.h"
#include "plan/site.h"
#include "sys/tls.h"

#include <dlfcn.h>
#include <libpatch/patch.h>

static uint64_t order;

static patch_status check_count(const struct patch_exec_model *model)
{
	uintptr_t counter = (uintptr_t)model->count.counter;

	if (counter == 0 || counter % sizeof(uint64_t) != 0)
		return error_raise(PATCH_EINVAL, "patch_make", "the model has no counter, aligned to 8 bytes", "counter");
	if (model->count.kind > PATCH_COUNT_THREAD || (model->count.flags & ~(uint32_t)PATCH_COUNT_TSC) != 0)
		return error_raise(PATCH_EINVAL, "patch_make", "unknown kind of counter", "kind");
	if (model->count.kind == PATCH_COUNT_THREAD && !tls_is_static(counter))
		return error_raise(PATCH_EINVAL, "patch_make", "the counter is not in the calling thread's static TLS", "counter");
	return PATCH_OK;
}

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
	case PATCH_EXEC_MODEL_COUNT:
		return check_count(model);
	default:
		return error_raise(PATCH_EINVAL, "patch_make", "unknown execution model", "type");
	}
	if (model->probe.procedure == NULL)
		return error_raise(PATCH_EINVAL, "patch_make", "the model has no procedure", "procedure");
	if ((model->probe.clobber_registers & ~PATCH_REGS_GP_ONLY) != 0 && arch_xsave_mask() == 0)
		return error_raise(PATCH_ENOTSUP, "patch_make", "the processor's extended state cannot be saved (XSAVE)",
				   "clobber_registers");
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
static patch_status attach_after(struct patch *patch, const struct extent *extent, struct refusal *refusal)
{
	uintptr_t address = patch->sites[ROLE_SITE].attachment.address;
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
	patch->pair.program_counter = returns_to;
	return attach_patch(patch, ROLE_RETURN, returns_to, extent, refusal);
}

/* Both hooks go through call_pairs.c. */
static void set_pair(struct patch *patch)
{
	const struct hook_record *record = &patch->sites[ROLE_SITE].record;

	patch->pair.id = patch->order;
	patch->pair.procedure = record->procedure;
	patch->pair.user_data = record->user_data;
	patch->sites[ROLE_SITE].record = (struct hook_record){ call_pair_begin, &patch->pair };
	patch->sites[ROLE_RETURN].record = (struct hook_record){ call_pair_end, &patch->pair };
}

static patch_status attach_all(struct patch *patch, const struct extent *extent, struct refusal *refusal)
{
	uintptr_t address = patch->located;
	struct arch_insn insn;
	patch_status status;

	if (patch->type == PATCH_EXEC_MODEL_PROBE_AROUND) {
		if (site_decode(address, &insn) && (insn.flags & ARCH_F_ENDBR))
			address += insn.length;
		patch->paired = is_call(address, &insn);
	}
	if (patch->paired)
		set_pair(patch);
	status = attach_patch(patch, ROLE_SITE, patch->located, extent, refusal);
	if (status == PATCH_OK && patch->type == PATCH_EXEC_MODEL_PROBE_AROUND)
		status = attach_after(patch, extent, refusal);
	return status;
}

/* There may be memory, which the kernel does not give. */
static patch_status add_cause(patch_status status)
{
	long error = heap_take_refusal();

	if (status == PATCH_ENOMEM && error != 0)
		error_raise_sys(status, "patch_make", "the kernel refused to map memory", error);
	return status;
}

static void set_model(struct patch *patch, const struct patch_exec_model *model)
{
	static const uint8_t actions[] = {
		[PATCH_COUNT_PLAIN] = ARCH_COUNT,
		[PATCH_COUNT_ATOMIC] = ARCH_COUNT_ATOMIC,
		[PATCH_COUNT_THREAD] = ARCH_COUNT_THREAD,
	};
	uintptr_t counter = (uintptr_t)model->count.counter;

	patch->type = (uint8_t)model->type;
	if (model->type != PATCH_EXEC_MODEL_COUNT) {
		patch->read = model->probe.read_registers;
		patch->write = model->probe.write_registers;
		patch->clobber = model->probe.clobber_registers;
		patch->destroy = model->probe.destroy;
		patch->sites[ROLE_SITE].record = (struct hook_record){ model->probe.procedure, model->probe.user_data };
		return;
	}
	if (model->count.kind == PATCH_COUNT_THREAD)
		counter -= arch_thread_pointer();
	patch->sites[ROLE_SITE].counter = (const void *)counter;
	patch->action = actions[model->count.kind];
	patch->stamp = model->count.flags & PATCH_COUNT_TSC;
}

static patch_status make_at(uintptr_t address, const struct request *request, patch_t *out)
{
	struct refusal refusal = { "", 0 };
	struct extent extent;
	patch_status status;
	struct patch *patch;

	heap_take_refusal();
	patch = handle_alloc(out, request->model->type == PATCH_EXEC_MODEL_PROBE_AROUND ? ROLES : 1);
	if (patch == NULL) {
		error_raise(PATCH_ENOMEM, "patch_make", "out of memory", NULL);
		return add_cause(PATCH_ENOMEM);
	}
	patch->located = address;
	set_model(patch, request->model);
	patch->policy = (uint8_t)request->attr.trap_policy;
	patch->order = ++order;
	status = site_examine(address, &extent, &refusal);
	if (status == PATCH_OK) {
		patch->lower = extent.lower;
		patch->upper = extent.upper;
		status = attach_all(patch, &extent, &refusal);
	}
	if (status != PATCH_OK) {
		region_detach(patch);
		handle_free(patch);
		*out = NULL;
		error_raise_at(status, "patch_make", refusal.message, refusal.irritant);
		return add_cause(status);
	}
	if (request->attr.initial_state == PATCH_ENABLED) {
		patch_set_goal(patch, GOAL_ENABLED);
		handle_change(patch);
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

	status = api_enter(&scope, "patch_make");
	if (status != PATCH_OK)
		return status;
	status = location->type == PATCH_LOCATION_RANGE ? make_in_range(location, &request, out) :
							  make_at(address, &request, out);
	return api_leave(&scope, status);
}
