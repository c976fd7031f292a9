/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Regions: windows of instructions that are displaced together, and the patches on them. A patch on an instruction of an
 * existing region joins it; one whose window would overlap a region takes it in. Called with the library lock held; nothing
 * here writes live text.
 */
#ifndef LIBPATCH_REGION_H
#define LIBPATCH_REGION_H

#include "around.h"
#include "base.h"
#include "plan.h"
#include "registry.h"
#include "trampoline.h"

struct region;

enum role {
	ROLE_SITE,  /* the patch's own instruction */
	ROLE_RETURN /* the return address of the call that it is around */
};

/* Of patches of the library's own: at a system call, their record has an arch_instead_fn. Never given to patch_make(). */
#define MODEL_INSTEAD 0x100

/* A patch's place in a region. */
struct attachment {
	struct attachment *next; /* in the region, in order of making */
	struct patch *patch;
	struct region *region; /* NULL: nowhere */
	uintptr_t address;     /* of the instruction */
	enum role role;
};

#define ROLES 2

/* What the caller of patch_make() asked for, and where it stands. Without a return site, memory ends in front of that. */
struct patch {
	uint64_t order; /* of making */
	uintptr_t located;
	struct patch_exec_model model;
	int policy;
	bool wanted;   /* enabled by the next commit */
	bool enabled;  /* by the last commit */
	bool released; /* by patch_unmake(): goes at the next commit */
	bool gone;     /* its code was unmapped: it is on no region any more */
	bool revoked;  /* its handle is unknown */
	uint32_t queued; /* handle_change() */
	/* Extent of the function around it, upper 0 when unknown; where the next one begins. */
	uintptr_t lower;
	uintptr_t upper;
	uintptr_t limit;
	uintptr_t barrier; /* no byte from here on may be changed */
	uintptr_t floor;   /* none in front of here */
	uintptr_t mapped;  /* end of the mapping */
	bool exact;     /* its mapping is writable (text.h) */
	bool paired;    /* around a call */
	uint8_t roles;  /* that there is memory for */
	struct {
		const void *counter; /* or that, when nothing is called: its address or its distance from the thread pointer */
		uint8_t action;      /* enum arch_action */
		bool stamp;
	} count;
	struct hook *hooks;               /* that are its own, of any trampoline */
	/* handle.c's. */
	uint32_t slot;
	/* quiesce.c's. */
	bool open;    /* its slots hold its records */
	bool waiting; /* they did, and a thread may use one still */
	bool used;    /* one does, as of the last look */
	bool detached; /* nobody but quiesce.c knows it */
	uint64_t ticket;   /* of its closing, or of its detachment */
	uint64_t fence;    /* memory_fence_count() at its closing */
	uint64_t unmade;   /* order of patch_unmake() */
	const void *runner; /* the thread that runs its destroy function */
	struct patch *quiet_next;
	struct patch **quiet_link;
	struct {
		struct attachment attachment;
		struct hook_record record; /* what its hooks' slots hold */
	} sites[ROLES]; /* by role */
	struct call_pair pair; /* of both calls */
};

/* What its hooks call, or the counter that they increase: 0 for one in thread-local storage. */
static inline uintptr_t patch_refers_to(const struct patch *patch)
{
	if (patch->model.type != PATCH_EXEC_MODEL_COUNT)
		return (uintptr_t)patch->model.probe.procedure;
	return patch->count.action == ARCH_COUNT_THREAD ? 0 : (uintptr_t)patch->count.counter;
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
	bool exact;
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
#define AHEAD 6

/* What commits look at. */
static inline void patch_fetch(const struct patch *patch)
{
	fetch(patch, patch_size(1));
}

static inline void region_fetch(const struct region *region)
{
	fetch(region, sizeof(*region) + 64);
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

/* Is the text between, a function's, what it was without patches? True is sure. */
bool region_is_original(uintptr_t lower, uintptr_t upper);

/* Original bytes from address on, under whatever the library wrote; how many could be read. */
size_t region_original(uintptr_t address, uint8_t *bytes, size_t size);
/* For scan_function(): original bytes of the region that has an instruction at address; 0 when none has. */
size_t region_original_at(uintptr_t address, const uint8_t **bytes);

/* The trampoline in effect after the next commit. */
static inline struct trampoline *region_trampoline(const struct region *region)
{
	return region->next != NULL ? region->next : region->current;
}

/* What the region, which was fetched, leads to. */
static inline void region_fetch_further(const struct region *region)
{
	/* It is the patch's, which is not there yet to be asked. */
	if (region->attachments != NULL)
		fetch((const uint8_t *)region->attachments - offsetof(struct patch, sites), patch_size(1));
	fetch(region_trampoline(region), sizeof(struct trampoline));
	for (unsigned int i = 0; i < region->count; ++i)
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
/* How long they are together. */
size_t region_queued_length(void);
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
 * A region for the plan that nothing knows of yet, or that was there before; NULL: out of memory. `exact`: its mapping is
 * writable (text.h). `original`: bytes from the plan's start on, as many as it owns.
 */
struct region *region_create(const struct plan *plan, bool exact, const uint8_t *original);
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
/*
 * The code of a region that has no attachments, and owns its entries, or of those that were there before, is about to be
 * unmapped: onto the list, linked by `former`. Then free it, with its trampolines and its pad: no thread can be in them
 * (I7), because it would come back to code that is not there.
 */
void region_leave(struct region *region, struct region **list);
void region_leave_former(struct registry_entry *first, struct region **list);
void region_free(struct region *region);

#endif
