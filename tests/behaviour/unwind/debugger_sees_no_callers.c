/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gdb shows what called a probed function: stopped in a procedure, at each instruction of generated code, and in a core
 * file. It is not stopped by anything of the library's; where a patch is resident as a trap, "signal SIGTRAP" goes on.
 */
#include "targets.h"
#include "tool_output.h"

#include <fcntl.h>

#define TEXT_SIZE (1 << 20)
#define CORE "debugger_sees_no_callers.core"
#define SCRIPT "debugger_sees_no_callers.gdb"
#define STEPS 200U

static char text[TEXT_SIZE];

/* ---- the program under gdb --------------------------------------------------------------------------------------- */

/* gdb has breakpoints on these. */
NOINLINE void stopped_in_procedure(void)
{
	__asm__ volatile("");
}

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	stopped_in_procedure();
}

static NOINLINE uint64_t calls_target(uint64_t a, uint64_t b)
{
	uint64_t value = t_push_push(a, b);

	__asm__ volatile("" : "+r"(value));
	return value;
}

/* `again`: not with the first hit of the thread, which goes into the library. */
static int program(int policy, bool again)
{
	patch_t patch;

	if (patch_init(NULL, 0) != PATCH_OK ||
	    make_probe((uintptr_t)t_push_push, procedure, NULL, policy, PATCH_ENABLED, &patch) != PATCH_OK ||
	    patch_commit() != PATCH_OK)
		return 1;
	if (again)
		t_push_push(5, 7);
	return calls_target(5, 7) == 19 ? 0 : 1;
}

/* ---- gdb --------------------------------------------------------------------------------------------------------- */

/* What gdb says to `commands`, which end with NULL; with a core file or without. */
static void run_gdb(const char *const *commands, const char *core)
{
	const char *arguments[64] = { "gdb", "-nx", "-batch", "-iex", "set debuginfod enabled off" };
	char self[256];
	size_t count = 5;

	self[readlink("/proc/self/exe", self, sizeof(self) - 1)] = '\0';
	while (*commands != NULL) {
		arguments[count++] = "-ex";
		arguments[count++] = *commands++;
	}
	arguments[count++] = self;
	if (core != NULL)
		arguments[count++] = core;
	setenv("LIBPATCH_TEST_UNDER_GDB", "jump", 1);
	tool_output(arguments, true, text, TEXT_SIZE);
	unsetenv("LIBPATCH_TEST_UNDER_GDB");
}

static unsigned int count_of(const char *what)
{
	unsigned int count = 0;

	for (const char *at = text; (at = strstr(at, what)) != NULL; at++)
		count++;
	return count;
}

/* Each backtrace has them in this order. */
static void check_backtraces(unsigned int number)
{
	static const char *const functions[] = { "t_push_push (", "calls_target (", "main (" };
	const char *at = text;

	for (unsigned int n = 0; n < number; n++)
		for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
			at = strstr(at, functions[i]);
			CHECK_MSG(at != NULL, "no %s in backtrace %u of:\n%.1500s", functions[i], n, text);
			if (at == NULL)
				return;
			at++;
		}
}

/* The call, the pad, the hook, the procedure, and the hook again. */
static void write_script(void)
{
	FILE *script = fopen(SCRIPT, "w");

	REQUIRE(script != NULL);
	fprintf(script,
		"while $pc != &t_push_push\nstepi\nend\n"
		"set $n = 0\nwhile $n < %u\nstepi\ninfo symbol $pc\nbt\nset $n = $n + 1\nend\n", STEPS);
	REQUIRE(fclose(script) == 0);
}

int main(void)
{
	const char *role = getenv("LIBPATCH_TEST_UNDER_GDB");
	static const char *const try[] = { "break main", "run", "bt", NULL };
	static const char *const in_procedure[] = { "break stopped_in_procedure", "run", "bt",
						    "generate-core-file " CORE,   "continue", NULL };
	static const char *const in_core[] = { "bt", NULL };
	static const char *const at_trap[] = { "set env LIBPATCH_TEST_UNDER_GDB=trap",
					       "break stopped_in_procedure",
					       "run",
					       "signal SIGTRAP",
					       "bt",
					       "continue",
					       NULL };
	static const char *const at_each[] = { "set env LIBPATCH_TEST_UNDER_GDB=again", "break calls_target", "run",
					       "source " SCRIPT, NULL };

	if (role != NULL)
		return program(strcmp(role, "trap") == 0 ? PATCH_TRAP_POLICY_FORCE : PATCH_TRAP_POLICY_FORBID,
			       strcmp(role, "again") == 0);
	harness_start();
	run_gdb(try, NULL);
	if (count_of("main (") == 0)
		SKIP("gdb is not there, or is not allowed to trace: %.200s", text);
	run_gdb(in_procedure, NULL);
	check_backtraces(1);
	CHECK_MSG(count_of("exited normally") == 1 && count_of("SIGTRAP") == 0, "%s", text);
	run_gdb(at_trap, NULL);
	check_backtraces(1);
	CHECK_MSG(count_of("exited normally") == 1 && count_of("SIGTRAP") == 1, "%s", text);
	run_gdb(in_core, CORE);
	check_backtraces(1);
	unlink(CORE);
	write_script();
	run_gdb(at_each, NULL);
	unlink(SCRIPT);
	check_backtraces(STEPS);
	CHECK_EQ(count_of("libpatch:pads"), 1);
	CHECK(count_of("libpatch:generated code") >= 40);
	return harness_end();
}
