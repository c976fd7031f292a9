/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The same patches made and unmade for ever, in ways that change strategies, windows and policies: code, pads, retired
 * code, memory of the library's own and regions are as many after thousands of cycles as after some (I7).
 */
#include "harness.h"

#define EARLY 200
#define CYCLES 3000

/* counted(n) is 2 * n; caller(n) is n + 8. See punned_jump_misled.c for the bytes. */
unsigned long counted(unsigned long n), caller(unsigned long n);
extern const uint8_t counted_head[], counted_loop[], counted_count[], counted_branch[], counted_return[], call_site[];
__asm__(".text\n"
	".p2align 6\n"
	".globl counted\n.type counted, @function\n"
	"counted:\n"
	".cfi_startproc\n"
	"counted_head: mov %edi, %eax\n"
	"counted_loop: sub $0xffffffffffffffff, %rax\n"
	"counted_count: dec %rdi\n"
	"counted_branch: jnz counted_loop\n"
	"counted_return: ret\n"
	".cfi_endproc\n"
	".size counted, . - counted\n"
	".p2align 6, 0xcc\n"
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
	"	add $7, %rax\n"
	"	add $8, %rsp\n"
	"	ret\n"
	".cfi_endproc\n"
	".size caller, . - caller\n"
	".p2align 6, 0xcc\n");

static unsigned long hits;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

/* NULL: refused. */
static patch_t make(const uint8_t *at, int type, int policy, int state)
{
	struct patch_location location = location_at((uintptr_t)at);
	struct patch_exec_model model = model_of(type, procedure, NULL);
	patch_attr attr = attr_of(policy, state);
	patch_t patch = NULL;

	return patch_make(&location, &model, &attr, &patch, NULL) == PATCH_OK ? patch : NULL;
}

static patch_t commit_one(const uint8_t *at, int type, int policy)
{
	patch_t patch = make(at, type, policy, PATCH_ENABLED);

	CHECK_OK(patch_commit());
	return patch;
}

static void unmake(patch_t patch)
{
	if (patch)
		CHECK_OK(patch_unmake(patch));
}

static void unmake_each(patch_t first, patch_t second)
{
	unmake(first);
	CHECK_OK(patch_commit());
	unmake(second);
	CHECK_OK(patch_commit());
}

#define PROBE PATCH_EXEC_MODEL_PROBE
#define PROBE_AROUND PATCH_EXEC_MODEL_PROBE_AROUND
#define PROBE_CALL PATCH_EXEC_MODEL_PROBE_CALL
#define ALLOW PATCH_TRAP_POLICY_ALLOW
#define FORBID PATCH_TRAP_POLICY_FORBID
#define FORCE PATCH_TRAP_POLICY_FORCE

static void punned_to_trap(unsigned int round)
{
	patch_t head = commit_one(counted_head, PROBE, ALLOW);

	(void)round;
	unmake_each(commit_one(counted_loop, PROBE, ALLOW), head);
}

static void punned_takes_in(unsigned int round)
{
	patch_t head = commit_one(counted_head, PROBE, FORBID);

	(void)round;
	unmake_each(commit_one(counted_loop, PROBE, ALLOW), head);
}

static void jump_then_trap_inside(unsigned int round)
{
	patch_t loop = commit_one(counted_loop, PROBE, ALLOW);

	(void)round;
	unmake_each(commit_one(counted_count, PROBE, FORCE), loop);
}

static void around_a_call(unsigned int round)
{
	(void)round;
	unmake_each(commit_one(call_site, PROBE_AROUND, ALLOW), NULL);
	unmake_each(commit_one(call_site, PROBE_CALL, ALLOW), NULL);
}

static void punned_then_forced(unsigned int round)
{
	(void)round;
	unmake_each(commit_one(counted_head, PROBE, ALLOW), NULL);
	unmake_each(commit_one(counted_head, PROBE, FORCE), NULL);
}

static void three_in_a_row(unsigned int round)
{
	patch_t count = commit_one(counted_count, PROBE, FORCE), branch = commit_one(counted_branch, PROBE, ALLOW);
	patch_t loop = commit_one(counted_loop, PROBE, ALLOW);

	(void)round;
	unmake(count);
	unmake_each(branch, NULL);
	unmake_each(loop, NULL);
}

static void never_enabled(unsigned int round)
{
	patch_t head = make(counted_head, PROBE, ALLOW, PATCH_DISABLED);
	patch_t loop = make(counted_loop, PROBE, ALLOW, PATCH_DISABLED);

	unmake(make(counted_return, PROBE, ALLOW, PATCH_DISABLED));
	unmake(head);
	unmake(loop);
	if (round & 1)
		CHECK_OK(patch_commit());
}

static void policy_changes(unsigned int round)
{
	patch_t count = commit_one(counted_count, PROBE, ALLOW);

	(void)round;
	unmake_each(commit_one(counted_branch, PROBE, FORCE), NULL);
	unmake_each(commit_one(counted_branch, PROBE, ALLOW), count);
}

static void around_neighbours(unsigned int round)
{
	patch_t branch = commit_one(counted_branch, PROBE_AROUND, ALLOW);

	(void)round;
	unmake_each(branch, commit_one(counted_return, PROBE_AROUND, ALLOW));
}

static void call_refused(unsigned int round)
{
	patch_t trap = commit_one(call_site + 5, PROBE, FORCE);

	(void)round;
	CHECK(make(call_site, PROBE_CALL, FORBID, PATCH_ENABLED) == NULL);
	unmake_each(trap, NULL);
}

static const struct {
	const char *name;
	void (*cycle)(unsigned int round);
} patterns[] = {
	{ "a punned jump becomes a trap", punned_to_trap },
	{ "a punned jump takes in a neighbour", punned_takes_in },
	{ "a trap forced within a jump", jump_then_trap_inside },
	{ "around a call", around_a_call },
	{ "a punned jump, then a forced trap", punned_then_forced },
	{ "three neighbours", three_in_a_row },
	{ "never enabled", never_enabled },
	{ "the policy of a neighbour changes", policy_changes },
	{ "around neighbours", around_neighbours },
	{ "around a call, refused", call_refused },
};

static void is_bounded(const char *what, uint64_t early, uint64_t late, uint64_t spare)
{
	if (late > early + spare)
		FAIL("%s: %llu after %d cycles, %llu after %d", what, (unsigned long long)early, EARLY,
		     (unsigned long long)late, CYCLES);
}

static void repeat(void *which)
{
	void (*cycle)(unsigned int round) = patterns[*(const size_t *)which].cycle;
	struct patch_statistics early = { 0 }, late = { 0 };

	REQUIRE_OK(patch_init(NULL, 0));
	for (unsigned int round = 1; round <= CYCLES; round++) {
		cycle(round);
		CHECK_EQ(counted(3), 6);
		CHECK_EQ(caller(1), 9);
		if (round == EARLY)
			CHECK_OK(patch_statistics(&early, sizeof(early)));
	}
	CHECK_OK(patch_statistics(&late, sizeof(late)));
	is_bounded("bytes of code", early.code_bytes + early.retired_bytes, late.code_bytes + late.retired_bytes, 0);
	is_bounded("mappings", early.arenas, late.arenas, 0);
	is_bounded("pads", early.pads, late.pads, 0);
	is_bounded("regions", early.regions, late.regions, 0);
	is_bounded("bytes of the library's own", early.heap_bytes, late.heap_bytes, 0);
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	for (size_t p = 0; p < sizeof(patterns) / sizeof(patterns[0]); p++)
		harness_isolated(patterns[p].name, repeat, &p);
	return harness_end();
}
