/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The protocol's arithmetic, byte for byte: what a region's text holds after each phase (I1, I2, I4), for each
 * strategy, for installs and removals, and where somebody else has put bytes back.
 */
#include "bytes.h"

#include "commit/phase.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define START 0x555500001000UL
#define LENGTH 7
#define INSNS 4

#define PUSH 0x53
#define MOV 0x89, 0xF8
#define XOR 0x31, 0xF0
#define IMM 0xB8, 0x78, 0x56, 0x34, 0x12
/* For a while in place of an instruction of one byte (arch_trap_byte()). */
#define ILL 0xCE

struct phase_case {
	const char *text;
	uint8_t strategy;
	uint8_t offsets[INSNS + 1];
	uint8_t count;
	bool install;
	bool plain;     /* the only patch is the library's own, at a system call */
	int8_t hooked;  /* offset of the instruction that the patch is on */
	uint8_t punned; /* entries that are, by bit */
	uint8_t original[LENGTH];
	uint8_t jump[ARCH_JMP_SIZE];
	uint8_t live[LENGTH];
	/* Expected. */
	bool changes;
	bool one_instruction;
	uint8_t after[4][LENGTH]; /* phase 1, 2, 3, and the end */
};

/* Over three instructions of 1, 2 and 2 bytes, with trap bytes on both boundaries. */
#define THREE                                                                                                          \
	.offsets = { 0, 1, 3, 5 }, .count = 3, .original = { PUSH, MOV, XOR }, .jump = { 0xE9, 0xCC, 0x11, 0xCC, 0x22 }
/* Over one of 5 bytes. */
#define ONE .offsets = { 0, 5 }, .count = 1, .original = { IMM }, .jump = { 0xE9, 0x11, 0x22, 0x33, 0x44 }
/* Over one of 5 bytes, with one of 2 bytes behind it. */
#define ONE_TWO .offsets = { 0, 5, 7 }, .count = 2, .original = { IMM, XOR }, .jump = { 0xE9, 0x11, 0x22, 0x33, 0x44 }
/* One of 3 bytes; its jump is made of the 2 bytes behind it, too. */
#define PUNNED .offsets = { 0, 3 }, .count = 1, .original = { 0x48, MOV, XOR }, .jump = { 0xE9, 0x11, 0x22, XOR }

