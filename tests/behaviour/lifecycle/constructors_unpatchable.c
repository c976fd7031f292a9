/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Patches made before main(): from a constructor, on a function that is called by a later constructor, on the
 * constructor itself that runs next, and by one that is called by the dynamic linker before any other code of the
 * program (the preinit array). All of them see what they should, and are still there in main().
 */
#include "harness.h"

static unsigned int hits[3];
static patch_t patches[3];
static patch_status status = PATCH_EINIT;
static uint64_t sums;

NOINLINE uint64_t used_by_constructors(uint64_t a);
NOINLINE uint64_t used_by_constructors(uint64_t a)
{
	__asm__ volatile("" : "+r"(a));
	return a * 3;
}

static uint64_t (*volatile call)(uint64_t) = used_by_constructors;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	++*(unsigned int *)context->user_data;
	errno = 4711;
}

void second(void);

/* Errors are for main() to report. */
static void make(unsigned int i, uintptr_t address)
{
	if (status == PATCH_OK)
		status = make_probe(address, procedure, &hits[i], PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patches[i]);
	if (status == PATCH_OK)
		status = patch_commit();
}

/* Before the constructors of all libraries, libpatch's included. */
static void very_first(void)
{
	status = patch_init(NULL, 0);
	make(0, (uintptr_t)used_by_constructors);
	sums += call(1);
}

__attribute__((section(".preinit_array"), used)) static void (*const preinit)(void) = very_first;

__attribute__((constructor(200))) static void first(void)
{
	make(1, (uintptr_t)second);
	sums += call(10);
}

__attribute__((constructor(300))) void second(void)
{
	/* Of the library that everybody uses, from here. */
	make(2, (uintptr_t)getenv);
	sums += call(100);
	getenv("PATH");
}

int main(void)
{
	harness_start();
	CHECK_OK(status);
	CHECK_EQ(sums, 333);
	CHECK_EQ(hits[0], 3);
	CHECK_EQ(hits[1], 1);
	CHECK(hits[2] >= 1);
	CHECK_EQ(call(1), 3);
	CHECK_EQ(hits[0], 4);
	errno = 5;
	CHECK_EQ(call(1), 3);
	CHECK_EQ(errno, 5);
	CHECK_OK(patch_fini());
	CHECK_EQ(call(1), 3);
	CHECK_EQ(hits[0], 5);
	return harness_end();
}
