/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * patch_make(): its arguments are checked, the location becomes an address, and the patch is made and attached there.
 * Live text is not touched.
 */
#include "api/enter.h"

#include "api/locate.h"
#include "arch/cpu.h"
#include "arch/hook.h"
#include "arch/thread_pointer.h"
#include "plan/attach.h"
#include "base/error.h"
#include "interpose/syscall_emul.h"
#include "patch/handle.h"
#include "base/heap.h"
#include "base/thread_safety.h"
#include "patch/region.h"
#include "plan/range.h"
#include "plan/site.h"
#include "runtime/own_stack.h"
#include "sys/maps.h"
#include "sys/tls.h"

#include <libpatch/patch.h>

static uint64_t make_order;

static patch_status make_check_count(const struct patch_exec_model *model)
{
	uintptr_t counter = (uintptr_t)model->count.counter;

	if (counter == 0 || counter % sizeof(uint64_t) != 0)
		return error_raise(PATCH_EINVAL, "patch_make", "the model has no counter, aligned to 8 bytes",
				   "counter");
	if (model->count.kind > PATCH_COUNT_THREAD)
		return error_raise(PATCH_EINVAL, "patch_make", "unknown kind of counter", "kind");
	if ((model->count.flags & ~(uint32_t)PATCH_COUNT_TSC) != 0)
		return error_raise(PATCH_EINVAL, "patch_make", "unknown flag of a counter", "flags");
	if (model->count.kind == PATCH_COUNT_THREAD && !tls_is_static(counter))
		return error_raise(PATCH_EINVAL, "patch_make", "the counter is not in the calling thread's static TLS",
				   "counter");
	return PATCH_OK;
}

static patch_status make_check_model(const struct patch_exec_model *model)
{
	switch (model->type) {
	case PATCH_EXEC_MODEL_PROBE:
	case PATCH_EXEC_MODEL_PROBE_AROUND:
	case PATCH_EXEC_MODEL_PROBE_RETURN:
	case PATCH_EXEC_MODEL_PROBE_CALL:
		break;
	case PATCH_EXEC_MODEL_DIVERT:
		if (model->divert.target == NULL)
			return error_raise(PATCH_EINVAL, "patch_make", "the model has no target", "target");
		if (model->divert.reserved != 0)
			return error_raise(PATCH_EINVAL, "patch_make", "what is reserved must be 0", "divert.reserved");
		return PATCH_OK;
	case PATCH_EXEC_MODEL_COUNT:
		return make_check_count(model);
	default:
		return error_raise(PATCH_EINVAL, "patch_make", "unknown execution model", "type");
	}
	if (model->probe.procedure == NULL)
		return error_raise(PATCH_EINVAL, "patch_make", "the model has no procedure", "procedure");
	if (!arch_can_preserve(model->probe.clobber_registers))
		return error_raise(PATCH_ENOTSUP, "patch_make",
				   "the processor's extended state cannot be saved (XSAVE)", "clobber_registers");
	return PATCH_OK;
}

static patch_status make_check_attr(const patch_attr *attr)
{
	if (attr->trap_policy > PATCH_TRAP_POLICY_FORCE || attr->abi != PATCH_ABI_OS ||
	    attr->initial_state > PATCH_ENABLED || attr->exits > PATCH_EXITS_KNOWN ||
	    attr->stack > PATCH_STACK_OWN)
		return error_raise(PATCH_EINVAL, "patch_make", "the attributes were not set by patch_attr_init()",
				   "attr");
	return PATCH_OK;
}

/* The arguments of patch_make(), checked, but for where exactly. */
struct make_request {
	const struct patch_exec_model *model;
	patch_attr attr;
};

/* There may be memory, which the kernel does not give; or /proc, and no descriptor to open it by. */
static patch_status make_add_cause(patch_status status)
{
	long error = heap_take_refusal();

	if (status == PATCH_ENOMEM && error != 0)
		error_raise_sys(status, "patch_make", "the kernel refused to map memory", error);
	if (status == PATCH_ESYS && (error = maps_refusal()) != 0)
		error_raise_sys(status, "patch_make", "the kernel refused to open or read /proc/self/maps", error);
	return status;
}

static void make_set_divert(struct patch *patch, const struct patch_exec_model *model)
{
	patch->action = ARCH_DIVERT;
	patch->destroy = model->divert.destroy;
	patch->attachments[0].content = model->divert.target;
	patch->attachments[0].user_data = model->divert.user_data;
}

