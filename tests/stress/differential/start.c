/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* States to start from: random, but so that operands are where memory is, most of the time. */
#include "differential.h"

struct state start;
uint8_t start_memory[DATA_SIZE] __attribute__((aligned(64)));

static void random_fill(void *memory, size_t size, uint64_t *seed)
{
	uint64_t *words = memory;
	size_t i;

	for (i = 0; i < size / sizeof(*words); i++)
		words[i] = random_next(seed);
}

static uint64_t random_exit(const struct subject *subject, uint64_t random)
{
	return machine_exit(subject, 1 + random % (EXITS - 1));
}

static uint64_t random_pointer(const struct subject *subject, uint64_t random)
{
	const bool aligned = subject->flags & P_ALIGNED || random >> 32 & 15;

	return subject->data + 256 + random % 3072 / (aligned ? 64 : 1) * (aligned ? 64 : 1);
}

/* What a single instruction finds in memory is data or code; what a window finds, it may use as either. */
static void fill_memory(const struct subject *subject, uint64_t *seed)
{
	uint64_t word;
	size_t i;

	random_fill(start_memory, sizeof(start_memory), seed);
	for (i = 0; subject->flags & P_MXCSR && i < DATA_SIZE; i += 4)
		start_memory[i + 2] = start_memory[i + 3] = 0;
	if (!(subject->flags & P_POINTERS) && subject->count == 1)
		return;
	for (i = 0; i < DATA_SIZE; i += sizeof(word)) {
		word = random_next(seed);
		if (subject->count > 1 && (word & 3) == 0)
			word = random_pointer(subject, word >> 2);
		else if (subject->flags & P_POINTERS && (subject->count == 1 || (word & 3) != 1))
			word = random_exit(subject, word >> 2);
		memcpy(start_memory + i, &word, sizeof(word));
	}
}

void start_burst(const struct subject *subject, uint64_t *seed)
{
	uint64_t word;
	uint32_t field;
	size_t i;

	fill_memory(subject, seed);
	random_fill(start.xsave, sizeof(start.xsave), seed);
	for (i = 160; subject->flags & P_VSIB && i < sizeof(start.xsave); i += sizeof(word)) {
		word = random_next(seed) % 32;
		memcpy(start.xsave + i, &word, sizeof(word));
	}
	/* control and status of a valid image (Intel SDM vol. 1, 13.4): exceptions unmasked in one of 16 */
	word = random_next(seed);
	start.xsave[0] = (uint8_t)(word % 16 ? 0x7F : 0x40 | (word >> 8 & 0x3F));
	start.xsave[1] = word >> 16 & 0x0F;
	start.xsave[5] = 0;
	field = (uint32_t)(word >> 32 & 0xE07F) | (uint32_t)((word >> 20) % 16 ? 0x1F80 : word >> 8 & 0x1F80);
	memcpy(start.xsave + 24, &field, sizeof(field));
	memset(start.xsave + 512, 0, 64);
	memcpy(start.xsave + 512, &machine_components, 8);
}

/* ---- registers --------------------------------------------------------------------------------------------------- */

static void random_registers(const struct subject *subject, uint64_t *seed)
{
	static const uint64_t special[] = { 0, 1, ~0UL, 1UL << 63, ~0UL >> 1, 0x80000000, 0x7FFFFFFF, 1UL << 32 };
	uint64_t word;
	size_t i;

	for (i = 0; i < REGISTERS; i++) {
		word = random_next(seed);
		if (subject->count > 1 && word & 0x600)
			word = random_pointer(subject, word >> 16);
		else if (subject->flags & P_POINTERS && word & 0x100)
			word = random_exit(subject, word >> 16);
		else if ((word & 7) == 0)
			word = special[word >> 3 & 7];
		else if ((word & 7) < 3)
			word = (uint64_t)((int64_t)word >> 58);
		start.gpr[i] = word;
	}
}

