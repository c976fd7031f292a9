/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Staging: bytes appear with the flush and not before, those that were dropped never, and a flush that failed loses
 * nothing.
 */
#include "code/staging.h"

#include "base/inject.h"
#include "sys/text.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define PAGES 5

static uint8_t *text;
/* What the text should hold. */
static uint8_t model[PAGES * PAGE_SIZE];

static void map_text(void)
{
	text = mmap(NULL, PAGES * PAGE_SIZE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(text, MAP_FAILED);
	text_set_way(TEXT_PROC_MEM);
}

static void expect_text(const char *what)
{
	size_t i;

	for (i = 0; i < sizeof(model) && text[i] == model[i]; ++i)
		;
	cr_expect_eq(i, sizeof(model), "%s: differs at +%#zx", what, i);
}

static bool add(size_t offset, const char *bytes)
{
	return staging_add((uintptr_t)text + offset, bytes, (uint32_t)strlen(bytes));
}

/* Add bytes, and expect them once they are flushed. */
static void stage(size_t offset, const char *bytes)
{
	cr_assert(add(offset, bytes));
	memcpy(model + offset, bytes, strlen(bytes));
}

Test(staging, bytes_appear_with_the_flush, .init = map_text)
{
	char bytes[] = "\1\2\3";
	uint64_t count;

	cr_assert(add(3 * PAGE_SIZE, bytes));
	cr_assert(add(10, "\4\5"));
	expect_text("staged");
	/* A copy is staged. */
	memset(bytes, 0x77, sizeof(bytes));
	cr_expect_eq(staging_flush(), 0);
	memcpy(model + 3 * PAGE_SIZE, "\1\2\3", 3);
	memcpy(model + 10, "\4\5", 2);
	expect_text("flushed");
	/* Nothing is left to be written a second time. */
	count = text_write_count();
	cr_expect_eq(staging_flush(), 0);
	cr_expect_eq(text_write_count(), count);
}

Test(staging, an_empty_flush_is_none, .init = map_text)
{
	uint64_t count = text_write_count();

	cr_expect_eq(staging_flush(), 0);
	cr_expect_eq(text_write_count(), count);
}

/* What makes a new page must not come when there is something on it. */
Test(staging, a_new_page_is_made_before_it_is_written_to, .init = map_text)
{
	struct text_write write = { .address = (uintptr_t)text + 10, .bytes = (const uint8_t *)"\1", .length = 1 };

	text_begin();
	staging_fresh_page((uintptr_t)text);
	cr_expect_eq(staging_flush(), 0);
	cr_expect_eq(text_apply(&write, 1), 0);
	model[10] = 1;
	stage(20, "\2");
	cr_expect_eq(staging_flush(), 0);
	text_end();
	expect_text("both");
}

/* Of six pieces every choice: the first, a middle and the last of the list among them, and all. */
Test(staging, dropped_bytes_never_appear, .init = map_text)
{
	for (size_t choice = 0; choice < 64; ++choice) {
		for (size_t i = 0; i < 6; ++i)
			cr_assert(add(choice * 8 + i, "\xEE"));
		for (size_t i = 0; i < 6; ++i) {
			if (choice & 1U << i)
				staging_drop((uintptr_t)text + choice * 8 + i);
			else
				model[choice * 8 + i] = 0xEE;
		}
		cr_expect_eq(staging_flush(), 0);
		expect_text("dropped");
	}
}

static unsigned int writes, failing;

static int fail_one_write(enum inject_point point)
{
	return point == INJECT_TEXT_WRITE && writes++ == failing ? EPERM : 0;
}

/* On pages that are not neighbours, so that each piece is a write of its own. */
Test(staging, a_failed_flush_keeps_everything, .init = map_text)
{
	stage(1, "\1");
	cr_assert(add(2 * PAGE_SIZE, "\2"));
	stage(4 * PAGE_SIZE, "\3");
	libpatch_inject = fail_one_write;
	for (failing = 0; failing < 3; ++failing) {
		writes = 0;
		cr_expect_eq(staging_flush(), EPERM);
	}
	libpatch_inject = NULL;
	staging_drop((uintptr_t)text + 2 * PAGE_SIZE);
	/* No thread could reach it: it may have been written all the same. */
	model[2 * PAGE_SIZE] = text[2 * PAGE_SIZE];
	cr_expect_eq(staging_flush(), 0);
	expect_text("flushed in the end");
}

static int fail_maps(enum inject_point point)
{
	return point == INJECT_MMAP ? ENOMEM : 0;
}

Test(staging, without_memory, .init = map_text)
{
	static const uint8_t large[2 * PAGE_SIZE + 1];

	libpatch_inject = fail_maps;
	cr_expect_not(staging_add((uintptr_t)text, large, sizeof(large)));
	libpatch_inject = NULL;
	cr_expect_eq(staging_flush(), 0);
	expect_text("nothing staged");
}
