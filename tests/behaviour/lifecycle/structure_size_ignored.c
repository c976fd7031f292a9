/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * patch_info() and patch_statistics() are told the size of the program's structure. A program that was built for a
 * smaller one keeps the bytes behind it; one that was built for a larger one finds 0 in what this library does not
 * know; sizes that no version has are refused, with a reason, and nothing is written.
 */
#include "targets.h"

#define UNTOUCHED 0xa5

static union {
	struct patch_info info;
	struct patch_statistics statistics;
	unsigned char bytes[100000];
} out;

static patch_t patch;

static patch_status ask_info(size_t size)
{
	memset(&out, UNTOUCHED, sizeof(out));
	return patch_info(patch, &out.info, size);
}

static patch_status ask_statistics(size_t size)
{
	memset(&out, UNTOUCHED, sizeof(out));
	return patch_statistics(&out.statistics, size);
}

static bool all_are(size_t from, size_t to, unsigned char value)
{
	while (from < to && out.bytes[from] == value)
		++from;
	return from == to;
}

static void check_sizes(const char *what, patch_status (*ask)(size_t), size_t size)
{
	static const size_t absurd[] = { 0, 1, 7, 9, 65544, 99992, SIZE_MAX, SIZE_MAX - 7 };
	unsigned char whole[sizeof(out)];

	CONTEXT("%s", what);
	CHECK_OK(ask(size));
	memcpy(whole, &out, sizeof(out));
	CHECK(all_are(size, sizeof(out), UNTOUCHED));
	for (size_t smaller = 8; smaller < size; smaller += 8) {
		CHECK_OK(ask(smaller));
		CHECK(memcmp(&out, whole, smaller) == 0);
		CHECK(all_are(smaller, sizeof(out), UNTOUCHED));
	}
	for (size_t larger = size + 8; larger <= size + 256; larger += 8) {
		CHECK_OK(ask(larger));
		CHECK(memcmp(&out, whole, size) == 0);
		CHECK(all_are(size, larger, 0));
		CHECK(all_are(larger, sizeof(out), UNTOUCHED));
	}
	for (size_t i = 0; i < sizeof(absurd) / sizeof(absurd[0]); i++) {
		struct patch_error error;

		CHECK_STATUS(ask(absurd[i]), PATCH_EINVAL);
		CHECK(all_are(0, sizeof(out), UNTOUCHED));
		CHECK_STATUS(patch_last_error(&error), PATCH_EINVAL);
		CHECK(strcmp(error.origin, what) == 0);
		CHECK(strstr(error.message, "size") != NULL);
	}
}

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

int main(void)
{
	harness_start();
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe(target_start(&targets[0]), procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED,
			      &patch));
	REQUIRE_OK(patch_commit());
	check_sizes("patch_info", ask_info, sizeof(struct patch_info));
	check_sizes("patch_statistics", ask_statistics, sizeof(struct patch_statistics));
	CHECK_EQ(out.bytes[0], UNTOUCHED);
	CHECK_OK(patch_statistics(&out.statistics, sizeof(out.statistics)));
	CHECK_EQ(out.statistics.patches, 1);
	CHECK_EQ(out.statistics.heap_lost, 0);
	CHECK_EQ(out.statistics.code_lost, 0);
	CHECK_OK(patch_fini());
	return harness_end();
}
