/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A patch: what patch_make() was asked for, the places that it uses, and where its life stands. Fields change with the
 * library lock held.
 */
#ifndef LIBPATCH_PATCH_PATCH_OBJECT_H
#define LIBPATCH_PATCH_PATCH_OBJECT_H

#include "base/compiler.h"
#include "base/prefetch.h"
#include "base/thread_safety.h"
#include "code/trampoline.h"
#include "runtime/call_pairs.h"

struct place;
struct region;

/*
 * The type of the library's own patches, at system calls. The record of such a patch has an arch_syscall_hook_fn.
 * patch_make() never gets this type.
 */
#define MODEL_SYSCALL 0x80

/* A patch's use of a place (place.h). */
struct attachment {
	struct attachment *next; /* in the region, in order of making */
	struct patch *patch;
	struct region *region; /* NULL: nowhere */
	struct place *place;   /* NULL: none yet */
	uintptr_t address;     /* of the instruction */
	union {
		struct hook_record record;
		struct attachment *next_lead; /* of a lead (HOOK_LEAD): the patch's next one */
		/* When nothing is called. The user data is where the record has it. */
		struct {
			/*
			 * What slots hold: the counter's address or its distance from the thread pointer; the target.
			 */
			const void *content;
			void *user_data;
			struct built_hook *original; /* of a divert: whose `original` the program was given, or NULL */
		};
	};
	uint8_t when; /* enum hook_when */
	bool branched_to; /* branches of the function lead to boundaries of its window, or to its trap */
};

/*
 * The life of a patch. "Open": the slots of its hooks hold its records, so that threads that come by call its
 * procedure. "Closed": the slots hold 0, but a thread may have loaded a record before.
 *
 *                  quiesce_set_open()              quiesce_set_open()
 *     LIFE_QUIET ---------------------> LIFE_OPEN ---------------------> LIFE_CLOSED
 *      |  ^                                 ^                             |  |  |
 *      |  |                                 +-----------------------------+  |  |
 *      |  +------- quiesce_poll(): no thread uses a record ------------------+  |
 *      |                                                                        | quiesce_detached()
 *      | quiesce_detached()          quiesce_poll()                             v
 *      +----------------> LIFE_DUE <--------------------------------- LIFE_DETACHED
 *                             | quiesce_take()
 *                             v
 *                         LIFE_DYING     its destroy function runs
 *
 * handle_free() ends a patch that is QUIET (patch_make() failed), DUE (it has no destroy function) or DYING.
 */
enum patch_life {
	LIFE_QUIET, /* closed, and no thread uses its records: so it begins */
	LIFE_OPEN,
	LIFE_CLOSED,
	LIFE_DETACHED, /* closed, released and in no region: only quiesce.c knows it */
	LIFE_DUE,      /* no thread uses it or will: its destroy function is to be called */
	LIFE_DYING,    /* the destroy function is called, then its memory is given back */
	LIFE_FREED,
	PATCH_LIVES
};

/*
 * What the program wants of a patch, which the next commit brings about. A patch is enabled when it is open. The
 * goal GOAL_RELEASED is final, and the handle is unknown from then on.
 */
enum patch_goal { GOAL_DISABLED, GOAL_ENABLED, GOAL_RELEASED };

/*
 * What the caller of patch_make() asked for, and where it stands. There may be a million patches: the fields that
 * commits look at stand together, from `queued` on.
 */
struct patch {
	uint64_t order; /* of making */
	uintptr_t located;
	/* Extent of the function around it, upper 0 when unknown. */
	uintptr_t lower;
	uintptr_t upper;
	uint64_t read;
	uint64_t write; /* and all that it may destroy */
	uint64_t clobber;
	void (*destroy)(void *user_data);
	/* For quiesce.c. */
	uint64_t ticket; /* of its last closing, or of its detachment */
	uint64_t unmade; /* order of patch_unmake() */
	union {
		uint64_t fence;     /* LIFE_CLOSED, LIFE_DETACHED: memory_fence_count() at its closing */
		const void *runner; /* LIFE_DYING: the thread that runs its destroy function */
	};
	struct patch *quiet_next;
	struct patch **quiet_link;
	uint32_t entry; /* of the table of handles: handle.c's */

	uint32_t queued; /* handle_change() */
	uint8_t type;    /* enum patch_exec_model_type, or MODEL_SYSCALL */
	uint8_t policy;
	uint8_t action; /* enum arch_action */
	uint8_t goal; /* enum patch_goal: what the next commit is to make of it */
	uint8_t life; /* enum patch_life */
	bool stamp : 1;
	bool own_stack : 1;
	bool gone : 1;   /* its code, or its procedure's, was unmapped: it is never enabled again */
	bool paired : 1; /* patch_pair() */
	uint16_t count;  /* of attachments that there is memory for */
	struct attachment *leads; /* each has memory of its own */
	struct attachment attachments[]; /* the first one is at the patch's own instruction */
};

