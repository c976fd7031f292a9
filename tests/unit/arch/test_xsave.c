/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * State components found in images made by XSAVE, by XSAVEC and by the kernel.
 */
#include "arch/cpu.h"

#include <cpuid.h>
#include <criterion/criterion.h>
#include <libpatch/patch.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

static bool has_component(int component)
{
	return (arch_xsave_mask() >> component & 1) != 0;
}

/* Distinct contents of every register. */
struct pattern {
	uint8_t zmm[32][64];
	uint64_t k[8];
} __attribute__((aligned(64)));

static void fill_pattern(struct pattern *pattern)
{
	for (size_t i = 0; i < sizeof(*pattern); i++)
		((uint8_t *)pattern)[i] = (uint8_t)(i * 7 + i / 64 + 1);
}

/*
 * Load every register the name says from the pattern, then: nothing but an image by XSAVE or XSAVEC of the components
 * `mask`, or (image NULL) an int3 whose signal frame is the image. These registers are all the caller's to save.
 */
void load_and_save_sse(const struct pattern *pattern, void *image, uint64_t mask, int compacted);
void load_and_save_avx(const struct pattern *pattern, void *image, uint64_t mask, int compacted);
void load_and_save_avx512(const struct pattern *pattern, void *image, uint64_t mask, int compacted);

#define SAVE                                                                                                           \
	"\tmovl %edx, %eax\n"                                                                                          \
	"\tshrq $32, %rdx\n"                                                                                           \
	"\ttestq %rsi, %rsi\n"                                                                                         \
	"\tjz 2f\n"                                                                                                    \
	"\ttestl %ecx, %ecx\n"                                                                                         \
	"\tjnz 1f\n"                                                                                                   \
	"\txsave64 (%rsi)\n"                                                                                           \
	"\tjmp 3f\n"                                                                                                   \
	"1:\txsavec64 (%rsi)\n"                                                                                        \
	"\tjmp 3f\n"                                                                                                   \
	"2:\tint3\n"
__asm__(".text\n"
	"load_and_save_sse:\n"
	"	.irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
	"	movups 64*\\n(%rdi), %xmm\\n\n"
	"	.endr\n" SAVE "3:	ret\n"
	"load_and_save_avx:\n"
	"	.irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n"
	"	vmovups 64*\\n(%rdi), %ymm\\n\n"
	"	.endr\n" SAVE "3:	vzeroupper\n"
	"	ret\n"
	"load_and_save_avx512:\n"
	"	.irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n"
	"	vmovdqu64 64*\\n(%rdi), %zmm\\n\n"
	"	.endr\n"
	"	.irp n,0,1,2,3,4,5,6,7\n"
	"	kmovq 2048+8*\\n(%rdi), %k\\n\n"
	"	.endr\n" SAVE "3:	vzeroupper\n"
	"	ret\n");

static void load_and_save(const struct pattern *pattern, void *image, uint64_t mask, bool compacted)
{
	if (has_component(PATCH_X86_64_AVX512_HI16_ZMM_STATE) && __builtin_cpu_supports("avx512bw"))
		load_and_save_avx512(pattern, image, mask, compacted);
	else if (has_component(PATCH_X86_64_AVX_STATE))
		load_and_save_avx(pattern, image, mask, compacted);
	else
		load_and_save_sse(pattern, image, mask, compacted);
}

static bool has_xsavec(void)
{
	uint32_t eax, ebx, ecx, edx;

	__cpuid_count(0xd, 1, eax, ebx, ecx, edx);
	return (eax & 2) != 0;
}

