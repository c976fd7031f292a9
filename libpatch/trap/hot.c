/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where traps are served time and again: the trap handler reports an entry without waiting for anybody, a writer takes
 * the reports one by one and marks entries as hot. What is done about a hot entry is decided elsewhere (replan.c).
 */
#include "trap/registry.h"

#include "base/thread_safety.h"
#include "trap/registry_parts.h"

/* A stack that is only ever taken whole, so that nothing on it can change hands unseen. */
static _Atomic(struct registry_entry *) reported;
static struct registry_entry *taken GUARDED_BY(library_lock);
/* Entries whose `hot` is set. */
static size_t hot GUARDED_BY(library_lock);

/* Of an entry that was taken out nothing is known but who holds it: what it was reported for is over. */
enum { REPORT_LISTED = 1 << 0, REPORT_TAKEN_OUT = 1 << 1 };

void registry_report(struct registry_entry *entry)
{
	uint8_t none = 0;

	if (!atomic_compare_exchange_strong(&entry->reported, &none, REPORT_LISTED))
		return;
	entry->reported_next = atomic_load(&reported);
	/* Release in the exchange pairs with acquire in registry_take_reported(). */
	while (!atomic_compare_exchange_weak(&reported, &entry->reported_next, entry))
		;
}

bool registry_any_reported(void)
{
	return taken != NULL || atomic_load_explicit(&reported, memory_order_relaxed) != NULL;
}

struct registry_entry *registry_take_reported(void)
{
	for (;;) {
		struct registry_entry *entry;

		if (taken == NULL && atomic_load_explicit(&reported, memory_order_relaxed) != NULL)
			taken = atomic_exchange(&reported, NULL);
		entry = taken;
		if (entry == NULL)
			return NULL;
		taken = entry->reported_next;
		if (atomic_fetch_and(&entry->reported, ~REPORT_LISTED) == REPORT_LISTED)
			return entry;
	}
}

/* About to be freed, when no reader can report it any more: off the list. */
void registry_unreport(const struct registry_entry *entry)
{
	struct registry_entry **link = &taken;

	if (!(atomic_load(&entry->reported) & REPORT_LISTED))
		return;
	while (*link != NULL)
		link = &(*link)->reported_next;
	*link = atomic_exchange(&reported, NULL);
	for (link = &taken; *link != NULL; link = &(*link)->reported_next) {
		if (*link == entry) {
			*link = entry->reported_next;
			return;
		}
	}
}

void registry_set_hot(struct registry_entry *entry)
{
	hot += !entry->hot;
	entry->hot = true;
}

bool registry_is_hot(uintptr_t address)
{
	const struct registry_entry *entry = hot > 0 ? registry_find(address) : NULL;

	return entry != NULL && entry->hot;
}

void registry_take_out_reports(struct registry_entry *entry)
{
	atomic_fetch_or(&entry->reported, REPORT_TAKEN_OUT);
	hot -= entry->hot;
	entry->hot = false;
}
