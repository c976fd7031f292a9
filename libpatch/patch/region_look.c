/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which region an address belongs to, and what its patches want of it. Changes nothing.
 */
#include "patch/region.h"

#include "arch/trap_bytes.h"

struct region *region_at(uintptr_t address)
{
	struct registry_entry *entry = registry_find(address);

	return entry != NULL ? entry->region : NULL;
}

struct region *region_covering(uintptr_t address)
{
	uint64_t before = registry_may_have_before(address);

	while (before != 0) {
		unsigned int back = (unsigned int)__builtin_clzll(before);
		struct region *region;

		if (back >= INSN_MAX)
			break;
		region = region_at(address - back);
		if (region != NULL)
			return address < region->start + region->owned ? region : NULL;
		before &= ~(1ULL << (63 - back));
	}
	return NULL;
}

bool region_has_other_code(const struct region *region, const uint8_t *text)
{
	for (unsigned int at = 0; at < region->length; ++at)
		if (text[at] != region->live[at] && text[at] != region->original[at] && text[at] != ARCH_INT3)
			return true;
	return false;
}

struct place *region_place(uintptr_t address)
{
	const struct region *region = region_at(address);

	for (const struct attachment *a = region != NULL ? region->attachments : NULL; a != NULL; a = a->next)
		if (a->address == address && a->place != NULL)
			return a->place;
	return NULL;
}

bool region_is_hooked(const struct region *region, unsigned int offset)
{
	for (const struct attachment *a = region->attachments; a != NULL; a = a->next)
		if (!patch_is_released(a->patch) && a->when != HOOK_LEAD && a->address == region->start + offset)
			return true;
	return false;
}

bool region_wanted(const struct region *region)
{
	for (const struct attachment *a = region->attachments; a != NULL; a = a->next)
		if (patch_is_wanted(a->patch))
			return true;
	return false;
}

bool region_has_policy(const struct region *region, int policy)
{
	for (const struct attachment *a = region->attachments; a != NULL; a = a->next)
		if (!patch_is_released(a->patch) && a->when != HOOK_LEAD && a->patch->policy == policy)
			return true;
	return false;
}

bool region_is_own(const struct region *region)
{
	for (const struct attachment *a = region->attachments; a != NULL; a = a->next)
		if (a->patch->type != MODEL_SYSCALL)
			return false;
	return region->attachments != NULL;
}

bool region_waits_for_whole(const struct region *region)
{
	return region_is_own(region) && !region->installed && region_wanted(region);
}

bool region_is_plain(const struct region *region)
{
	bool any = false;

	for (const struct attachment *a = region->attachments; a != NULL; a = a->next) {
		if (a->patch->type != MODEL_SYSCALL && !patch_is_released(a->patch))
			return false;
		any |= a->patch->type == MODEL_SYSCALL;
	}
	return any && region->strategy == PATCH_STRATEGY_JUMP && region->offsets[1] >= ARCH_JMP_SIZE;
}

bool region_is_unused(const struct region *region)
{
	return !region->installed && region->attachments == NULL;
}
