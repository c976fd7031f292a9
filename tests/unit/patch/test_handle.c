/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Handles: which are known, what a handle that was revoked is worth, and the list of patches that have a change. */
#include "patch/handle.h"
#include "patch/patch_object.h"

#include <criterion/criterion.h>

Test(handle, known)
{
	patch_t one, two;
	struct patch *first = handle_alloc(&one, 1, false);
	struct patch *second = handle_alloc(&two, 2, true);

	cr_assert(first != NULL && second != NULL);
	cr_expect(one != NULL && two != NULL && one != two);
	cr_expect_eq(handle_get(one), first);
	cr_expect_eq(handle_get(two), second);
	cr_expect_eq(first->count, 1);
	cr_expect_eq(second->count, 2);
	cr_expect_eq(handle_count(), 2);
	cr_expect_eq(handle_revoked_count(), 0);
}

Test(handle, unknown)
{
	patch_t handle;

	cr_expect_null(handle_get(NULL));
	cr_assert_not_null(handle_alloc(&handle, 1, false));
	cr_expect_null(handle_get(NULL));
	cr_expect_null(handle_get((patch_t)((uintptr_t)handle + 1)), "an index that there is not");
	cr_expect_null(handle_get((patch_t)((uintptr_t)handle + ((uintptr_t)1 << 32))), "another generation");
	cr_expect_null(handle_get((patch_t)UINTPTR_MAX));
}

Test(handle, revoked)
{
	patch_t handle;
	struct patch *patch = handle_alloc(&handle, 1, false);

	handle_revoke(patch);
	cr_expect_null(handle_get(handle));
	cr_expect(patch_is_released(patch));
	cr_expect_eq(handle_count(), 0);
	cr_expect_eq(handle_revoked_count(), 1);
	handle_revoke(patch);
	cr_expect_eq(handle_revoked_count(), 1, "once is enough");
	handle_free(patch);
	cr_expect_eq(handle_revoked_count(), 0);
}

/* Its place is used again; its handle is not. */
Test(handle, reused)
{
	patch_t old, new;
	struct patch *patch = handle_alloc(&old, 1, false);

	handle_free(patch);
	cr_expect_eq(handle_count(), 0);
	patch = handle_alloc(&new, 1, false);
	cr_expect_eq((uint32_t)(uintptr_t) new, (uint32_t)(uintptr_t)old);
	cr_expect_neq(new, old);
	cr_expect_null(handle_get(old));
	cr_expect_eq(handle_get(new), patch);
	cr_expect_eq(patch->goal, GOAL_DISABLED, "zeroed");
}

#define MANY 1000

Test(handle, many)
{
	static patch_t handles[MANY];
	static struct patch *patches[MANY];
	struct patch *patch;
	size_t index = 0, seen = 0;

	for (size_t i = 0; i < MANY; ++i)
		patches[i] = handle_alloc(&handles[i], 1 + i % 2, i % 2 != 0);
	for (size_t i = 0; i < MANY; i += 2)
		handle_free(patches[i]);
	for (size_t i = 0; i < MANY; ++i)
		cr_expect_eq(handle_get(handles[i]), i % 2 ? patches[i] : NULL);
	while ((patch = handle_next(&index)) != NULL) {
		cr_expect_eq(patch, patches[2 * seen + 1]);
		++seen;
	}
	cr_expect_eq(seen, MANY / 2);
}

static size_t visited;

static void visit(struct patch *patch)
{
	(void)patch;
	++visited;
}

static bool settle_released(struct patch *patch)
{
	++visited;
	return patch_is_released(patch);
}

Test(handle, changed)
{
	patch_t handles[3];
	struct patch *patches[3];

	for (size_t i = 0; i < 3; ++i)
		patches[i] = handle_alloc(&handles[i], 1, false);
	handle_change(patches[0]);
	handle_change(patches[2]);
	handle_change(patches[0]);
	handle_visit_changed(visit);
	cr_expect_eq(visited, 2, "each once");

	handle_revoke(patches[2]);
	visited = 0;
	handle_settle(settle_released);
	cr_expect_eq(visited, 2);
	visited = 0;
	handle_visit_changed(visit);
	cr_expect_eq(visited, 1, "the one that did not settle has its change still");
	cr_expect(patches[0]->queued && !patches[2]->queued);
}

Test(handle, revoke_all)
{
	patch_t handles[3];
	struct patch *patches[3];

	for (size_t i = 0; i < 3; ++i)
		patches[i] = handle_alloc(&handles[i], 1, false);
	handle_revoke(patches[1]);
	handle_revoke_all(visit);
	cr_expect_eq(visited, 2, "not the one that was revoked already");
	cr_expect_eq(handle_count(), 0);
	cr_expect_eq(handle_revoked_count(), 3);
}
