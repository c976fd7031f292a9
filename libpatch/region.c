/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "region.h"

#include "around.h"
#include "heap.h"
#include "scan.h"

#include <string.h>

/* Trampolines of one region that are looked through for one to use again. */
#define REUSE_DEPTH 64

static struct region *queue;
static struct region_usage usage;

/* ---- original bytes --------------------------------------------------------------------------------------------- */

struct region *region_at(uintptr_t address)
{
	struct registry_entry *entry = registry_find(address);

	return entry != NULL ? entry->region : NULL;
}

/* The region that holds the byte at address, also inside an instruction. */
static struct region *region_covering(uintptr_t address)
{
	for (uintptr_t back = 0; back < INSN_MAX && back <= address; ++back) {
		struct region *region = region_at(address - back);

		if (region != NULL)
			return address < region->start + region->length ? region : NULL;
	}
	return NULL;
}

/* Only such bytes stand at the instructions of a patched region: spares nearly all look-ups. */
static bool may_be_patched(uint8_t byte)
{
	return byte == ARCH_JMP_REL32 || arch_trap_class(byte) != ARCH_TRAP_NONE;
}

size_t region_original_at(uintptr_t address, const uint8_t **bytes)
{
	struct region *region;

	if (!may_be_patched(*(const uint8_t *)address))
		return 0;
	region = region_at(address);
	if (region == NULL || !region->installed)
		return 0;
	*bytes = region->original + (address - region->start);
	return region->length - (address - region->start);
}

size_t region_original(uintptr_t address, uint8_t *bytes, size_t size)
{
	struct region *region = region_covering(address);
	int error;
	size_t got = text_read(address, bytes, size, &error);

	for (size_t at = 0; at < got; ++at) {
		uintptr_t here = address + at;

		if ((region == NULL || here >= region->start + region->length) && may_be_patched(bytes[at]))
			region = region_at(here);
		if (region != NULL && region->installed && here >= region->start &&
		    here < region->start + region->length)
			bytes[at] = region->original[here - region->start];
	}
	return got;
}

/* ---- hooks of a region ------------------------------------------------------------------------------------------ */

static enum hook_when when_of(const struct attachment *attachment)
{
	return attachment->role == ROLE_RETURN ? HOOK_RETURNED : HOOK_BEFORE;
}

/* The hooks that one attachment stands for: one, or two for PROBE_AROUND on anything but a call. */
static size_t describe(const struct attachment *attachment, bool gated, struct hook *hooks)
{
	const struct patch *patch = attachment->patch;
	struct hook *hook = &hooks[0];

	*hook = (struct hook){
		.address = attachment->address,
		.when = when_of(attachment),
		.lower = patch->lower,
		.upper = patch->upper,
		.code = {
			.read = patch->model.probe.read_registers,
			.write = patch->model.probe.write_registers,
			.clobber = patch->model.probe.clobber_registers,
			.procedure = (uintptr_t)patch->model.probe.procedure,
			.user_data = (uintptr_t)patch->model.probe.user_data,
			.program_counter = patch->located,
			.gate = gated ? patch->gate->address : 0,
			.post = attachment->role == ROLE_RETURN,
		},
	};
	if (patch->pair != NULL) {
		hook->code.procedure = (uintptr_t)(attachment->role == ROLE_RETURN ? around_return : around_call);
		hook->code.user_data = (uintptr_t)patch->pair;
		return 1;
	}
	if (patch->model.type != PATCH_EXEC_MODEL_PROBE_AROUND)
		return 1;
	hooks[1] = hooks[0];
	hooks[1].when = HOOK_AFTER;
	hooks[1].code.post = 1;
	return 2;
}

/* Attachments of the regions taken in and the new one, by address, at equal addresses in order of making. */
struct gathering {
	struct attachment **list;
	size_t count;
	size_t capacity;
};

static bool precedes(const struct attachment *a, const struct attachment *b)
{
	if (a->address != b->address)
		return a->address < b->address;
	return a->patch->order < b->patch->order;
}

static bool gather(struct gathering *gathering, struct attachment *attachment)
{
	size_t at;

	if (gathering->count == gathering->capacity) {
		size_t capacity = MAX(gathering->capacity * 2, (size_t)8);
		struct attachment **list = heap_grow(gathering->list, gathering->capacity * sizeof(*list),
						     capacity * sizeof(*list));

		if (list == NULL)
			return false;
		gathering->list = list;
		gathering->capacity = capacity;
	}
	for (at = gathering->count; at > 0 && precedes(attachment, gathering->list[at - 1]); --at)
		gathering->list[at] = gathering->list[at - 1];
	gathering->list[at] = attachment;
	++gathering->count;
	return true;
}

