/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the functions of targets.S have to return, their instructions and their bytes. Nothing here changes a target.
 */
#include "targets.h"

#include <Zydis/Zydis.h>

#define DATA0 0x1122334455667788u
#define DATA1 0x99aabbccddeeff00u

#define LOW(x) ((uint32_t)(x))
#define COUNT(x) ((uint8_t)(x))

static unsigned int model_add(uint64_t *to, uint64_t value, unsigned int carry)
{
	unsigned __int128 sum = (unsigned __int128)*to + value + carry;

	*to = (uint64_t)sum;
	return (unsigned int)(sum >> 64);
}

static uint64_t model_helper_add(uint64_t a, uint64_t b)
{
	return 3 * a + b;
}

/* CF, PF, AF, ZF, SF, OF of an addition, subtraction being addition of the complement with the borrow inverted */
static uint64_t model_add_flags(uint64_t a, uint64_t b)
{
	uint64_t sum = a + b;

	return (sum < a ? 1u : 0u) | (__builtin_parity((unsigned int)(sum & 0xff)) ? 0u : 4u) |
	       ((a ^ b ^ sum) & 0x10) | (sum == 0 ? 0x40u : 0u) | (sum >> 63 ? 0x80u : 0u) |
	       (((a ^ sum) & (b ^ sum)) >> 63 ? 0x800u : 0u);
}

static uint64_t model_lahf(uint64_t a, uint64_t b)
{
	uint8_t x = (uint8_t)a, y = (uint8_t)b, difference = (uint8_t)(x - y);
	uint64_t flags = 2;

	flags |= x < y ? 1u : 0u;
	flags |= __builtin_parity(difference) ? 0u : 4u;
	flags |= (uint64_t)((x ^ y ^ difference) & 0x10);
	flags |= difference == 0 ? 0x40u : 0u;
	flags |= difference & 0x80;
	return flags << 8 | (((x ^ y) & (x ^ difference)) & 0x80 ? 1u : 0u);
}

static uint64_t model_setcc(uint64_t a, uint64_t b)
{
	uint32_t x = LOW(a), y = LOW(b), difference = x - y;

	return ((int32_t)x > (int32_t)y ? 1u : 0u) + (((x ^ y) & (x ^ difference)) >> 31 ? 2u : 0u) +
	       (x < y ? 4u : 0u) + (__builtin_parity(difference & 0xff) ? 0u : 8u);
}

static uint64_t model_adc_chain(uint64_t a, uint64_t b)
{
	unsigned int carry = model_add(&a, b, 0);

	carry = model_add(&b, 0, carry);
	carry = model_add(&b, a, carry);
	carry = model_add(&a, b, carry);
	return a - carry;
}

static uint64_t model_adc_loop(uint64_t a, uint64_t b)
{
	unsigned int carry = 0;
	uint64_t sum = 0;
	uint8_t n = COUNT(a);

	do
		carry = model_add(&sum, b, carry);
	while (--n);
	return sum + carry;
}

static uint64_t model_carry_insns(uint64_t a, uint64_t b)
{
	unsigned int carry = !(a >> 63);

	return (a << 1 | 1) + ((uint64_t)carry << 63 | b >> 1);
}

static uint64_t model_loopne(uint64_t a, uint64_t b)
{
	uint64_t rax = b, rcx = COUNT(a);

	do
		rax = LOW(rax + 1);
	while (--rcx && (rax & 15));
	return rax + (rcx << 8);
}

static uint64_t model_recurse(uint64_t a, uint64_t b)
{
	uint64_t sum = b;

	for (unsigned int k = 1; k <= COUNT(a); k++)
		sum += (a & ~(uint64_t)0xff) | k;
	return sum;
}

static uint64_t model_scasb(uint64_t a, uint64_t b)
{
	for (unsigned int i = 0; i < 8; i++)
		if ((uint8_t)(a >> 8 * i) == (uint8_t)b)
			return 7 - i;
	return 0;
}

static uint64_t model_cmov(uint64_t a, uint64_t b)
{
	uint64_t rax = (int64_t)a < (int64_t)b ? b : a;

	return (a - b) >> 63 ? a : rax;
}

static uint64_t model_muldiv(uint64_t a, uint64_t b)
{
	unsigned __int128 product = (unsigned __int128)a * b;

	return __builtin_bswap64((uint64_t)product / 1000 + (uint64_t)(product >> 64));
}

