/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the execution models want beyond a hook at the site: PROBE_AROUND ways out of the instruction to be hooked,
 * PROBE_CALL a call and a second place, its return address. Where a single place goes is decided in attach.c.
 */
#include "plan/attach.h"

#include "arch/cpu.h"
#include "arch/hook.h"
#include "base/thread_safety.h"
#include "patch/hook_list.h"
#include "patch/original.h"
#include "runtime/call_pairs.h"

/*
 * Once an instruction has a patch of PROBE_AROUND, can there be a hook on each way out of it, with the registers that
 * all its patches may write?
 */
static patch_status model_check_around(const struct patch *patch, struct refusal *refusal) REQUIRES(library_lock)
{
	uintptr_t address = patch->attachments[0].address;
	struct arch_hook hook = { 0 };
	unsigned int around = 0;
	uint8_t bytes[INSN_MAX];
	struct arch_insn insn;

	for (const struct attachment *a = patch->attachments[0].region->attachments; a != NULL; a = a->next) {
		if (a->address != address || a->when == HOOK_RETURNED)
			continue;
		hook.write |= a->patch->write;
		around += a->when == HOOK_AROUND;
	}
	if (around == 0)
		return PATCH_OK;
	refusal->irritant = address;
	refusal->message = "the instruction cannot be read";
	if (!arch_decode(bytes, original_read(address, bytes, sizeof(bytes)), address, &insn))
		return PATCH_EFAULT;
	refusal->message = around > HOOK_LIST_AROUND_MAX ?
				   "there are 64 patches of PATCH_EXEC_MODEL_PROBE_AROUND on the instruction already" :
				   arch_refuses_around(bytes, &insn, arch_hook_writes(&hook), arch_has_shadow_stack());
	return refusal->message != NULL ? PATCH_ENOTSUP : PATCH_OK;
}

/* PROBE_CALL: a hook at the return address. */
static patch_status model_attach_return(struct patch *patch, const struct extent *extent, struct refusal *refusal)
	REQUIRES(library_lock)
{
	uintptr_t address = patch->attachments[0].address;
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
	patch->pair->program_counter = returns_to;
	return attach_patch(patch, 1, HOOK_RETURNED, returns_to, extent, refusal);
}

/* Both hooks go through runtime/call_pairs.c, which calls the procedure. */
static void model_set_pair(struct patch *patch)
{
	const struct hook_record *record = &patch->attachments[0].record;

	patch->pair->id = patch->order;
	patch->pair->procedure = record->procedure;
	patch->pair->user_data = record->user_data;
	patch->attachments[0].record = (struct hook_record){ call_pair_begin, patch->pair };
	patch->attachments[1].record = (struct hook_record){ call_pair_end, patch->pair };
}

static enum hook_when model_when(const struct patch *patch)
{
	return patch->type == PATCH_EXEC_MODEL_PROBE_AROUND ? HOOK_AROUND : HOOK_BEFORE;
}

patch_status attach_model(struct patch *patch, const struct extent *extent, struct refusal *refusal)
{
	patch_status status;

	if (patch->type == PATCH_EXEC_MODEL_PROBE_CALL)
		model_set_pair(patch);
	status = attach_patch(patch, 0, model_when(patch), patch->located, extent, refusal);
	if (status == PATCH_OK)
		status = model_check_around(patch, refusal);
	if (status == PATCH_OK && patch->type == PATCH_EXEC_MODEL_PROBE_CALL)
		status = model_attach_return(patch, extent, refusal);
	return status;
}
