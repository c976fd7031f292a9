/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Windows: instructions in a row as they occur in binaries, chosen by the planner, and displaced together by
 * trampoline_build() with no hook on them.
 *
 * What is outside of a window is made up: branches out of it lead to exits, and RIP-relative operands to the data. What
 * is inside is as found, branches within the window included.
 */
#include "code/staging.h"
#include "differential.h"

#include "code/arena.h"
#include "code/staging.h"
#include "code/window.h"
#include "plan/plan.h"
#include "sys/maps.h"
#include "sys/text.h"
#include "code/trampoline.h"

#include <sys/mman.h>

/* Decoded in one go; the first instructions may be off the true boundaries. */
#define STRETCH 1024
#define SYNCHRONISED 64

#define HEADS_MAX 64

#define SEEN_BITS (1UL << 24)

struct stretch {
	const uint8_t *bytes;
	size_t size; /* of the text from there on */
	struct {
		uint16_t at;
		struct arch_insn insn;
	} list[STRETCH];
	size_t count;
};

static uint64_t seen[SEEN_BITS / 64]; /* windows that were built, by hash */

/* ---- from instructions to a window ------------------------------------------------------------------------------- */

static bool stores_x87_address(const ZydisDecodedInstruction *zydis)
{
	switch (zydis->mnemonic) {
	case ZYDIS_MNEMONIC_FNSTENV: case ZYDIS_MNEMONIC_FNSAVE:
	case ZYDIS_MNEMONIC_FXSAVE: case ZYDIS_MNEMONIC_FXSAVE64:
		return true;
	default:
		return false;
	}
}

/* Cut it into steps. NULL or why it is left out. */
static const char *make_steps(struct displaced *displaced)
{
	struct subject *subject = &displaced->subject;
	bool x87 = false;
	struct decoded decoded;
	struct step *step;
	const char *why;
	unsigned int i, offset;

	subject->direct = true;
	for (i = 0; i < subject->count; i++) {
		offset = displaced->offsets[i];
		step = &displaced->steps[i];
		why = step_make(step, displaced->bytes + offset, (size_t)displaced->offsets[i + 1] - offset, &decoded);
		if (why)
			return why;
		step->offset = (uint8_t)offset;
		subject->flags |= step->flags;
		if (x87 && stores_x87_address(&decoded.insn))
			return "stores the address of an x87 instruction, which is the copy's";
		x87 |= decoded.insn.meta.isa_ext == ZYDIS_ISA_EXT_X87;
		displaced->call_inside |= step_is_call(step) && i + 1 < subject->count;
		subject->direct &= step->insn.kind != ARCH_JMP_IND && step->insn.kind != ARCH_RET &&
				   !step_is_call(step);
		subject->inner_branch |= step->insn.rel_size != 0 &&
					 step->insn.target - STEP_ADDRESS + offset < subject->length;
	}
	return NULL;
}

static void build_copy(struct displaced *displaced)
{
	struct subject *subject = &displaced->subject;
	const struct hook none = { 0 };
	struct window window = {
		.start = subject->native,
		.length = subject->length,
		.count = subject->count,
		.strategy = PATCH_STRATEGY_TRAP, /* no jump, whose pad might have no room */
		.offsets = displaced->offsets,
		.original = displaced->bytes,
	};
	const char *message;
	unsigned int i;

	/* as placed */
	for (i = 0; i < subject->count; i++)
		memcpy(displaced->bytes + displaced->offsets[i], displaced->steps[i].bytes,
		       displaced->steps[i].insn.length);
	if (trampoline_build(&window, &none, 0, &displaced->trampoline, &message) != PATCH_OK) {
		printf("trampoline_build(): %s\n", message);
		exit(1);
	}
	subject->copy = displaced->trampoline->block.address;
	subject->copy_end = subject->copy + displaced->trampoline->block.size;
	for (i = 0; i < subject->count; i++)
		subject->entries[i] = trampoline_entry(displaced->trampoline, i);
}

/* By its hash; false once. */
static bool was_seen(const uint8_t bytes[WINDOW_BYTES])
{
	uint64_t hash = 0, word;
	bool before;
	size_t i;

	for (i = 0; i < WINDOW_BYTES; i += sizeof(word)) {
		memcpy(&word, bytes + i, sizeof(word));
		hash = mix_in(hash, word);
	}
	hash %= SEEN_BITS;
	before = seen[hash / 64] >> hash % 64 & 1;
	seen[hash / 64] |= 1UL << hash % 64;
	return before;
}

/* As the planner would displace it, from `bytes` on to `reach` bytes or more. */
static void try_window(struct windows *windows, const uint8_t *bytes, size_t size, size_t reach, uint64_t random)
{
	struct displaced *displaced = &windows->list[windows->count];
	struct subject *subject = &displaced->subject;
	const struct plan_request request = {
		.site = (uintptr_t)bytes,
		.bytes = bytes,
		.size = size,
		.limit = UINTPTR_MAX,
		.reach = (uintptr_t)bytes + reach,
		.policy = PATCH_TRAP_POLICY_FORBID,
	};
	struct plan plan;
	const char *why;

	if (windows->count == WINDOWS_MAX)
		return;
	if (plan_site(&request, &plan) != PATCH_OK) {
		skip_note(&windows->skips, plan.message);
		return;
	}
	if (plan.count < 2 || plan.count > STEPS_MAX || plan.length > WINDOW_BYTES)
		return;
	memset(displaced, 0, sizeof(*displaced));
	memcpy(displaced->bytes, (const uint8_t *)plan.start, plan.length);
	memcpy(displaced->offsets, plan.offsets, plan.count + 1U);
	if (was_seen(displaced->bytes))
		return;
	subject->steps = displaced->steps;
	subject->count = plan.count;
	subject->length = plan.length;
	why = make_steps(displaced);
	if (random & 1)
		subject->flags |= P_LOW;
	if (!why)
		why = machine_place_window(subject, windows->count, random_next(&random));
	if (why) {
		skip_note(&windows->skips, why);
		return;
	}
	build_copy(displaced);
	windows->inner_branches += subject->inner_branch;
	windows->calls_inside += displaced->call_inside;
	windows->built++;
	windows->count++;
}

