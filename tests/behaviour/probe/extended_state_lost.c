/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Extended state, with every clobber mask: none, each bit by itself, each named one; every model; at a function's entry
 * and in the middle. The procedure destroys all that the calling convention lets it destroy, or what the mask says by
 * name, and the program finds its state as it was. With PATCH_REGS_ALL the procedure sees xmm, ymm, zmm and k registers
 * in extended_states, and what it writes there takes effect on resume; with some components in the mask it sees those;
 * else it gets no image. x87 registers are in use in the middle of a function only.
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

static enum level { NONE, SSE, AVX, AVX512 } level;
/* What the image must hold. */
static enum level shown;
static bool shows_x87;
static bool in_the_middle;
static enum level highest;
static struct extended_state in, out;
static bool write_back;
static unsigned int hits;
static uint64_t problems;
static uint32_t procedure_mxcsr;

#define MIN(a, b) ((a) < (b) ? (a) : (b))
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

static const uint64_t components[] = { [SSE] = 2, [AVX] = 6, [AVX512] = 0xe6 };

static GP_ONLY void inner(struct patch_exec_context *context, uint8_t post)
{
	struct patch_x86_64_legacy *legacy = NULL;
	struct patch_x86_64_avx *avx = NULL;
	struct patch_x86_64_avx512_opmask *mask = NULL;
	struct patch_x86_64_avx512_zmm_hi256 *high = NULL;
	struct patch_x86_64_avx512_hi16_zmm *upper = NULL;
	const struct patch_x86_64_xsave_header *header;
	void *image = context->extended_states;
	uint64_t wanted;

	(void)post;
	hits++;
	if (!image) {
		PROBLEM(12, shown == NONE);
		return;
	}
	PROBLEM(12, shown != NONE);
	PROBLEM(0, patch_x86_sse_state(image, &legacy) == PATCH_OK && legacy);
	if (!legacy)
		return;
	for (unsigned int x = 0; x < 16; x++)
		PROBLEM(1, same(legacy->xmm0[x], in.zmm[x], 16));
	PROBLEM(2, legacy->mxcsr == in.mxcsr);
	if (shows_x87 && in_the_middle)
		PROBLEM(10, same(legacy->st0[0], in.st[0], 10) && same(legacy->st0[1], in.st[1], 10));
	header = (const struct patch_x86_64_xsave_header *)(legacy + 1);
	wanted = (shows_x87 ? 1 : 0) + components[shown];
	/* A window that has had many masks is served by a hook that offers more. */
	PROBLEM(11, (header->xstate_bv & wanted) == wanted && header->xcomp_bv == 0);
	if (shown >= AVX) {
		PROBLEM(3, patch_x86_avx_state(image, &avx) == PATCH_OK && avx);
		for (unsigned int x = 0; avx && level >= AVX && x < 16; x++)
			PROBLEM(4, same(avx->ymm0[x], in.zmm[x] + 16, 16));
	}
	if (shown >= AVX512) {
		PROBLEM(5, patch_x86_avx512_opmask_state(image, &mask) == PATCH_OK && mask);
		PROBLEM(6, patch_x86_avx512_zmm_hi256_state(image, &high) == PATCH_OK && high);
		PROBLEM(7, patch_x86_avx512_hi16_zmm_state(image, &upper) == PATCH_OK && upper);
		for (unsigned int x = 0; mask && level >= AVX512 && x < 8; x++)
			PROBLEM(8, mask->k0[x] == in.k[x]);
		for (unsigned int x = 0; high && level >= AVX512 && x < 16; x++)
			PROBLEM(9, same(high->zmm0[x], in.zmm[x] + 32, 32));
		for (unsigned int x = 0; upper && level >= AVX512 && x < 16; x++)
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

/* They destroy their components and nothing else. */
static GP_ONLY void wreck_sse(struct patch_exec_context *context, uint8_t post)
{
	static uint32_t mxcsr;

	inner(context, post);
	__asm__ volatile(".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n"
			 "pcmpeqd %%xmm\\n, %%xmm\\n\n"
			 ".endr\n"
			 "stmxcsr %0; orl $0x3f, %0; ldmxcsr %0"
			 : "+m"(mxcsr));
}

static GP_ONLY void wreck_avx(struct patch_exec_context *context, uint8_t post)
{
	wreck_sse(context, post);
	__asm__ volatile(".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n"
			 "vcmptrueps %ymm\\n, %ymm\\n, %ymm\\n\n"
			 ".endr");
}

static GP_ONLY void wreck_avx512(struct patch_exec_context *context, uint8_t post)
{
	wreck_sse(context, post);
	__asm__ volatile(".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n"
			 "vpternlogd $0xff, %zmm\\n, %zmm\\n, %zmm\\n\n"
			 ".endr\n"
			 ".irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31\n"
			 "vpternlogd $0xff, %zmm\\n, %zmm\\n, %zmm\\n\n"
			 ".endr\n"
			 ".irp n, 0, 1, 2, 3, 4, 5, 6, 7\n"
			 "kxnorq %k\\n, %k\\n, %k\\n\n"
			 ".endr");
}

/* Of the vector registers 0 to 15, those in `upper` are used above 128 bits. Mostly none is. */
static void fill_in(unsigned int seed, unsigned int upper)
{
	uint8_t *bytes = (uint8_t *)&in;

	for (size_t i = 0; i < offsetof(struct extended_state, mxcsr); i++)
		bytes[i] = (uint8_t)(rand_r(&seed) >> 8);
	for (int x = 0; x < 16; x++)
		if (!(upper >> x & 1))
			memset(in.zmm[x] + 16, 0, 48);
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
		if (shown >= AVX)
			memset(expected.zmm[5] + 16, 0xd5, 16);
		if (shown >= AVX512) {
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
	if (!in_the_middle)
		return;
	CHECK(!memcmp(out.st[0], expected.st[0], 10));
	CHECK(!memcmp(out.st[1], expected.st[1], 10));
}

static void try_site(target_function function, unsigned int offset, int model_type, int policy, uint64_t clobber)
{
	/* By what is shown. */
	static void (*const destroy[])(struct patch_exec_context *, uint8_t) = { destroy_general, destroy_sse,
										 destroy_avx, destroy_avx512 };
	static void (*const wreck[])(struct patch_exec_context *, uint8_t) = { destroy_general, wreck_sse, wreck_avx,
									       wreck_avx512 };
	struct patch_location location = location_at((uintptr_t)function + offset);
	struct patch_exec_model model = model_of(model_type, NULL, NULL);
	patch_attr attr = attr_of(policy, PATCH_ENABLED);
	uint64_t extended = clobber & ~PATCH_REGS_GP_ONLY;
	bool keeps_all = extended == 0 && !(clobber & PATCH_REGS_NO_STATE);
	patch_t patch;

	CONTEXT("level %d, %s, model %d, +%u, clobber %#llx", (int)level, policy_name(policy), model_type, offset,
		(unsigned long long)clobber);
	in_the_middle = offset != 0;
	shows_x87 = (extended & ~PATCH_REGS_VECTOR) != 0;
	shown = shows_x87 ? highest : extended == 0 ? NONE : extended == PATCH_REGS_SSE ? SSE : highest;
	/* It does not destroy what the processor has, and the program does not use here. */
	model.probe.procedure = (shows_x87 || keeps_all ? destroy : wreck)[keeps_all ? level : MIN(shown, level)];
	model.probe.read_registers = 0;
	model.probe.clobber_registers = clobber;
	destroy_inner = shows_x87 ? inner_mxcsr : inner;
	REQUIRE_OK(patch_make(&location, &model, &attr, &patch, NULL));
	CHECK_OK(patch_commit());
	for (unsigned int seed = 1; seed < 36; seed++) {
		/* All, none, or a single one. */
		unsigned int upper = seed < 3 ? 0xffff : seed < 5 ? 0 : 1U << (seed - 5) / 2;

		/* What is written goes above 128 bits, too. */
		write_back = shown != NONE && model_type == PATCH_EXEC_MODEL_PROBE && seed < 5 && seed % 2;
		fill_in(seed, upper);
		hits = 0;
		problems = 0;
		run(function);
		CHECK_EQ(hits, model_type == PATCH_EXEC_MODEL_PROBE ? 1 : 2);
		if (shows_x87)
			CHECK_EQ(procedure_mxcsr, in.mxcsr);
		CHECK_EQ(problems, 0);
		compare(write_back);
	}
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
}

static void try_mask(int policy, uint64_t clobber)
{
	for (int model = PATCH_EXEC_MODEL_PROBE; model <= PATCH_EXEC_MODEL_PROBE_AROUND; model++) {
		try_site(t_nops, 0, model, policy, clobber);
		try_site(t_nops, 2, model, policy, clobber);
		try_site(t_long_nop, 0, model, policy, clobber);
	}
}

int main(void)
{
	static const uint64_t clobbers[] = {
		0, PATCH_REGS_ALL, PATCH_REGS_NO_STATE, PATCH_REGS_GP_ONLY, ((uint64_t)1 << PATCH_ARCH_GREGS_COUNT) - 1,
		PATCH_REGS_SSE, PATCH_REGS_AVX, PATCH_REGS_VECTOR, PATCH_REGS_SSE | PATCH_REGS_GP_ONLY,
		PATCH_REGS_SSE | PATCH_REGS_STATE(9)
	};

	highest = __builtin_cpu_supports("avx512bw") ? AVX512 : __builtin_cpu_supports("avx") ? AVX : SSE;
	harness_start();
	REQUIRE_OK(patch_init(NULL, 0));
	for (int l = SSE; l <= (int)highest; l++) {
		level = (enum level)l;
		shown = level;
		in_the_middle = true;
		fill_in(42, 0xffff);
		run(t_nops);
		CONTEXT("level %d, not patched", l);
		compare(false);
		for (int policy = PATCH_TRAP_POLICY_ALLOW; policy <= PATCH_TRAP_POLICY_FORCE; policy++) {
			for (size_t i = 0; i < sizeof(clobbers) / sizeof(clobbers[0]); i++)
				try_mask(policy, clobbers[i]);
			for (int bit = 0; bit < 64 && policy == PATCH_TRAP_POLICY_ALLOW; bit++)
				try_mask(policy, (uint64_t)1 << bit);
		}
	}
	CHECK_OK(patch_fini());
	return harness_end();
}
