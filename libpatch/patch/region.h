/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Regions: windows of instructions that are displaced together, and the patches on them. A patch on an instruction of an
 * existing region joins it; one whose window would overlap a region takes it in. Called with the library lock held; nothing
 * here writes live text.
 */
#ifndef LIBPATCH_PATCH_REGION_H
#define LIBPATCH_PATCH_REGION_H

#include "runtime/call_pairs.h"
#include "base/base.h"
#include "trap/registry.h"
#include "code/trampoline.h"
#include "code/window.h"

struct region;

enum role {
	ROLE_SITE,  /* the patch's own instruction */
	ROLE_RETURN /* the return address of the call that it is around */
};

/* Of patches of the library's own: at a system call, their record has an arch_syscall_hook_fn. Never given to patch_make(). */
#define MODEL_SYSCALL 0x80

/* A patch's place in a region. */
struct attachment {
	struct attachment *next; /* in the region, in order of making */
	struct patch *patch;
	struct region *region; /* NULL: nowhere */
	uintptr_t address;     /* of the instruction */
	enum role role;
};

#define ROLES 2

/*
 * What the caller of patch_make() asked for, and where it stands. Without a return site, memory ends in front of that. There may
 * be a million of them: what commits look at is together.
 */
struct patch {
	uint64_t order; /* of making */
	uintptr_t located;
	/* Extent of the function around it, upper 0 when unknown. */
	uintptr_t lower;
	uintptr_t upper;
	uint64_t read;
	uint64_t write;
	uint64_t clobber;
	void (*destroy)(void *user_data);
	/* quiesce.c's. */
	uint64_t ticket;   /* of its closing, or of its detachment */
	uint64_t unmade;   /* order of patch_unmake() */
	union {
		uint64_t fence;     /* while it waits: memory_fence_count() at its closing */
		const void *runner; /* while it is being destroyed: the thread that runs its destroy function */
	};
	struct patch *quiet_next;
	struct patch **quiet_link;
	uint32_t slot; /* handle.c's */

	uint32_t queued; /* handle_change() */
	uint8_t type;    /* enum patch_exec_model_type, or MODEL_SYSCALL */
	uint8_t policy;
	uint8_t action;  /* enum arch_action */
	bool stamp;
	uint8_t roles;   /* that there is memory for */
	bool paired;     /* around a call */
	bool wanted;     /* enabled by the next commit */
	bool enabled;    /* by the last commit */
	bool released;   /* by patch_unmake(): goes at the next commit */
	bool gone;       /* its code was unmapped: it is on no region any more */
	bool revoked;    /* its handle is unknown */
	/* quiesce.c's. */
	bool open;     /* its slots hold its records */
	bool waiting;  /* they did, and a thread may use one still */
	bool used;     /* one does: during a look */
	bool detached; /* nobody but quiesce.c knows it */
	struct hook_owner owner; /* of its hooks */
	struct {
		struct attachment attachment;
		union {
			struct hook_record record;
			const void *counter; /* when nothing is called: its address or its distance from the thread pointer */
		};
	} sites[ROLES]; /* by role */
	struct call_pair pair; /* of both calls */
};

/* What its hooks' slots hold. */
static inline const void *patch_record(const struct patch *patch, enum role role)
{
	return patch->action == ARCH_CALL_PROCEDURE ? &patch->sites[role].record : patch->sites[role].counter;
}

/* What its hooks call, with what. Not of one that counts. */
static inline struct hook_record patch_procedure(const struct patch *patch)
{
	return patch->paired ? (struct hook_record){ patch->pair.procedure, patch->pair.user_data } : patch->sites[ROLE_SITE].record;
}

/* The same, or the counter that they increase: 0 for one in thread-local storage. */
static inline uintptr_t patch_refers_to(const struct patch *patch)
{
	switch (patch->action) {
	case ARCH_CALL_PROCEDURE:
		return (uintptr_t)patch_procedure(patch).procedure;
	case ARCH_COUNT_THREAD:
		return 0;
	default:
		return (uintptr_t)patch->sites[ROLE_SITE].counter;
	}
}