static void make_set_model(struct patch *patch, const struct patch_exec_model *model)
{
	static const uint8_t actions[] = {
		[PATCH_COUNT_PLAIN] = ARCH_COUNT,
		[PATCH_COUNT_ATOMIC] = ARCH_COUNT_ATOMIC,
		[PATCH_COUNT_THREAD] = ARCH_COUNT_THREAD,
	};
	uintptr_t counter = (uintptr_t)model->count.counter;

	patch->type = (uint8_t)model->type;
	if (model->type == PATCH_EXEC_MODEL_DIVERT) {
		make_set_divert(patch, model);
		return;
	}
	if (model->type != PATCH_EXEC_MODEL_COUNT) {
		patch->read = model->probe.read_registers;
		/* What the procedure may destroy is loaded back, too. */
		patch->write = model->probe.write_registers | model->probe.clobber_registers;
		patch->clobber = arch_join_clobber(model->probe.clobber_registers, model->probe.clobber_registers);
		patch->destroy = model->probe.destroy;
		patch->attachments[0].record =
			(struct hook_record){ model->probe.procedure, model->probe.user_data, 0 };
		return;
	}
	if (model->count.kind == PATCH_COUNT_THREAD)
		counter -= arch_thread_pointer();
	patch->attachments[0].content = (const void *)counter;
	patch->action = actions[model->count.kind];
	patch->stamp = model->count.flags & PATCH_COUNT_TSC;
}

/* Nothing else calls a procedure. */
static bool make_wants_stack(const struct make_request *request)
{
	return request->attr.stack == PATCH_STACK_OWN && request->model->type != PATCH_EXEC_MODEL_COUNT &&
	       request->model->type != PATCH_EXEC_MODEL_DIVERT;
}

static patch_status make_prepare_stack(const struct make_request *request, struct refusal *refusal)
	REQUIRES(library_lock)
{
	if (!make_wants_stack(request))
		return PATCH_OK;
	*refusal = (struct refusal){ "the processor has no LAHF and SAHF, which PATCH_STACK_OWN needs", 0 };
	if (!arch_has_sahf())
		return PATCH_ENOTSUP;
	*refusal = (struct refusal){ "out of memory", 0 };
	return own_stack_prepare() ? PATCH_OK : PATCH_ENOMEM;
}

/* A patch with its places. */
static patch_status make_attach(uintptr_t address, const struct make_request *request, const struct extent *extent,
				const struct exits *exits, struct refusal *refusal, patch_t *out) REQUIRES(library_lock)
{
	bool paired;
	unsigned int count = attach_count(request->model->type, exits, &paired);
	struct patch *patch = handle_alloc(out, count, paired);
	patch_status status;

	*refusal = (struct refusal){ "out of memory", 0 };
	if (patch == NULL)
		return PATCH_ENOMEM;
	patch->located = address;
	make_set_model(patch, request->model);
	patch->policy = (uint8_t)request->attr.trap_policy;
	patch->own_stack = make_wants_stack(request);
	patch->order = ++make_order;
	patch->lower = extent->lower;
	patch->upper = extent->upper;
	status = attach_model(patch, extent, exits, refusal);
	if (status == PATCH_OK && patch->action == ARCH_DIVERT)
		status = attach_original(patch, request->model->divert.original, refusal);
	if (status != PATCH_OK) {
		region_detach(patch);
		handle_free(patch);
		return status;
	}
	attach_leads(patch);
	if (request->attr.initial_state == PATCH_ENABLED) {
		patch_set_goal(patch, GOAL_ENABLED);
		handle_change(patch);
	}
	return PATCH_OK;
}

/* What of the client's memory the patch will call or write to. */
static patch_status make_check_memory(const struct patch_exec_model *model, struct refusal *refusal)
	REQUIRES(library_lock)
{
	void (*destroy)(void *) = model->probe.destroy;
	patch_status status;

	if (model->type == PATCH_EXEC_MODEL_COUNT) {
		uintptr_t counter = (uintptr_t)model->count.counter;

		status = model->count.kind == PATCH_COUNT_THREAD ? PATCH_OK
								 : site_check_use(counter, SITE_COUNTER, refusal);
		if (status == PATCH_OK && (model->count.flags & PATCH_COUNT_TSC))
			status = site_check_use(counter + sizeof(uint64_t), SITE_COUNTER, refusal);
		return status;
	}
	if (model->type == PATCH_EXEC_MODEL_DIVERT) {
		status = site_check_target((uintptr_t)model->divert.target, refusal);
		/* It is written to with signals blocked, where a fault would end the process. */
		if (status == PATCH_OK && model->divert.original != NULL)
			status = site_check_use((uintptr_t)model->divert.original, SITE_ORIGINAL, refusal);
		destroy = model->divert.destroy;
	} else {
		status = site_check_use((uintptr_t)model->probe.procedure, SITE_PROCEDURE, refusal);
	}
	if (status == PATCH_OK && destroy != NULL)
		status = site_check_use((uintptr_t)destroy, SITE_DESTROY, refusal);
	return status;
}