static bool gather_region(struct gathering *gathering, const struct region *region)
{
	for (struct attachment *a = region->attachments; a != NULL; a = a->next)
		if (!a->patch->released && !gather(gathering, a))
			return false;
	return true;
}

static void gathering_free(struct gathering *gathering)
{
	heap_free(gathering->list, gathering->capacity * sizeof(*gathering->list));
}

static bool has_several_patches(const struct gathering *gathering)
{
	for (size_t i = 1; i < gathering->count; ++i)
		if (gathering->list[i]->patch != gathering->list[0]->patch)
			return true;
	return false;
}

/* Would its hooks be the same code? */
static bool is_alike(const struct gate *gate, const struct patch *patch)
{
	const struct patch_exec_model *a = &gate->model;
	const struct patch_exec_model *b = &patch->model;

	return gate->located == patch->located && a->type == b->type &&
	       a->probe.read_registers == b->probe.read_registers &&
	       a->probe.write_registers == b->probe.write_registers &&
	       a->probe.clobber_registers == b->probe.clobber_registers && a->probe.user_data == b->probe.user_data &&
	       a->probe.procedure == b->probe.procedure;
}

/* One that a patch now gone had for the same hooks, so that trampolines built for it fit again; or a new one. */
static struct gate *make_gate(struct region *region, struct patch *patch)
{
	struct gate *gate;

	for (gate = region->gates; gate != NULL; gate = gate->next)
		if (gate->owner == NULL && is_alike(gate, patch))
			break;
	if (gate == NULL) {
		gate = heap_alloc(sizeof(*gate));
		if (gate == NULL)
			return NULL;
		gate->address = arena_gate_alloc(region->start);
		if (gate->address == 0) {
			heap_free(gate, sizeof(*gate));
			return NULL;
		}
		gate->located = patch->located;
		gate->model = patch->model;
		gate->next = region->gates;
		region->gates = gate;
	}
	gate->owner = patch;
	return gate;
}

/*
 * Patches that share a region are enabled one by one without touching text: each has a gate, a byte that its hooks look at.
 */
static bool make_gates(struct region *region, const struct gathering *gathering)
{
	for (size_t i = 0; i < gathering->count; ++i) {
		struct patch *patch = gathering->list[i]->patch;

		if (patch->gate != NULL)
			continue;
		patch->gate = make_gate(region, patch);
		if (patch->gate == NULL)
			return false;
		*(volatile uint8_t *)patch->gate->address = patch->enabled;
	}
	return true;
}

static void move_gates(struct region *from, struct region *to)
{
	while (from->gates != NULL) {
		struct gate *gate = from->gates;

		from->gates = gate->next;
		gate->next = to->gates;
		to->gates = gate;
	}
}

/* Needed once a pad that threads may be at is led to another trampoline. */
static bool make_pad_entry(struct region *region)
{
	if (!region->pad_reachable || region->pad_entry != NULL)
		return true;
	region->pad_entry = registry_add(region->pad);
	if (region->pad_entry == NULL)
		return false;
	region->pad_entry->length = ARCH_JMP_SIZE;
	return true;
}

static bool matches(const struct trampoline *trampoline, const struct window *window, const struct hook *hooks,
		    size_t count)
{
	return trampoline != NULL && trampoline_matches(trampoline, window, hooks, count);
}

static struct trampoline *find(struct region *region, const struct window *window, const struct hook *hooks, size_t count)
{
	struct trampoline *old = region->old;

	if (matches(region->next, window, hooks, count))
		return region->next;
	if (matches(region->current, window, hooks, count))
		return region->current;
	for (size_t i = 0; i < REUSE_DEPTH && old != NULL; ++i, old = old->next)
		if (trampoline_matches(old, window, hooks, count))
			return old;
	return NULL;
}

static struct window window_of(const struct region *region)
{
	return (struct window){ region->start,   region->length,   region->count, region->strategy,
				region->offsets, region->original, region->pad };
}

/* A trampoline for exactly these attachments: one the region has, or a new one. */
static patch_status build(struct region *region, const struct gathering *gathering, struct trampoline **out,
			  struct refusal *refusal)
{
	bool gated = has_several_patches(gathering);
	size_t capacity = gathering->count * 2 * sizeof(struct hook);
	struct window window = window_of(region);
	struct hook *hooks = heap_alloc(capacity);
	patch_status status = PATCH_OK;
	size_t count = 0;

