/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the execution models want beyond a hook at the site: PROBE_AROUND ways out of the instruction to be hooked,
 * PROBE_CALL a call and a second place, its return address, DIVERT what the program can call. Where a single place goes
 * is decided in attach.c.
 */
#include "plan/attach.h"

#include "arch/cpu.h"
#include "arch/hook.h"
#include "base/thread_safety.h"
#include "code/staging.h"
#include "patch/hook_list.h"
#include "patch/original.h"
#include "patch/place.h"
#include "runtime/call_pairs.h"
#include "runtime/entry_again.h"
#include "sys/text.h"

/*
 * Once a patch is called on ways out of an instruction, can there be a hook on each, with the registers that all its
 * patches may write?
 */
static patch_status model_check_ways(const struct attachment *attachment, struct refusal *refusal)
	REQUIRES(library_lock)
{
	uintptr_t address = attachment->address;
	struct arch_hook hook = { 0 };
	unsigned int around = 0;
	bool ways = false;
	uint8_t bytes[INSN_MAX];
	struct arch_insn insn;

	for (const struct attachment *a = attachment->region->attachments; a != NULL; a = a->next) {
		if (a->address != address || a->when == HOOK_RETURNED)
			continue;
		hook.write |= a->patch->write;
		around += hook_includes(a->when, HOOK_AROUND);
		ways |= (a->when & (HOOK_AROUND | HOOK_EXIT | HOOK_FALL) & ~HOOK_BEFORE) != 0;
	}
	if (!ways)
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
	patch_pair(patch)->program_counter = returns_to;
	return attach_patch(patch, 1, HOOK_RETURNED, returns_to, extent, refusal);
}

/* Both hooks go through runtime/call_pairs.c, which calls the procedure. */
static void model_set_pair(struct patch *patch)
{
	const struct hook_record *record = &patch->attachments[0].record;
	struct call_pair *pair = patch_pair(patch);

	pair->id = patch->order;
	pair->procedure = record->procedure;
	pair->user_data = record->user_data;
	patch->attachments[0].record = (struct hook_record){ call_pair_begin, pair, 0 };
	patch->attachments[1].record = (struct hook_record){ call_pair_end, pair, 0 };
}

/* PROBE_RETURN: a hook at each exit, which lies in the function, or in a piece of it elsewhere. */
static patch_status model_attach_exits(struct patch *patch, const struct exits *exits, struct refusal *refusal)
	REQUIRES(library_lock)
{
	patch_status status = PATCH_OK;

	for (size_t i = 0; status == PATCH_OK && i < exits->place_count; ++i) {
		const struct exit_place *exit = &exits->places[i];
		enum hook_when when = exit->kind == EXIT_FALL ? HOOK_FALL : HOOK_EXIT;
		struct extent extent;

		status = site_examine(exit->address, &extent, refusal);
		if (status == PATCH_OK)
			status = attach_patch(patch, (unsigned int)i + 1, when, exit->address, &extent, refusal);
		if (status == PATCH_OK)
			status = model_check_ways(&patch->attachments[i + 1], refusal);
	}
	return status;
}

static enum hook_when model_when(const struct patch *patch)
{
	switch (patch->type) {
	case PATCH_EXEC_MODEL_PROBE_AROUND:
		return HOOK_AROUND;
	case PATCH_EXEC_MODEL_PROBE_RETURN:
		return HOOK_ENTRY;
	default:
		return HOOK_BEFORE;
	}
}

/* Exits call the procedure as the entry does; where the function goes to its entry again, nothing is called. */
static void model_set_exits(struct patch *patch, const struct exits *exits)
{
	const struct hook_record record = patch->attachments[0].record;
	struct call_pair *pair = patch_pair(patch);

	for (size_t i = 0; i < exits->place_count; ++i)
		patch->attachments[i + 1].record =
			exits->places[i].kind == EXIT_AGAIN ?
				(struct hook_record){ entry_again_leave, pair, 0 } :
				record;
	if (pair == NULL)
		return;
	pair->procedure = record.procedure;
	pair->user_data = record.user_data;
	patch->attachments[0].record = (struct hook_record){ entry_again_enter, pair, 0 };
}

static bool model_runs_again(const struct exits *exits)
{
	for (size_t i = 0; i < exits->place_count; ++i)
		if (exits->places[i].kind == EXIT_AGAIN)
			return true;
	return false;
}

unsigned int attach_count(int type, const struct exits *exits, bool *paired)
{
	*paired = type == PATCH_EXEC_MODEL_PROBE_CALL;
	if (type != PATCH_EXEC_MODEL_PROBE_RETURN)
		return *paired ? 2 : 1;
	*paired = model_runs_again(exits);
	return 1 + (unsigned int)exits->place_count;
}

patch_status attach_find_exits(uintptr_t address, bool partial, const struct exits **exits, struct refusal *refusal)
{
	patch_status status = exits_find(address, exits, refusal);

	if (*exits == NULL)
		return status;
	if (address != (*exits)->entry && address != (*exits)->body) {
		*refusal = (struct refusal){ "the address is not where a function begins", address };
		return PATCH_ENOTSUP;
	}
	if ((*exits)->place_count >= UINT16_MAX) {
		*refusal = (struct refusal){ "the function has too many exits", address };
		return PATCH_ENOTSUP;
	}
	return partial ? PATCH_OK : status;
}

patch_status attach_model(struct patch *patch, const struct extent *extent, const struct exits *exits,
			  struct refusal *refusal)
{
	patch_status status;

	if (patch->type == PATCH_EXEC_MODEL_PROBE_CALL)
		model_set_pair(patch);
	if (patch->type == PATCH_EXEC_MODEL_PROBE_RETURN)
		model_set_exits(patch, exits);
	status = attach_patch(patch, 0, model_when(patch), patch->located, extent, refusal);
	if (status == PATCH_OK)
		status = model_check_ways(&patch->attachments[0], refusal);
	if (status == PATCH_OK && patch->type == PATCH_EXEC_MODEL_PROBE_CALL)
		status = model_attach_return(patch, extent, refusal);
	if (status == PATCH_OK && patch->type == PATCH_EXEC_MODEL_PROBE_RETURN)
		status = model_attach_exits(patch, exits, refusal);
	return status;
}

patch_status attach_original(struct patch *patch, void **original, struct refusal *refusal)
{
	struct attachment *attachment = &patch->attachments[0];
	uintptr_t target = (uintptr_t)attachment->content;
	int error;

	*refusal = (struct refusal){ "the target is the instruction that is to be diverted", target };
	if (target == patch->located || target == attachment->address)
		return PATCH_EINVAL;
	if (original == NULL)
		return PATCH_OK;
	/* It may be called before any commit. */
	text_begin();
	error = staging_flush();
	text_end();
	*refusal = (struct refusal){ "generated code could not be written", attachment->address };
	if (error != 0)
		return PATCH_ESYS;
	*original = (void *)place_lend_original(region_trampoline(attachment->region), attachment);
	return PATCH_OK;
}
