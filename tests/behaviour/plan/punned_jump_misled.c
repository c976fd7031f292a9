/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A jump that consists of bytes of the instruction behind it, in part, while that instruction is patched and unpatched
 * in other threads' way: the jump gives way before those bytes change, and comes back only when they are original.
 */
#include "harness.h"

#include <pthread.h>
#include <stdatomic.h>

#define THREADS 2
#define ROUNDS 3000

/*
 * counted(n) is 2 * n. The first instruction can take no jump of its own that does not cover the head of the loop, and
 * none can begin in front of it; the loop's bytes 48 83 E8 are the upper ones of displacement -0x177CB800.
 */
unsigned long counted(unsigned long n);
extern const uint8_t counted_head[], counted_loop[], counted_end[];
__asm__(".text\n"
	".p2align 6\n"
	".globl counted\n.type counted, @function\n"
	"counted:\n"
	".cfi_startproc\n"
	"counted_head: mov %edi, %eax\n"         /* 89 f8 */
	"counted_loop: sub $0xffffffffffffffff, %rax\n" /* 48 83 e8 ff */
	"	dec %rdi\n"
	"	jnz counted_loop\n"
	"	.rept 8\n	jg counted_loop\n	.endr\n" /* never: so many that they are not led elsewhere */
	"	ret\n"
	".cfi_endproc\n"
	"counted_end:\n"
	".size counted, . - counted\n"
	".p2align 6, 0xcc\n");

static _Atomic bool stop;
static _Atomic uint64_t hits[2];
static _Atomic uint64_t calls, wrong;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	atomic_fetch_add_explicit((_Atomic uint64_t *)context->user_data, 1, memory_order_relaxed);
}

static void *run(void *argument)
{
	(void)argument;
	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		if (counted(3) != 6)
			atomic_fetch_add(&wrong, 1);
		atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
	}
	return NULL;
}

static uint8_t original[32];

static void check_text(const uint8_t *from)
{
	if (memcmp(from, original + (from - counted_head), (size_t)(counted_end - from)) != 0)
		FAIL("the text is not the original one");
}

static patch_t make(const uint8_t *address, int which, int policy)
{
	patch_t patch = NULL;

	CHECK_OK(make_probe((uintptr_t)address, procedure, (void *)&hits[which], policy, PATCH_ENABLED, &patch));
	return patch;
}

static int strategy(patch_t patch)
{
	struct patch_info info = { 0 };

	CHECK_OK(patch_info(patch, &info, sizeof(info)));
	return info.strategy;
}

/* One call of the function, and what it should count. */
static void check(const char *when, unsigned int head, unsigned int loop)
{
	uint64_t before[2] = { hits[0], hits[1] };

	CONTEXT("%s", when);
	if (counted(3) != 6)
		FAIL("wrong result");
	if (hits[0] - before[0] != head || hits[1] - before[1] != loop)
		FAIL("%lu and %lu hits, wanted %u and %u", hits[0] - before[0], hits[1] - before[1], head, loop);
}

static void step_by_step(void)
{
	patch_t head = make(counted_head, 0, PATCH_TRAP_POLICY_ALLOW);
	patch_t loop;

	CHECK_OK(patch_commit());
	if (strategy(head) != PATCH_STRATEGY_PUNNED_JUMP)
		SKIP("no memory at the addresses that the jump can lead to: strategy %d", strategy(head));
	check_text(counted_loop);
	check("punned", 1, 0);
	loop = make(counted_loop, 1, PATCH_TRAP_POLICY_ALLOW);
	check("made, not committed", 1, 0);
	CHECK_OK(patch_commit());
	check("both", 1, 3);
	if (strategy(head) != PATCH_STRATEGY_TRAP || strategy(loop) == PATCH_STRATEGY_TRAP)
		FAIL("strategies %d and %d", strategy(head), strategy(loop));
	CHECK_OK(patch_unmake(loop));
	CHECK_OK(patch_commit());
	check_text(counted_loop);
	check("one again", 1, 0);
	CHECK_OK(patch_unmake(head));
	CHECK_OK(patch_commit());
	check("none", 0, 0);
	head = make(counted_head, 0, PATCH_TRAP_POLICY_FORBID);
	CHECK_OK(patch_commit());
	if (strategy(head) != PATCH_STRATEGY_PUNNED_JUMP)
		FAIL("strategy %d once the bytes are free again", strategy(head));
	check("punned again", 1, 0);
	/* It must stay a jump: so it takes the other one in, and branches to that trap. */
	loop = make(counted_loop, 1, PATCH_TRAP_POLICY_ALLOW);
	CHECK_OK(patch_commit());
	check("both in one", 1, 3);
	if (strategy(head) == PATCH_STRATEGY_TRAP || strategy(loop) == PATCH_STRATEGY_TRAP)
		FAIL("strategies %d and %d", strategy(head), strategy(loop));
	CHECK_OK(patch_unmake(loop));
	CHECK_OK(patch_unmake(head));
	CHECK_OK(patch_commit());
	check_text(counted_head);
}