	refusal->irritant = region->start;
	refusal->message = "out of memory";
	if (hooks == NULL || !make_pad_entry(region) || (gated && !make_gates(region, gathering))) {
		heap_free(hooks, capacity);
		return PATCH_ENOMEM;
	}
	for (size_t i = 0; i < gathering->count; ++i)
		count += describe(gathering->list[i], gated, &hooks[count]);
	*out = find(region, &window, hooks, count);
	if (*out == NULL)
		status = trampoline_build(&window, hooks, count, out, &refusal->message);
	heap_free(hooks, capacity);
	region->pad = window.pad;
	return status;
}

/* ---- life of a region ------------------------------------------------------------------------------------------- */

void region_set_installed(struct region *region, bool installed)
{
	if (region->installed != installed)
		usage.installed += installed ? 1 : -1;
	region->installed = installed;
}

void region_usage(struct region_usage *out)
{
	*out = usage;
}

void region_retire(struct region *region, struct trampoline *trampoline)
{
	if (trampoline == NULL)
		return;
	if (!trampoline->reachable) {
		trampoline_free(trampoline);
		return;
	}
	usage.retired_bytes += trampoline->block.size;
	trampoline->next = region->old;
	region->old = trampoline;
}

/* Take a trampoline that is to be used again off the old ones. */
static void revive(struct region *region, const struct trampoline *trampoline)
{
	for (struct trampoline **link = &region->old; *link != NULL; link = &(*link)->next) {
		if (*link == trampoline) {
			*link = trampoline->next;
			usage.retired_bytes -= trampoline->block.size;
			return;
		}
	}
}

static void set_next(struct region *region, struct trampoline *trampoline)
{
	struct trampoline *before = region->next;

	if (trampoline == before)
		return;
	region->next = NULL;
	if (trampoline != region->current) {
		revive(region, trampoline);
		region->next = trampoline;
	}
	region_retire(region, before);
}

void region_queue(struct region *region)
{
	if (region->queued)
		return;
	region->queued = true;
	region->queue_next = queue;
	queue = region;
}

const struct region *region_queued(void)
{
	return queue;
}

struct region *region_take_queue(void)
{
	struct region *taken = queue;

	queue = NULL;
	for (struct region *region = taken; region != NULL; region = region->queue_next)
		region->queued = false;
	return taken;
}

static void unqueue(struct region *region)
{
	if (!region->queued)
		return;
	for (struct region **link = &queue; *link != NULL; link = &(*link)->queue_next) {
		if (*link == region) {
			*link = region->queue_next;
			break;
		}
	}
	region->queued = false;
}

bool region_wanted(const struct region *region)
{
	for (const struct attachment *a = region->attachments; a != NULL; a = a->next)
		if (a->patch->wanted && !a->patch->released)
			return true;
	return false;
}

static bool has_policy(const struct region *region, int policy)
{
	for (const struct attachment *a = region->attachments; a != NULL; a = a->next)
		if (!a->patch->released && a->patch->policy == policy)
			return true;
	return false;
}

/* One piece of memory: the structure, its entries, original and live bytes, offsets. */
static size_t region_size(unsigned int count, unsigned int length)
{
	return sizeof(struct region) + count * sizeof(struct registry_entry *) + 2 * length + count + 1;
}

static struct region *create(const struct plan *plan, const struct patch *patch, const uint8_t *original)
{
	struct region *region = heap_alloc(region_size(plan->count, plan->length));

	if (region == NULL)
		return NULL;
	region->start = plan->start;
	region->length = plan->length;
	region->count = plan->count;
	region->original = (uint8_t *)&region->entries[plan->count];
	region->live = region->original + plan->length;
	region->offsets = region->live + plan->length;
	region->strategy = plan->strategy;
	region->exact = patch->exact;
	memcpy(region->offsets, plan->offsets, plan->count + 1);
	memcpy(region->original, original, plan->length);
	memcpy(region->live, original, plan->length);
	return region;
}

/* Entries for every instruction: existing ones stay what they are until the region is committed. */
static bool make_entries(struct region *region)
{
	for (unsigned int i = 0; i < region->count; ++i) {
		uintptr_t address = region->start + region->offsets[i];
		struct registry_entry *entry = registry_find(address);

		if (entry == NULL)
			entry = registry_add(address);
		if (entry == NULL)
			return false;
		region->entries[i] = entry;
	}
	return true;
}

