/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * valgrind executes translations of the code, and raises an int3's signal itself, with another si_code than Linux. The
 * library took that for a signal of somebody else, and the program died of it. Patches that trap work under valgrind
 * as elsewhere; with --smc-check=all translations are made anew where text has changed.
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

static int program(void)
{
	patch_t patches[2];

	if (longer(1) != 2 || one_byte(1) != 2 || patch_init(NULL, 0) != PATCH_OK)
		return 2;
	if (make_probe((uintptr_t)longer, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patches[0]) ||
	    make_probe((uintptr_t)one_byte, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patches[1]) ||
	    patch_commit() != PATCH_OK)
		return 3;
	for (uint64_t n = 0; n < 10; n++)
		if (longer(n) != 2 * n || one_byte(n) != 2 * n)
			return 4;
	if (hits != 20)
		return 5;
	if (patch_fini() != PATCH_OK || longer(3) != 6 || one_byte(3) != 6 || hits != 20)
		return 6;
	return 0;
}

int main(int argc, char **argv)
{
	static char self[4096];
	char *const arguments[] = { (char *)"valgrind", (char *)"-q", (char *)"--smc-check=all", self,
				    (char *)"program", NULL };
	int status = 0;
	pid_t pid;

	if (argc > 1 && strcmp(argv[1], "program") == 0)
		return program();
	harness_start();
	CHECK_EQ(program(), 0);
	REQUIRE(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0);
	pid = fork();
	if (pid == 0) {
		execvp(arguments[0], arguments);
		_exit(127);
	}
	REQUIRE(pid > 0 && waitpid(pid, &status, 0) == pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		SKIP("there is no valgrind");
	CHECK_EQ(status, 0);
	return harness_end();
}
