/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A patch of many places (PROBE_RETURN) is in effect as a whole or not at all, wherever a commit is cut short: at the
 * n-th write, synchronisation, allocation or system call, for each n there is. What patch_info() says is what calls
 * see, a second call follows each first one, no function's result is wrong, and the next commit does all that is left.
 */
#include "harness.h"

#include "base/inject.h"

#define COUNT 8

/* Three exits each, farther apart than what is written by one call. */
__asm__(".text\n.macro three_exits number\n.p2align 4\n.type three_exits_\\number, @function\n"
	"three_exits_\\number:\n.cfi_startproc\n	cmp $1, %edi\n	ja 2f\n	je 1f\n"
	"	lea \\number(%rdi), %eax\n	ret\n	.skip 40000 + \\number, 0x90\n"
	"1:	lea \\number(%rdi), %eax\n	ret\n	.skip 40000, 0x90\n"
	"2:	lea \\number(%rdi), %eax\n	ret\n"
	".cfi_endproc\n.size three_exits_\\number, . - three_exits_\\number\n"
	".endm\n"
	"three_exits 0\nthree_exits 1\nthree_exits 2\nthree_exits 3\nthree_exits 4\nthree_exits 5\nthree_exits 6\n"
	"three_exits 7\n");
long three_exits_0(long n), three_exits_1(long n), three_exits_2(long n), three_exits_3(long n), three_exits_4(long n),
	three_exits_5(long n), three_exits_6(long n), three_exits_7(long n);
static long (*const functions[COUNT])(long) = { three_exits_0, three_exits_1, three_exits_2, three_exits_3,
						three_exits_4, three_exits_5, three_exits_6, three_exits_7 };

static patch_t patches[COUNT];
static unsigned int calls[COUNT][2];

static GP_ONLY void procedure(struct patch_exec_context *context, uint8_t post)
{
	++((unsigned int *)context->user_data)[post];
}

/* ---- what fails -------------------------------------------------------------------------------------------------- */

static enum inject_point failing;
static unsigned int left, passed;

static int inject(enum inject_point point)
{
	if (point != failing)
		return 0;
	++passed;
	return left > 0 && --left == 0 ? EIO : 0;
}

/* ---- what is expected -------------------------------------------------------------------------------------------- */

static unsigned int check_all(void)
{
	unsigned int enabled = 0;

	for (unsigned int i = 0; i < COUNT; i++) {
		struct patch_info info = { 0 };
		unsigned int wanted;

		CHECK_OK(patch_info(patches[i], &info, sizeof(info)));
		wanted = info.state == PATCH_ENABLED;
		enabled += wanted;
		for (long exit = 0; exit < 3; exit++) {
			memset(calls[i], 0, sizeof(calls[i]));
			CHECK_EQ(functions[i](exit), exit + i);
			CHECK_EQ(calls[i][0], wanted);
			CHECK_EQ(calls[i][1], wanted);
		}
	}
	return enabled;
}

static void want(bool enabled)
{
	for (unsigned int i = 0; i < COUNT; i++)
		CHECK_OK(enabled ? patch_enable(patches[i]) : patch_disable(patches[i]));
}

static void make_all(void)
{
	for (unsigned int i = 0; i < COUNT; i++) {
		struct patch_location location = location_at((uintptr_t)functions[i]);
		struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE_RETURN, procedure, calls[i]);

		model.probe.clobber_registers = PATCH_REGS_GP_ONLY;
		REQUIRE_OK(patch_make(&location, &model, NULL, &patches[i], NULL));
	}
}

static void unmake_all(void)
{
	for (unsigned int i = 0; i < COUNT; i++)
		CHECK_OK(patch_unmake(patches[i]));
	CHECK_OK(patch_commit());
	CHECK_OK(patch_synchronize(-1));
}

/* True: there are so many such points, and the n-th failed. */
static bool cut_short(unsigned int n, bool enabled, unsigned int *halves)
{
	unsigned int before;

	want(enabled);
	left = n;
	passed = 0;
	libpatch_inject = inject;
	(void)patch_commit();
	libpatch_inject = NULL;
	before = check_all();
	*halves += before > 0 && before < COUNT;
	CHECK_OK(patch_commit());
	CHECK_EQ(check_all(), enabled ? COUNT : 0);
	return passed >= n;
}

static void run(void *argument)
{
	static const char *const names[INJECT_POINTS] = {
		[INJECT_SYNC] = "sync", [INJECT_TEXT_WRITE] = "write", [INJECT_MMAP] = "mmap",
		[INJECT_ALLOC] = "alloc", [INJECT_SYSCALL] = "system call",
		[INJECT_COMMIT_CHECKED] = "checked", [INJECT_COMMIT_PHASE_1] = "phase 1",
		[INJECT_COMMIT_PHASE_2] = "phase 2", [INJECT_COMMIT_PHASE_3] = "phase 3",
	};
	unsigned int n = 1, halves = 0;

	failing = *(const enum inject_point *)argument;
	CONTEXT("%s", names[failing]);
	REQUIRE_OK(patch_init(NULL, 0));
	/* Anew each time, so that code is built and written each time, too. */
	for (bool more = true; more && harness_failures == 0; n++) {
		make_all();
		more = cut_short(n, true, &halves);
		more |= cut_short(n, false, &halves);
		unmake_all();
	}
	harness_say("%s: %u places, %u commits left some patches in effect and others not\n", names[failing], n - 2,
		    halves);
	CHECK_OK(patch_fini());
}

int main(void)
{
	static enum inject_point points[] = { INJECT_COMMIT_CHECKED, INJECT_COMMIT_PHASE_1, INJECT_COMMIT_PHASE_2,
					      INJECT_COMMIT_PHASE_3, INJECT_SYNC,           INJECT_TEXT_WRITE,
					      INJECT_MMAP,           INJECT_ALLOC,          INJECT_SYSCALL };

	harness_start();
	for (size_t i = 0; i < sizeof(points) / sizeof(*points); i++)
		harness_isolated("cut short", run, &points[i]);
	return harness_end();
}