static void drop_entries(struct region *region)
{
	for (unsigned int i = 0; i < region->count; ++i) {
		struct registry_entry *entry = region->entries[i];

		if (entry != NULL && entry->region == NULL &&
		    REGISTRY_STATE(atomic_load(&entry->state)) == REGISTRY_DORMANT)
			registry_remove(entry);
	}
}

static void own_entries(struct region *region)
{
	for (unsigned int i = 0; i < region->count; ++i) {
		struct registry_entry *entry = region->entries[i];
		uint8_t offset = region->offsets[i];
		struct arch_insn insn;

		arch_decode(region->original + offset, region->offsets[i + 1] - offset, region->start + offset, &insn);
		entry->length = insn.length;
		entry->traps = insn.kind == ARCH_TRAP;
		entry->region = region;
		entry->index = (uint16_t)i;
	}
}

/* A pad that some thread may be led to stays (I7). */
static void drop_pad(struct region *region)
{
	if (region->pad != 0 && !region->pad_reachable)
		arena_pad_free(region->pad);
}

/* The region goes; what its trampolines take stays, because threads may be in them (I7). */
static void destroy(struct region *region)
{
	unqueue(region);
	drop_pad(region);
	for (unsigned int i = 0; i < region->count; ++i)
		if (region->entries[i] != NULL && region->entries[i]->region == region)
			region->entries[i]->region = NULL;
	drop_entries(region);
	region_set_installed(region, false);
	--usage.regions;
	heap_free(region, region_size(region->count, region->length));
}

/* Nothing of it is in the text and nobody is on it: the window need not be kept, only its trampolines. */
static void dissolve(struct region *region)
{
	if (region->next != NULL && !region->next->reachable)
		trampoline_free(region->next);
	if (region->current != NULL)
		usage.retired_bytes += region->current->block.size;
	destroy(region);
}

static bool is_unused(const struct region *region)
{
	return !region->installed && region->attachments == NULL;
}

/* ---- joining ---------------------------------------------------------------------------------------------------- */

static void append(struct region *region, struct attachment *attachment)
{
	struct attachment **link = &region->attachments;

	while (*link != NULL && (*link)->patch->order <= attachment->patch->order)
		link = &(*link)->next;
	attachment->next = *link;
	*link = attachment;
	attachment->region = region;
}

/* One more on an existing region, its window as it is. */
static patch_status join(struct region *region, struct attachment *attachment, struct refusal *refusal)
{
	struct gathering gathering = { 0 };
	struct trampoline *trampoline;
	patch_status status = PATCH_ENOMEM;

	refusal->message = "out of memory";
	refusal->irritant = attachment->address;
	if (gather_region(&gathering, region) && gather(&gathering, attachment))
		status = build(region, &gathering, &trampoline, refusal);
	gathering_free(&gathering);
	if (status != PATCH_OK)
		return status;
	set_next(region, trampoline);
	append(region, attachment);
	if (region->installed)
		region_queue(region);
	return PATCH_OK;
}

/* Regions that begin inside the window, ascending. */
#define INNER_MAX PLAN_INSNS_MAX

static size_t find_inner(const struct plan *plan, struct region **inner)
{
	size_t count = 0;

	for (uintptr_t at = plan->start; at < plan->start + plan->length; ++at) {
		struct region *region = region_at(at);

		if (region != NULL && (count == 0 || inner[count - 1] != region))
			inner[count++] = region;
	}
	return count;
}

/* Move what the inner regions hold into the new one, which covers them, and let them go. */
static void take_in(struct region *region, struct region **inner, size_t count)
{
	for (size_t i = 0; i < count; ++i) {
		struct region *gone = inner[i];

		memcpy(region->live + (gone->start - region->start), gone->live, gone->length);
		while (gone->attachments != NULL) {
			struct attachment *attachment = gone->attachments;

			gone->attachments = attachment->next;
			append(region, attachment);
		}
		if (gone->installed)
			region_set_installed(region, true);
		region_retire(region, gone->next);
		region_retire(region, gone->current);
		move_gates(gone, region);
		while (gone->old != NULL) {
			struct trampoline *old = gone->old;

			gone->old = old->next;
			old->next = region->old;
			region->old = old;
		}
	}
}

/* A new region for the plan, with what the inner regions hold and the attachment. */
static patch_status establish(const struct plan *plan, const uint8_t *original, struct attachment *attachment,
			      struct region **inner, size_t inner_count, struct refusal *refusal)
{
	struct region *region = create(plan, attachment->patch, original);
	struct gathering gathering = { 0 };
	struct trampoline *trampoline = NULL;
	patch_status status = PATCH_ENOMEM;
	bool gathered;

