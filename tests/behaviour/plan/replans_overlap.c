/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Two patches whose jumps both have a boundary in them that the program keeps jumping to: the next commit plans both
 * again, and the best place for each, taken alone, overlaps with that for the other one.
 */
#include "harness.h"

#define TURNS 5000

/* function(a, entry, callback) is a + 4, from each entry; which are led to is not known, as the jump is computed. */
unsigned long function(unsigned long a, const void *entry, void (*callback)(void));
void callback(void);
/* Enters the function there, with 5 in rax. */
unsigned long enter_at(const uint8_t *where, void (*callback)(void));
extern const uint8_t entry[], first[], second[], behind_second[], function_end[];
__asm__(".text\n"
	".p2align 6\n"
	".globl function\n.type function, @function\n"
	"function:\n"
	".cfi_startproc\n"
	"	jmp *%rsi\n"
	"	.skip 5, 0x90\n"
	"entry:	lea 1(%rdi), %rax\n"
	"first:	call *%rdx\n"
	"	add $1, %rax\n"
	"	nop\n"
	"second: mov %eax, %eax\n"
	"behind_second:\n"
	"	add $2, %rax\n"
	"	ret\n"
	".cfi_endproc\n"
	"function_end:\n"
	".size function, . - function\n"
	".p2align 6, 0xcc\n"
	".globl callback\n.type callback, @function\n"
	"callback:\n"
	".cfi_startproc\n"
	"	ret\n"
	".cfi_endproc\n"
	".size callback, . - callback\n"
	".globl enter_at\n.type enter_at, @function\n"
	"enter_at:\n"
	".cfi_startproc\n"
	"	mov %rsi, %rdx\n"
	"	mov $5, %eax\n"
	"	jmp *%rdi\n"
	".cfi_endproc\n"
	".size enter_at, . - enter_at\n"
	".p2align 6, 0xcc\n");

static unsigned long hits[2];

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	++*(unsigned long *)context->user_data;
}

static struct patch_info info_of(patch_t patch)
{
	struct patch_info info = { 0 };

	CHECK_OK(patch_info(patch, &info, sizeof(info)));
	return info;
}

/* Of what it owns: a punned jump has bytes behind its window. */
static uintptr_t end_of(const struct patch_info *info)
{
	return info->strategy == PATCH_STRATEGY_PUNNED_JUMP ? info->lower + 5 : info->upper;
}

static bool overlap(const struct patch_info *a, const struct patch_info *b)
{
	return a->lower < end_of(b) && b->lower < end_of(a);
}

static void check(void)
{
	hits[0] = hits[1] = 0;
	for (unsigned int i = 0; i < 10; i++)
		CHECK_EQ(function(1, entry, callback), 5);
	CHECK_EQ(hits[0], 10);
	CHECK_EQ(hits[1], 10);
	CHECK_EQ(enter_at(first, callback), 8);
	CHECK_EQ(enter_at(behind_second, callback), 7);
}

static void replan(void *unused)
{
	struct patch_info before[2], after[2];
	uint8_t original[64];
	patch_t patch[2];

	(void)unused;
	memcpy(original, (const void *)(uintptr_t)function, sizeof(original));
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)first, procedure, &hits[0], PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED,
			      &patch[0]));
	REQUIRE_OK(make_probe((uintptr_t)second, procedure, &hits[1], PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED,
			      &patch[1]));
	CHECK_OK(patch_commit());
	for (unsigned int i = 0; i < 2; i++)
		before[i] = info_of(patch[i]);
	check();
	for (unsigned int i = 0; i < TURNS; i++) {
		enter_at(first, callback);
		enter_at(behind_second, callback);
	}
	CHECK_OK(patch_commit());
	for (unsigned int i = 0; i < 2; i++) {
		after[i] = info_of(patch[i]);
		harness_say("window +%zd to +%zd, strategy %d; then +%zd to +%zd, strategy %d\n",
			    before[i].lower - (uintptr_t)function, before[i].upper - (uintptr_t)function,
			    before[i].strategy, after[i].lower - (uintptr_t)function,
			    after[i].upper - (uintptr_t)function, after[i].strategy);
	}
	CHECK(!overlap(&after[0], &after[1]));
	check();
	CHECK_OK(patch_fini());
	CHECK(memcmp(original, (const void *)(uintptr_t)function, sizeof(original)) == 0);
}

int main(void)
{
	harness_start();
	harness_isolated("two planned again", replan, NULL);
	return harness_end();
}
