/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Trampolines built for a patch around a call refer to its procedure for as long as they are there, and they are used
 * again. A patch around another call, made after one that was refused or unmade, must not be what they then call.
 */
#include "harness.h"

#include "base/inject.h"

/* Both n + 8. */
unsigned long caller(unsigned long n), other_caller(unsigned long n);
extern const uint8_t call_site[], return_site[], other_call_site[];
__asm__(".text\n"
	".p2align 6\n"
	".type callee, @function\n"
	"callee:\n"
	".cfi_startproc\n"
	"	lea 1(%rdi), %rax\n"
	"	ret\n"
	".cfi_endproc\n"
	".size callee, . - callee\n"
	".p2align 6\n"
	".globl caller\n.type caller, @function\n"
	"caller:\n"
	".cfi_startproc\n"
	"	sub $8, %rsp\n"
	"call_site: call callee\n"
	"return_site: add $7, %rax\n"
	"	add $8, %rsp\n"
	"	ret\n"
	".cfi_endproc\n"
	".size caller, . - caller\n"
	".p2align 6, 0xcc\n"
	".globl other_caller\n.type other_caller, @function\n"
	"other_caller:\n"
	".cfi_startproc\n"
	"	sub $8, %rsp\n"
	"other_call_site: call callee\n"
	"	add $7, %rax\n"
	"	add $8, %rsp\n"
	"	ret\n"
	".cfi_endproc\n"
	".size other_caller, . - other_caller\n"
	".p2align 6, 0xcc\n");

enum which { BEFORE, AROUND, OTHER, FORCED, COUNT };

static unsigned long hits[COUNT];

static void before(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits[BEFORE]++;
}

static void around(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits[AROUND]++;
}

static void other(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits[OTHER]++;
}

static void forced(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits[FORCED]++;
}

static patch_status make(const uint8_t *at, int type, probe_procedure procedure, int policy, patch_t *patch)
{
	struct patch_location location = location_at((uintptr_t)at);
	struct patch_exec_model model = model_of(type, procedure, NULL);
	patch_attr attr = attr_of(policy, PATCH_ENABLED);

	return patch_make(&location, &model, &attr, patch, NULL);
}

static void check(unsigned long wanted_before, unsigned long wanted_around, unsigned long wanted_forced)
{
	memset(hits, 0, sizeof(hits));
	CHECK_EQ(caller(1), 9);
	CHECK_EQ(hits[BEFORE], wanted_before);
	CHECK_EQ(hits[AROUND], wanted_around);
	CHECK_EQ(hits[OTHER], 0);
	CHECK_EQ(hits[FORCED], wanted_forced);
}

static bool published;

/* At every step: the hooks may be open before the text is written. */
static int fail_write(enum inject_point point)
{
	published |= point == INJECT_COMMIT_PUBLISHED;
	if (point <= INJECT_COMMIT_PHASE_4) {
		CHECK_EQ(caller(1), 9);
		CHECK_EQ(hits[OTHER], 0);
	}
	return published && point == INJECT_TEXT_WRITE ? EIO : 0;
}

static void commit_that_fails(void)
{
	published = false;
	libpatch_inject = fail_write;
	CHECK(patch_commit() != PATCH_OK);
	libpatch_inject = NULL;
}

/* Refused, as what returns there is a trap: but the call's own part was built. */
static void refused(void *unused)
{
	patch_t first, patch, trap, another;

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make(call_site, PATCH_EXEC_MODEL_PROBE, before, PATCH_TRAP_POLICY_ALLOW, &first));
	REQUIRE_OK(make(return_site, PATCH_EXEC_MODEL_PROBE, forced, PATCH_TRAP_POLICY_FORCE, &trap));
	CHECK_OK(patch_commit());
	CHECK(make(call_site, PATCH_EXEC_MODEL_PROBE_CALL, around, PATCH_TRAP_POLICY_FORBID, &patch) != PATCH_OK);
	CHECK_OK(patch_commit());
	check(1, 0, 1);
	REQUIRE_OK(make(other_call_site, PATCH_EXEC_MODEL_PROBE_CALL, other, PATCH_TRAP_POLICY_ALLOW, &another));
	CHECK_OK(patch_unmake(trap));
	CHECK_OK(patch_commit());
	check(1, 0, 0);
	REQUIRE_OK(make(call_site, PATCH_EXEC_MODEL_PROBE_CALL, around, PATCH_TRAP_POLICY_FORBID, &patch));
	commit_that_fails();
	check(1, 0, 0);
	CHECK_OK(patch_commit());
	check(1, 2, 0);
	memset(hits, 0, sizeof(hits));
	CHECK_EQ(other_caller(1), 9);
	CHECK_EQ(hits[OTHER], 2);
	CHECK_EQ(hits[AROUND], 0);
	CHECK_OK(patch_fini());
}

/* Unmade, and there again, with all that was built for it before; another procedure in between. */
static void unmade(void *unused)
{
	patch_t patch, another;

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	for (unsigned int round = 0; round < 6; round++) {
		CONTEXT("unmade, round %u", round);
		REQUIRE_OK(make(call_site, PATCH_EXEC_MODEL_PROBE_CALL, round % 3 == 1 ? before : around,
				PATCH_TRAP_POLICY_ALLOW, &patch));
		CHECK_OK(patch_commit());
		check(round % 3 == 1 ? 2 : 0, round % 3 == 1 ? 0 : 2, 0);
		CHECK_OK(patch_unmake(patch));
		CHECK_OK(patch_commit());
		REQUIRE_OK(make(other_call_site, PATCH_EXEC_MODEL_PROBE_CALL, other, PATCH_TRAP_POLICY_ALLOW,
				&another));
		CHECK_OK(patch_commit());
		check(0, 0, 0);
		if (round & 1)
			CHECK_OK(patch_unmake(another));
	}
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	harness_isolated("refused", refused, NULL);
	harness_isolated("unmade", unmade, NULL);
	return harness_end();
}