/* Every component of `held` is found with the pattern in it, every other one is missing. */
static void check_image(void *image, const struct pattern *pattern, uint64_t held)
{
	struct patch_x86_64_legacy *legacy;
	struct patch_x86_64_avx *avx;
	struct patch_x86_64_avx512_opmask *opmask;
	struct patch_x86_64_avx512_zmm_hi256 *hi256;
	struct patch_x86_64_avx512_hi16_zmm *hi16;

	for (int component = 0; component < 8; component++) {
		void *out = &legacy;
		patch_status status = patch_x86_64_state_component(image, component, &out, NULL);
		patch_status expected = PATCH_OK;

		if ((held >> component & 1) == 0)
			expected = PATCH_ENEXIST;
		if ((arch_xsave_mask() >> component & 1) == 0)
			expected = PATCH_ENOTSUP;
		if (component == 3 || component == 4) /* MPX: nobody asked for it */
			continue;
		cr_assert_eq(status, expected, "component %d: %d", component, status);
		if (status != PATCH_OK)
			cr_assert_eq(out, &legacy);
	}
	if (patch_x86_sse_state(image, &legacy) == PATCH_OK) {
		cr_assert_eq(legacy, image);
		for (int i = 0; i < 16; i++)
			cr_assert_arr_eq(legacy->xmm0[i], pattern->zmm[i], 16);
	}
	if (patch_x86_avx_state(image, &avx) == PATCH_OK) {
		for (int i = 0; i < 16; i++)
			cr_assert_arr_eq(avx->ymm0[i], pattern->zmm[i] + 16, 16);
	}
	if (patch_x86_avx512_opmask_state(image, &opmask) == PATCH_OK)
		cr_assert_arr_eq(opmask->k0, pattern->k, 64);
	if (patch_x86_avx512_zmm_hi256_state(image, &hi256) == PATCH_OK) {
		for (int i = 0; i < 16; i++)
			cr_assert_arr_eq(hi256->zmm0[i], pattern->zmm[i] + 32, 32);
	}
	if (patch_x86_avx512_hi16_zmm_state(image, &hi16) == PATCH_OK) {
		for (int i = 0; i < 16; i++)
			cr_assert_arr_eq(hi16->zmm16[i], pattern->zmm[16 + i], 64);
	}
}

#define REQUIRE_XSAVE()                                                                                                \
	do {                                                                                                           \
		if (arch_xsave_mask() == 0)                                                                            \
			cr_skip_test("no XSAVE");                                                                      \
	} while (0)

Test(xsave, mask_and_size_agree_with_the_processor)
{
	uint32_t eax, ebx, ecx, edx;
	size_t expected = 576;

	REQUIRE_XSAVE();
	cr_assert_eq(arch_xsave_mask() & ~UINT64_C(0xe7), 0);
	cr_assert_eq(arch_xsave_mask() & 3, 3);
	for (uint32_t i = 2; i < 8; i++) {
		__cpuid_count(0xd, i, eax, ebx, ecx, edx);
		if (has_component(i) && ebx + eax > expected)
			expected = ebx + eax;
	}
	cr_assert_eq(arch_xsave_size(), expected);
	__cpuid_count(0xd, 0, eax, ebx, ecx, edx);
	cr_assert(arch_xsave_size() <= ebx);
}

