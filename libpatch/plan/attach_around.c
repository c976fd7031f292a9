/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * PROBE_AROUND takes a second hook: behind the instruction in the same displaced copy, or, for a call, at its return
 * address. This file finds that second place and refuses when there is none; where a single place goes is decided in
 * attach.c.
 */
#include "plan/attach.h"

#include "base/thread_safety.h"
#include "code/trampoline.h"
#include "runtime/call_pairs.h"

static bool around_is_call(uintptr_t address, struct arch_insn *insn) REQUIRES(library_lock)
{
	return site_decode(address, insn) && (insn->kind == ARCH_CALL || insn->kind == ARCH_CALL_IND);
}

/* PROBE_AROUND: a hook behind the instruction, or, for a call, at its return address. */
static patch_status around_attach_after(struct patch *patch, const struct extent *extent, struct refusal *refusal)
	REQUIRES(library_lock)
{
	uintptr_t address = patch->sites[ROLE_SITE].attachment.address;
	uintptr_t returns_to;
	struct arch_insn insn;

	refusal->irritant = address;
	if (!around_is_call(address, &insn)) {
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

/* Both hooks go through runtime/call_pairs.c, which calls the procedure. */
static void around_set_pair(struct patch *patch)
{
	const struct hook_record *record = &patch->sites[ROLE_SITE].record;

	patch->pair.id = patch->order;
	patch->pair.procedure = record->procedure;
	patch->pair.user_data = record->user_data;
	patch->sites[ROLE_SITE].record = (struct hook_record){ call_pair_begin, &patch->pair };
	patch->sites[ROLE_RETURN].record = (struct hook_record){ call_pair_end, &patch->pair };
}

patch_status attach_model(struct patch *patch, const struct extent *extent, struct refusal *refusal)
{
	uintptr_t address = patch->located;
	struct arch_insn insn;
	patch_status status;

	if (patch->type == PATCH_EXEC_MODEL_PROBE_AROUND) {
		if (site_decode(address, &insn) && (insn.flags & ARCH_F_ENDBR))
			address += insn.length;
		patch->paired = around_is_call(address, &insn);
	}
	if (patch->paired)
		around_set_pair(patch);
	status = attach_patch(patch, ROLE_SITE, patch->located, extent, refusal);
	if (status == PATCH_OK && patch->type == PATCH_EXEC_MODEL_PROBE_AROUND)
		status = around_attach_after(patch, extent, refusal);
	return status;
}
