/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Hooks whose code is copied: of every kind, code, rows, stretches and what is said of the hook are the same as those
 * of a hook that is emitted, wherever it is and whatever it refers to.
 */
#include "arch/canonical.h"
#include "arch/hook.h"

#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define FAR_UP 0x7f1234560000UL
#define FAR_DOWN 0x10000000UL

/* All that comes out. */
struct block {
	struct arch_code code;
	uint8_t bytes[4096];
	struct arch_row rows[128];
	struct arch_stretch stretches[256];
	struct arch_hook_map maps[2];
	size_t copied;
};

static struct arch_cold cold;

/* Two hooks of the kind, between copies of instructions of other sizes each time. */
static void emit(struct block *block, const struct arch_hook *kind, uintptr_t base, size_t gap)
{
	struct arch_code code = {
		.bytes = block->bytes,
		.capacity = sizeof(block->bytes),
		.base = base,
		.rows = block->rows,
		.row_capacity = ARRAY_SIZE(block->rows),
		.stretches = block->stretches,
		.stretch_capacity = ARRAY_SIZE(block->stretches),
		.cold = &cold,
	};
	struct arch_hook hook = *kind;

	cold.hook_count = 0;
	cold.call_count = 0;
	cold.keeping = NULL;
	block->copied = 0;
	for (uint8_t i = 0; i < 2; ++i) {
		code.original = (uint8_t)(i * gap);
		arch_emit_row(&code, 0);
		arch_emit_stretch(&code, ARCH_COPY, 0);
		for (size_t k = 0; k < gap; ++k)
			arch_emit_u8(&code, 0x90);
		hook.slot = base - 0x1000 + 8 * (gap + i);
		hook.program_counter = base + 0x20000 + 16 * gap + i;
		arch_emit_hook(&code, &hook);
	}
	arch_emit_row(&code, 0);
	arch_emit_stretch(&code, ARCH_COPY, 0);
	arch_emit_u8(&code, 0x90);
	arch_emit_cold(&code);
	arch_emit_stretch(&code, ARCH_STRETCH_END, 0);
	for (size_t i = 0; i < 2; ++i) {
		arch_hook_describe(&cold.hooks[i], base, &block->maps[i]);
		block->copied += cold.hooks[i].copied;
	}
	code.bytes = NULL;
	code.rows = NULL;
	code.stretches = NULL;
	code.cold = NULL;
	block->code = code;
}

/* The kind, and before it kinds that differ from it in one thing. */
static void emit_neighbours(struct block *block, const struct arch_hook *kind, uintptr_t base)
{
	for (unsigned int i = 0; i < 10; ++i) {
		struct arch_hook hook = *kind;

		hook.read ^= i == 0 ? 1U << 5 : 0;
		hook.write ^= i == 1 ? 1U << 6 : 0;
		hook.clobber ^= i == 2 ? PATCH_REGS_NO_STATE : 0;
		hook.post ^= i == 3;
		hook.own ^= i == 4;
		hook.at_entry ^= i == 5;
		hook.x87_empty ^= i == 6;
		hook.shadow = (uint8_t)((hook.shadow + (i == 7 ? 1 : i == 8 ? 2 : 0)) % 3);
		emit(block, &hook, base, 3);
	}
}

/* In a process of its own: what is kept there was emitted there. */
static void emit_apart(struct block *block, const struct arch_hook *kind, uintptr_t base, bool before)
{
	int status;
	pid_t child = fork();

	cr_assert_geq(child, 0);
	if (child == 0) {
		if (before)
			emit_neighbours(block, kind, base + 0x345678);
		memset(block, 0, sizeof(*block));
		emit(block, kind, base, 7);
		_exit(0);
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static struct block *blocks;

static void expect_alike(const struct arch_hook *kind, uintptr_t base)
{
	emit_apart(&blocks[0], kind, base, false);
	emit_apart(&blocks[1], kind, base, true);
	cr_assert_eq(blocks[0].copied, 0);
	cr_assert_eq(blocks[1].copied, 2);
	cr_assert_not(blocks[0].code.out_of_range);
	blocks[1].copied = 0;
	cr_assert(memcmp(&blocks[0], &blocks[1], sizeof(blocks[0])) == 0,
		  "read %#lx, write %#lx, clobber %#lx, post %u, own %u, at_entry %u, x87_empty %u, shadow %u",
		  kind->read, kind->write, kind->clobber, kind->post, kind->own, kind->at_entry, kind->x87_empty,
		  kind->shadow);
}

Test(hook_kept, copies_are_what_is_emitted, .timeout = 600)
{
	static const struct arch_hook masks[] = {
		{ .clobber = PATCH_REGS_NO_STATE },
		{ .read = ARCH_GENERAL, .clobber = PATCH_REGS_NO_STATE },
		{ .read = 1 << 3, .write = ARCH_GENERAL, .clobber = PATCH_REGS_NO_STATE },
		{ .write = 1 << PATCH_X86_64_RDI | 1 << 9, .clobber = 0 },
	};
	static const uintptr_t bases[] = { FAR_UP, FAR_DOWN };

	blocks = mmap(NULL, 2 * sizeof(*blocks), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(blocks, MAP_FAILED);
	for (unsigned int i = 0; i < 3 * 16 * ARRAY_SIZE(masks); ++i) {
		struct arch_hook hook = masks[i / 48];

		hook.shadow = i % 48 / 16;
		hook.post = i & 1;
		hook.own = i >> 1 & 1;
		hook.at_entry = i >> 2 & 1;
		hook.x87_empty = i >> 3 & 1;
		for (size_t k = 0; k < ARRAY_SIZE(bases); ++k)
			expect_alike(&hook, bases[k]);
	}
}

/* What there is no room for is counted, as it is when it is emitted. */
Test(hook_kept, copies_that_do_not_fit)
{
	static struct block block;
	const struct arch_hook hook = { .clobber = PATCH_REGS_NO_STATE, .slot = FAR_UP, .program_counter = FAR_UP };
	size_t size;

	emit(&block, &hook, FAR_UP, 0);
	size = block.code.size;
	for (size_t capacity = 0; capacity < size; capacity += 16) {
		struct arch_code code = { .bytes = block.bytes, .capacity = capacity, .base = FAR_UP,
					  .rows = block.rows, .row_capacity = ARRAY_SIZE(block.rows),
					  .stretches = block.stretches,
					  .stretch_capacity = ARRAY_SIZE(block.stretches), .cold = &cold };

		memset(block.bytes, 0xAA, sizeof(block.bytes));
		cold = (struct arch_cold){ .hook_count = 0 };
		arch_emit_hook(&code, &hook);
		cr_assert(cold.hooks[0].copied);
		arch_emit_cold(&code);
		cr_expect_gt(code.size, capacity - MIN(capacity, size / 2));
		for (size_t i = capacity; i < sizeof(block.bytes); ++i)
			cr_assert_eq(block.bytes[i], 0xAA, "capacity %zu: byte %zu", capacity, i);
	}
}