/* ---- where from -------------------------------------------------------------------------------------------------- */

static void read_stretch(struct stretch *stretch, const struct text *text, uint64_t random)
{
	const size_t at = random % (text->size - STRETCH);
	size_t offset = 0;

	stretch->bytes = text->bytes + at;
	stretch->size = text->size - at;
	stretch->count = 0;
	while (offset < STRETCH) {
		struct arch_insn *insn = &stretch->list[stretch->count].insn;

		if (!arch_decode(stretch->bytes + offset, stretch->size - offset, offset, insn)) {
			offset++;
			continue;
		}
		if (offset >= SYNCHRONISED)
			stretch->list[stretch->count++].at = (uint16_t)offset;
		offset += insn->length;
	}
}

/* A window around a short branch and the place that it leads to, or 0. */
static size_t around_branch(const struct stretch *stretch, size_t index, uint64_t random, size_t *first)
{
	const struct arch_insn *insn = &stretch->list[index].insn;
	const size_t at = stretch->list[index].at;
	const size_t lead = random % 3;

	if (insn->rel_size != 1 || index < STEPS_MAX || insn->target - (at - 24) > 48)
		return 0;
	*first = index - lead;
	while (stretch->list[*first].at > insn->target && *first > 0 && index - *first < STEPS_MAX)
		--*first;
	if (insn->target < stretch->list[*first].at)
		return 0;
	/* up to what it leads to, mostly with that in it */
	return MAX(insn->target + (random >> 8 & 7 ? 1 : 0), at + insn->length) - stretch->list[*first].at;
}

static void take_stretch(struct windows *windows, const struct stretch *stretch, uint64_t *seed)
{
	size_t i, first, reach, at;
	uint64_t random;

	for (i = 0; i < stretch->count; i++) {
		random = random_next(seed);
		reach = around_branch(stretch, i, random >> 16, &first);
		if (reach != 0) {
			at = stretch->list[first].at;
			try_window(windows, stretch->bytes + at, stretch->size - at, reach, random);
		}
		if (random >> 32 & 7)
			continue;
		/* more than one instruction; half of them no longer than a jump needs */
		at = stretch->list[i].at;
		reach = MAX(stretch->list[i].insn.length + 1UL, random >> 40 & 1 ? 5 : 5 + (random >> 41) % 20);
		try_window(windows, stretch->bytes + at, stretch->size - at, reach, random_next(seed));
	}
}

/*
 * The writable heads of libpatch's arenas (arena.h) are within reach of pointers that windows make up: read-only while
 * they run.
 */
static struct maps_mapping heads[HEADS_MAX], last_arena;
static size_t head_count;

static void add_head(uintptr_t address)
{
	bool readable;
	size_t i;

	if (address >= last_arena.lower && address < last_arena.upper)
		return;
	if (!maps_mapping(address, &last_arena, &readable) || head_count == HEADS_MAX ||
	    !maps_mapping(last_arena.lower - 1, &heads[head_count], &readable))
		return;
	for (i = 0; heads[i].lower != heads[head_count].lower; i++)
		;
	head_count += i == head_count && heads[i].protection & PROT_WRITE;
}

static void protect_heads(bool writable)
{
	size_t i;

	for (i = 0; i < head_count; i++)
		mprotect((void *)heads[i].lower, heads[i].upper - heads[i].lower,
			 PROT_READ | (writable ? PROT_WRITE : 0));
}

/* Once it is written. */
static void finish(struct displaced *displaced)
{
	struct subject *subject = &displaced->subject;

	/* the block's own rows (arena.h) */
	subject->rows = (const struct arch_row *)(subject->copy + ARENA_BLOCK_ROWS);
	while (subject->rows[subject->row_count].code != ARENA_ROW_END)
		subject->row_count++;
	add_head(subject->copy);
}

void windows_draw(struct windows *windows, const struct files *files, uint64_t seed)
{
	static struct stretch stretch;
	const struct text *text;
	unsigned int tries;
	size_t i;

	if (!windows->list) {
		windows->list = calloc(WINDOWS_MAX, sizeof(*windows->list));
		if (!windows->list || text_init(false) != PATCH_OK) {
			printf("no memory, or no way to write code\n");
			exit(1);
		}
	}
	protect_heads(true);
	for (i = 0; i < windows->count; i++)
		trampoline_free(windows->list[i].trampoline);
	windows->count = 0;
	for (tries = 0; tries < WINDOWS_MAX && windows->count < WINDOWS_MAX; tries++) {
		text = &files->texts[random_next(&seed) % files->text_count];
		if (text->size <= STRETCH + INSN_MAX)
			continue;
		read_stretch(&stretch, text, random_next(&seed));
		take_stretch(windows, &stretch, &seed);
	}
	if (staging_flush() != 0) {
		printf("staging_flush() failed\n");
		exit(1);
	}
	for (i = 0; i < windows->count; i++)
		finish(&windows->list[i]);
	protect_heads(false);
}
