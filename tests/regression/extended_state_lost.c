/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Extended state. With PATCH_REGS_ALL the procedure sees xmm, ymm, zmm and k registers in extended_states, what it
 * writes there takes effect on resume, and all else survives although it destroys every such register. Without, it
 * gets no image and nothing changes.
 */
#include "targets.h"

struct extended_state {
	uint8_t zmm[32][64];
	uint64_t k[8];
	uint32_t mxcsr;
	uint32_t pad[3];
	uint8_t st[2][16];
};

extern void extended_call_sse(const struct extended_state *, struct extended_state *, target_function);
extern void extended_call_avx(const struct extended_state *, struct extended_state *, target_function);
extern void extended_call_avx512(const struct extended_state *, struct extended_state *, target_function);

static enum level { SSE, AVX, AVX512 } level;
static struct extended_state in, out;
static bool write_back;
static unsigned int hits;
static uint64_t problems;
static uint32_t procedure_mxcsr;

#define PROBLEM(bit, condition) \
	do { \
		if (!(condition)) \
			problems |= (uint64_t)1 << (bit); \
	} while (0)

static GP_ONLY bool same(const uint8_t *a, const uint8_t *b, unsigned int size)
{
	for (unsigned int i = 0; i < size; i++)
		if (a[i] != b[i])
			return false;
	return true;
}

static GP_ONLY void fill(uint8_t *to, uint8_t value, unsigned int size)
{
	for (unsigned int i = 0; i < size; i++)
		((volatile uint8_t *)to)[i] = value;
}

static GP_ONLY void inner(struct patch_exec_context *context, uint8_t post)
{
	struct patch_x86_64_legacy *legacy = NULL;
	struct patch_x86_64_avx *avx = NULL;
	struct patch_x86_64_avx512_opmask *mask = NULL;
	struct patch_x86_64_avx512_zmm_hi256 *high = NULL;
	struct patch_x86_64_avx512_hi16_zmm *upper = NULL;
	void *image = context->extended_states;

	(void)post;
	hits++;
	if (!image)
		return;
	PROBLEM(0, patch_x86_sse_state(image, &legacy) == PATCH_OK && legacy);
	if (!legacy)
		return;
	for (unsigned int x = 0; x < 16; x++)
		PROBLEM(1, same(legacy->xmm0[x], in.zmm[x], 16));
	PROBLEM(2, legacy->mxcsr == in.mxcsr);
	PROBLEM(10, same(legacy->st0[0], in.st[0], 10) && same(legacy->st0[1], in.st[1], 10));
	if (level >= AVX) {
		PROBLEM(3, patch_x86_avx_state(image, &avx) == PATCH_OK && avx);
		for (unsigned int x = 0; avx && x < 16; x++)
			PROBLEM(4, same(avx->ymm0[x], in.zmm[x] + 16, 16));
	}
	if (level >= AVX512) {
		PROBLEM(5, patch_x86_avx512_opmask_state(image, &mask) == PATCH_OK && mask);
		PROBLEM(6, patch_x86_avx512_zmm_hi256_state(image, &high) == PATCH_OK && high);
		PROBLEM(7, patch_x86_avx512_hi16_zmm_state(image, &upper) == PATCH_OK && upper);
		for (unsigned int x = 0; mask && x < 8; x++)
			PROBLEM(8, mask->k0[x] == in.k[x]);
		for (unsigned int x = 0; high && x < 16; x++)
			PROBLEM(9, same(high->zmm0[x], in.zmm[x] + 32, 32));
		for (unsigned int x = 0; upper && x < 16; x++)
			PROBLEM(9, same(upper->zmm16[x], in.zmm[16 + x], 64));
	}
	if (!write_back)
		return;
	fill(legacy->xmm0[3], 0xd3, 16);
	if (avx)
		fill(avx->ymm0[5], 0xd5, 16);
	if (mask)
		mask->k0[3] = 0x1234;
	if (high)
		fill(high->zmm0[7], 0xd7, 32);
	if (upper)
		fill(upper->zmm16[9], 0xd9, 64);
}

/* Reads MXCSR as the procedure finds it; not GP_ONLY, called with PATCH_REGS_ALL only. */
static void inner_mxcsr(struct patch_exec_context *context, uint8_t post)
{
	__asm__ volatile("stmxcsr %0" : "=m"(procedure_mxcsr));
	inner(context, post);
}