/* Its size with so many roles. */
static inline size_t patch_size(unsigned int roles)
{
	return roles == ROLES ? sizeof(struct patch) : offsetof(struct patch, sites[1]);
}

struct region {
	uintptr_t start;
	uint8_t length;
	uint8_t owned; /* bytes from start on that nobody else may change: length, or those of a punned jump (I11) */
	uint8_t count;
	uint8_t strategy;
	bool no_rmw;
	bool forced;    /* a trap only because of another patch, which asked for it or needs the bytes */
	bool installed; /* text differs from the original, or may */
	bool gone;      /* by region_leave() */
	uint32_t queued; /* queue_add() */
	struct region *former; /* once it is gone: another one that began there */
	struct attachment *attachments;
	struct trampoline *current; /* what the text leads to, or led to last */
	struct trampoline *next;    /* takes effect at the next commit; NULL: none needed, or same as current */
	struct trampoline *old;     /* reachable once; kept (I7) */
	/*
	 * The pad that the jump leads to, 0 if none. Once reachable it is live text, too: a thread may be stopped at it. Its
	 * bytes change by the protocol, and its entry serves the traps.
	 */
	uintptr_t pad;
	bool pad_reachable;
	uint8_t pad_live[ARCH_JMP_SIZE];
	struct registry_entry *pad_entry; /* NULL as long as it was never changed */
	uint8_t *original; /* `owned` bytes as of its making */
	uint8_t *live;     /* what the text holds as far as we wrote it */
	uint8_t *offsets;  /* of the instructions, and the end: count + 1 */
	struct registry_entry *entries[];
};

/* How many things in front of the one at hand a pass over all of them fetches. */
#define PREFETCH_AHEAD 6

/* What commits look at. Of an attachment's patch: the patch is not there yet to be asked. */
static inline void patch_fetch(const struct patch *patch)
{
	fetch(&patch->queued, offsetof(struct patch, sites[1]) - offsetof(struct patch, queued));
}

static inline void attachment_fetch(const struct attachment *attachment)
{
	patch_fetch((const struct patch *)((const uint8_t *)attachment - offsetof(struct patch, sites)));
}

static inline void region_fetch(const struct region *region)
{
	fetch(region, sizeof(*region) + 64);
}

/* Does any part of the patch wait for another commit? In the middle of one: has any failed? */
static inline bool patch_is_pending(const struct patch *patch)
{
	for (size_t i = 0; i < patch->roles; ++i)
		if (patch->sites[i].attachment.region != NULL && patch->sites[i].attachment.region->queued)
			return true;
	return false;
}

struct refusal {
	const char *message;
	uintptr_t irritant;
};

/* Take a patch that is not enabled (or whose region was just restored) out of its regions. */
void region_detach(struct patch *patch);

/* The region that the instruction at address belongs to, or NULL. */
struct region *region_at(uintptr_t address);

/* The region that owns the byte at address, also inside an instruction or behind its window, or NULL. */
struct region *region_covering(uintptr_t address);

/* Has the instruction at an offset of the region a hook? */
bool region_is_hooked(const struct region *region, unsigned int offset);

/* Is there a patch with this policy on it? */
bool region_has_policy(const struct region *region, int policy);
/*
 * Only the library's own patch is on it, and its jump covers one instruction: it can be changed in one write, and needs no
 * trap bytes on its boundaries, which lie behind the jump.
 */
bool region_is_plain(const struct region *region);
/* Nothing of it is in the text, and nobody is on it. */
bool region_is_unused(const struct region *region);

/* Should the region's text be patched once everything wanted is in effect? */
bool region_wanted(const struct region *region);

