/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A function of four bytes takes a jump only by way of the first byte of the function behind it, and that is `48` as a
 * rule: 1.125 GiB above, where the program break may be about to grow. Such a site is a trap, or traps wherever the
 * next function is called, though there is memory. And when the next function is to be patched as well, one of the two
 * is refused.
 */
#include "harness.h"

#define MIB ((uintptr_t)1 << 20)
/* What the break may always take. */
#define LEAST (128 * MIB)

int small(int number);
int next(int number);
int last(int number);
__asm__(".text\n"
	".globl small, next, last\n"
	".balign 16\n"
	".type small, @function\n"
	"small: .cfi_startproc\n lea 1(%rdi), %eax\n ret\n .cfi_endproc\n .size small, .-small\n"
	".type next, @function\n"
	"next: .cfi_startproc\n sub $8, %rsp\n .cfi_adjust_cfa_offset 8\n add $8, %rsp\n .cfi_adjust_cfa_offset -8\n"
	" lea 2(%rdi), %eax\n ret\n .cfi_endproc\n .size next, .-next\n"
	".type last, @function\n"
	"last: .cfi_startproc\n lea 3(%rdi), %eax\n nopl 0(%rax)\n ret\n .cfi_endproc\n .size last, .-last\n");

static volatile unsigned int hits[2];

static void GP_ONLY count_hit(struct patch_exec_context *context, uint8_t post)
{
	unsigned int *counter = context->user_data;

	(void)post;
	++*counter;
}

static patch_t make(int (*function)(int), int policy, unsigned int index)
{
	patch_t patch;

	REQUIRE_OK(make_probe((uintptr_t)function, count_hit, (void *)&hits[index], policy, PATCH_ENABLED,
			      &patch));
	return patch;
}

static uint8_t strategy_of(patch_t patch)
{
	struct patch_info info;

	REQUIRE_OK(patch_info(patch, &info, sizeof(info)));
	return info.strategy;
}

/* Every address that a jump of `small` can lead to is in the room for the break. */
static void grow_towards_pads(void)
{
	const uintptr_t lowest = (uintptr_t)small + 5 + 0x48000000;
	uintptr_t now = (uintptr_t)sbrk(0);

	REQUIRE(*(const uint8_t *)next == 0x48);
	/* It may begin up to 1 GiB above the program. */
	if (now < lowest - 512 * MIB && sbrk((intptr_t)(lowest - 512 * MIB - now)) == (void *)-1)
		SKIP("the program break does not grow so far: %s", strerror(errno));
	now = (uintptr_t)sbrk(0);
	if (now + LEAST > lowest)
		SKIP("the program break begins %#lx above the program", now - (uintptr_t)small);
}

static void check_calls(unsigned int small_hits, unsigned int next_hits)
{
	hits[0] = hits[1] = 0;
	CHECK_EQ(small(5), 6);
	CHECK_EQ(next(5), 7);
	CHECK_EQ(last(5), 8);
	CHECK_EQ(hits[0], small_hits);
	CHECK_EQ(hits[1], next_hits);
}

static void the_jump_is_taken(void *argument)
{
	const int policy = *(const int *)argument;
	uintptr_t before;
	patch_t patch;

	grow_towards_pads();
	REQUIRE_OK(patch_init(NULL, 0));
	patch = make(small, policy, 0);
	CHECK_EQ(strategy_of(patch), PATCH_STRATEGY_PUNNED_JUMP);
	REQUIRE_OK(patch_commit());
	check_calls(1, 0);
	/* What is left of the room is the break's. */
	before = (uintptr_t)sbrk((intptr_t)(LEAST - MIB));
	CHECK(before != UINTPTR_MAX);
	memset((void *)before, 1, MIB);
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
	check_calls(0, 0);
	CHECK_OK(patch_fini());
}

static void the_next_function_has_one_too(void *argument)
{
	const int policy = *(const int *)argument;
	patch_t first, second;

	grow_towards_pads();
	REQUIRE_OK(patch_init(NULL, 0));
	first = make(small, policy, 0);
	REQUIRE_OK(patch_commit());
	second = make(next, policy, 1);
	REQUIRE_OK(patch_commit());
	check_calls(1, 1);
	if (policy == PATCH_TRAP_POLICY_FORBID) {
		CHECK(strategy_of(first) != PATCH_STRATEGY_TRAP);
		CHECK(strategy_of(second) != PATCH_STRATEGY_TRAP);
	}
	CHECK_OK(patch_unmake(first));
	CHECK_OK(patch_commit());
	check_calls(0, 1);
	CHECK_OK(patch_unmake(second));
	CHECK_OK(patch_commit());
	check_calls(0, 0);
	CHECK_OK(patch_fini());
}

int main(void)
{
	static int policies[] = { PATCH_TRAP_POLICY_ALLOW, PATCH_TRAP_POLICY_FORBID };

	harness_start();
	for (unsigned int i = 0; i < 2; i++) {
		CONTEXT("%s", policy_name(policies[i]));
		harness_isolated("the jump is taken", the_jump_is_taken, &policies[i]);
		harness_isolated("the next function has one, too", the_next_function_has_one_too, &policies[i]);
	}
	return harness_end();
}
