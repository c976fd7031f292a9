/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A loop whose head lies within the bytes of a jump, in code that nothing is known of: every turn of it traps. The next
 * commit notices, and patches the site in another way; not while a thread blocks SIGTRAP.
 */
#include "harness.h"

#include "raw_mask.h"

#include <pthread.h>
#include <semaphore.h>

/*
 * counted(n) is 2 * n; its head is `lead` bytes of NOPs behind its start. Without unwind information: nobody knows its
 * extent.
 */
unsigned long counted(unsigned long n);
unsigned long sealed(unsigned long n);
extern const uint8_t counted_end[], sealed_end[];
__asm__(".text\n"
	".p2align 6\n"
	".globl counted\n.type counted, @function\n"
	"counted:\n"
	"	mov %edi, %eax\n"
	"1:	sub $0xffffffffffffffff, %rax\n" /* 48 83 e8 ff: the upper bytes of a displacement of -0x177CB800 */
	"	dec %rdi\n"
	"	jnz 1b\n"
	"	ret\n"
	"counted_end:\n"
	".p2align 6, 0xcc\n"
	/* The same, where those bytes are those of a displacement of 1.8 GiB upwards: there is no place for a pad. */
	".globl sealed\n.type sealed, @function\n"
	"sealed:\n"
	"	mov %edi, %eax\n"
	"1:	inc %eax\n"     /* ff c0 */
	"	jo 2f\n"        /* 70 04 */
	"	dec %rdi\n"
	"	jnz 1b\n"
	"2:	ret\n"
	"sealed_end:\n"
	".p2align 6, 0xcc\n");

#define TURNS 20000

static uint64_t hits;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	if (context->program_counter == *(uintptr_t *)context->user_data)
		__atomic_fetch_add(&hits, 1, __ATOMIC_RELAXED);
}

static uint64_t traps(void)
{
	struct patch_statistics statistics;

	CHECK_OK(patch_statistics(&statistics, sizeof(statistics)));
	return statistics.traps;
}

static int strategy(patch_t patch)
{
	struct patch_info info = { 0 };

	CHECK_OK(patch_info(patch, &info, sizeof(info)));
	return info.strategy;
}

/* A call of many turns; the traps that it took. */
static uint64_t call(unsigned long (*function)(unsigned long))
{
	uint64_t before = traps(), hits_before = hits;

	CHECK_EQ((unsigned int)function(TURNS), 2u * TURNS);
	CHECK_EQ(hits - hits_before, 1u);
	return traps() - before;
}

static patch_t patch_at(unsigned long (*function)(unsigned long), uintptr_t *address, int policy)
{
	patch_t patch = NULL;

	*address = (uintptr_t)function;
	CHECK_OK(make_probe(*address, procedure, address, policy, PATCH_ENABLED, &patch));
	CHECK_OK(patch_commit());
	return patch;
}

static void is_planned_again(int policy)
{
	uint8_t original[16];
	uintptr_t address;
	patch_t patch;

	CONTEXT("policy %d", policy);
	memcpy(original, (const void *)(uintptr_t)counted, sizeof(original));
	patch = patch_at(counted, &address, policy);
	CHECK_EQ(strategy(patch), PATCH_STRATEGY_CONSTRAINED_JUMP);
	CHECK(call(counted) >= TURNS - 1);
	CHECK_OK(patch_commit());
	if (strategy(patch) != PATCH_STRATEGY_PUNNED_JUMP)
		SKIP("no memory at the addresses that the other jump can lead to: strategy %d", strategy(patch));
	CHECK_EQ(call(counted), 0u);
	CHECK_OK(patch_disable(patch));
	CHECK_OK(patch_commit());
	CHECK(memcmp(original, (const void *)(uintptr_t)counted, sizeof(original)) == 0);
	CHECK_OK(patch_enable(patch));
	CHECK_OK(patch_commit());
	CHECK_EQ(call(counted), 0u);
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
	CHECK(memcmp(original, (const void *)(uintptr_t)counted, sizeof(original)) == 0);
	/* It is remembered. */
	patch = patch_at(counted, &address, policy);
	CHECK_EQ(strategy(patch), PATCH_STRATEGY_PUNNED_JUMP);
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
}

/* What can not be had better stays as it is, and works. */
static void stays_when_it_must(void)
{
	uintptr_t address;
	patch_t patch = patch_at(sealed, &address, PATCH_TRAP_POLICY_FORBID);
	int before = strategy(patch);

	CHECK(call(sealed) >= (before == PATCH_STRATEGY_CONSTRAINED_JUMP ? TURNS - 1 : 0));
	CHECK_OK(patch_commit());
	if (strategy(patch) == before)
		CHECK(call(sealed) >= (before == PATCH_STRATEGY_CONSTRAINED_JUMP ? TURNS - 1 : 0));
	else
		CHECK_EQ(call(sealed), 0u);
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
}

static sem_t blocked, go_on;

static void *block(void *unused)
{
	const uint64_t set = (uint64_t)1 << (SIGTRAP - 1);

	raw_mask(SIG_BLOCK, set);
	sem_post(&blocked);
	sem_wait(&go_on);
	raw_mask(SIG_UNBLOCK, set);
	return unused;
}

/* It must not be adopted. Nothing is queued: that it is looked at is for what is planned again. */
static void waits_for_thread(void *unused)
{
	const struct patch_option option = { .type = PATCH_OPT_ADOPT_THREADS, .adopt_threads = false };
	uint8_t before[16];
	pthread_t thread;
	uintptr_t address;
	patch_t patch;

	(void)unused;
	sem_init(&blocked, 0, 0);
	sem_init(&go_on, 0, 0);
	REQUIRE_OK(patch_init(&option, 1));
	patch = patch_at(counted, &address, PATCH_TRAP_POLICY_ALLOW);
	CHECK(call(counted) >= TURNS - 1);
	memcpy(before, (const void *)(uintptr_t)counted, sizeof(before));
	REQUIRE(pthread_create(&thread, NULL, block, NULL) == 0);
	sem_wait(&blocked);
	CHECK_OK(patch_commit());
	CHECK(memcmp(before, (const void *)(uintptr_t)counted, sizeof(before)) == 0);
	CHECK_EQ(strategy(patch), PATCH_STRATEGY_CONSTRAINED_JUMP);
	sem_post(&go_on);
	pthread_join(thread, NULL);
	CHECK_OK(patch_commit());
	if (strategy(patch) == PATCH_STRATEGY_PUNNED_JUMP)
		CHECK_EQ(call(counted), 0u);
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	harness_isolated("a thread blocks SIGTRAP", waits_for_thread, NULL);
	REQUIRE_OK(patch_init(NULL, 0));
	stays_when_it_must();
	is_planned_again(PATCH_TRAP_POLICY_ALLOW);
	CHECK_OK(patch_fini());
	return harness_end();
}