Test(xsave, standard_image_fits_and_holds_everything)
{
	struct pattern pattern;
	uint8_t *pages = mmap(NULL, 3 * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	REQUIRE_XSAVE();
	cr_assert_neq(pages, MAP_FAILED);
	cr_assert_eq(mprotect(pages + 2 * PAGE_SIZE, PAGE_SIZE, PROT_NONE), 0);
	uint8_t *image = pages + 2 * PAGE_SIZE - ALIGN_UP(arch_xsave_size(), (size_t)64);

	fill_pattern(&pattern);
	load_and_save(&pattern, image, arch_xsave_mask(), false);
	check_image(image, &pattern, arch_xsave_mask());
}

Test(xsave, compacted_images)
{
	static uint8_t image[4096] __attribute__((aligned(64)));
	static const uint64_t masks[] = {0xe7, 0x07, 0x03, 0xe3, 0xa3, 0x63, 0x43, 0x83, 0x87, 0x47, 0x24, 0x80, 0x01};
	struct pattern pattern;

	REQUIRE_XSAVE();
	if (!has_xsavec())
		cr_skip_test("no XSAVEC");
	fill_pattern(&pattern);
	for (size_t i = 0; i < ARRAY_SIZE(masks); i++) {
		memset(image, 0, sizeof(image));
		load_and_save(&pattern, image, masks[i] & arch_xsave_mask(), true);
		check_image(image, &pattern, masks[i] & arch_xsave_mask());
	}
}

/* ---- signal frames ---------------------------------------------------------------------------------------------- */

static struct pattern frame_pattern;
static sig_atomic_t frames;

static void on_trap(int signo, siginfo_t *info, void *context)
{
	static uint8_t copy[65536] __attribute__((aligned(64)));
	void *image = ((ucontext_t *)context)->uc_mcontext.fpregs;
	uint32_t size;
	uint64_t xfeatures;

	(void)signo;
	(void)info;
	memcpy(&xfeatures, (char *)image + 472, 8);
	memcpy(&size, (char *)image + 480, 4);
	cr_assert_eq(xfeatures & arch_xsave_mask(), arch_xsave_mask());
	check_image(image, &frame_pattern, arch_xsave_mask());

	/* Frames that hold less than the processor has. */
	cr_assert(size <= sizeof(copy));
	memcpy(copy, image, size);
	memcpy(copy + 472, &(uint64_t){3}, 8);
	check_image(copy, &frame_pattern, 3);
	memcpy(copy + 472, &(uint64_t){arch_xsave_mask() & ~UINT64_C(0x20)}, 8);
	check_image(copy, &frame_pattern, arch_xsave_mask() & ~UINT64_C(0x20));
	memcpy(copy + 472, &xfeatures, 8);
	memcpy(copy + 480, &(uint32_t){arch_xsave_size() - 1}, 4);
	if (arch_xsave_size() > 576) {
		int last = 63 - __builtin_clzll(arch_xsave_mask());
		void *out;

		cr_assert_eq(patch_x86_64_state_component(copy, last, &out, NULL), PATCH_ENEXIST);
	}
	/* Frames without the magic number are images in standard format. */
	memset(copy + 464, 0, 48);
	check_image(copy, &frame_pattern, arch_xsave_mask());
	frames++;
}

Test(xsave, signal_frames)
{
	struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};

	REQUIRE_XSAVE();
	sigaction(SIGTRAP, &action, NULL);
	fill_pattern(&frame_pattern);
	load_and_save(&frame_pattern, NULL, 0, false);
	cr_assert_eq(frames, 1);
}

/* ---- arguments -------------------------------------------------------------------------------------------------- */

Test(xsave, arguments)
{
	static uint8_t image[4096] __attribute__((aligned(64)));
	void *out = image;

	cr_assert_eq(patch_x86_64_state_component(NULL, 1, &out, NULL), PATCH_EINVAL);
	cr_assert_eq(patch_x86_64_state_component(image, 1, NULL, NULL), PATCH_EINVAL);
	cr_assert_eq(patch_x86_64_state_component(image, 1, &out, image), PATCH_EINVAL);
	cr_assert_eq(patch_x86_64_state_component(image, -1, &out, NULL), PATCH_EINVAL);
	cr_assert_eq(patch_x86_64_state_component(image, 63, &out, NULL), PATCH_EINVAL);
	cr_assert_eq(patch_x86_64_state_component(image, 62, &out, NULL), PATCH_ENOTSUP);
	cr_assert_eq(patch_x86_64_state_component(image, 40, &out, NULL), PATCH_ENOTSUP);
	cr_assert_eq(out, image);
	out = NULL;
	cr_assert_eq(patch_x86_64_state_component(image, 0, &out, NULL), PATCH_OK);
	cr_assert_eq(out, image);
}

/* ---- first use by many threads at once -------------------------------------------------------------------------- */

static pthread_barrier_t barrier;

static void *first_use(void *data)
{
	static uint8_t image[4096] __attribute__((aligned(64)));
	void *out = NULL;

	pthread_barrier_wait(&barrier);
	*(patch_status *)data = patch_x86_64_state_component(image, PATCH_X86_64_AVX_STATE, &out, NULL);
	return (char *)out - (char *)image == 576 ? data : NULL;
}

Test(xsave, first_use_by_many_threads)
{
	pthread_t threads[16];
	patch_status statuses[16];
	void *result;

	pthread_barrier_init(&barrier, NULL, 16);
	for (int i = 0; i < 16; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, first_use, &statuses[i]), 0);
	for (int i = 0; i < 16; i++) {
		pthread_join(threads[i], &result);
		cr_assert_eq(statuses[i], has_component(2) ? PATCH_OK : PATCH_ENOTSUP);
		cr_assert_eq(result, has_component(2) ? &statuses[i] : NULL);
	}
}
