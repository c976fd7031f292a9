/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Hook slots: given out from the writable part of an arena that the hook's code can reach, and taken back. A free slot
 * holds the address of the next free one. Whoever opens and closes a hook writes to its slot; nothing here does while
 * it is given out.
 */
#include "code/slots.h"

#include "base/bug.h"
#include "base/thread_safety.h"
#include "code/arena.h"

static bool slots_have_one(const struct arena_slots *slots, struct arena_reach reach)
{
	return (slots->free != 0 || slots->fresh < slots->upper) && slots->lower >= reach.lower &&
	       slots->upper <= reach.upper;
}

uintptr_t hook_slot_alloc(uintptr_t near, struct arena_reach reach)
{
	struct arena_slots *slots = arena_slots();
	uintptr_t slot;

	LOCK_ASSERT_HELD();
	while (slots != NULL && !slots_have_one(slots, reach))
		slots = slots->next;
	if (slots == NULL)
		slots = arena_add_slots(near, reach);
	if (slots == NULL)
		return 0;
	slot = slots->free;
	if (slot != 0) {
		slots->free = *(uintptr_t *)slot;
		*(uintptr_t *)slot = 0;
		return slot;
	}
	slot = slots->fresh;
	slots->fresh += sizeof(uint64_t);
	return slot;
}

void hook_slot_free(uintptr_t slot)
{
	struct arena_slots *slots = arena_slots();

	LOCK_ASSERT_HELD();
	while (slots != NULL && slot - slots->lower >= slots->upper - slots->lower)
		slots = slots->next;
	BUG_ON_RETURN(slots == NULL);
	*(uintptr_t *)slot = slots->free;
	slots->free = slot;
}