static uint64_t model_rip_sse(uint64_t a, uint64_t b)
{
	(void)b;
	return (((DATA0 + DATA1) & 0xffffffffffffu) | (DATA0 & 0xffff) << 48) + a;
}

#define T(name, flags, value) \
	static uint64_t model_##name(uint64_t a, uint64_t b) \
	{ \
		return (uint64_t)(value); \
	}
TARGETS(T)
#undef T

#define T(name, flags, value) { #name, name, name##_end, model_##name, flags },
const struct target targets[TARGET_COUNT] = { TARGETS(T) };
#undef T

const uint64_t target_inputs[TARGET_INPUTS][2] = {
	{ 1, 0 },
	{ 5, 7 },
	{ 0x123456789abcde03, 0xfedcba987654320f },
	{ 0xffffffffffffff11, 1 },
	{ 0x8000000000000008, 0x7fffffffffffff12 },
	{ 0x00000000ffffff02, 0xffffffff00000004 },
};

bool target_runs_here(const struct target *target)
{
	if (target->flags & TARGET_AVX2 && !__builtin_cpu_supports("avx2"))
		return false;
	if (target->flags & TARGET_AVX512 && !__builtin_cpu_supports("avx512bw"))
		return false;
	return true;
}

uintptr_t target_start(const struct target *target)
{
	return (uintptr_t)target->function;
}

size_t target_size(const struct target *target)
{
	return (size_t)((uintptr_t)target->end - target_start(target));
}

const struct target *target_named(const char *name)
{
	for (size_t i = 0; i < TARGET_COUNT; i++)
		if (!strcmp(targets[i].name, name))
			return &targets[i];
	harness_say("no target %s\n", name);
	abort();
}

struct instructions code_decode(uintptr_t at, uintptr_t end)
{
	/* By their addresses: a call would have older linkers give the program these names (elf/dependency.c). */
	__typeof__(ZydisDecoderInit) *volatile init = ZydisDecoderInit;
	__typeof__(ZydisDecoderDecodeInstruction) *volatile decode = ZydisDecoderDecodeInstruction;
	struct instructions list;
	ZydisDecoder decoder;

	memset(&list, 0, sizeof(list));
	init(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	while (at < end) {
		ZydisDecodedInstruction instruction;

		if (!ZYAN_SUCCESS(decode(&decoder, NULL, (const void *)at, end - at, &instruction))) {
			harness_say("%#zx does not decode\n", (size_t)at);
			abort();
		}
		if (*(const uint8_t *)at != 0xcc) {
			if (list.count == TARGET_MAX_INSTRUCTIONS)
				abort();
			list.address[list.count] = at;
			list.length[list.count++] = instruction.length;
		}
		at += instruction.length;
	}
	return list;
}

struct instructions target_decode(const struct target *target)
{
	return code_decode(target_start(target), (uintptr_t)target->end);
}

bool target_has_endbr(uintptr_t at)
{
	static const uint8_t endbr64[] = { 0xf3, 0x0f, 0x1e, 0xfa };

	return !memcmp((const void *)at, endbr64, sizeof(endbr64));
}

bool target_is_call(uintptr_t at)
{
	const uint8_t *code = (const uint8_t *)at;

	while (*code == 0x66 || *code == 0x3e || (*code & 0xf0) == 0x40)
		code++;
	return *code == 0xe8 || (*code == 0xff && (code[1] >> 3 & 7) == 2);
}

struct text_copy text_save(uintptr_t start, size_t size)
{
	struct text_copy copy;

	REQUIRE(size <= sizeof(copy.bytes));
	copy.start = start;
	copy.size = size;
	memcpy(copy.bytes, (const void *)start, size);
	return copy;
}

bool text_is_same(const struct text_copy *copy)
{
	return !memcmp((const void *)copy->start, copy->bytes, copy->size);
}

struct text_copy text_of_target(const struct target *target)
{
	return text_save(target_start(target) - 16, target_size(target) + 32);
}

void text_check_same(const struct text_copy *copy, const char *file, int line)
{
	const uint8_t *now = (const uint8_t *)copy->start;

	if (text_is_same(copy))
		return;
	for (size_t i = 0; i < copy->size; i++)
		if (now[i] != copy->bytes[i]) {
			harness_fail(file, line, "byte at %#zx is %02x, was %02x", (size_t)&now[i], now[i],
				     copy->bytes[i]);
			return;
		}
}