static patch_status make_at(uintptr_t address, const struct make_request *request, patch_t *out) REQUIRES(library_lock)
{
	struct refusal refusal = { "", 0 };
	const struct exits *exits = NULL;
	struct extent extent;
	patch_status status;

	heap_take_refusal();
	status = make_check_memory(request->model, &refusal);
	if (status == PATCH_OK)
		status = site_examine(address, &extent, &refusal);
	if (status == PATCH_OK && request->model->type == PATCH_EXEC_MODEL_PROBE_RETURN)
		status = attach_find_exits(address, request->attr.exits == PATCH_EXITS_KNOWN, &exits, &refusal);
	if (status == PATCH_OK)
		status = make_prepare_stack(request, &refusal);
	if (status == PATCH_OK)
		status = make_attach(address, request, &extent, exits, &refusal, out);
	if (status == PATCH_OK)
		return PATCH_OK;
	*out = NULL;
	error_raise_at(status, "patch_make", refusal.message, refusal.irritant);
	return make_add_cause(status);
}

static patch_status make_in_range(const struct patch_location *location, const struct make_request *request,
				  patch_t *out) REQUIRES(library_lock)
{
	bool backward = location->direction == PATCH_LOCATION_BACKWARD;
	patch_status first = PATCH_OK, status;
	struct error_chain before;
	struct range range;
	uintptr_t at;

	if (location->range.upper == 0)
		return make_at(location->range.lower, request, out);
	heap_take_refusal();
	if (!range_begin(&range, location->range.lower, location->range.upper, backward)) {
		error_raise(PATCH_ENOMEM, "patch_make", "out of memory", NULL);
		return make_add_cause(PATCH_ENOMEM);
	}
	error_save(&before);
	while (range_next(&range, &at)) {
		size_t errors = error_count();

		status = make_at(at, request, out);
		if (status == PATCH_OK) {
			error_restore(&before);
			first = PATCH_OK;
			break;
		}
		/* The reason that is told is the first one. */
		if (first == PATCH_OK)
			first = status;
		error_truncate(MAX(errors, (size_t)1));
	}
	range_end(&range);
	return first;
}

static patch_status make_at_symbol(const struct patch_location *location, const struct located *located,
				   const struct make_request *request, patch_t *out) REQUIRES(library_lock)
{
	if (!locate_is_current(located))
		return error_raise_name(PATCH_ENEXIST, "patch_make", "the module was unloaded meanwhile",
					location->symbol.name);
	return make_at(located->address + location->symbol.offset, request, out);
}

static patch_status make_check_location(const struct patch_location *location)
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
	struct make_request request = { .model = model };
	struct lock_scope scope;
	patch_status status;
	struct located located;

	error_begin();
	if (out != NULL)
		*out = NULL;
	if (location == NULL || model == NULL || out == NULL)
		return error_raise(PATCH_EINVAL, "patch_make",
				   "a location, a model and a place for the handle are needed",
				   location == NULL ? "location"
				   : model == NULL  ? "model"
						    : "out");
	if (reserved != NULL)
		return error_raise(PATCH_EINVAL, "patch_make", "the last argument must be NULL", "reserved");
	if (attr != NULL)
		request.attr = *attr;
	status = make_check_location(location);
	if (status == PATCH_OK)
		status = make_check_model(model);
	if (status == PATCH_OK)
		status = make_check_attr(&request.attr);
	if (status != PATCH_OK)
		return status;
	if (location->type == PATCH_LOCATION_SYMBOL && api_life() == API_ALIVE)
		status = locate_symbol(location->symbol.name, &located);
	if (status != PATCH_OK || !api_enter(&scope, "patch_make", &status))
		return status;
	syscall_emul_poll_handlers();
	if (location->type == PATCH_LOCATION_RANGE)
		status = make_in_range(location, &request, out);
	else if (location->type == PATCH_LOCATION_SYMBOL)
		status = make_at_symbol(location, &located, &request, out);
	else
		status = make_at(location->address, &request, out);
	return api_leave(&scope, status);
}
