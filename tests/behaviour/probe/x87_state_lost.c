/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * x87 and MMX state around a probe in the middle of a function: whatever it is, and whatever the procedure does to it,
 * it is the same behind the site; and the procedure begins with empty registers, as its calling convention says. With
 * PATCH_REGS_ALL the procedure sees it in the image, and what it writes there takes effect. That empty registers are
 * not restored makes no difference.
 */
#include "targets.h"

/* FXSAVE64, Intel SDM vol. 1, 10.5.1. */
typedef struct patch_x86_64_legacy image __attribute__((aligned(16)));

static image before, seen, after;
static unsigned int hits;
static uint16_t full;
static void (*disturb)(void);
static void (*change)(struct patch_x86_64_legacy *legacy);

static GP_ONLY void procedure(struct patch_exec_context *context, uint8_t post)
{
	struct patch_x86_64_legacy *legacy = NULL;

	(void)post;
	hits++;
	if (context->extended_states != NULL &&
	    patch_x86_sse_state(context->extended_states, &legacy) != PATCH_OK)
		return;
	for (size_t i = 0; legacy != NULL && i < sizeof(seen); i++)
		((volatile uint8_t *)&seen)[i] = ((uint8_t *)legacy)[i];
	if (disturb != NULL)
		disturb();
	if (change != NULL)
		change(legacy);
}

/* ---- what there is ----------------------------------------------------------------------------------------------- */

static void empty(void)
{
}

static void empty_with_flags(void)
{
	before.fsw = 0x0023; /* inexact, denormal, invalid: all masked */
	before.fcw = 0x027f;
}

static void empty_with_codes(void)
{
	before.fsw = 0x4100;
}

static void empty_with_c1(void)
{
	before.fsw = 0x0200;
}

static void empty_not_at_0(void)
{
	before.fsw = 0x1800;
}

/* An exception that the next x87 instruction would raise, SIGFPE. */
static void pending(void)
{
	before.fcw = 0x037b; /* division by 0 */
	before.fsw = 0x8084;
}

static void fill_stack(unsigned int depth)
{
	before.fsw = (uint16_t)(((8 - depth) & 7) << 11);
	for (unsigned int i = 0; i < depth; i++) {
		long double value = 1.5L + i;

		before.ftw |= (uint8_t)(1 << ((8 - depth + i) & 7));
		memcpy(before.st0[i], &value, 10);
	}
}

static void one_value(void)
{
	fill_stack(1);
}

static void eight_values(void)
{
	fill_stack(8);
}

static void eight_values_and_codes(void)
{
	fill_stack(8);
	before.fsw |= 0x4500;
}

/* Its first register is empty, others are in use. */
static void rotated(void)
{
	fill_stack(2);
	before.ftw = 0x30;
	before.fsw = 0;
	for (int i = 4; i < 6; i++)
		memcpy(before.st0[i], before.st0[i - 4], 10);
	memset(before.st0[0], 0, 32);
}

static void mmx(void)
{
	before.ftw = 0xff;
	for (int i = 0; i < 8; i++) {
		memset(before.st0[i], 0x11 * (i + 1), 8);
		memset(before.st0[i] + 8, 0xff, 2);
	}
}

/* ---- what is done to it ------------------------------------------------------------------------------------------ */

static GP_ONLY void use_x87(void)
{
	/* It pops what it pushes; inexact. */
	__asm__ volatile("fnclex; fninit; fld1; fldpi; fdivrp; fstp %st(0)");
}

/* Eight registers are there to be filled. */
static GP_ONLY void fill_all(void)
{
	__asm__ volatile("fld1; fld1; fld1; fld1; fld1; fld1; fld1; fld1\n"
			 "fnstsw %0\n"
			 "fstp %%st; fstp %%st; fstp %%st; fstp %%st; fstp %%st; fstp %%st; fstp %%st; fstp %%st"
			 : "=m"(full));
}

static GP_ONLY void set_control_word(void)
{
	static const uint16_t word = 0x0c7f;

	__asm__ volatile("fnclex; fldcw %0" : : "m"(word));
}

static GP_ONLY void clear_exceptions(void)
{
	__asm__ volatile("fnclex");
}

static GP_ONLY void leave_mmx(void)
{
	__asm__ volatile("fnclex; pcmpeqd %mm0, %mm0; movq %mm0, %mm7");
}

static GP_ONLY void leave_value(void)
{
	__asm__ volatile("fninit; fldpi");
}

static GP_ONLY void compare_values(void)
{
	__asm__ volatile("fninit; fldz; fldz; fcompp");
}

/* ---- what is written to the image -------------------------------------------------------------------------------- */

static GP_ONLY void write_control_word(struct patch_x86_64_legacy *legacy)
{
	legacy->fcw ^= 0x0c00;
}

static GP_ONLY void write_flags(struct patch_x86_64_legacy *legacy)
{
	legacy->fsw ^= 0x0020;
}

