/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Text that cannot be read for the moment, because a filter refuses process_vm_readv() and there is no descriptor for
 * /proc/self/mem, is not text that was unmapped: the commit fails and says so, the sites go on working, and the next
 * commit does it. Taken for unmapped, the trap bytes that stay would kill the program.
 */
#include "targets.h"

#include "seccomp.h"

#include <sys/resource.h>

static unsigned int hits;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

static void descriptors(rlim_t count)
{
	struct rlimit limit;

	REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
	limit.rlim_cur = count;
	REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

static void unreadable(void *argument)
{
	int policy = *(const int *)argument;
	struct text_copy before = text_of_target(target_named("t_2_2_1"));
	struct text_copy other = text_of_target(target_named("t_push_push"));
	patch_t installed, fresh, other_patch;

	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_2_2_1, procedure, NULL, policy, PATCH_ENABLED, &installed));
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, policy, PATCH_DISABLED, &fresh));
	CHECK_OK(patch_commit());
	CHECK_EQ(t_2_2_1(5, 6), 3);
	CHECK_EQ(hits, 1);

	for (int fd = 3; fd < 64; fd++)
		close(fd);
	descriptors(0);
	CHECK_STATUS(make_probe((uintptr_t)t_push_push, procedure, NULL, policy, PATCH_DISABLED, &other_patch),
		     PATCH_ESYS);
	CHECK_MSG(strstr(harness_last_error(), "errno 24"), "%s", harness_last_error());
	refuse(SYS_process_vm_readv, EPERM);
	for (int round = 0; round < 3; round++) {
		CHECK_OK(patch_disable(installed));
		CHECK_OK(patch_enable(fresh));
		CHECK(patch_commit() != PATCH_OK);
		CHECK(strcmp(harness_last_error(), "no error recorded"));
		CHECK_EQ(t_2_2_1(5, 6), 3);
		CHECK_EQ(t_push_push(1, 2), 5);
		CHECK_TEXT_SAME(&other);
	}

	descriptors(64);
	CHECK_OK(patch_commit());
	CHECK_TEXT_SAME(&before);
	hits = 0;
	CHECK_EQ(t_2_2_1(5, 6), 3);
	CHECK_EQ(hits, 0);
	CHECK_EQ(t_push_push(1, 2), 5);
	CHECK_EQ(hits, 1);
	CHECK_OK(patch_enable(installed));
	CHECK_OK(patch_commit());
	CHECK_EQ(t_2_2_1(5, 6), 3);
	CHECK_EQ(hits, 2);
	CHECK_OK(patch_fini());
	CHECK_TEXT_SAME(&before);
	CHECK_TEXT_SAME(&other);
}

int main(void)
{
	harness_start();
	require_filters();
	for (int policy = PATCH_TRAP_POLICY_ALLOW; policy <= PATCH_TRAP_POLICY_FORCE; policy += 2)
		harness_isolated(policy_name(policy), unreadable, &policy);
	return harness_end();
}
