/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A program that closes every descriptor and gets our number for a file of its own: commits go on working, and not a
 * byte is written to its file. Also without a descriptor to be had.
 */
#include "targets.h"

#include <fcntl.h>
#include <sys/resource.h>

static unsigned int hits;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

static void toggle_some(patch_t patch, const struct text_copy *before)
{
	for (int n = 0; n < 5; n++) {
		CHECK_OK(patch_enable(patch));
		CHECK_OK(patch_commit());
		hits = 0;
		CHECK_EQ(t_push_push(1, 2), 5);
		CHECK_EQ(hits, 1);
		CHECK_OK(patch_disable(patch));
		CHECK_OK(patch_commit());
		CHECK_TEXT_SAME(before);
	}
}

static void own_files(void *argument)
{
	struct text_copy before = text_of_target(target_named("t_push_push"));
	uint8_t pattern[4096], now[4096];
	int files[64];
	patch_t patch, second;

	(void)argument;
	memset(pattern, 0x5a, sizeof(pattern));
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(
		make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_DISABLED, &patch));
	toggle_some(patch, &before);
	for (int fd = 3; fd < 1024; fd++)
		close(fd);
	for (int n = 0; n < 64; n++) {
		FILE *file = tmpfile();

		if (!file)
			SKIP("no temporary file");
		files[n] = fileno(file);
		REQUIRE(write(files[n], pattern, sizeof(pattern)) == sizeof(pattern));
	}
	toggle_some(patch, &before);
	REQUIRE_OK(
		make_probe((uintptr_t)t_five_bytes, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &second));
	CHECK_OK(patch_commit());
	hits = 0;
	CHECK_EQ(t_five_bytes(5, 7), target_named("t_five_bytes")->model(5, 7));
	CHECK_EQ(hits, 1);
	CHECK_OK(patch_fini());
	for (int n = 0; n < 64; n++) {
		CHECK_EQ(lseek(files[n], 0, SEEK_END), (off_t)sizeof(pattern));
		CHECK_EQ(pread(files[n], now, sizeof(now), 0), sizeof(now));
		CHECK(!memcmp(now, pattern, sizeof(now)));
	}
	CHECK_TEXT_SAME(&before);
}

/* No descriptor can be opened from now on: either it works all the same, or it says why not and harms nothing. */
static void no_descriptor(void *argument)
{
	struct text_copy before = text_of_target(target_named("t_push_push"));
	bool before_init = *(const bool *)argument;
	struct rlimit none = { 3, 3 };
	patch_status status;
	patch_t patch;

	if (before_init)
		REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
	status = patch_init(NULL, 0);
	if (status != PATCH_OK) {
		harness_say("patch_init: %s\n", harness_last_error());
		CHECK(before_init);
		CHECK(status == PATCH_ESYS || status == PATCH_ENOTSUP);
		CHECK_EQ(t_push_push(1, 2), 5);
		return;
	}
	if (!before_init) {
		for (int fd = 3; fd < 1024; fd++)
			close(fd);
		REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
	}
	status = make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_DISABLED, &patch);
	if (status == PATCH_OK) {
		CHECK_OK(patch_enable(patch));
		status = patch_commit();
	}
	if (status == PATCH_OK) {
		toggle_some(patch, &before);
	} else {
		harness_say("%s\n", harness_last_error());
		CHECK_EQ(t_push_push(1, 2), 5);
	}
	CHECK(patch_fini() == PATCH_OK || status != PATCH_OK);
	CHECK_TEXT_SAME(&before);
	CHECK_EQ(t_push_push(1, 2), 5);
}

int main(void)
{
	bool before_init = true, after_init = false;

	harness_start();
	harness_isolated("our number given to files of the program", own_files, NULL);
	harness_isolated("no descriptor left before patch_init()", no_descriptor, &before_init);
	harness_isolated("no descriptor left after patch_init()", no_descriptor, &after_init);
	return harness_end();
}
