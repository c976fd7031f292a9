/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "trap/registry.h"

#include "arch/thread_pointer.h"
#include "base/heap.h"
#include "base/inject.h"

#define _LGPL_SOURCE
#include <urcu/flavor.h>
#include <urcu/rculfhash.h>

/* Fixed: resizing starts threads and takes mutexes (src/rculfhash.c, partition_resize_helper). */
#define BUCKETS (1UL << 16)

/* ---- read side -------------------------------------------------------------------------------------------------- */

#define STRIPES 64

struct stripe {
	_Atomic uint64_t locks[2];
	_Atomic uint64_t unlocks[2];
} __attribute__((aligned(64)));

static struct stripe stripes[STRIPES];
/* Grace periods begun; its low bit tells new readers which counters to use. */
static _Atomic uint64_t epoch;

registry_token registry_read_lock(void)
{
	unsigned int stripe;
	unsigned int index = atomic_load_explicit(&epoch, memory_order_relaxed) & 1;

	/* Any number will do that differs between threads that trap at once. */
	stripe = (unsigned int)hash_index(arch_thread_pointer(), STRIPES);
	/* seq_cst: the count is visible before anything is looked up. Pairs with the fence in drained(). */
	atomic_fetch_add(&stripes[stripe].locks[index], 1);
	return stripe << 1 | index;
}

void registry_read_unlock(registry_token token)
{
	/* seq_cst: nothing looked up is used after this. Pairs with the fence in drained(). */
	atomic_fetch_add(&stripes[token >> 1].unlocks[token & 1], 1);
}

/* Has every reader that counted itself in `index` left? Unlocks are summed first, so that a lock is never missed. */
static bool drained(unsigned int index)
{
	uint64_t unlocks = 0;
	uint64_t locks = 0;

	for (size_t i = 0; i < STRIPES; ++i)
		unlocks += atomic_load(&stripes[i].unlocks[index]);
	atomic_thread_fence(memory_order_seq_cst);
	for (size_t i = 0; i < STRIPES; ++i)
		locks += atomic_load(&stripes[i].locks[index]);
	return unlocks == locks;
}

/* Code that is patched, or runs, together. */
#define LINE 64

/* One that has entries. Its list changes with the library lock held. */
struct line {
	struct cds_lfht_node node;
	uintptr_t number; /* of its addresses, divided by LINE */
	struct registry_entry *_Atomic entries;
	/* Taken out, but readers may have it still. */
	struct line *removed_next;
	uint64_t removed_epoch;
};

/* ---- deferred freeing ------------------------------------------------------------------------------------------- */

/*
 * An object unpublished in epoch e may be held by readers counted in e's index, or in the other one when they read the
 * epoch before it changed and counted themselves late. Leaving epoch e needs the other index drained, leaving e + 1 needs
 * e's: from epoch e + 2 on nobody holds it.
 */
static struct registry_entry *removed;
static struct line *removed_lines;
/* Entries whose `hot` is set. */
static size_t hot;
/* Entries whose `punned` is set. */
static size_t punned_count;

static void unreport(const struct registry_entry *entry);

static void free_entries(uint64_t now)
{
	for (struct registry_entry **link = &removed; *link != NULL;) {
		struct registry_entry *entry = *link;

		if (entry->removed_epoch + 2 > now) {
			link = &entry->removed_next;
			continue;
		}
		*link = entry->removed_next;
		unreport(entry);
		heap_free(entry, sizeof(*entry));
	}
}

static void free_lines(uint64_t now)
{
	for (struct line **link = &removed_lines; *link != NULL;) {
		struct line *line = *link;

		if (line->removed_epoch + 2 > now) {
			link = &line->removed_next;
			continue;
		}
		*link = line->removed_next;
		heap_free(line, sizeof(*line));
	}
}

