/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The two ends of a batch, at which no text changes: entries, patches and trampolines. When which end comes is
 * commit.c's business.
 */
#include "commit/publish.h"

#include "arch/trap_bytes.h"
#include "patch/place.h"
#include "patch/quiesce.h"
#include "trap/registry.h"

#include <stdatomic.h>

static bool commit_is_active(struct registry_entry *entry)
{
	return REGISTRY_STATE(atomic_load(&entry->state)) == REGISTRY_ACTIVE;
}

/* Nothing of the region is in the text any more (I5). Entries that were never active stay so. */
static void commit_retire_entries(const struct region *region) REQUIRES(library_lock)
{
	for (unsigned int i = 0; i < region->count; ++i)
		if (commit_is_active(region->entries[i]))
			registry_retire(region->entries[i]);
}

/*
 * Is the entry of instruction i to be retired although the region is installed? It is when the instruction has its
 * original byte, because a trap byte was needed on it for the transition only. The first entry of a jump stays.
 */
static bool commit_is_bystander(const struct region_change *change, unsigned int i)
{
	const struct region *region = change->region;
	uint8_t byte = batch_text(change, 0)[region->offsets[i]];

	return (i > 0 || region->strategy == PATCH_STRATEGY_TRAP) && byte == region->original[region->offsets[i]] &&
	       arch_trap_class(byte) == ARCH_TRAP_NONE && commit_is_active(region->entries[i]);
}

static void commit_retire_bystanders(const struct region_change *change) REQUIRES(library_lock)
{
	for (unsigned int i = 0; i < change->region->count; ++i)
		if (commit_is_bystander(change, i))
			registry_retire(change->region->entries[i]);
}

/*
 * Does the pad lead to its trampoline again, with an entry still active? An interrupted batch before this one may have
 * led it there.
 */
static bool commit_is_pad_led(const struct region *region)
{
	return region->pad_entry != NULL && commit_is_active(region->pad_entry) && region->pad_live[0] != ARCH_INT3;
}

bool commit_retires(const struct region_change *change)
{
	const struct region *region = change->region;

	if (change->failed)
		return false;
	if (commit_is_pad_led(region))
		return true;
	for (unsigned int i = 0; i < region->count; ++i)
		if (change->install ? commit_is_bystander(change, i) : commit_is_active(region->entries[i]))
			return true;
	return false;
}

/* Patches close as a whole, before anything of theirs leaves the text. */
REQUIRES(library_lock)
static void commit_close_patches(const struct region *region)
{
	for (const struct attachment *a = region->attachments; a != NULL; a = a->next)
		if (!patch_is_wanted(a->patch))
			quiesce_set_open(a->patch, false);
}

void commit_open_patches(const struct region *region)
{
	for (const struct attachment *a = region->attachments; a != NULL; a = a->next)
		if (patch_is_wanted(a->patch) && patch_is_led_to(a->patch))
			quiesce_set_open(a->patch, true);
}

/* An entry serves the trap bytes that its address holds after phase 1 (`first`) and after phase 3 (`last`). */
static void commit_activate(struct registry_entry *entry, uintptr_t target, uint8_t first, uint8_t last)
	REQUIRES(library_lock)
{
	enum arch_trap_class class = arch_trap_class(last);

	if (class != ARCH_TRAP_NONE)
		registry_activate(entry, target, class);
	if (arch_trap_class(first) != ARCH_TRAP_NONE && arch_trap_class(first) != class)
		registry_activate(entry, target, arch_trap_class(first));
}

static void commit_activate_install(const struct region_change *change, const struct trampoline *trampoline)
	REQUIRES(library_lock)
{
	const struct region *region = change->region;
	const uint8_t *first = batch_text(change, 1);
	const uint8_t *last = batch_text(change, 3);

	for (unsigned int i = 0; i < region->count; ++i)
		commit_activate(region->entries[i], trampoline_entry(trampoline, i), first[region->offsets[i]],
				last[region->offsets[i]]);
}

void commit_publish(struct batch *batch)
{
	struct region_change *change;

	for_each_change(batch, change, PREFETCH_PUBLISH) {
		struct region *region = change->region;
		struct trampoline *trampoline = region_trampoline(region);

		if (change->failed)
			continue;
		commit_close_patches(region);
		/*
		 * A removal activates nothing: it puts trap bytes only where entries are active already, over a jump or
		 * on an instruction that has bytes of one.
		 */
		if (!change->install)
			continue;
		commit_activate_install(change, trampoline);
		if (change->pad_changes)
			registry_activate(region->pad_entry, trampoline_entry(trampoline, 0), ARCH_TRAP_SIGTRAP);
		trampoline->reachable = true;
		place_lead_originals(trampoline);
	}
}

void commit_withdraw(struct batch *batch)
{
	const struct region_change *change;

	for_each_change(batch, change, PREFETCH_NOTHING)
		if (change->failed && change->install && !change->written && !change->region->installed)
			commit_retire_entries(change->region);
}

/* Step settle. */
REQUIRES(library_lock)
static void commit_settle_region(struct region_change *change)
{
	struct region *region = change->region;

	if (region->next != NULL && change->install) {
		struct trampoline *before = region->current;

		region->current = region->next;
		region->next = NULL;
		region_retire(region, before);
	}
	if (commit_is_pad_led(region))
		registry_retire(region->pad_entry);
	if (change->install) {
		region->led = true;
		commit_retire_bystanders(change);
	} else {
		commit_retire_entries(region);
		region_set_installed(region, false);
	}
	commit_open_patches(region);
}

void commit_settle(struct batch *batch)
{
	struct region_change *change;

	for_each_change(batch, change, PREFETCH_SETTLE) {
		batch_record(change);
		if (!change->failed)
			commit_settle_region(change);
	}
}