/* Somebody else writes to the bytes that a jump would read: it stays a trap until they are back. */
static void others_write(void)
{
	patch_t head = make(counted_head, 0, PATCH_TRAP_POLICY_ALLOW);
	uint8_t *page = (uint8_t *)((uintptr_t)counted_loop & ~4095ul);
	volatile uint8_t *byte = (volatile uint8_t *)(uintptr_t)counted_loop + 2;

	CONTEXT("others write");
	REQUIRE(mprotect(page, 8192, PROT_READ | PROT_WRITE | PROT_EXEC) == 0);
	*byte = 0xe9; /* sub $-1, %rcx */
	CHECK_STATUS(patch_commit(), PATCH_EFAIL);
	if (counted(3) != 3)
		FAIL("wrong result with other code behind it");
	*byte = 0xe8;
	REQUIRE(mprotect(page, 8192, PROT_READ | PROT_EXEC) == 0);
	CHECK_OK(patch_commit());
	check("they are back", 1, 0);
	if (*counted_head != 0xe9)
		FAIL("no jump once they are back");
	CHECK_OK(patch_unmake(head));
	CHECK_OK(patch_commit());
	check_text(counted_head);
}

static void while_threads_run(void)
{
	pthread_t threads[THREADS];
	uint64_t punned = 0;

	for (unsigned int i = 0; i < THREADS; i++)
		REQUIRE(pthread_create(&threads[i], NULL, run, NULL) == 0);
	for (unsigned int round = 0; round < ROUNDS; round++) {
		CONTEXT("round %u", round);
		patch_t head =
			make(counted_head, 0, round % 3 == 2 ? PATCH_TRAP_POLICY_FORBID : PATCH_TRAP_POLICY_ALLOW);
		patch_t loop;

		CHECK_OK(patch_commit());
		punned += strategy(head) == PATCH_STRATEGY_PUNNED_JUMP;
		loop = make(counted_loop, 1, PATCH_TRAP_POLICY_ALLOW);
		if (round % 2)
			CHECK_OK(patch_commit());
		CHECK_OK(patch_unmake(round % 4 < 2 ? loop : head));
		CHECK_OK(patch_commit());
		CHECK_OK(patch_unmake(round % 4 < 2 ? head : loop));
		CHECK_OK(patch_commit());
		if (harness_failures)
			break;
	}
	stop = true;
	for (unsigned int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	CHECK(calls > 0 && hits[0] > 0 && hits[1] > 0);
	if (wrong)
		FAIL("%lu of %lu calls with a wrong result", wrong, calls);
	if (punned < ROUNDS / 4)
		FAIL("only %lu jumps were punned", punned);
	harness_say("%lu calls, %lu and %lu hits, %lu times punned\n", calls, hits[0], hits[1], punned);
}

int main(void)
{
	harness_start();
	REQUIRE((size_t)(counted_end - counted_head) <= sizeof(original));
	memcpy(original, counted_head, (size_t)(counted_end - counted_head));
	REQUIRE_OK(patch_init(NULL, 0));
	step_by_step();
	others_write();
	while_threads_run();
	CHECK_OK(patch_fini());
	check_text(counted_head);
	return harness_end();
}