void registry_poll(void)
{
	uint64_t now = atomic_load_explicit(&epoch, memory_order_relaxed);

	if (removed == NULL && removed_lines == NULL)
		return;
	for (int i = 0; i < 2 && drained((now & 1) ^ 1); ++i)
		atomic_store(&epoch, ++now);
	free_entries(now);
	free_lines(now);
}

/* ---- the table -------------------------------------------------------------------------------------------------- */

static struct cds_lfht *table;

/* The flavor that cds_lfht wants. With a fixed size and no destruction it calls none of these but for bookkeeping. */
static void nothing(void)
{
}

static int read_ongoing(void)
{
	return 1;
}

static void call_never(struct rcu_head *head, void (*function)(struct rcu_head *))
{
	(void)head;
	(void)function;
}

static void defer_never(void (*function)(void *), void *data)
{
	(void)function;
	(void)data;
}

static void atfork_nothing(struct urcu_atfork *atfork)
{
	(void)atfork;
}

static const struct rcu_flavor_struct flavor = {
	.read_lock = nothing,
	.read_unlock = nothing,
	.read_ongoing = read_ongoing,
	.read_quiescent_state = nothing,
	.update_call_rcu = call_never,
	.update_synchronize_rcu = nothing,
	.update_defer_rcu = defer_never,
	.thread_offline = nothing,
	.thread_online = nothing,
	.register_thread = nothing,
	.unregister_thread = nothing,
	.barrier = nothing,
	.register_rculfhash_atfork = atfork_nothing,
	.unregister_rculfhash_atfork = atfork_nothing,
};

/*
 * Of `count` slots the one for the line of code. `together` lines side by side have slots side by side, on one page: who needs one
 * will need the next, and of many pages few are in the TLB.
 */
static size_t slot_of(uintptr_t line, size_t count, size_t together)
{
	return hash_index(line / together, count / together) * together + line % together;
}

/* The low bits are the bucket's number. */
static unsigned long hash(uintptr_t line)
{
	return slot_of(line, BUCKETS, PAGE_SIZE / sizeof(struct cds_lfht_node)) | line * BUCKETS;
}

static int matches(struct cds_lfht_node *node, const void *key)
{
	return container_of(node, struct line, node)->number == (uintptr_t)key;
}

patch_status registry_init(void)
{
	if (table == NULL && !INJECT(INJECT_ALLOC))
		table = cds_lfht_new_flavor(BUCKETS, BUCKETS, BUCKETS, 0, &flavor, NULL);
	return table != NULL ? PATCH_OK : PATCH_ENOMEM;
}

static struct line *find_line(uintptr_t number)
{
	struct cds_lfht_iter iter;
	struct cds_lfht_node *node;

	if (table == NULL)
		return NULL;
	cds_lfht_lookup(table, hash(number), matches, (const void *)number, &iter);
	node = cds_lfht_iter_get_node(&iter);
	return node != NULL ? container_of(node, struct line, node) : NULL;
}

/* Acquire pairs with release in registry_add(). */
static struct registry_entry *next_of(struct registry_entry *_Atomic *link)
{
	return atomic_load_explicit(link, memory_order_acquire);
}

static struct registry_entry *find_in(struct line *line, uintptr_t address)
{
	struct registry_entry *entry = line != NULL ? next_of(&line->entries) : NULL;

	while (entry != NULL && entry->address != address)
		entry = next_of(&entry->next);
	return entry;
}

struct registry_entry *registry_lookup(uintptr_t address)
{
	return find_in(find_line(address / LINE), address);
}

/* Entries per 64 KiB of addresses, which may share a counter: most code that is unmapped was never patched. */
#define SHARE_SHIFT 16
#define SHARES (1UL << 14)

static uint32_t shares[SHARES];

static uint32_t *share_of(uintptr_t address)
{
	return &shares[(address >> SHARE_SHIFT) % SHARES];
}

