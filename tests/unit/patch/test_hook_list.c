/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lists of patches at a hook: all entries are walked, and all memory comes back, however many there are.
 */
#include "patch/hook_list.h"

#include "base/heap.h"

#include <criterion/criterion.h>
#include <libpatch/patch.h>

static size_t calls;

static void count_call(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	calls += (size_t)context->user_data;
}

static void expect_walked(size_t count)
{
	static uint64_t frame[ARCH_HOOK_FRAME_TOTAL / sizeof(uint64_t) + 1];
	struct patch_exec_context *context = (void *)((uint8_t *)frame + ARCH_HOOK_FRAME_CONTEXT);
	struct hook_list *list;
	size_t before;

	/* What the heap keeps for lists of this size. */
	list = hook_list_alloc(1, HOOK_BEFORE);
	cr_assert_not_null(list);
	hook_list_retire(list);
	before = heap_in_use();
	list = hook_list_alloc(count, HOOK_BEFORE);
	cr_assert_not_null(list);
	for (size_t i = 0; i < count; ++i) {
		list->entries[i].procedure = count_call;
		list->entries[i].user_data = (void *)1;
		list->entries[i].alike = true;
	}
	calls = 0;
	context->user_data = list->record.user_data;
	list->record.procedure(context, 0);
	cr_expect_eq(calls, count, "%zu of %zu", calls, count);
	hook_list_retire(list);
	cr_expect_eq(heap_in_use(), before, "%zu bytes are lost of a list of %zu", heap_in_use() - before, count);
}

Test(hook_list, all_are_walked)
{
	expect_walked(2);
	expect_walked(UINT16_MAX);
	expect_walked(UINT16_MAX + 2);
	expect_walked(200000);
}
