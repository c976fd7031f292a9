/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Leads: slots that branches in generated code go through, and who needs them. What they hold is decided by the
 * registry; nothing here knows why.
 */
#include "code/lead.h"

#include "base/heap.h"
#include "base/thread_safety.h"
#include "code/arena.h"
#include "code/slots.h"

#include <stdatomic.h>

struct lead *lead_make(uintptr_t address)
{
	/* Copies have no register to read one through that is farther away. */
	uintptr_t slot = hook_slot_alloc(address, arena_reach_of(address));
	struct lead *lead = slot != 0 ? heap_alloc(sizeof(*lead)) : NULL;

	if (lead == NULL) {
		if (slot != 0)
			hook_slot_free(slot);
		return NULL;
	}
	*lead = (struct lead){ .address = address, .slot = slot, .references = 1 };
	lead_set(lead, address);
	return lead;
}

void lead_set(const struct lead *lead, uintptr_t where)
{
	/* Release: what it leads to is written. */
	atomic_store_explicit((_Atomic uintptr_t *)lead->slot, where, memory_order_release);
}

void lead_take(struct lead *lead)
{
	++lead->references;
}

void lead_drop(struct lead *lead)
{
	if (--lead->references > 0)
		return;
	hook_slot_free(lead->slot);
	heap_free(lead, sizeof(*lead));
}
