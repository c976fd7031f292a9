/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Patches and regions end with their code. This file takes the objects apart, and frees them once the code is gone; it
 * writes no text and must not commit: the bytes are about to vanish by themselves.
 */
#include "patch/unmapped.h"

#include "base/thread_safety.h"
#include "patch/quiesce.h"
#include "patch/region.h"
#include "sys/mem_read.h"
#include "trap/registry.h"

#include <errno.h>
#include <string.h>

/* Their code is gone, or about to go. */
static struct region *leaving;

REQUIRES(library_lock)
static void unmapped_end_patch(struct patch *patch)
{
	patch_set_goal(patch, GOAL_DISABLED);
	patch->gone = true;
	quiesce_set_open(patch, false);
	/* A part of it may lie elsewhere: that goes by the protocol. */
	for_each_attachment(patch, a)
		if (a->region != NULL && a->region->installed)
			region_queue(a->region);
	region_detach(patch);
}

REQUIRES(library_lock)
static void unmapped_end_region(struct region *region)
{
	while (region->attachments != NULL)
		unmapped_end_patch(region->attachments->patch);
	region_clear_punned(region);
	region_leave(region, &leaving);
}

/* Nobody looks it up again (I6); memory is freed once no handler can hold it (R2). */
REQUIRES(library_lock)
static void unmapped_end_entry(struct registry_entry *entry)
{
	if (entry->region != NULL)
		unmapped_end_region(entry->region);
	region_leave_former(entry, &leaving);
	registry_remove(entry);
}

void unmapped_end(uintptr_t lower, uintptr_t upper)
{
	struct registry_entry *entry;
	struct region *region;

	if (!registry_may_have(lower, upper))
		return;
	/* The last instruction in front may reach into it. */
	region = region_covering(lower);
	if (region != NULL && region->start < lower)
		unmapped_end_region(region);
	while ((entry = registry_next_within(lower, upper)) != NULL)
		unmapped_end_entry(entry);
}

void unmapped_end_written_over(struct region *region)
{
	struct region *before = leaving;

	unmapped_end(region->start, region->start + region->length);
	while (leaving != before) {
		struct region *kept = leaving;

		leaving = kept->former;
		region_keep(kept);
	}
}

static bool unmapped_is_there(const struct region *region)
{
	uint8_t text[WINDOW_LENGTH_MAX];
	int error;

	/* What cannot be read is there, unless nothing is mapped. */
	if (mem_read(region->start, text, region->length, &error) != region->length)
		return error != EFAULT;
	return memcmp(text, region->live, region->length) == 0 && memcmp(text, region->original, region->length) != 0;
}

void unmapped_abandon(struct region *region)
{
	region->former = leaving;
	leaving = region;
}

void unmapped_collect(void)
{
	for (struct region **link = &leaving; *link != NULL;) {
		struct region *region = *link;

		if (unmapped_is_there(region)) {
			link = &region->former;
			continue;
		}
		*link = region->former;
		region_free(region);
	}
}