static GP_ONLY void write_value(struct patch_x86_64_legacy *legacy)
{
	legacy->fsw = (uint16_t)((legacy->fsw & ~0x3800) | 7 << 11);
	legacy->ftw = 0x80;
	for (int i = 0; i < 10; i++)
		((volatile uint8_t *)legacy->st0[0])[i] = i == 9 ? 0x3f : i >= 7 ? 0xff : 0;
}

/* ------------------------------------------------------------------------------------------------------------------ */

static void run(target_function function)
{
	static image host;

	__asm__ volatile("fxsave64 %0\n"
			 "fxrstor64 %2\n"
			 "call *%3\n"
			 "fxsave64 %1\n"
			 "fnclex\n"
			 "fxrstor64 %0\n"
			 : "+m"(host), "=m"(after)
			 : "m"(before), "r"(function)
			 : "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory", "cc");
}

/* Registers that are empty hold anything. */
static bool same(const image *a, const image *b)
{
	unsigned int top = a->fsw >> 11 & 7;

	if (a->fcw != b->fcw || a->fsw != b->fsw || a->ftw != b->ftw || a->mxcsr != b->mxcsr)
		return false;
	for (unsigned int i = 0; i < 8; i++)
		if (a->ftw >> ((top + i) & 7) & 1 && memcmp(a->st0[i], b->st0[i], 10) != 0)
			return false;
	return memcmp(a->xmm0, b->xmm0, sizeof(a->xmm0)) == 0;
}

static void show(const char *what, const image *i)
{
	printf("%s: fcw %#x, fsw %#x, ftw %#x, mxcsr %#x\n", what, i->fcw, i->fsw, i->ftw, i->mxcsr);
}

#define NAMED(name) { name, #name }

static void try_mask(uint64_t clobber)
{
	static const struct {
		void (*function)(void);
		const char *name;
	} states[] = { NAMED(empty),
		       NAMED(empty_with_flags),
		       NAMED(empty_with_codes),
		       NAMED(empty_with_c1),
		       NAMED(empty_not_at_0),
		       NAMED(pending),
		       NAMED(one_value),
		       NAMED(eight_values),
		       NAMED(eight_values_and_codes),
		       NAMED(rotated),
		       NAMED(mmx) },
	  disturbances[] = { { NULL, "nothing" },     NAMED(use_x87),   NAMED(fill_all),    NAMED(set_control_word),
			     NAMED(clear_exceptions), NAMED(leave_mmx), NAMED(leave_value), NAMED(compare_values) };
	static const struct {
		void (*function)(struct patch_x86_64_legacy *legacy);
		const char *name;
	} changes[] = { { NULL, "nothing" }, NAMED(write_control_word), NAMED(write_flags), NAMED(write_value) };
	struct patch_location location = location_at((uintptr_t)t_nops + 2);
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE, procedure, NULL);
	patch_attr attr = attr_of(PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED);
	image expected;
	patch_t patch;

	model.probe.read_registers = 0;
	model.probe.clobber_registers = clobber;
	REQUIRE_OK(patch_make(&location, &model, &attr, &patch, NULL));
	REQUIRE_OK(patch_commit());
	for (size_t s = 0; s < sizeof(states) / sizeof(states[0]); s++)
		for (size_t d = 0; d < sizeof(disturbances) / sizeof(disturbances[0]); d++)
			for (size_t c = 0; c < (clobber != 0 ? sizeof(changes) / sizeof(changes[0]) : 1); c++) {
				CONTEXT("%s, procedure does %s, writes %s, clobber %#llx", states[s].name,
					disturbances[d].name, changes[c].name, (unsigned long long)clobber);
				memset(&before, 0, sizeof(before));
				before.fcw = 0x037f;
				before.mxcsr = 0x1f80;
				for (size_t i = 0; i < sizeof(before.xmm0); i++)
					((uint8_t *)before.xmm0)[i] = (uint8_t)(i * 7 + s);
				states[s].function();
				disturb = disturbances[d].function;
				change = changes[c].function;
				hits = 0;
				full = 0;
				run(t_nops);
				CHECK_EQ(hits, 1);
				CHECK_EQ(full & 0x40, 0); /* no stack fault */
				if (clobber != 0 && !same(&before, &seen)) {
					show("before", &before);
					show("image", &seen);
					FAIL("the image is not what there was");
				}
				expected = before;
				if (change != NULL)
					change(&expected);
				if (!same(&expected, &after)) {
					show("wanted", &expected);
					show("behind the site", &after);
					FAIL("x87 state is wrong behind the site");
				}
			}
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
}

int main(void)
{
	harness_start();
	REQUIRE_OK(patch_init(NULL, 0));
	try_mask(PATCH_REGS_ALL);
	try_mask(0);
	CHECK_OK(patch_fini());
	return harness_end();
}