bool registry_may_have(uintptr_t lower, uintptr_t upper)
{
	if (lower >= upper)
		return false;
	if (upper - lower >= SHARES << SHARE_SHIFT)
		return true;
	for (uintptr_t at = ALIGN_DOWN(lower, 1UL << SHARE_SHIFT); at < upper; at += 1UL << SHARE_SHIFT)
		if (*share_of(at) != 0)
			return true;
	return false;
}

/* *more: it is not the only one. */
static struct registry_entry *first_within(struct line *line, uintptr_t lower, uintptr_t upper, bool *more)
{
	struct registry_entry *first = NULL;

	*more = false;
	for (struct registry_entry *entry = next_of(&line->entries); entry != NULL && !*more; entry = next_of(&entry->next)) {
		if (entry->address < lower || entry->address >= upper)
			continue;
		*more = first != NULL;
		first = first != NULL ? first : entry;
	}
	return first;
}

/* The table is walked once, on from where the call before left it. */
struct registry_entry *registry_next_within(uintptr_t lower, uintptr_t upper)
{
	static struct cds_lfht_iter iter;
	static uintptr_t walked_lower, walked_upper;
	struct cds_lfht_node *node;

	if (table == NULL)
		return NULL;
	if (lower != walked_lower || upper != walked_upper)
		cds_lfht_first(table, &iter);
	walked_lower = lower;
	walked_upper = upper;
	while ((node = cds_lfht_iter_get_node(&iter)) != NULL) {
		bool more;
		struct registry_entry *entry = first_within(container_of(node, struct line, node), lower, upper, &more);

		/* With its last entry the line is taken out: on to the next before that. */
		if (!more)
			cds_lfht_next(table, &iter);
		if (entry != NULL)
			return entry;
	}
	walked_lower = 0;
	walked_upper = 0;
	return NULL;
}

/*
 * A bit per address that has, or had, an entry; lines of 64 addresses share words. Never cleared: an entry that is removed is
 * looked up in vain now and then.
 */
#define WORDS (1UL << 18)

static uint64_t words[WORDS];

static uint64_t *word_of(uintptr_t address)
{
	return &words[slot_of(address / LINE, WORDS, PAGE_SIZE / sizeof(words[0]))];
}

uint64_t registry_may_have_before(uintptr_t address)
{
	unsigned int bit = address % LINE;
	uint64_t bits = *word_of(address) << (LINE - 1 - bit);

	if (bit < LINE - 1)
		bits |= *word_of(address - LINE) >> (bit + 1);
	return bits;
}

static bool may_have(uintptr_t address)
{
	return *word_of(address) >> (address % LINE) & 1;
}

/* Writers': the lock keeps lines and entries from going away, and who asks for one address mostly asks for those around it. */
static struct line *last;

static struct line *line_at(uintptr_t number)
{
	if (last == NULL || last->number != number)
		last = find_line(number);
	return last;
}

struct registry_entry *registry_find(uintptr_t address)
{
	return may_have(address) ? find_in(line_at(address / LINE), address) : NULL;
}

static struct line *add_line(uintptr_t number)
{
	struct line *line = heap_alloc(sizeof(*line));

	if (line == NULL)
		return NULL;
	line->number = number;
	cds_lfht_node_init(&line->node);
	cds_lfht_add(table, hash(number), &line->node);
	return line;
}

struct registry_entry *registry_add(uintptr_t address)
{
	struct registry_entry *entry = heap_alloc(sizeof(*entry));
	struct line *line = entry != NULL ? line_at(address / LINE) : NULL;

	if (entry != NULL && line == NULL)
		line = add_line(address / LINE);
	if (line == NULL) {
		heap_free(entry, sizeof(*entry));
		return NULL;
	}
	entry->address = address;
	atomic_store_explicit(&entry->next, next_of(&line->entries), memory_order_relaxed);
	/* Release: the entry is complete for whoever finds it. */
	atomic_store_explicit(&line->entries, entry, memory_order_release);
	++*share_of(address);
	*word_of(address) |= (uint64_t)1 << (address % LINE);
	return entry;
}

