/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The table of the registry: lines of code and their entries, changed under the library lock, and read by the trap
 * handler at any time; and what was taken out of it, until no reader can hold it. Knows nothing of text or of patches.
 */
#include "trap/registry.h"

#include "base/bug.h"
#include "base/heap.h"
#include "base/thread_safety.h"
#include "code/lead.h"
#include "trap/registry_parts.h"

/* liburcu's lists, whose functions are all in its headers; with this name, those that they use of its pointers, too. */
#define _LGPL_SOURCE
#include <urcu/rcuhlist.h>

/* Fixed, and in memory that nothing has touched until there are lines. */
#define BUCKETS (1UL << 16)

/* Code that is patched, or runs, together. */
#define LINE 64

/* One that has entries. Its list changes with the library lock held. */
struct registry_line {
	struct cds_hlist_node node; /* of its bucket */
	uintptr_t number; /* of its addresses, divided by LINE */
	struct registry_entry *_Atomic entries;
	union {
		/* Of its entries. Few have any. */
		struct {
			struct lead *leads;
			struct region *former;
		};
		/* Taken out, but readers may have it still. */
		struct {
			struct registry_line *removed_next;
			uint64_t removed_epoch;
		};
	};
};

/* ---- deferred freeing ------------------------------------------------------------------------------------------- */

/*
 * An object unpublished in epoch e may be held by readers counted in e's index, or in the other one when they read the
 * epoch before it changed and counted themselves late. Leaving epoch e needs the other index drained, leaving e + 1
 * needs e's: from epoch e + 2 on nobody holds it.
 */
static struct registry_entry *removed GUARDED_BY(library_lock);
static struct registry_line *removed_lines GUARDED_BY(library_lock);

static void registry_free_entries(uint64_t now) REQUIRES(library_lock)
{
	for (struct registry_entry **link = &removed; *link != NULL;) {
		struct registry_entry *entry = *link;

		if ((uint32_t)now - entry->removed_epoch < 2) {
			link = &entry->removed_next;
			continue;
		}
		*link = entry->removed_next;
		registry_unreport(entry);
		heap_free(entry, sizeof(*entry));
	}
}

static void registry_free_lines(uint64_t now) REQUIRES(library_lock)
{
	for (struct registry_line **link = &removed_lines; *link != NULL;) {
		struct registry_line *line = *link;

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
	uint64_t now;

	if (removed == NULL && removed_lines == NULL)
		return;
	now = registry_advance_epoch();
	registry_free_entries(now);
	registry_free_lines(now);
}

/* ---- the table -------------------------------------------------------------------------------------------------- */

static struct cds_hlist_head buckets[BUCKETS];

/*
 * Of `count` places the one for the line of code. `together` lines side by side have places side by side, on one page:
 * who needs one will need the next, and of many pages few are in the TLB.
 */
static size_t registry_place_of(uintptr_t line, size_t count, size_t together)
{
	return hash_index(line / together, count / together) * together + line % together;
}

static struct cds_hlist_head *registry_bucket_of(uintptr_t number)
{
	return &buckets[registry_place_of(number, BUCKETS, PAGE_SIZE / sizeof(buckets[0]))];
}

static struct registry_line *registry_find_line(uintptr_t number)
{
	struct registry_line *line;

	cds_hlist_for_each_entry_rcu_2(line, registry_bucket_of(number), node)
		if (line->number == number)
			return line;
	return NULL;
}

/* Acquire pairs with release in registry_add(). */
static struct registry_entry *registry_next_of(struct registry_entry *_Atomic *link)
{
	return atomic_load_explicit(link, memory_order_acquire);
}

static struct registry_entry *registry_find_in(struct registry_line *line, uintptr_t address)
{
	struct registry_entry *entry = line != NULL ? registry_next_of(&line->entries) : NULL;

	while (entry != NULL && entry->address != address)
		entry = registry_next_of(&entry->next);
	return entry;
}

struct registry_entry *registry_lookup(uintptr_t address)
{
	return registry_find_in(registry_find_line(address / LINE), address);
}

/* Entries per 64 KiB of addresses, which may share a counter: most code that is unmapped was never patched. */
#define SHARE_SHIFT 16
#define SHARES (1UL << 14)

static uint32_t shares[SHARES] GUARDED_BY(library_lock);

static uint32_t *registry_share_of(uintptr_t address)
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
		if (*registry_share_of(at) != 0)
			return true;
	return false;
}