static const struct phase_case cases[] = {
	{
		.text = "a jump over one instruction is installed", .strategy = PATCH_STRATEGY_JUMP, ONE,
		.install = true, .live = { IMM }, .changes = true, .one_instruction = true,
		.after = { { 0xCC, 0x78, 0x56, 0x34, 0x12 }, { 0xCC, 0x11, 0x22, 0x33, 0x44 },
			   { 0xE9, 0x11, 0x22, 0x33, 0x44 }, { 0xE9, 0x11, 0x22, 0x33, 0x44 } },
	}, {
		.text = "and removed", .strategy = PATCH_STRATEGY_JUMP, ONE,
		.live = { 0xE9, 0x11, 0x22, 0x33, 0x44 }, .changes = true, .one_instruction = true,
		.after = { { 0xCC, 0x11, 0x22, 0x33, 0x44 }, { 0xCC, 0x78, 0x56, 0x34, 0x12 }, { IMM }, { IMM } },
	}, {
		.text = "and led elsewhere", .strategy = PATCH_STRATEGY_JUMP, ONE,
		.install = true, .live = { 0xE9, 0xAA, 0xBB, 0x33, 0x44 }, .changes = true, .one_instruction = true,
		.after = { { 0xCC, 0xAA, 0xBB, 0x33, 0x44 }, { 0xCC, 0x11, 0x22, 0x33, 0x44 },
			   { 0xE9, 0x11, 0x22, 0x33, 0x44 }, { 0xE9, 0x11, 0x22, 0x33, 0x44 } },
	}, {
		.text = "and is there already", .strategy = PATCH_STRATEGY_JUMP, ONE,
		.install = true, .live = { 0xE9, 0x11, 0x22, 0x33, 0x44 }, .one_instruction = true,
		.after = { { 0xCC, 0x11, 0x22, 0x33, 0x44 }, { 0xCC, 0x11, 0x22, 0x33, 0x44 },
			   { 0xE9, 0x11, 0x22, 0x33, 0x44 }, { 0xE9, 0x11, 0x22, 0x33, 0x44 } },
	}, {
		.text = "a jump over several instructions is installed",
		.strategy = PATCH_STRATEGY_CONSTRAINED_JUMP, THREE,
		.install = true, .live = { PUSH, MOV, XOR }, .changes = true,
		.after = { { ILL, 0xCC, 0xF8, 0xCC, 0xF0 }, { ILL, 0xCC, 0x11, 0xCC, 0x22 },
			   { 0xE9, 0xCC, 0x11, 0xCC, 0x22 }, { 0xE9, 0xCC, 0x11, 0xCC, 0x22 } },
	}, {
		.text = "and removed",
		.strategy = PATCH_STRATEGY_CONSTRAINED_JUMP, THREE,
		.live = { 0xE9, 0xCC, 0x11, 0xCC, 0x22 }, .changes = true,
		.after = { { ILL, 0xCC, 0x11, 0xCC, 0x22 }, { ILL, 0xCC, 0xF8, 0xCC, 0xF0 },
			   { PUSH, MOV, XOR }, { PUSH, MOV, XOR } },
	}, {
		.text = "a boundary behind the jump", .strategy = PATCH_STRATEGY_CONSTRAINED_JUMP, ONE_TWO,
		.install = true, .live = { IMM, XOR }, .changes = true,
		.after = { { 0xCC, 0x78, 0x56, 0x34, 0x12, 0xCC, 0xF0 }, { 0xCC, 0x11, 0x22, 0x33, 0x44, 0xCC, 0xF0 },
			   { 0xE9, 0x11, 0x22, 0x33, 0x44, 0xCC, 0xF0 }, { 0xE9, 0x11, 0x22, 0x33, 0x44, 0xCC, 0xF0 } },
	}, {
		.text = "no trap byte behind the jump of a system call", .strategy = PATCH_STRATEGY_JUMP, ONE_TWO,
		.install = true, .plain = true, .live = { IMM, XOR }, .changes = true, .one_instruction = true,
		.after = { { 0xCC, 0x78, 0x56, 0x34, 0x12, XOR }, { 0xCC, 0x11, 0x22, 0x33, 0x44, XOR },
			   { 0xE9, 0x11, 0x22, 0x33, 0x44, XOR }, { 0xE9, 0x11, 0x22, 0x33, 0x44, XOR } },
	}, {
		.text = "a trap is installed", .strategy = PATCH_STRATEGY_TRAP, ONE,
		.install = true, .live = { IMM }, .changes = true, .one_instruction = true,
		.after = { { 0xCC, 0x78, 0x56, 0x34, 0x12 }, { 0xCC, 0x78, 0x56, 0x34, 0x12 },
			   { 0xCC, 0x78, 0x56, 0x34, 0x12 }, { 0xCC, 0x78, 0x56, 0x34, 0x12 } },
	}, {
		.text = "and removed", .strategy = PATCH_STRATEGY_TRAP, ONE,
		.live = { 0xCC, 0x78, 0x56, 0x34, 0x12 }, .changes = true, .one_instruction = true,
		.after = { { 0xCC, 0x78, 0x56, 0x34, 0x12 }, { 0xCC, 0x78, 0x56, 0x34, 0x12 }, { IMM }, { IMM } },
	}, {
		.text = "a trap in the middle takes the place of a jump", .strategy = PATCH_STRATEGY_TRAP, THREE,
		.install = true, .hooked = 1, .live = { 0xE9, 0xCC, 0x11, 0xCC, 0x22 }, .changes = true,
		.after = { { 0xCC, 0xCC, 0x11, 0xCC, 0x22 }, { 0xCC, 0xCC, 0xF8, 0xCC, 0xF0 },
			   { PUSH, 0xCC, 0xF8, XOR }, { PUSH, 0xCC, 0xF8, XOR } },
	}, {
		/* The first byte of the jump waits for phase 4. */
		.text = "a punned jump is installed", .strategy = PATCH_STRATEGY_PUNNED_JUMP, PUNNED,
		.install = true, .live = { 0x48, MOV }, .changes = true, .one_instruction = true,
		.after = { { 0xCC, MOV }, { 0xCC, 0x11, 0x22 }, { 0xCC, 0x11, 0x22 }, { 0xE9, 0x11, 0x22 } },
	}, {
		.text = "and removed, once phase 0 has cut it", .strategy = PATCH_STRATEGY_PUNNED_JUMP, PUNNED,
		.live = { 0xCC, 0x11, 0x22 }, .changes = true, .one_instruction = true,
		.after = { { 0xCC, 0x11, 0x22 }, { 0xCC, MOV }, { 0x48, MOV }, { 0x48, MOV } },
	}, {
		/* The instruction consists of two, and must not be met before it is whole. */
		.text = "somebody put back the first byte", .strategy = PATCH_STRATEGY_JUMP, ONE,
		.live = { 0xB8, 0x11, 0x22, 0x33, 0x44 }, .changes = true, .one_instruction = true,
		.after = { { 0xCC, 0x11, 0x22, 0x33, 0x44 }, { 0xCC, 0x78, 0x56, 0x34, 0x12 }, { IMM }, { IMM } },
	}, {
		.text = "somebody put back whole instructions",
		.strategy = PATCH_STRATEGY_CONSTRAINED_JUMP, THREE,
		.live = { PUSH, MOV, 0xCC, 0x22 }, .changes = true,
		.after = { { PUSH, MOV, 0xCC, 0x22 }, { PUSH, MOV, 0xCC, 0xF0 },
			   { PUSH, MOV, XOR }, { PUSH, MOV, XOR } },
	}, {
		.text = "somebody put back everything",
		.strategy = PATCH_STRATEGY_CONSTRAINED_JUMP, THREE,
		.live = { PUSH, MOV, XOR }, .one_instruction = true,
		.after = { { PUSH, MOV, XOR }, { PUSH, MOV, XOR }, { PUSH, MOV, XOR }, { PUSH, MOV, XOR } },
	},
};

