/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Somebody else, a debugger or the program, puts back the bytes of a jump, or some of its instructions'. A removal
 * must not put a trap byte there and leave it, and a commit must put the jump back.
 */
#include "harness.h"

#include "short.h"

struct sample {
	const char *name;
	unsigned long (*call)(unsigned long n);
	const uint8_t *end;
	unsigned long result; /* of 3 */
	size_t first;         /* of the jump's instructions: its size */
	size_t all;
	int strategy;
};

static const struct sample samples[] = {
	{ "a punned jump", counted, counted_end, 6, 2, 2, PATCH_STRATEGY_PUNNED_JUMP },
	{ "a jump over two instructions", plain, plain_end, 9, 4, 8, 0 },
};

static const struct sample *sample;
static size_t restored; /* bytes */
static unsigned long hits;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

static uint8_t *start(void)
{
	return (uint8_t *)(uintptr_t)sample->call;
}

static size_t size(void)
{
	return (size_t)(sample->end - start());
}

static void write_there(const uint8_t *bytes)
{
	uint8_t *page = (uint8_t *)((uintptr_t)start() & ~4095UL);

	REQUIRE(mprotect(page, 8192, PROT_READ | PROT_WRITE | PROT_EXEC) == 0);
	memcpy(start(), bytes, restored);
	REQUIRE(mprotect(page, 8192, PROT_READ | PROT_EXEC) == 0);
}

static void call(unsigned int wanted)
{
	hits = 0;
	CHECK_EQ(sample->call(3), sample->result);
	CHECK_EQ(hits, wanted);
}

static patch_t patch_it(void)
{
	struct patch_info info = { 0 };
	patch_t patch = NULL;

	REQUIRE_OK(make_probe((uintptr_t)start(), procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
	CHECK_OK(patch_commit());
	CHECK_OK(patch_info(patch, &info, sizeof(info)));
	if (sample->strategy == PATCH_STRATEGY_PUNNED_JUMP && info.strategy != sample->strategy)
		SKIP("no memory at the addresses that the jump can lead to: strategy %d", info.strategy);
	CHECK(info.strategy != PATCH_STRATEGY_TRAP);
	call(1);
	return patch;
}

static void restore(void *unused)
{
	uint8_t original[32], patched[32];
	patch_t patch;

	(void)unused;
	REQUIRE(size() <= sizeof(original));
	memcpy(original, start(), size());
	REQUIRE_OK(patch_init(NULL, 0));

	/* removed after that */
	patch = patch_it();
	memcpy(patched, start(), size());
	write_there(original);
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
	CHECK(memcmp(start(), original, size()) == 0);
	call(0);

	/* put back by a commit */
	patch = patch_it();
	write_there(original);
	CHECK_OK(patch_enable(patch));
	CHECK_OK(patch_commit());
	CHECK(memcmp(start(), patched, sample->all) == 0);
	call(1);

	/* removed by patch_fini() */
	write_there(original);
	CHECK_OK(patch_fini());
	CHECK(memcmp(start(), original, size()) == 0);
	call(0);
}

int main(void)
{
	harness_start();
	for (size_t s = 0; s < sizeof(samples) / sizeof(samples[0]); s++) {
		sample = &samples[s];
		for (restored = sample->first; restored <= sample->all; restored += sample->first) {
			CONTEXT("%s, %zu bytes restored", sample->name, restored);
			harness_isolated(restored == sample->all ? sample->name : "one of two", restore, NULL);
		}
	}
	return harness_end();
}