/* *more: it is not the only one. */
static struct registry_entry *registry_first_within(struct registry_line *line, uintptr_t lower, uintptr_t upper,
						    bool *more)
{
	struct registry_entry *first = NULL;

	*more = false;
	for (struct registry_entry *entry = registry_next_of(&line->entries); entry != NULL && !*more;
	     entry = registry_next_of(&entry->next)) {
		if (entry->address < lower || entry->address >= upper)
			continue;
		*more = first != NULL;
		first = first != NULL ? first : entry;
	}
	return first;
}

/* The table is walked once, on from where the call before left it. */
static struct {
	uintptr_t lower, upper;
	size_t bucket;              /* `line` is of this one */
	struct registry_line *line; /* NULL: the bucket is done */
} walk GUARDED_BY(library_lock);

static struct registry_line *registry_line_of(struct cds_hlist_node *node)
{
	return node != NULL ? cds_hlist_entry(node, struct registry_line, node) : NULL;
}

static struct registry_line *registry_line_behind(const struct cds_hlist_node *node)
{
	return registry_line_of(node->next);
}

static struct registry_line *registry_first_line(size_t bucket)
{
	return registry_line_of(buckets[bucket].next);
}

struct registry_entry *registry_next_within(uintptr_t lower, uintptr_t upper)
{
	if (lower != walk.lower || upper != walk.upper) {
		walk.lower = lower;
		walk.upper = upper;
		walk.bucket = 0;
		walk.line = registry_first_line(0);
	}
	for (;;) {
		struct registry_entry *entry;
		bool more;

		while (walk.line == NULL && ++walk.bucket < BUCKETS)
			walk.line = registry_first_line(walk.bucket);
		if (walk.line == NULL)
			break;
		entry = registry_first_within(walk.line, lower, upper, &more);
		/* With its last entry the line is taken out: on to the next before that. */
		if (!more)
			walk.line = registry_line_behind(&walk.line->node);
		if (entry != NULL)
			return entry;
	}
	walk.lower = 0;
	walk.upper = 0;
	return NULL;
}

/*
 * A bit per address that has, or had, an entry; lines of 64 addresses share words. Never cleared: an entry that is
 * removed is looked up in vain now and then.
 */
#define WORDS (1UL << 18)

static uint64_t words[WORDS] GUARDED_BY(library_lock);

static uint64_t *registry_word_of(uintptr_t address)
{
	return &words[registry_place_of(address / LINE, WORDS, PAGE_SIZE / sizeof(words[0]))];
}

uint64_t registry_may_have_before(uintptr_t address)
{
	unsigned int bit = address % LINE;
	uint64_t bits = *registry_word_of(address) << (LINE - 1 - bit);

	if (bit < LINE - 1)
		bits |= *registry_word_of(address - LINE) >> (bit + 1);
	return bits;
}

static bool registry_may_have_at(uintptr_t address)
{
	return *registry_word_of(address) >> (address % LINE) & 1;
}

/*
 * Writers': the lock keeps lines and entries from going away, and who asks for one address mostly asks for those around
 * it.
 */
static struct registry_line *last GUARDED_BY(library_lock);

static struct registry_line *registry_line_at(uintptr_t number) REQUIRES(library_lock)
{
	if (last == NULL || last->number != number)
		last = registry_find_line(number);
	return last;
}

struct registry_entry *registry_find(uintptr_t address)
{
	return registry_may_have_at(address) ? registry_find_in(registry_line_at(address / LINE), address) : NULL;
}

static struct registry_line *registry_add_line(uintptr_t number) REQUIRES(library_lock)
{
	struct registry_line *line = heap_alloc(sizeof(*line));

	if (line == NULL)
		return NULL;
	line->number = number;
	cds_hlist_add_head_rcu(&line->node, registry_bucket_of(number));
	return line;
}

struct registry_entry *registry_add(uintptr_t address)
{
	struct registry_entry *entry = heap_alloc(sizeof(*entry));
	struct registry_line *line = entry != NULL ? registry_line_at(address / LINE) : NULL;