/* Unless NULL, its hooks go through runtime/call_pairs.c. */
static inline struct call_pair *patch_pair(const struct patch *patch)
{
	return patch->paired ? (struct call_pair *)(uintptr_t)&patch->attachments[patch->count] : NULL;
}

static inline const struct attachment *attachment_after(const struct patch *patch, const struct attachment *attachment)
{
	if (attachment->when == HOOK_LEAD)
		return attachment->next_lead;
	return ++attachment < &patch->attachments[patch->count] ? attachment : patch->leads;
}

/* Its places, and behind them its leads. */
#define for_each_attachment(patch, a)                                                                                  \
	for (const struct attachment *a = (patch)->attachments; a != NULL; a = attachment_after(patch, a))

/* May a life go on so? */
bool patch_may_become(enum patch_life from, enum patch_life to) REQUIRES(library_lock);
/*
 * The only way to change `life`. A step that is not in the drawing above is an error of the library (PATCH_BUG), and is
 * not done.
 */
void patch_set_life(struct patch *patch, enum patch_life life) REQUIRES(library_lock);
/* The only way to change `goal`. False: the patch is released, and stays so. */
bool patch_set_goal(struct patch *patch, enum patch_goal goal) REQUIRES(library_lock);

static inline bool patch_is_released(const struct patch *patch)
{
	return patch->goal == GOAL_RELEASED;
}

static inline bool patch_is_wanted(const struct patch *patch)
{
	return patch->goal == GOAL_ENABLED;
}

static inline bool patch_is_open(const struct patch *patch)
{
	return patch->life == LIFE_OPEN;
}

/* Slots hold its records, or a thread may have loaded one. */
static inline bool patch_may_be_in_use(const struct patch *patch)
{
	return patch->life == LIFE_OPEN || patch->life == LIFE_CLOSED || patch->life == LIFE_DETACHED;
}

/* The address that its procedure is told; of an exit its own, as the function may begin far away. */
static inline uintptr_t attachment_reports(const struct attachment *attachment)
{
	return (attachment->when & (HOOK_EXIT | HOOK_FALL)) != 0 ? attachment->address : attachment->patch->located;
}

/* What a slot holds while it is open for this attachment alone. */
static inline const void *attachment_record(const struct attachment *attachment)
{
	return attachment->patch->action == ARCH_CALL_PROCEDURE ? &attachment->record : attachment->content;
}

static inline uint64_t attachment_pair(const struct attachment *attachment)
{
	return attachment->patch->action == ARCH_CALL_PROCEDURE ? attachment->record.pair : 0;
}

/* The procedure that its hooks call, and its user data, which is all there is of it for a divert. */
static inline struct hook_record patch_procedure(const struct patch *patch)
{
	const struct call_pair *pair = patch_pair(patch);

	return pair != NULL ? (struct hook_record){ pair->procedure, pair->user_data, 0 } :
			      patch->attachments[0].record;
}

/* The address that its hooks refer to: procedure, target, counter; 0 for a counter in thread-local storage. */
static inline uintptr_t patch_refers_to(const struct patch *patch)
{
	switch (patch->action) {
	case ARCH_CALL_PROCEDURE:
		return (uintptr_t)patch_procedure(patch).procedure;
	case ARCH_COUNT_THREAD:
		return 0;
	default:
		return (uintptr_t)patch->attachments[0].content;
	}
}

/* The size of a patch with so many attachments; `paired`: there is room for a pair. */
static inline size_t patch_size(unsigned int count, bool paired)
{
	return sizeof(struct patch) + count * sizeof(struct attachment) + (paired ? sizeof(struct call_pair) : 0);
}

/* A pass over many objects fetches the object that is so many places ahead of the one at hand. */
#define PREFETCH_AHEAD 6

/* Fetch what commits look at. */
static inline void patch_fetch(const struct patch *patch)
{
	fetch(&patch->queued, sizeof(struct patch) + sizeof(struct attachment) - offsetof(struct patch, queued));
}

/* The same for the patch of its first attachment. Computed, because attachment->patch is not in the cache yet. */
static inline void attachment_fetch(const struct attachment *attachment)
{
	patch_fetch((const struct patch *)((const uint8_t *)attachment - sizeof(struct patch)));
}

#endif
