/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Regions: windows of instructions that are displaced together, and the patches on them. A patch on an instruction of
 * an existing region joins it; a region whose window would overlap another one takes that in. Called with the library
 * lock held; nothing here writes live text.
 *
 * Generations. A region has trampolines, each of which serves other patches than the one before it:
 *
 *     hookset_build()         commit: settle            region_retire()
 *     ---------------> next ----------------> current ----------------> old -> old -> ...
 *                        ^                                               |
 *                        +--- region_set_next(): it does again what is ---+
 *                             wanted now
 *
 *     next      takes effect at the next commit; NULL: `current` stays
 *     current   the text leads there, or led there last
 *     old       threads may be in one still: kept for ever, or until the code is unmapped (I7)
 *
 * A region that goes, and whose trampolines or pad threads may be in, becomes a *former* one of its first instruction's
 * registry entry (region_bury()). The next region with the same window and the same bytes is that one again
 * (region_create()).
 */
#ifndef LIBPATCH_PATCH_REGION_H
#define LIBPATCH_PATCH_REGION_H

#include "arch/hook.h"
#include "arch/trap_bytes.h"
#include "base/compiler.h"
#include "base/error.h"
#include "base/prefetch.h"
#include "base/thread_safety.h"
#include "patch/patch_object.h"
#include "trap/registry.h"
#include "code/trampoline.h"
#include "code/window.h"

struct region {
	uintptr_t start;
	uint8_t length;
	uint8_t owned; /* bytes from start on that no other region may change: length, or a punned jump's (I11) */
	uint8_t count;
	uint8_t strategy;
	bool no_rmw : 1;
	bool forced : 1;    /* a trap only because of another patch, which asked for it or needs the bytes */
	bool installed : 1; /* text differs from the original, or may */
	bool gone : 1;      /* by region_leave() */
	bool led : 1;       /* the text leads to region_trampoline(), be it by traps */
	bool pad_reachable : 1;
	uint8_t pad_live[ARCH_JMP_SIZE];
	uint32_t queued;       /* ptr_vec_add() */
	struct region *former; /* of a former region: an earlier one that began in the same line of code */
	struct attachment *attachments;
	/* Generations: see above. */
	struct trampoline *current;
	struct trampoline *next;
	struct trampoline *old;
	/*
	 * The pad that the jump leads to, 0 if none. Once reachable it is live text, too: a thread may be stopped at
	 * it. Its bytes, `pad_live`, change by the protocol, and its entry serves the traps.
	 */
	uintptr_t pad;
	struct registry_entry *pad_entry; /* NULL as long as it was never changed */
	uint8_t *original;                /* `owned` bytes as of its making */
	uint8_t *live;                    /* what the text holds as far as we wrote it */
	uint8_t *offsets;                 /* of the instructions, and the end: count + 1 */
	struct registry_entry *entries[];
};

static inline void region_fetch(const struct region *region)
{
	fetch(region, sizeof(*region) + 64);
}

/* Does any part of the patch wait for another commit? */
static inline bool patch_is_pending(const struct patch *patch)
{
	for_each_attachment(patch, a)
		if (a->region != NULL && a->region->queued)
			return true;
	return false;
}

/* Are the hooks of all places of the patch where threads come by? Leads only save traps. */
static inline bool patch_is_led_to(const struct patch *patch)
{
	for (size_t i = 0; i < patch->count; ++i)
		if (patch->attachments[i].region != NULL && !patch->attachments[i].region->led)
			return false;
	return true;
}

/* Take a patch that is not enabled (or whose region was just restored) out of its regions. */
void region_detach(struct patch *patch) REQUIRES(library_lock);

/* The region that the instruction at address belongs to, or NULL. */
struct region *region_at(uintptr_t address) REQUIRES(library_lock);

/* The place at the address; NULL: no patch is on that instruction. */
struct place *region_place(uintptr_t address) REQUIRES(library_lock);

/* The region that owns the byte at address, also inside an instruction or behind its window, or NULL. */
struct region *region_covering(uintptr_t address) REQUIRES(library_lock);
/*
 * Has somebody else written code to the region, of which `text` is what is there now? Breakpoints and uprobes are no
 * code: they are single trap bytes, and what they put back is original, or the library's.
 */
bool region_has_other_code(const struct region *region, const uint8_t *text) REQUIRES(library_lock);

/* Has the instruction at an offset of the region a hook? */
bool region_is_hooked(const struct region *region, unsigned int offset) REQUIRES(library_lock);

/* Is a patch with this policy on the region? */
bool region_has_policy(const struct region *region, int policy) REQUIRES(library_lock);
/* Are there patches on the region, and only the library's own? */
bool region_is_own(const struct region *region) REQUIRES(library_lock);
/* Is it, and are they wanted, but not in the text yet? Until then it changes whole, or not (S4). */
bool region_waits_for_whole(const struct region *region) REQUIRES(library_lock);
/*
 * Is only the library's own patch on the region, and does its jump cover one instruction? Then the region can be
 * changed in one write, and needs no trap bytes on its boundaries, which lie behind the jump.
 */
