/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A function with every address within 2 GiB taken: FORBID is refused with a reason, ALLOW and FORCE work (through a
 * trap, and code that is far away), and nothing is left behind.
 */
#include "targets.h"

#define REACH ((size_t)0x88000000)

static unsigned int hits;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

int main(void)
{
	static const uint8_t body[] = { 0xb8, 0x2a, 0, 0, 0, 0x90, 0x90, 0xc3 };
	uint8_t *area, *code;
	struct text_copy before;
	patch_t patch = NULL;
	patch_status status;

	harness_start();
	area = mmap((void *)0x200000000000, 2 * REACH, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	if (area == MAP_FAILED || area != (uint8_t *)0x200000000000)
		SKIP("cannot take 4 GiB of addresses");
	code = area + REACH;
	REQUIRE(mprotect(code, 4096, PROT_READ | PROT_WRITE) == 0);
	memset(code, 0xcc, 4096);
	memcpy(code + 512, body, sizeof(body));
	memcpy(code + 1024, body, sizeof(body));
	REQUIRE(mprotect(code, 4096, PROT_READ | PROT_EXEC) == 0);
	code += 512;
	before = text_save((uintptr_t)code - 16, 64);
	REQUIRE_OK(patch_init(NULL, 0));

	CONTEXT("FORBID");
	status = make_probe((uintptr_t)code, procedure, NULL, PATCH_TRAP_POLICY_FORBID, PATCH_ENABLED, &patch);
	CHECK(status == PATCH_ENOMEM || status == PATCH_ENOJUMP);
	harness_say("FORBID: %s: %s\n", patch_status_string(status), harness_last_error());
	CHECK_OK(patch_commit());
	CHECK_TEXT_SAME(&before);
	CHECK_EQ(call_code(code), 42);

	for (int policy = PATCH_TRAP_POLICY_ALLOW; policy <= PATCH_TRAP_POLICY_FORCE; policy += 2) {
		CONTEXT("%s", policy_name(policy));
		hits = 0;
		REQUIRE_OK(make_probe((uintptr_t)code, procedure, NULL, policy, PATCH_ENABLED, &patch));
		CHECK_OK(patch_commit());
		CHECK_EQ(code[0], 0xcc);
		CHECK_EQ(call_code(code), 42);
		CHECK_EQ(hits, 1);
		CHECK_OK(patch_unmake(patch));
		CHECK_OK(patch_commit());
		CHECK_TEXT_SAME(&before);
	}
	/* with a little room again, a jump is possible */
	CONTEXT("FORBID, with room");
	REQUIRE(munmap(area + REACH + 0x100000, 0x200000) == 0);
	hits = 0;
	CHECK_OK(make_probe((uintptr_t)code, procedure, NULL, PATCH_TRAP_POLICY_FORBID, PATCH_ENABLED, &patch));
	CHECK_OK(patch_commit());
	CHECK_EQ(code[0], 0xe9);
	CHECK_EQ(call_code(code), 42);
	CHECK_EQ(hits, 1);
	CHECK_OK(patch_fini());
	CHECK_TEXT_SAME(&before);
	return harness_end();
}
