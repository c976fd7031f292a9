/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * In the middle of a commit its own thread meets a trap of the program, whose handler asks for another commit, and
 * calls what is patched: the former is refused, the latter runs without its probe, and the commit goes on.
 */
#include "targets.h"

#include "base/inject.h"

static unsigned int hits, handled, entered;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

static void on_trap(int signo)
{
	unsigned int before = hits;

	(void)signo;
	handled++;
	CHECK_STATUS(patch_commit(), PATCH_EFAIL);
	CHECK_EQ(t_push_push(1, 2), 5);
	CHECK_EQ(hits, before);
}

static int trap(enum inject_point point)
{
	if (point > INJECT_COMMIT_PHASE_4)
		return 0;
	CONTEXT("injection point %d", (int)point);
	entered++;
	__asm__ volatile("int3");
	return 0;
}

int main(void)
{
	struct text_copy before = text_of_target(target_named("t_five_bytes"));
	struct sigaction action;
	patch_t patch, other;

	harness_start_seconds(20);
	memset(&action, 0, sizeof(action));
	action.sa_handler = on_trap;
	REQUIRE(sigaction(SIGTRAP, &action, NULL) == 0);
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
	CHECK_OK(patch_commit());
	CHECK_EQ(t_push_push(1, 2), 5);
	CHECK_EQ(hits, 1);
	REQUIRE_OK(
		make_probe((uintptr_t)t_five_bytes, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &other));
	libpatch_inject = trap;
	CHECK_OK(patch_commit());
	libpatch_inject = NULL;
	CONTEXT("afterwards");
	CHECK(entered >= 5);
	CHECK_EQ(handled, entered);
	CHECK_EQ(t_five_bytes(5, 7), target_named("t_five_bytes")->model(5, 7));
	CHECK_EQ(hits, 2);
	CHECK_OK(patch_fini());
	CHECK_TEXT_SAME(&before);
	return harness_end();
}
