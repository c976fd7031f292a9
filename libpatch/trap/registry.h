/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Address -> what to do with a trap there. Writers hold the library lock; the trap handler reads at any time.
 *
 * Guarantees:
 *  R1 registry_lookup() between registry_read_lock() and registry_read_unlock() is wait-free but for hash chains, takes
 *     no lock, allocates nothing, uses no thread-local storage and registers no thread (I9): it is safe in any signal
 *     handler of any thread, including threads that libc does not know yet or any more.
 *  R2 An entry found stays valid until registry_read_unlock(): memory is reused only after a grace period.
 *  R3 Writers never wait for readers: what is to be freed waits, and is freed by a later registry_poll().
 *
 * The table is a fixed number of liburcu's lists (rcuhlist). What is in it are lines of 64 bytes of code, each
 * with a list of its entries: whoever patches one instruction mostly patches, or asks for, those beside it. The read
 * side is ours, striped counters in the manner of the kernel's sleepable RCU (kernel/rcu/srcutree.c), because
 * liburcu-bp registers readers under a mutex.
 */
#ifndef LIBPATCH_TRAP_REGISTRY_H
#define LIBPATCH_TRAP_REGISTRY_H

#include "base/compiler.h"
#include "base/thread_safety.h"

#include <libpatch/patch.h>
#include <stdatomic.h>

struct lead;
struct region;

/*
 * An entry's state word: a generation that grows with every change, the classes of trap byte that its address ever held
 * (1 << enum arch_trap_class), and the state proper.
 */
enum registry_state {
	REGISTRY_DORMANT, /* never written to text: a trap here is not ours */
	REGISTRY_ACTIVE,  /* a trap byte is, or may still be seen, at the address (I5) */
	REGISTRY_RETIRED  /* the original byte is back; a trap raised before may still arrive */
};
#define REGISTRY_STATE(word) ((enum registry_state)((word)&3))
#define REGISTRY_CLASSES(word) ((unsigned int)((word) >> 2 & 7))
#define REGISTRY_CLASSES_SHIFT 2
#define REGISTRY_GENERATION ((uint64_t)1 << 8)

struct registry_entry {
	struct registry_entry *_Atomic next; /* of the same line of code */
	uintptr_t address;
	_Atomic uint64_t state;
	_Atomic uintptr_t target; /* where a trap here goes on, while active */
	_Atomic uint64_t hits;    /* traps served */
	struct registry_entry *reported_next;
	_Atomic uint8_t reported; /* hot.c */
	uint8_t length;           /* of the instruction at the address */
	bool traps;               /* that instruction itself faults: int3, ud2 */
	/* Writers only, from here on. The second of each two: it was taken out, but readers may have it still. */
	uint8_t index; /* of the instruction in the region */
	union {
		struct {
			bool hot;    /* control is known to be led here, time and again */
			bool punned; /* registry_set_punned() */
			bool led;    /* it has a lead */
		};
		uint32_t removed_epoch; /* its lower half */
	};
	union {
		struct region *region;
		struct registry_entry *removed_next;
	};
};
_Static_assert(sizeof(struct registry_entry) == 64, "there are several per patch");

/* ---- readers ---------------------------------------------------------------------------------------------------- */

typedef unsigned int registry_token;

registry_token registry_read_lock(void);
struct registry_entry *registry_lookup(uintptr_t address);
void registry_read_unlock(registry_token token);

/* Many traps were served there: put it on a list, for a writer to look at. Wait-free but for contention with itself. */
void registry_report(struct registry_entry *entry);

/* ---- writers, with the library lock held ------------------------------------------------------------------------ */

/* The entry at address, or NULL. */
struct registry_entry *registry_find(uintptr_t address) REQUIRES(library_lock);
/* Add a dormant entry; NULL when out of memory. The address has none yet. */
struct registry_entry *registry_add(uintptr_t address) REQUIRES(library_lock);
/* Take an entry out: a dormant one, or one whose code is unmapped (I6). */
void registry_remove(struct registry_entry *entry) REQUIRES(library_lock);

/* Is an entry in [lower, upper)? False is sure; true may be wrong. For long ranges. */
bool registry_may_have(uintptr_t lower, uintptr_t upper) REQUIRES(library_lock);
/*
 * Bit 63 - i: there may be an entry at address - i; 0 is sure. Look-ups that find nothing are most, and each misses the
 * cache.
 */
uint64_t registry_may_have_before(uintptr_t address) REQUIRES(library_lock);
/* Any of them, to be removed before the next call; NULL: no more. */
struct registry_entry *registry_next_within(uintptr_t lower, uintptr_t upper) REQUIRES(library_lock);

/* I3: before the first trap byte is written. */
void registry_activate(struct registry_entry *entry, uintptr_t target, unsigned int trap_class) REQUIRES(library_lock);
/* I5: after the sync behind the last phase of a removal. */
void registry_retire(struct registry_entry *entry) REQUIRES(library_lock);

/*
 * From now on the entry has a lead, which holds `target` while the entry is active, and else the address: where it is
 * not active, the text is what it was. False: out of memory.
 */
bool registry_make_lead(struct registry_entry *entry) REQUIRES(library_lock);
/* Where copies of branches to the entry's address go; NULL: there. */
struct lead *registry_lead(const struct registry_entry *entry) REQUIRES(library_lock);

/* A list for region.c, in which the entries of a line of code have what began there and is gone. */
struct region **registry_former(const struct registry_entry *entry) REQUIRES(library_lock);

/* Take one that was reported, and not taken out since, off the list; NULL: none. */
struct registry_entry *registry_take_reported(void) REQUIRES(library_lock);
bool registry_any_reported(void) REQUIRES(library_lock);
void registry_set_hot(struct registry_entry *entry) REQUIRES(library_lock);
bool registry_is_hot(uintptr_t address) REQUIRES(library_lock);

/* The text has, or may have, a jump at the entry's address that reads bytes behind its region (I11). */
void registry_set_punned(struct registry_entry *entry, bool punned) REQUIRES(library_lock);
/* Is there any entry of which this is true? */
bool registry_any_punned(void) REQUIRES(library_lock);

/* Free what no reader can hold any more. Never waits. */
void registry_poll(void) REQUIRES(library_lock);

#endif