/* Readers that are at the entry go on from there: it keeps its `next`. */
static void unlink_entry(struct line *line, struct registry_entry *entry)
{
	struct registry_entry *_Atomic *link = &line->entries;

	while (next_of(link) != entry)
		link = &next_of(link)->next;
	atomic_store_explicit(link, next_of(&entry->next), memory_order_release);
}

void registry_remove(struct registry_entry *entry)
{
	uint64_t now = atomic_load_explicit(&epoch, memory_order_relaxed);
	struct line *line = line_at(entry->address / LINE);

	unlink_entry(line, entry);
	--*share_of(entry->address);
	hot -= entry->hot;
	entry->removed_epoch = now;
	entry->removed_next = removed;
	removed = entry;
	if (next_of(&line->entries) != NULL)
		return;
	last = NULL;
	cds_lfht_del(table, &line->node);
	line->removed_epoch = now;
	line->removed_next = removed_lines;
	removed_lines = line;
}

static void set_state(struct registry_entry *entry, enum registry_state state, unsigned int classes)
{
	uint64_t word = atomic_load_explicit(&entry->state, memory_order_relaxed);
	uint64_t generation = (word & ~(REGISTRY_GENERATION - 1)) + REGISTRY_GENERATION;

	classes |= REGISTRY_CLASSES(word);
	/* seq_cst: pairs with the two loads of the trap handler around its look at the byte. */
	atomic_store(&entry->state, generation | (uint64_t)classes << REGISTRY_CLASSES_SHIFT | state);
}

void registry_activate(struct registry_entry *entry, uintptr_t target, unsigned int trap_class)
{
	uint64_t word = atomic_load_explicit(&entry->state, memory_order_relaxed);

	atomic_store_explicit(&entry->target, target, memory_order_release);
	if (REGISTRY_STATE(word) != REGISTRY_ACTIVE || !(REGISTRY_CLASSES(word) & 1U << trap_class))
		set_state(entry, REGISTRY_ACTIVE, 1U << trap_class);
}

void registry_retire(struct registry_entry *entry)
{
	set_state(entry, REGISTRY_RETIRED, 0);
}

/* ---- where traps are served time and again ---------------------------------------------------------------------- */

/* A stack that is only ever taken whole, so that nothing on it can change hands unseen. */
static _Atomic(struct registry_entry *) reported;
static struct registry_entry *taken;

void registry_report(struct registry_entry *entry)
{
	if (atomic_exchange(&entry->reported, true))
		return;
	entry->reported_next = atomic_load(&reported);
	/* Release in the exchange pairs with acquire in registry_take_reported(). */
	while (!atomic_compare_exchange_weak(&reported, &entry->reported_next, entry))
		;
}

struct registry_entry *registry_take_reported(void)
{
	struct registry_entry *entry;

	if (taken == NULL && atomic_load_explicit(&reported, memory_order_relaxed) != NULL)
		taken = atomic_exchange(&reported, NULL);
	entry = taken;
	if (entry != NULL) {
		taken = entry->reported_next;
		atomic_store(&entry->reported, false);
	}
	return entry;
}

/* About to be freed, when no reader can report it any more: off the list. */
static void unreport(const struct registry_entry *entry)
{
	struct registry_entry **link = &taken;

	if (!atomic_load(&entry->reported))
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

/* ---- punned jumps ----------------------------------------------------------------------------------------------- */

void registry_set_punned(struct registry_entry *entry, bool punned)
{
	if (entry->punned != punned)
		punned_count += punned ? 1 : (size_t)-1;
	entry->punned = punned;
}

bool registry_any_punned(void)
{
	return punned_count > 0;
}

const void *registry_table_code(void)
{
	return (const void *)(uintptr_t)&_cds_lfht_new;
}
