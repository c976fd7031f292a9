/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Several patches at one hook. The hook's slot holds the list's own record, whose procedure walks the list and calls
 * the procedures of those that are open.
 *
 * A list never changes but for `closed`; when patches come, a new list takes its place, and the old one waits until no
 * thread walks it. A thread that walks a list says in its frame which entry it is at (ARCH_HOOK_FRAME_CURRENT), and
 * looks at `closed` behind that, as a hook does with its record and its slot (runtime/hook_threads.h): who has set
 * `closed`, and then made a memory fence, knows that a thread is in that entry's procedure, or will be, only if its
 * frame has the list's record and this entry. So a patch is gone while others of its list run.
 *
 * A pair (runtime/hook_pairs.h) whose record is a list's says which entries were called: these, in reverse order, are
 * called behind the instruction, whatever is open by then. Until the pair is noted, the frame's entry tells: what is in
 * front of it may have been called, and after the walk it is one behind the last.
 */
#ifndef LIBPATCH_PATCH_HOOK_LIST_H
#define LIBPATCH_PATCH_HOOK_LIST_H

#include "arch/hook.h"
#include "base/compiler.h"
#include "base/thread_safety.h"
#include "patch/patch_object.h"
#include "runtime/hook_threads.h"

struct hook_list_entry {
	void (*procedure)(struct patch_exec_context *context, uint8_t post);
	void *user_data;
	uint64_t around; /* a bit of its own, when it is called behind the instruction, too; else 0 */
	_Atomic bool closed;
	bool direct;   /* the slot may hold its own record, when no other patch of the list is open */
	bool alike;    /* the walker may call it as it is: nothing has to be put in place, or back */
	bool extended; /* sees extended state */
	_Atomic uint64_t pair; /* as in the record of the attachment; 0 where there is none */
	uint64_t id;   /* of the patch: its order */
	uintptr_t program_counter;     /* reported where the hook would report its own */
	uint64_t kept;                 /* registers offered that this procedure must not change */
	struct attachment *attachment; /* NULL: its patch was taken off the place */
};

/* So many entries of a list can be called behind the instruction, too. */
#define HOOK_LIST_AROUND_MAX 64

struct hook_list {
	struct hook_record record; /* one of the walkers, and this list */
	struct hook_list *next;    /* of all lists, or of those that wait */
	struct hook_list **link;
	uintptr_t program_counter; /* the hook's own */
	uintptr_t slot;            /* the hook's, and the place of its pairs */
	uint64_t fence;            /* memory_fence_count() when it was retired */
	bool published;            /* was in a slot */
	bool seen;                 /* during a look: a thread walks it */
	uint8_t when;              /* of the hook */
	uint32_t count;
	struct hook_list_entry entries[]; /* in order of call */
};

/* An empty list with room for `count` entries; NULL: out of memory. */
struct hook_list *hook_list_alloc(size_t count, unsigned int when) REQUIRES(library_lock);
/* No slot holds it from now on. It is freed when no thread walks it. */
void hook_list_retire(struct hook_list *list) REQUIRES(library_lock);
/* Set `closed` of all entries of the patch on lists that are retired. The caller does so for the others. */
void hook_list_close_retired(uint64_t id) REQUIRES(library_lock);

/* The list whose record this is, also one that waits; NULL: it is no list's. Takes as long as there are lists. */
const struct hook_list *hook_list_find(uintptr_t record) REQUIRES(library_lock);
/* Is a thread that uses this list in a procedure of the patch, or is it to call it once more? */
bool hook_list_is_in(const struct hook_list *list, const struct hook_use *use, uint64_t id);

/* How many wait for threads? */
size_t hook_list_waiting(void) REQUIRES(library_lock);
/* Was the last one of those that wait retired before the last memory fence? */
bool hook_list_is_fenced(void) REQUIRES(library_lock);
/* A look at the threads: each that is in a hook is told of; then those that wait and were not seen are freed. */
void hook_list_see(uintptr_t record) REQUIRES(library_lock);
void hook_list_looked(bool complete) REQUIRES(library_lock);

#endif