	refusal->message = "out of memory";
	refusal->irritant = plan->start;
	if (region == NULL)
		return PATCH_ENOMEM;
	gathered = gather(&gathering, attachment);
	for (size_t i = 0; i < inner_count; ++i)
		gathered = gathered && gather_region(&gathering, inner[i]);
	if (gathered)
		status = build(region, &gathering, &trampoline, refusal);
	gathering_free(&gathering);
	if (status == PATCH_OK && !make_entries(region)) {
		refusal->message = "out of memory";
		status = PATCH_ENOMEM;
		trampoline_free(trampoline);
	}
	if (status != PATCH_OK) {
		drop_entries(region);
		drop_pad(region);
		/* Gates made now belong to patches of the regions that stay. */
		if (inner_count > 0)
			move_gates(region, inner[0]);
		heap_free(region, region_size(region->count, region->length));
		return status;
	}

	/* Nothing fails from here on. */
	++usage.regions;
	own_entries(region);
	take_in(region, inner, inner_count);
	for (size_t i = 0; i < inner_count; ++i)
		destroy(inner[i]);
	region->next = trampoline;
	append(region, attachment);
	if (region->installed)
		region_queue(region);
	return PATCH_OK;
}

/* ---- planning against what is there ----------------------------------------------------------------------------- */

static bool is_target(uintptr_t address, const void *data)
{
	(void)data;
	return scan_is_target(address);
}

#define CONFLICT "the bytes belong to a patch that must be resident as a trap"

/* A window at the site and the regions it takes in: planned again, longer, until it cuts none. */
static patch_status plan_window(const struct patch *patch, int policy, uintptr_t address, const uint8_t *bytes, size_t size,
				struct plan *plan, struct region **inner, size_t *inner_count, struct refusal *refusal)
{
	struct plan_request request = {
		.site = address,
		.bytes = bytes,
		.size = size,
		.lower = patch->lower,
		.upper = patch->upper,
		.limit = patch->limit,
		.policy = policy,
	};

	if (patch->upper != 0 && scan_function(patch->lower, patch->upper, region_original_at))
		request.is_target = is_target;
	for (;;) {
		patch_status status = plan_site(&request, plan);
		uintptr_t end;

		refusal->message = plan->message;
		refusal->irritant = plan->irritant;
		if (status != PATCH_OK)
			return status;
		*inner_count = find_inner(plan, inner);
		if (*inner_count == 0)
			return PATCH_OK;
		end = inner[*inner_count - 1]->start + inner[*inner_count - 1]->length;
		if (plan->strategy == PATCH_STRATEGY_TRAP) {
			if (*inner_count == 1 && inner[0]->start == plan->start && end == plan->start + plan->length)
				return PATCH_OK;
			refusal->message = "the instruction overlaps patched ones that start at other addresses";
			refusal->irritant = inner[0]->start;
			return PATCH_EBOUNDARY;
		}
		for (size_t i = 0; i < *inner_count; ++i) {
			if (!has_policy(inner[i], PATCH_TRAP_POLICY_FORCE))
				continue;
			refusal->message = CONFLICT;
			refusal->irritant = inner[i]->start;
			return PATCH_ECONF;
		}
		if (end <= plan->start + plan->length)
			return PATCH_OK;
		request.reach = end;
	}
}

/* Do the window's instructions begin where those of the regions that it takes in do? */
static bool agrees(const struct plan *plan, struct region *const *inner, size_t count)
{
	for (size_t i = 0; i < count; ++i) {
		for (unsigned int k = 0; k < inner[i]->count; ++k) {
			uintptr_t offset = inner[i]->start + inner[i]->offsets[k] - plan->start;
			unsigned int j = 0;

			while (j < plan->count && plan->offsets[j] != offset)
				++j;
			if (j == plan->count)
				return false;
		}
	}
	return true;
}

/* Bytes a plan may look at: the longest window, one instruction more, and an endbr64. */
#define VIEW (PLAN_LENGTH_MAX + INSN_MAX + 4)