/* Is any region in the text? */
bool region_any_installed(void);
/* Is a region in the text of the pages of [lower, upper)? False is sure; true may be wrong. */
bool region_may_be_installed_on(uintptr_t lower, uintptr_t upper);

/* The trampoline in effect after the next commit. */
static inline struct trampoline *region_trampoline(const struct region *region)
{
	return region->next != NULL ? region->next : region->current;
}

/* What a pass needs beside regions. More than that takes the place of what it needs. */
enum region_part {
	REGION_PATCHES = 1 << 0,
	REGION_TRAMPOLINE = 1 << 1,
	REGION_ENTRIES = 1 << 2
};

/* What the region, which was fetched, leads to. */
static inline void region_fetch_further(const struct region *region, unsigned int parts)
{
	if ((parts & REGION_PATCHES) && region->attachments != NULL)
		attachment_fetch(region->attachments);
	if (parts & REGION_TRAMPOLINE)
		fetch(region_trampoline(region), sizeof(struct trampoline) + sizeof(struct built_hook));
	for (unsigned int i = 0; (parts & REGION_ENTRIES) && i < region->count; ++i)
		FETCH(region->entries[i]);
}

/* Has the trampoline's jump a trap byte of the SIGILL class on a boundary? */
bool region_needs_sigill(const struct region *region, const struct trampoline *trampoline);

struct region_usage {
	uint64_t regions;
	uint64_t installed;
	uint64_t retired_bytes;
};
void region_usage(struct region_usage *usage);
/* A trampoline went out of use: keep it for the same patches at the same place (I7). */
void region_retire(struct region *region, struct trampoline *trampoline);

/* Regions for the next commit. */
void region_queue(struct region *region);
size_t region_queued(void);
/* One of them, below region_queued(). */
struct region *region_queued_at(size_t index);
/* They are for the caller to deal with. */
void region_queue_taken(void);
void region_set_installed(struct region *region, bool installed);

/* ---- making and merging ----------------------------------------------------------------------------------------- */

/*
 * Its pad was chosen for bytes behind the window, which a punned jump consists of: are they these? `original`: see
 * region_create().
 */
bool region_pad_fits(const struct region *region, uint8_t strategy, const uint8_t *original);
/*
 * A region for the window that nothing knows of yet, or that was there before; NULL: out of memory. `no_rmw`: its mapping is
 * writable (text.h).
 */
struct region *region_create(const struct window *window, bool no_rmw);
/* `original`: bytes from the region's start on, a jump's, for PATCH_STRATEGY_PUNNED_JUMP; else not looked at. */
void region_set_strategy(struct region *region, uint8_t strategy, const uint8_t *original);
/* Let one go that never owned its entries. */
void region_discard(struct region *region);
/* Entries for every instruction: existing ones stay what they are until the region is committed. False: out of memory. */
bool region_make_entries(struct region *region);
/* From now on the entries are this region's. */
void region_own_entries(struct region *region);
/* Move the patches on the other, and what they did to the text, to this one, which covers both. The other one goes. */
void region_take_in(struct region *region, struct region *gone);
void region_append(struct region *region, struct attachment *attachment);
/* The trampoline that takes effect at the next commit. */
void region_set_next(struct region *region, struct trampoline *trampoline);
/*
 * The region goes: it has no patches and nothing of it is in the text, or another has taken it in. What threads may be in
 * stays (I7), and serves the next region for the same window.
 */
void region_bury(struct region *region);
/* No punned jump of the region is in the text any more (I11). */
void region_clear_punned(const struct region *region);
/*
 * The code of a region that has no attachments, and owns its entries, or of those that were there before, is about to be
 * unmapped: onto the list, linked by `former`. Then free it, with its trampolines and its pad: no thread can be in them
 * (I7), because it would come back to code that is not there.
 */
void region_leave(struct region *region, struct region **list);
void region_leave_former(struct registry_entry *first, struct region **list);
void region_free(struct region *region);

#endif