/* A region as the case has it: memory for that, and what it refers to. */
static struct {
	union {
		struct patch patch;
		uint8_t patch_memory[sizeof(struct patch) + sizeof(struct attachment)];
	};
	struct registry_entry entries[INSNS];
	uint8_t live[LENGTH];
	union {
		struct region region;
		uint8_t room[sizeof(struct region) + INSNS * sizeof(struct registry_entry *)];
	};
} made;
/* It has no hooks: there is no memory for any behind it. */
static struct trampoline trampoline;

static struct region *make(const struct phase_case *c)
{
	struct attachment *attachment = &made.patch.attachments[0];
	struct region *region = &made.region;

	memset(&made, 0, sizeof(made));
	memset(&trampoline, 0, sizeof(trampoline));
	memcpy(trampoline.jump, c->jump, ARCH_JMP_SIZE);
	memcpy(made.live, c->live, LENGTH);
	made.patch.type = c->plain ? MODEL_SYSCALL : PATCH_EXEC_MODEL_PROBE;
	*attachment = (struct attachment){ .patch = &made.patch, .region = region, .address = START + c->hooked };
	region->start = START;
	region->length = c->offsets[c->count];
	region->count = c->count;
	region->strategy = c->strategy;
	region->attachments = attachment;
	region->current = &trampoline;
	region->original = (uint8_t *)(uintptr_t)c->original;
	region->live = made.live;
	region->offsets = (uint8_t *)(uintptr_t)c->offsets;
	for (unsigned int i = 0; i < c->count; ++i) {
		made.entries[i].punned = c->punned >> i & 1;
		region->entries[i] = &made.entries[i];
	}
	return region;
}