static patch_status establish_at(struct attachment *attachment, int policy, struct refusal *refusal)
{
	/* Not on the stack, which may be a small sigaltstack. The library lock is held. */
	static uint8_t bytes[VIEW];
	static struct region *inner[INNER_MAX * 2];
	static struct plan plan;
	struct patch *patch = attachment->patch;
	size_t size = region_original(attachment->address, bytes, sizeof(bytes));
	size_t inner_count = 0;
	uintptr_t skipped;
	patch_status status;

	if (size == 0) {
		refusal->message = "the address is not mapped";
		refusal->irritant = attachment->address;
		return PATCH_EFAULT;
	}
	status = plan_window(patch, policy, attachment->address, bytes, size, &plan, inner, &inner_count, refusal);
	if (status != PATCH_OK)
		return status;
	if (!agrees(&plan, inner, inner_count)) {
		refusal->message = "patched instructions around it start at other addresses";
		refusal->irritant = plan.start;
		return PATCH_EBOUNDARY;
	}
	skipped = plan.start - attachment->address;
	attachment->address = plan.start;
	return establish(&plan, bytes + skipped, attachment, inner, inner_count, refusal);
}

/* Change a region from trap to jump for a patch that forbids traps, or the other way for one that forces them. */
static patch_status convert(struct region *region, struct attachment *attachment, struct refusal *refusal)
{
	int policy = attachment->patch->policy;
	bool trap = region->strategy == PATCH_STRATEGY_TRAP;
	uint8_t strategy = region->strategy;
	patch_status status;

	if (policy == PATCH_TRAP_POLICY_FORBID && trap) {
		if (!has_policy(region, PATCH_TRAP_POLICY_FORCE))
			return establish_at(attachment, policy, refusal);
		refusal->message = CONFLICT;
		refusal->irritant = region->start;
		return PATCH_ECONF;
	}
	if (policy == PATCH_TRAP_POLICY_FORCE && !trap) {
		if (has_policy(region, PATCH_TRAP_POLICY_FORBID)) {
			refusal->message = "the bytes belong to a patch that must not be resident as a trap";
			refusal->irritant = region->start;
			return PATCH_ECONF;
		}
		/* Trap bytes on every instruction of the window: the first phase of a jump, for good. */
		region->strategy = PATCH_STRATEGY_TRAP;
		status = join(region, attachment, refusal);
		if (status != PATCH_OK)
			region->strategy = strategy;
		return status;
	}
	return join(region, attachment, refusal);
}

patch_status region_attach(struct patch *patch, enum role role, uintptr_t address, struct refusal *refusal)
{
	struct attachment *attachment = &patch->attachments[role];
	static uint8_t bytes[PLAN_LENGTH_MAX];
	struct region *region;
	struct arch_insn insn;
	patch_status status;
	int error;

	attachment->patch = patch;
	attachment->role = role;
	attachment->address = address;
	region = region_at(address);
	if (region == NULL && text_read(address, bytes, INSN_MAX, &error) >= 4 && arch_decode(bytes, 4, address, &insn) &&
	    (insn.flags & ARCH_F_ENDBR)) {
		region = region_at(address + insn.length);
		if (region != NULL)
			attachment->address = address + insn.length;
	}
	/* The program may have loaded other code here since. */
	if (region != NULL && is_unused(region) &&
	    (text_read(region->start, bytes, region->length, &error) != region->length ||
	     memcmp(bytes, region->original, region->length) != 0)) {
		dissolve(region);
		region = NULL;
		attachment->address = address;
	}
	if (region != NULL)
		return convert(region, attachment, refusal);
	if (region_covering(address) != NULL) {
		refusal->message = "the address is inside an instruction that is patched";
		refusal->irritant = address;
		return PATCH_EBOUNDARY;
	}

	status = establish_at(attachment, patch->policy, refusal);
	/* A jump that finds no memory, or would have to displace a forced trap, can still be a trap. */
	if ((status == PATCH_ENOMEM || status == PATCH_ECONF) && patch->policy == PATCH_TRAP_POLICY_ALLOW) {
		attachment->address = address;
		status = establish_at(attachment, PATCH_TRAP_POLICY_FORCE, refusal);
	}
	return status;
}

void region_detach(struct patch *patch)
{
	if (patch->gate != NULL) {
		*(volatile uint8_t *)patch->gate->address = 0;
		patch->gate->owner = NULL;
		patch->gate = NULL;
	}
	for (size_t i = 0; i < ARRAY_SIZE(patch->attachments); ++i) {
		struct attachment *attachment = &patch->attachments[i];
		struct region *region = attachment->region;

		if (region == NULL)
			continue;
		for (struct attachment **link = &region->attachments; *link != NULL; link = &(*link)->next) {
			if (*link == attachment) {
				*link = attachment->next;
				break;
			}
		}
		attachment->region = NULL;
	}
}
