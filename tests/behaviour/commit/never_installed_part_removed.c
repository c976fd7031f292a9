/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A probe's window grows because another patch is made in front of it, which is never enabled; then the probe is
 * removed. The part in front was never installed, its registry entry does not serve traps: a removal that puts its trap
 * byte there all the same kills the program. At every step of the protocol the function is run, from its start and from
 * the site.
 */
#include "targets.h"

#include "base/inject.h"

/* grown: two bytes in front of a five-byte instruction; grown_far: three instructions in front of one. */
long grown(long a), grown_far(long a);
long enter_grown(long a), enter_grown_far(long a);
extern uint8_t grown_site[], grown_end[], grown_far_site[], grown_far_end[];

__asm__(".text\n.p2align 6, 0xcc\n"
	".globl grown\n.type grown, @function\ngrown:\n.cfi_startproc\n mov %edi, %eax\n"
	".globl grown_site\ngrown_site: mov $0x1000, %ecx\n add %ecx, %eax\n ret\n.cfi_endproc\n"
	".globl grown_end\ngrown_end:\n.size grown, . - grown\n"
	".globl enter_grown\nenter_grown: mov %edi, %eax\n jmp grown_site\n"
	".p2align 6, 0xcc\n"
	".globl grown_far\n.type grown_far, @function\ngrown_far:\n.cfi_startproc\n nop\n mov %edi, %eax\n nop\n"
	".globl grown_far_site\ngrown_far_site: add $0x1000, %eax\n nop\n ret\n.cfi_endproc\n"
	".globl grown_far_end\ngrown_far_end:\n.size grown_far, . - grown_far\n"
	".globl enter_grown_far\nenter_grown_far: mov %edi, %eax\n jmp grown_far_site\n");

static const struct function {
	const char *name;
	long (*call)(long a);
	long (*enter)(long a);
	uint8_t *site, *end;
} functions[] = {
	{ "two bytes in front", grown, enter_grown, grown_site, grown_end },
	{ "three instructions in front", grown_far, enter_grown_far, grown_far_site, grown_far_end },
};

enum removal { DISABLE, UNMAKE, UNMAKE_BOTH, REMOVALS };
static const char *const removal_name[] = { "disabled", "unmade", "both unmade" };

static const struct function *function;
static unsigned int steps, hits[2];

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	++*(unsigned int *)context->user_data;
}

static void run(void)
{
	CHECK_EQ(function->call(5), 0x1005);
	CHECK_EQ(function->enter(6), 0x1006);
}

/* A process that a stray trap byte would kill. */
static int run_at_step(enum inject_point point)
{
	if (point >= INJECT_COMMIT_CHECKED && point <= INJECT_COMMIT_SYNC_3) {
		CONTEXT("%s, step %d", function->name, (int)point);
		steps++;
		run();
	}
	return 0;
}

static void grow_and_remove(enum removal removal)
{
	size_t start, size;
	struct text_copy before;
	patch_t site, front;

	memcpy(&start, &function->call, sizeof(start));
	size = (uintptr_t)function->end - start;
	before = text_save(start, size);
	REQUIRE_OK(make_probe((uintptr_t)function->site, procedure, &hits[0], PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED,
			      &site));
	CHECK_OK(patch_commit());
	REQUIRE_OK(make_probe(start, procedure, &hits[1], PATCH_TRAP_POLICY_ALLOW, PATCH_DISABLED, &front));
	run();
	CHECK_EQ(hits[0], 2);
	CHECK_EQ(hits[1], 0);

	CHECK_OK(removal == DISABLE ? patch_disable(site) : patch_unmake(site));
	if (removal == UNMAKE_BOTH)
		CHECK_OK(patch_unmake(front));
	steps = 0;
	libpatch_inject = run_at_step;
	CHECK_OK(patch_commit());
	libpatch_inject = NULL;
	CHECK_EQ(steps, 8);
	CONTEXT("%s, %s", function->name, removal_name[removal]);
	CHECK_TEXT_SAME(&before);
	memset(hits, 0, sizeof(hits));
	run();
	CHECK_EQ(hits[0] + hits[1], 0);

	/* the grown window, installed as a whole for the first time */
	if (removal != UNMAKE_BOTH) {
		CHECK_OK(patch_enable(front));
		libpatch_inject = run_at_step;
		CHECK_OK(patch_commit());
		libpatch_inject = NULL;
		memset(hits, 0, sizeof(hits));
		run();
		CHECK_EQ(hits[0], 0);
		CHECK_EQ(hits[1], 1);
	}
	CHECK_OK(patch_fini());
	CHECK_TEXT_SAME(&before);
}

static void remove_grown(void *argument)
{
	REQUIRE_OK(patch_init(NULL, 0));
	grow_and_remove(*(const enum removal *)argument);
}

int main(void)
{
	harness_start();
	for (size_t f = 0; f < sizeof(functions) / sizeof(functions[0]); f++) {
		function = &functions[f];
		for (enum removal removal = 0; removal < REMOVALS; removal++)
			harness_isolated(removal_name[removal], remove_grown, &removal);
	}
	return harness_end();
}
