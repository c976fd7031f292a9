/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A commit that is interrupted leaves a trap byte on the pad that a jump leads to. A thread may have stopped in front
 * of it: the byte is served for as long as it is there, also when the region has become traps since, or is removed.
 */
#include "harness.h"

#include "base/inject.h"
#include "short.h"

typedef unsigned long (*function)(unsigned long n);

static unsigned long hits;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

static int fail_sync(enum inject_point point)
{
	return point == INJECT_SYNC ? EIO : 0;
}

static patch_t make(const uint8_t *at, int policy)
{
	patch_t patch = NULL;

	REQUIRE_OK(make_probe((uintptr_t)at, procedure, NULL, policy, PATCH_ENABLED, &patch));
	return patch;
}

static void interrupt(void *unused)
{
	const uint8_t *start = (const uint8_t *)(uintptr_t)plain;
	uint8_t original[16];
	uintptr_t target;
	int32_t displacement;
	patch_t first, second, forced;
	function pad;

	(void)unused;
	memcpy(original, start, sizeof(original));
	REQUIRE_OK(patch_init(NULL, 0));
	first = make(start, PATCH_TRAP_POLICY_ALLOW);
	CHECK_OK(patch_commit());
	if (*start != 0xe9)
		SKIP("no jump");
	memcpy(&displacement, start + 1, sizeof(displacement));
	target = (uintptr_t)start + 5 + (uintptr_t)(intptr_t)displacement;
	if (*(const volatile uint8_t *)target != 0xe9)
		SKIP("the jump leads to no pad");
	memcpy(&pad, &target, sizeof(pad));
	CHECK_EQ(pad(1), 7);

	second = make(plain_second, PATCH_TRAP_POLICY_ALLOW);
	libpatch_inject = fail_sync;
	CHECK(patch_commit() != PATCH_OK);
	libpatch_inject = NULL;
	CONTEXT("interrupted, %#x on the pad", *(const volatile uint8_t *)target);
	CHECK_EQ(pad(1), 7);
	CHECK_EQ(plain(1), 7);

	CONTEXT("the region of the pad has become traps");
	forced = make(plain_second, PATCH_TRAP_POLICY_FORCE);
	CHECK_OK(patch_commit());
	CHECK_EQ(pad(1), 7);
	CHECK_EQ(plain(1), 7);

	CONTEXT("one of three removed");
	CHECK_OK(patch_unmake(forced));
	CHECK_OK(patch_commit());
	CHECK_EQ(pad(1), 7);
	CHECK_EQ(plain(1), 7);

	CONTEXT("all removed");
	CHECK_OK(patch_unmake(first));
	CHECK_OK(patch_unmake(second));
	CHECK_OK(patch_commit());
	CHECK(memcmp(start, original, sizeof(original)) == 0);
	CHECK_EQ(pad(1), 7);
	hits = 0;
	CHECK_EQ(plain(1), 7);
	CHECK_EQ(hits, 0);
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	harness_isolated("a pad's trap bytes met in the middle of a commit", interrupt, NULL);
	return harness_end();
}