bool region_is_plain(const struct region *region) REQUIRES(library_lock);
/* Is nothing of the region in the text, and no patch on it? */
bool region_is_unused(const struct region *region) REQUIRES(library_lock);

/* Is any patch on the region wanted? Then its text is to be patched. */
bool region_wanted(const struct region *region) REQUIRES(library_lock);

/* Is any region in the text? */
bool region_any_installed(void) REQUIRES(library_lock);
/* Is a region in the text of the pages of [lower, upper)? False is sure; true may be wrong. */
bool region_may_be_installed_on(uintptr_t lower, uintptr_t upper) REQUIRES(library_lock);

/* The trampoline in effect after the next commit. */
static inline struct trampoline *region_trampoline(const struct region *region)
{
	return region->next != NULL ? region->next : region->current;
}

/* What a pass needs beside regions. What it does not need would only push that out of the cache. */
enum region_part { REGION_PATCHES = 1 << 0, REGION_TRAMPOLINE = 1 << 1, REGION_ENTRIES = 1 << 2 };

/* Fetch what a region leads to that was fetched itself. */
static inline void region_fetch_further(const struct region *region, unsigned int parts)
{
	if ((parts & REGION_PATCHES) && region->attachments != NULL)
		attachment_fetch(region->attachments);
	if (parts & REGION_TRAMPOLINE)
		fetch(region_trampoline(region), sizeof(struct trampoline) + sizeof(struct built_hook));
	for (unsigned int i = 0; (parts & REGION_ENTRIES) && i < region->count; ++i)
		FETCH(region->entries[i]);
}

struct region_usage {
	uint64_t regions;
	uint64_t installed;
	uint64_t retired_bytes;
};
void region_usage(struct region_usage *usage) REQUIRES(library_lock);
/* The trampoline went out of use. A reachable one is kept for the same window (I7), another one freed. */
void region_retire(struct region *region, struct trampoline *trampoline) REQUIRES(library_lock);

/* The queue of regions for the next commit. */
void region_queue(struct region *region) REQUIRES(library_lock);
size_t region_queued(void) REQUIRES(library_lock);
/* The region at the index, which is below region_queued(). */
struct region *region_queued_at(size_t index) REQUIRES(library_lock);
/* Take the region off the queue; the last one gets its place. */
void region_unqueue(struct region *region) REQUIRES(library_lock);
/* Empty the queue: the caller has taken the regions. */
void region_queue_taken(void) REQUIRES(library_lock);
void region_set_installed(struct region *region, bool installed) REQUIRES(library_lock);

/* ---- making and merging ----------------------------------------------------------------------------------------- */

/*
 * The region's pad was chosen for the bytes behind the window, which a punned jump consists of. Are `original`, from
 * the region's start on, still these bytes?
 */
bool region_pad_fits(const struct region *region, uint8_t strategy, const uint8_t *original) REQUIRES(library_lock);
/*
 * A region for the window: a former one, or a new one that nothing refers to yet. NULL: out of memory. `no_rmw`: its
 * mapping is writable (text.h).
 */
struct region *region_create(const struct window *window, bool no_rmw) REQUIRES(library_lock);
/* `original`: bytes from the region's start on, a jump's, for PATCH_STRATEGY_PUNNED_JUMP; else not looked at. */
void region_set_strategy(struct region *region, uint8_t strategy, const uint8_t *original) REQUIRES(library_lock);
/* Free a region that never owned its entries; a former one becomes that again. */
void region_discard(struct region *region) REQUIRES(library_lock);
/*
 * Make entries for all instructions; entries that exist stay as they are until the region is committed. False: out of
 * memory.
 */
bool region_make_entries(struct region *region) REQUIRES(library_lock);
/* From now on the entries are this region's. */
void region_own_entries(struct region *region) REQUIRES(library_lock);
/* Move the patches on `gone`, and what they did to the text, to the region, which covers both. Buries `gone`. */
void region_take_in(struct region *region, struct region *gone) REQUIRES(library_lock);
void region_append(struct region *region, struct attachment *attachment) REQUIRES(library_lock);
/* The trampoline that takes effect at the next commit. */
void region_set_next(struct region *region, struct trampoline *trampoline) REQUIRES(library_lock);
/*
 * The region goes, because it is unused or because another one has taken it in. If threads may be in its trampolines or
 * at its pad, it becomes a former region (I7).
 */
void region_bury(struct region *region) REQUIRES(library_lock);
/* No punned jump of the region is in the text any more (I11). */
void region_clear_punned(const struct region *region) REQUIRES(library_lock);
/*
 * The code of a region is about to be unmapped. region_leave() takes the region, which has no attachments and owns its
 * entries, off its entries and puts it on the list, linked by `former`; region_leave_former() does so for the former
 * regions of an entry. region_free() frees a region of the list with its trampolines and its pad: no thread can be in
 * them (I7), because it would come back to code that is not there.
 */
void region_leave(struct region *region, struct region **list) REQUIRES(library_lock);
void region_leave_former(struct registry_entry *first, struct region **list) REQUIRES(library_lock);
void region_free(struct region *region) REQUIRES(library_lock);
/* Of one that has left: its code is kept for good. */
void region_keep(const struct region *region) REQUIRES(library_lock);

#endif