	LOCK_ASSERT_HELD();
	if (entry != NULL && line == NULL)
		line = registry_add_line(address / LINE);
	if (line == NULL) {
		heap_free(entry, sizeof(*entry));
		return NULL;
	}
	entry->address = address;
	atomic_store_explicit(&entry->next, registry_next_of(&line->entries), memory_order_relaxed);
	/* Release: the entry is complete for whoever finds it. */
	atomic_store_explicit(&line->entries, entry, memory_order_release);
	++*registry_share_of(address);
	*registry_word_of(address) |= (uint64_t)1 << (address % LINE);
	return entry;
}

/* Readers that are at the entry go on from there: it keeps its `next`. */
static void registry_unlink_entry(struct registry_line *line, struct registry_entry *entry)
{
	struct registry_entry *_Atomic *link = &line->entries;
	struct registry_entry *at;

	while ((at = registry_next_of(link)) != entry) {
		BUG_ON_RETURN(at == NULL);
		link = &at->next;
	}
	atomic_store_explicit(link, registry_next_of(&entry->next), memory_order_release);
}

struct region **registry_former(const struct registry_entry *entry)
{
	return &registry_line_at(entry->address / LINE)->former;
}

static struct lead **registry_lead_link(const struct registry_entry *entry) REQUIRES(library_lock)
{
	struct lead **link = &registry_line_at(entry->address / LINE)->leads;

	while (*link != NULL && (*link)->address != entry->address)
		link = &(*link)->next;
	return link;
}

struct lead *registry_lead(const struct registry_entry *entry)
{
	return entry->led ? *registry_lead_link(entry) : NULL;
}

static void registry_set_lead(const struct registry_entry *entry, uintptr_t where) REQUIRES(library_lock)
{
	if (entry->led)
		lead_set(registry_lead(entry), where);
}

/* Code that stays may branch there still. */
static void registry_drop_lead(struct registry_entry *entry) REQUIRES(library_lock)
{
	struct lead **link = registry_lead_link(entry);
	struct lead *lead = *link;

	if (lead == NULL)
		return;
	lead_set(lead, entry->address);
	*link = lead->next;
	lead_drop(lead);
	entry->led = false;
}

void registry_remove(struct registry_entry *entry)
{
	uint64_t now = registry_epoch();
	struct registry_line *line = registry_line_at(entry->address / LINE);

	LOCK_ASSERT_HELD();
	BUG_ON_RETURN(line == NULL);
	registry_unlink_entry(line, entry);
	--*registry_share_of(entry->address);
	registry_take_out_reports(entry);
	registry_drop_lead(entry);
	entry->removed_epoch = (uint32_t)now;
	entry->removed_next = removed;
	removed = entry;
	if (registry_next_of(&line->entries) != NULL)
		return;
	last = NULL;
	if (walk.line == line)
		walk.line = registry_line_behind(&line->node);
	cds_hlist_del_rcu(&line->node);
	line->removed_epoch = now;
	line->removed_next = removed_lines;
	removed_lines = line;
}

static void registry_set_state(struct registry_entry *entry, enum registry_state state, unsigned int classes)
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

	LOCK_ASSERT_HELD();
	atomic_store_explicit(&entry->target, target, memory_order_release);
	if (REGISTRY_STATE(word) != REGISTRY_ACTIVE || !(REGISTRY_CLASSES(word) & 1U << trap_class))
		registry_set_state(entry, REGISTRY_ACTIVE, 1U << trap_class);
	registry_set_lead(entry, target);
}

void registry_retire(struct registry_entry *entry)
{
	LOCK_ASSERT_HELD();
	registry_set_lead(entry, entry->address);
	registry_set_state(entry, REGISTRY_RETIRED, 0);
}

bool registry_make_lead(struct registry_entry *entry)
{
	struct lead **link = registry_lead_link(entry);

	LOCK_ASSERT_HELD();
	if (*link == NULL)
		*link = lead_make(entry->address);
	entry->led = *link != NULL;
	if (REGISTRY_STATE(atomic_load(&entry->state)) == REGISTRY_ACTIVE)
		registry_set_lead(entry, atomic_load_explicit(&entry->target, memory_order_relaxed));
	return entry->led;
}

/* ---- punned jumps ----------------------------------------------------------------------------------------------- */

/* Entries whose `punned` is set. */
static size_t punned_count GUARDED_BY(library_lock);

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
