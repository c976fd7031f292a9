/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the execution models want beyond a hook at the site: PROBE_AROUND ways out of the instruction to be hooked,
 * PROBE_CALL a call and a second place, its return address. Where a single place goes is decided in attach.c.
 */
#include "plan/attach.h"

#include "arch/cpu.h"
#include "arch/hook.h"
#include "base/thread_safety.h"
#include "patch/original.h"
#include "runtime/call_pairs.h"

/* PROBE_AROUND: can there be a hook on each way out of the instruction? */
static patch_status model_check_around(const struct patch *patch, struct refusal *refusal) REQUIRES(library_lock)
{
	const struct arch_hook hook = { .read = patch->read, .write = patch->write, .clobber = patch->clobber };
	uintptr_t address = patch->sites[ROLE_SITE].attachment.address;
	uint8_t bytes[INSN_MAX];
	size_t size = original_read(address, bytes, sizeof(bytes));
	struct arch_insn insn;

	refusal->irritant = address;
	refusal->message = "the instruction cannot be read";
	if (!arch_decode(bytes, size, address, &insn))
		return PATCH_EFAULT;
	refusal->message = arch_refuses_around(bytes, &insn, arch_hook_writes(&hook), arch_has_shadow_stack());
	return refusal->message != NULL ? PATCH_ENOTSUP : PATCH_OK;
}

/* PROBE_CALL: a hook at the return address. */
static patch_status model_attach_return(struct patch *patch, const struct extent *extent, struct refusal *refusal)
	REQUIRES(library_lock)
{
	uintptr_t address = patch->sites[ROLE_SITE].attachment.address;
	uintptr_t returns_to;
	struct arch_insn insn;

	refusal->irritant = address;
	if (!site_decode(address, &insn) || (insn.kind != ARCH_CALL && insn.kind != ARCH_CALL_IND)) {
		refusal->message = "the instruction is no call: PATCH_EXEC_MODEL_PROBE_AROUND is for any instruction";
		return PATCH_ENOTSUP;
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

/* Both hooks go through runtime/call_pairs.c, which calls the procedure. */
static void model_set_pair(struct patch *patch)
{
	const struct hook_record *record = &patch->sites[ROLE_SITE].record;

	patch->paired = true;
	patch->pair.id = patch->order;
	patch->pair.procedure = record->procedure;
	patch->pair.user_data = record->user_data;
	patch->sites[ROLE_SITE].record = (struct hook_record){ call_pair_begin, &patch->pair };
	patch->sites[ROLE_RETURN].record = (struct hook_record){ call_pair_end, &patch->pair };
}

patch_status attach_model(struct patch *patch, const struct extent *extent, struct refusal *refusal)
{
	patch_status status;

	if (patch->type == PATCH_EXEC_MODEL_PROBE_CALL)
		model_set_pair(patch);
	status = attach_patch(patch, ROLE_SITE, patch->located, extent, refusal);
	if (status == PATCH_OK && patch->type == PATCH_EXEC_MODEL_PROBE_AROUND)
		status = model_check_around(patch, refusal);
	if (status == PATCH_OK && patch->type == PATCH_EXEC_MODEL_PROBE_CALL)
		status = model_attach_return(patch, extent, refusal);
	return status;
}
