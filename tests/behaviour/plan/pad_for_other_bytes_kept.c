/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A punned jump goes, the program replaces the code behind it, and the same instruction, which is still the same, is
 * patched again: the bytes that the jump shares now lead somewhere else, and the pad has to be there.
 */
#include "harness.h"

#include <sys/mman.h>

#define TURNS 5000
#define NEAR (64UL << 20) /* so that displacements of some hundred MiB lead to free memory */

typedef unsigned long (*function)(unsigned long a);

/* mov %edi, %eax; sub $-1, %rax; ret: is a + 1 */
static const uint8_t one[] = { 0x89, 0xf8, 0x48, 0x83, 0xe8, 0xff, 0xc3 };
/* mov %edi, %eax; sub $-1, %r9; ret: is a */
static const uint8_t other[] = { 0x89, 0xf8, 0x49, 0x83, 0xe9, 0xff, 0xc3 };

static unsigned long hits;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

static void write_code(uint8_t *page, const uint8_t *code)
{
	REQUIRE(mprotect(page, 4096, PROT_READ | PROT_WRITE) == 0);
	memcpy(page, code, sizeof(one));
	REQUIRE(mprotect(page, 4096, PROT_READ | PROT_EXEC) == 0);
}

static int strategy(patch_t patch)
{
	struct patch_info info = { 0 };

	CHECK_OK(patch_info(patch, &info, sizeof(info)));
	return info.strategy;
}

static patch_t patch_at(uint8_t *page)
{
	patch_t patch = NULL;

	REQUIRE_OK(make_probe((uintptr_t)page, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
	CHECK_OK(patch_commit());
	return patch;
}

static void unmake(patch_t patch)
{
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
}

static uint8_t *page_near(uintptr_t address)
{
	uint8_t *page = mmap((void *)(address & ~4095UL), 4096, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (page == MAP_FAILED)
		SKIP("no memory near %#zx", (size_t)address);
	memset(page, 0xcc, 4096);
	return page;
}

static void patch_again(void *unused)
{
	uint8_t *page = page_near((uintptr_t)patch_again + NEAR), *second = page + 2;
	function run, run_second;
	patch_t patch;

	(void)unused;
	memcpy(&run, &page, sizeof(run));
	memcpy(&run_second, &second, sizeof(run));
	REQUIRE_OK(patch_init(NULL, 0));
	write_code(page, one);
	patch = patch_at(page);
	/* The second instruction is led to, so only a punned jump is free of traps. */
	for (unsigned int i = 0; i < TURNS; i++)
		run_second(1);
	CHECK_OK(patch_commit());
	if (strategy(patch) != PATCH_STRATEGY_PUNNED_JUMP)
		SKIP("no memory at the addresses that the jump can lead to: strategy %d", strategy(patch));
	CHECK_EQ(run(3), 4);
	CHECK_EQ(hits, 1);
	unmake(patch);

	write_code(page, other);
	patch = patch_at(page);
	harness_say("strategy %d with other code behind it\n", strategy(patch));
	CHECK_EQ(run(3), 3);
	CHECK_EQ(hits, 2);
	unmake(patch);
	CHECK(memcmp(page, other, sizeof(other)) == 0);

	/* and back: the first pad is right again */
	write_code(page, one);
	patch = patch_at(page);
	CHECK_EQ(strategy(patch), PATCH_STRATEGY_PUNNED_JUMP);
	CHECK_EQ(run(3), 4);
	CHECK_EQ(hits, 3);
	CHECK_OK(patch_fini());
	CHECK(memcmp(page, one, sizeof(one)) == 0);
}

int main(void)
{
	harness_start();
	/* A child: the jump to the wrong place may kill it. */
	harness_isolated("other bytes at the same address", patch_again, NULL);
	return harness_end();
}