static void fill_in(unsigned int seed)
{
	uint8_t *bytes = (uint8_t *)&in;

	for (size_t i = 0; i < offsetof(struct extended_state, mxcsr); i++)
		bytes[i] = (uint8_t)(rand_r(&seed) >> 8);
	in.mxcsr = 0x1f80 | (seed & 1 ? 0x6000 : 0x2000); /* rounding towards zero, or down */
	for (int s = 0; s < 2; s++) {
		long double value = 1.5L * seed + s;

		memset(in.st[s], 0, 16);
		memcpy(in.st[s], &value, 10);
	}
}

static void run(target_function function)
{
	memset(&out, 0, sizeof(out));
	if (level == AVX512)
		extended_call_avx512(&in, &out, function);
	else if (level == AVX)
		extended_call_avx(&in, &out, function);
	else
		extended_call_sse(&in, &out, function);
}

static void compare(bool written)
{
	struct extended_state expected = in;
	size_t width = level == AVX512 ? 64 : level == AVX ? 32 : 16;

	if (written) {
		memset(expected.zmm[3], 0xd3, 16);
		if (level >= AVX)
			memset(expected.zmm[5] + 16, 0xd5, 16);
		if (level >= AVX512) {
			expected.k[3] = 0x1234;
			memset(expected.zmm[7] + 32, 0xd7, 32);
			memset(expected.zmm[25], 0xd9, 64);
		}
	}
	for (int x = 0; x < (level == AVX512 ? 32 : 16); x++)
		if (memcmp(out.zmm[x], expected.zmm[x], width))
			FAIL("vector register %d is wrong behind the site (%zu bytes compared)", x, width);
	for (int k = 0; level == AVX512 && k < 8; k++)
		CHECK_EQ(out.k[k], expected.k[k]);
	CHECK_EQ(out.mxcsr, expected.mxcsr);
	CHECK(!memcmp(out.st[0], expected.st[0], 10));
	CHECK(!memcmp(out.st[1], expected.st[1], 10));
}

static void try_site(target_function function, int policy, uint64_t clobber)
{
	struct patch_location location = location_at((uintptr_t)function);
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE, destroy_general, NULL);
	patch_attr attr = attr_of(policy, PATCH_ENABLED);
	bool all = clobber == PATCH_REGS_ALL;
	patch_t patch;

	CONTEXT("level %d, %s, clobber %#llx", (int)level, policy_name(policy), (unsigned long long)clobber);
	model.probe.clobber_registers = clobber;
	model.probe.write_registers = all ? PATCH_REGS_ALL : 0;
	if (all)
		model.probe.procedure = level == AVX512 ? destroy_avx512 : level == AVX ? destroy_avx : destroy_sse;
	destroy_inner = all ? inner_mxcsr : inner;
	REQUIRE_OK(patch_make(&location, &model, &attr, &patch, NULL));
	CHECK_OK(patch_commit());
	for (unsigned int seed = 1; seed < 9; seed++) {
		write_back = all && seed % 2;
		fill_in(seed);
		hits = 0;
		problems = 0;
		run(function);
		CHECK_EQ(hits, 1);
		if (all)
			CHECK_EQ(procedure_mxcsr, in.mxcsr);
		CHECK_EQ(problems, 0);
		compare(write_back);
	}
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
}

int main(void)
{
	enum level highest = __builtin_cpu_supports("avx512bw") ? AVX512 : __builtin_cpu_supports("avx") ? AVX : SSE;

	harness_start();
	REQUIRE_OK(patch_init(NULL, 0));
	for (int l = SSE; l <= (int)highest; l++) {
		level = (enum level)l;
		fill_in(42);
		run(t_nops);
		CONTEXT("level %d, not patched", l);
		compare(false);
		for (int policy = PATCH_TRAP_POLICY_ALLOW; policy <= PATCH_TRAP_POLICY_FORCE; policy++) {
			try_site(t_nops, policy, PATCH_REGS_ALL);
			try_site(t_long_nop, policy, PATCH_REGS_ALL);
			try_site(t_nops, policy, PATCH_REGS_GP_ONLY);
			try_site(t_long_nop, policy, PATCH_REGS_GP_ONLY);
		}
	}
	CHECK_OK(patch_fini());
	return harness_end();
}
