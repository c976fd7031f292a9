/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * In a mapping that is writable and executable the program writes beside and between what is patched, at the instant of
 * the commit's own writes. What it wrote stays, whichever way text is written, or the patches are refused.
 */
#include "targets.h"

#include "base/inject.h"
#include "sys/text.h"

/* Near enough to be written at once, if they were somewhere else. */
#define SITES 3
#define STRIDE 64
#define BETWEEN 32

static uint8_t *code;
static unsigned int hits, writes;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

/* A byte in front of all, those between them, one behind. */
static uint8_t *theirs(size_t n)
{
	return code + n * STRIDE - BETWEEN;
}

static int write_theirs(enum inject_point point)
{
	if (point != INJECT_TEXT_WRITE)
		return 0;
	writes++;
	for (size_t n = 0; n <= SITES; n++)
		++*(volatile uint8_t *)theirs(n);
	return 0;
}

static void by_way(void *argument)
{
	static const uint8_t body[] = { 0xb8, 0x2a, 0, 0, 0, 0x90, 0x90, 0xc3 };
	const bool may_fail = *(const enum text_way *)argument == TEXT_PAGE_SWAP;
	patch_t patches[SITES];
	uint8_t *page;

	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		SKIP("no memory that is writable and executable");
	code = page + 1024;
	for (size_t n = 0; n < SITES; n++)
		memcpy(code + n * STRIDE, body, sizeof(body));
	REQUIRE_OK(patch_init(NULL, 0));
	text_set_way(*(const enum text_way *)argument);
	for (size_t n = 0; n < SITES; n++)
		REQUIRE_OK(make_probe((uintptr_t)code + n * STRIDE, procedure, NULL, PATCH_TRAP_POLICY_ALLOW,
				      PATCH_DISABLED, &patches[n]));
	for (unsigned int round = 0; round < 6; round++) {
		patch_status status;

		CONTEXT("way %d, round %u", (int)text_way(), round);
		for (size_t n = 0; n < SITES; n++)
			CHECK_OK(round % 2 ? patch_disable(patches[n]) : patch_enable(patches[n]));
		libpatch_inject = write_theirs;
		status = patch_commit();
		libpatch_inject = NULL;
		if (!may_fail)
			CHECK_OK(status);
		for (size_t n = 0; n <= SITES; n++)
			CHECK_EQ(*theirs(n), (uint8_t)writes);
		hits = 0;
		for (size_t n = 0; n < SITES; n++)
			CHECK_EQ(call_code(code + n * STRIDE), 42);
		if (!may_fail)
			CHECK_EQ(hits, round % 2 ? 0 : SITES);
	}
	CHECK(writes > 0);
	CHECK(patch_fini() == PATCH_OK || may_fail);
}

int main(void)
{
	enum text_way ways[] = { TEXT_PROC_MEM, TEXT_MPROTECT, TEXT_PAGE_SWAP };

	harness_start();
	for (size_t n = 0; n < sizeof(ways) / sizeof(ways[0]); n++)
		harness_isolated("a way", by_way, &ways[n]);
	return harness_end();
}