static uint64_t random_stack(const struct subject *subject, unsigned int entry, uint64_t word)
{
	int64_t farthest = 0;
	unsigned int i, j;

	if ((word >> 53 & 127) == 0)
		return subject->data + (word >> 61 & 1 ? DATA_SIZE - 8 : 0);
	for (i = entry; subject->count > 1 && i < subject->count; i++)
		for (j = 0; j < subject->steps[i].operand_count; j++)
			if (subject->steps[i].operands[j].base == RSP)
				farthest = MAX(farthest, subject->steps[i].operands[j].disp);
	return subject->data + (farthest < 1000 ? 2560 : 1024) + (word >> 32) % 64 * 8 +
	       (word >> 48 & 31 ? 0 : word >> 56 & 7);
}

/* Registers that have their value already, of an instruction of the window further ahead. */
static bool is_set(uint32_t set, uint8_t reg)
{
	return reg != NONE && set >> reg & 1;
}

static void set_register(uint32_t *set, uint8_t reg, uint64_t value)
{
	if (!is_set(*set, reg))
		start.gpr[reg] = value;
	*set |= 1U << reg;
}

/* Registers that make the operand's address `target`, as far as they are free. */
static void steer(const struct operand *operand, uint64_t target, uint32_t *set)
{
	const uint8_t base = operand->base, index = operand->index;
	uint64_t *gpr = start.gpr;

	target -= (uint64_t)operand->disp;
	if (base == NONE) {
		if (index != NONE && operand->scale != 0)
			set_register(set, index, target / operand->scale);
		return;
	}
	if (is_set(*set, base)) {
		if (index != NONE && index != base)
			set_register(set, index, gpr[index] % 8);
		return;
	}
	if (base == index) {
		set_register(set, base, target / (operand->scale + 1U));
		return;
	}
	if (index != NONE && base == RSP)
		set_register(set, index, gpr[index] % 8);
	set_register(set, base, target - (index == NONE ? 0 : gpr[index] * operand->scale));
	if (index != NONE)
		*set |= 1U << index;
}

static void suit(const struct subject *subject, const struct step *step, uint32_t *set, uint64_t *seed)
{
	uint64_t word, at;
	size_t i;

	for (i = 0; i < step->operand_count; i++) {
		word = random_next(seed);
		at = 512 + (word & 1023);
		if (subject->flags & (P_ALIGNED | P_POINTERS) || word >> 16 & 3)
			at &= ~63UL;
		if ((word >> 20 & 63) == 0)
			at = word >> 26 & 1 ? DATA_SIZE + 64 :
			     subject->flags & P_ALIGNED ? DATA_SIZE - 64 : DATA_SIZE - 64 + (word >> 27 & 63);
		if (step->operands[i].segment)
			at -= SEGMENT_BASE;
		steer(&step->operands[i], subject->data + at, set);
	}
	word = random_next(seed);
	if (step->insn.kind == ARCH_LOOP && word & 7)
		set_register(set, RCX, (word >> 8 & 3) | (word >> 10 & 1) << 32);
	if (step->flags & P_STRING)
		set_register(set, RCX, word & 31);
	if (step->bit != NONE)
		set_register(set, step->bit, (uint64_t)((int64_t)word >> 55));
	if (step->flags & P_DIVIDE && word >> 8 & 7)
		set_register(set, RDX, word >> 16 & 3);
	if (step->flags & P_FRAME)
		set_register(set, RBP, subject->data + 2048 + (word >> 32 & 0xF8));
}

void start_registers(const struct subject *subject, unsigned int entry, uint64_t *seed)
{
	/* a window keeps its stack; an operand alone may be anywhere */
	uint32_t set = subject->count > 1 ? 1U << RSP : 0;
	uint64_t word;
	unsigned int i;

	random_registers(subject, seed);
	word = random_next(seed);
	start.flags = 0x202 | (word & 0xCD5) | (word >> 20 & 0x3F ? 0 : 0x40000);
	start.gpr[RSP] = random_stack(subject, entry, word);
	for (i = entry; i < subject->count; i++)
		suit(subject, &subject->steps[i], &set, seed);
}
