/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * valgrind executes translations of the code, and raises an int3's signal itself, with another si_code than Linux. The
 * library took that for a signal of somebody else, and the program died of it. A translation that was made while a trap
 * byte was there was executed for ever after it was gone; one made before was executed while it was there. And valgrind
 * does not grow the stack for the frame of a handler with SA_ONSTACK.
 */
#include "harness.h"

static unsigned int hits;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

/* An int3 on the first, an invalid byte on the second, whose first instruction has one byte. */
uint64_t longer(uint64_t a), one_byte(uint64_t a);
__asm__(".text\n.p2align 6, 0xcc\n.type longer, @function\nlonger:\n.cfi_startproc\n"
	"	lea 0(,%rdi,2), %rax\n	ret\n.cfi_endproc\n.size longer, . - longer\n"
	".p2align 6, 0xcc\n.type one_byte, @function\none_byte:\n.cfi_startproc\n"
	"	push %rdi\n	pop %rax\n	add %rax, %rax\n	ret\n"
	".cfi_endproc\n.size one_byte, . - one_byte\n"
	".p2align 6, 0xcc\n");

/* Ever deeper on a stack that has not been so deep before, with a trap at each call. */
static NOINLINE uint64_t deeper(uint64_t depth)
{
	volatile uint8_t frame[512];

	frame[depth % sizeof(frame)] = 1;
	return depth == 0 ? longer(0) : deeper(depth - 1) + frame[depth % sizeof(frame)];
}

/* From one place, so that it is the same translations that are executed each time. */
static NOINLINE bool calls_give(unsigned int hits_each)
{
	hits = 0;
	for (uint64_t n = 0; n < 10; n++)
		if (longer(n) != 2 * n || one_byte(n) != 2 * n)
			return false;
	return hits == 20 * hits_each;
}

static patch_t patch(uint64_t (*function)(uint64_t), enum patch_trap_policy policy)
{
	patch_t patch;

	return make_probe((uintptr_t)function, procedure, NULL, policy, PATCH_ENABLED, &patch) == 0 ? patch : NULL;
}

static uint64_t traps(void)
{
	struct patch_statistics statistics;

	return patch_statistics(&statistics, sizeof(statistics)) == PATCH_OK ? statistics.traps : 0;
}

/* Patched by traps or by jumps, or not patched: each call is what it is now, never what it was when translated. */
static int rounds(void)
{
	for (unsigned int round = 0; round < 20; round++) {
		const bool trap = round % 3 == 1;
		const enum patch_trap_policy policy = trap ? PATCH_TRAP_POLICY_FORCE : PATCH_TRAP_POLICY_FORBID;
		const uint64_t before = traps();
		patch_t patches[2] = { patch(longer, policy), patch(one_byte, policy) };

		if (patches[0] == NULL || patches[1] == NULL || patch_commit() != PATCH_OK)
			return 3;
		if (!calls_give(1))
			return 4;
		if (trap && (deeper(round * 30) != round * 30 || hits != 21))
			return 5;
		if (traps() != before + (trap ? 21 : 0))
			return 6;
		if (patch_unmake(patches[0]) != PATCH_OK || patch_unmake(patches[1]) != PATCH_OK ||
		    patch_commit() != PATCH_OK)
			return 7;
		if (!calls_give(0) || traps() != before + (trap ? 21 : 0))
			return 8;
	}
	return 0;
}

static int program(void)
{
	int result;

	if (!calls_give(0) || patch_init(NULL, 0) != PATCH_OK)
		return 2;
	result = rounds();
	if (result != 0)
		return result;
	return patch_fini() == PATCH_OK && calls_give(0) ? 0 : 9;
}

static void check_under(const char *option, char *self)
{
	char *const arguments[] = { (char *)"valgrind", (char *)"-q", (char *)option, self, (char *)"program", NULL };
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		execvp(arguments[0], arguments);
		_exit(127);
	}
	REQUIRE(pid > 0 && waitpid(pid, &status, 0) == pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		SKIP("there is no valgrind");
	CHECK_EQ(status, 0);
}

int main(int argc, char **argv)
{
	/* How much of the code valgrind compares with what it has translated, by itself. */
	static const char *const options[] = { "--smc-check=all-non-file", "--smc-check=all", "--smc-check=none",
					       "--tool=none" };
	static char self[4096];

	if (argc > 1 && strcmp(argv[1], "program") == 0)
		return program();
	harness_start();
	CHECK_EQ(program(), 0);
	REQUIRE(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0);
	for (size_t i = 0; i < sizeof(options) / sizeof(*options); i++) {
		CONTEXT("%s", options[i]);
		check_under(options[i], self);
	}
	return harness_end();
}