Test(phase, every_phase)
{
	for (size_t i = 0; i < ARRAY_SIZE(cases); ++i) {
		const struct phase_case *c = &cases[i];
		struct region *region = make(c);
		uint8_t texts[4 * LENGTH], final[LENGTH];
		char name[128];

		memcpy(texts, c->live, region->length);
		cr_expect_eq(phase_texts(region, c->install, texts), c->changes, "%s: changes", c->text);
		cr_expect_eq(phase_changes_text(region, c->install), c->changes, "%s: changes text", c->text);
		cr_expect_eq(phase_is_one_instruction(region, c->install, c->live), c->one_instruction,
			     "%s: one instruction", c->text);
		for (unsigned int phase = 1; phase <= 3; ++phase) {
			snprintf(name, sizeof(name), "%s: phase %u", c->text, phase);
			bytes_expect(name, texts + phase * region->length, region->length, c->after[phase - 1],
				     region->length);
		}
		phase_final_bytes(region, c->install, final);
		snprintf(name, sizeof(name), "%s: the end", c->text);
		bytes_expect(name, final, region->length, c->after[3], region->length);
	}
}

/*
 * I1, I2 and I4 of all cases: between two phases, instructions that a thread can be led to do not change under it.
 * Bytes that change in phase 2 lie behind a trap byte on every way in.
 */
Test(phase, what_changes_is_behind_trap_bytes)
{
	for (size_t i = 0; i < ARRAY_SIZE(cases); ++i) {
		const struct phase_case *c = &cases[i];
		const struct region *region = make(c);

		for (unsigned int k = 0; k < c->count; ++k) {
			unsigned int at = c->offsets[k], end = c->offsets[k + 1];
			bool tail_changes = memcmp(c->after[0] + at + 1, c->after[1] + at + 1, end - at - 1) != 0;

			cr_expect_eq(memcmp(c->live + at + 1, c->after[0] + at + 1, end - at - 1), 0,
				     "%s: phase 1 changes first bytes only", c->text);
			cr_expect(!tail_changes ||
					  (arch_trap_class(c->after[0][at]) != ARCH_TRAP_NONE &&
						    c->after[1][at] == c->after[0][at]),
				  "%s: phase 2 changes bytes behind a trap byte only", c->text);
		}
		cr_expect(region->length <= LENGTH);
	}
}

Test(phase, phase_0_cuts_punned_jumps)
{
	static const struct phase_case c = { .strategy = PATCH_STRATEGY_PUNNED_JUMP, PUNNED, .punned = 1 };
	static const struct {
		uint8_t live[3], after[3];
	} texts[] = {
		{ { 0xE9, 0x11, 0x22 }, { 0xCC, 0x11, 0x22 } },
		/* Cut already, or taken away by somebody else. */
		{ { 0xCC, 0x11, 0x22 }, { 0xCC, 0x11, 0x22 } },
		{ { 0x48, MOV }, { 0x48, MOV } },
	};

	for (size_t i = 0; i < ARRAY_SIZE(texts); ++i) {
		uint8_t bytes[3];

		phase_0_bytes(make(&c), texts[i].live, bytes);
		bytes_expect("phase 0", bytes, sizeof(bytes), texts[i].after, sizeof(bytes));
	}
}

/* A jump that reads nothing behind its region stays. */
Test(phase, phase_0_leaves_other_jumps)
{
	static const struct phase_case c = { .strategy = PATCH_STRATEGY_JUMP, ONE };
	static const uint8_t live[] = { 0xE9, 0x11, 0x22, 0x33, 0x44 };
	uint8_t bytes[5];

	phase_0_bytes(make(&c), live, bytes);
	bytes_expect("phase 0", bytes, sizeof(bytes), live, sizeof(live));
}
