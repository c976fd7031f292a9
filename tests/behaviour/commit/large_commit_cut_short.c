/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A commit of thousands of patches is done in several batches. Where one of them is cut short, or has no memory, what
 * is in effect is told as it is, every function still works, and the next commit does all that is left. Regions side by
 * side, of which one may have a jump that reads the other's bytes, are in one batch.
 */
#include "harness.h"

#include "base/inject.h"

#define COUNT 3000

/*
 * Function i of either kind returns i. Those of the first kind lie 16 bytes apart, those of the second 6, of which one
 * is free.
 */
extern const uint8_t apart[], touching[];
__asm__(".macro functions of, alignment\n"
	".p2align 4, 0xcc\n"
	"\\of:\n"
	".set number, 0\n"
	".rept 3000\n"
	"	.byte 0xb8\n"
	"	.long number\n"
	"	ret\n"
	".p2align \\alignment, 0xcc\n"
	".set number, number + 1\n"
	".endr\n"
	".endm\n"
	".text\n"
	"functions apart, 4\n"
	"functions touching, 1\n");

struct kind {
	const char *name;
	const uint8_t *code;
	size_t stride;
	unsigned int batches;
};

static const struct kind kinds[] = { { "apart", apart, 16, 3 }, { "touching", touching, 6, 1 } };
static const struct kind *kind;
static uint8_t original[COUNT * 16];
static patch_t patches[COUNT];
static uint64_t hits[COUNT];

static const uint8_t *function(unsigned int i)
{
	return kind->code + i * kind->stride;
}

/* All of them, in no order. */
static unsigned int nth(unsigned int n)
{
	return n * 1237 % COUNT;
}

/* ---- what fails ---- */

static enum inject_point failing;
static unsigned int left, batches;

static int inject(enum inject_point point)
{
	batches += point == INJECT_COMMIT_CHECKED;
	return point == failing && left > 0 && --left == 0 ? EIO : 0;
}

/* The n-th time that the commit is at the point, if it is. */
static patch_status commit(enum inject_point point, unsigned int n)
{
	patch_status status;

	failing = point;
	left = n;
	batches = 0;
	libpatch_inject = inject;
	status = patch_commit();
	libpatch_inject = NULL;
	return status;
}

/* ---- what is expected ---- */

/* Every function works, and counts as its patch says that it does. Of how many are enabled. */
static unsigned int check_all(void)
{
	unsigned int enabled = 0;

	memset(hits, 0, sizeof(hits));
	for (unsigned int i = 0; i < COUNT; i++) {
		struct patch_info info = { 0 };

		CHECK_EQ(((unsigned int (*)(void))(uintptr_t)function(i))(), i);
		CHECK_OK(patch_info(patches[i], &info, sizeof(info)));
		CHECK_EQ(hits[i], info.state == PATCH_ENABLED);
		enabled += info.state == PATCH_ENABLED;
	}
	return enabled;
}

static void set_all(patch_status (*set)(patch_t))
{
	for (unsigned int n = 0; n < COUNT; n++)
		CHECK_OK(set(patches[nth(n)]));
}

/* Returns false when it was not cut short any more. */
static bool cut_short(patch_status (*set)(patch_t), enum inject_point point, unsigned int n)
{
	const unsigned int wanted = set == patch_enable ? COUNT : 0;
	patch_status status;

	CONTEXT("%s, %s, point %d, time %u", kind->name, wanted ? "enable" : "disable", (int)point, n);
	set_all(set);
	status = commit(point, n);
	if (status == PATCH_OK) {
		CHECK_EQ(check_all(), wanted);
		return false;
	}
	CHECK(status == (point == INJECT_SYNC ? PATCH_ESYS : PATCH_ENOMEM));
	if (point == INJECT_ALLOC)
		CHECK_EQ(check_all(), COUNT - wanted);
	else
		check_all();
	CHECK_OK(commit(INJECT_POINTS, 0));
	CHECK_EQ(check_all(), wanted);
	return true;
}

static void cut_short_everywhere(enum inject_point point, unsigned int least)
{
	unsigned int n = 1;

	/* Of both, one after the other, as many as there are of the one that has more. */
	for (bool more = true; more; n++) {
		more = cut_short(patch_enable, point, n);
		more |= cut_short(patch_disable, point, n);
		CHECK(memcmp(original, kind->code, COUNT * kind->stride) == 0);
	}
	CHECK_MSG(n > least, "%s: point %d was met %u times only", kind->name, (int)point, n - 1);
}

static void run(void *which)
{
	struct patch_location location = { .type = PATCH_LOCATION_ADDRESS };
	struct patch_exec_model model = { .type = PATCH_EXEC_MODEL_COUNT };

	kind = which;
	memcpy(original, kind->code, COUNT * kind->stride);
	REQUIRE_OK(patch_init(NULL, 0));
	for (unsigned int n = 0; n < COUNT; n++) {
		const unsigned int i = nth(n);

		location.address = (uintptr_t)function(i);
		model.count.counter = &hits[i];
		model.count.kind = PATCH_COUNT_PLAIN;
		REQUIRE_OK(patch_make(&location, &model, NULL, &patches[i], NULL));
	}
	set_all(patch_enable);
	CHECK_OK(commit(INJECT_POINTS, 0));
	CHECK_EQ(batches, kind->batches);
	CHECK_EQ(check_all(), COUNT);
	set_all(patch_disable);
	CHECK_OK(commit(INJECT_POINTS, 0));
	CHECK_EQ(batches, kind->batches);
	CHECK_EQ(check_all(), 0);
	cut_short_everywhere(INJECT_SYNC, 3 * kind->batches);
	cut_short_everywhere(INJECT_ALLOC, 4);
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		CHECK_EQ(harness_child(run, (void *)(uintptr_t)&kinds[i]), 0);
	return harness_end();
}
