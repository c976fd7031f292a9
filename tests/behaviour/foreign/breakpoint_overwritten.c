/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Breakpoints of a real gdb at patched sites: set before a commit, over an installed jump, in its displacement, and in
 * the middle of a commit, so that gdb puts back bytes from before. Each is told (PATCH_ECHANGED) and stays; when gdb
 * has put its byte back the commit goes through; gdb counts its hits, and the program gets right results.
 *
 * The program runs in gdb and calls checkpoint(); there, gdb does what is next in its script. It looks at its own
 * results.
 */
#include "harness.h"

#include <fcntl.h>

#define CALLS 20
#define GDB "gdb"

/* 2 * n. wide: its first instruction has room for a jump. narrow: a jump covers three. */
unsigned long wide(unsigned long), narrow(unsigned long);
__asm__(".text\n"
	".p2align 6, 0xcc\n"
	".type wide, @function\n"
	"wide:\n"
	".cfi_startproc\n"
	"	lea 0(,%rdi,2), %rax\n"
	"	ret\n"
	".cfi_endproc\n"
	".size wide, . - wide\n"
	".p2align 6, 0xcc\n"
	".type narrow, @function\n"
	"narrow:\n"
	".cfi_startproc\n"
	"	push %rbx\n"
	"	mov %rdi, %rax\n"
	"	lea (%rdi,%rdi), %rax\n"
	"	pop %rbx\n"
	"	ret\n"
	".cfi_endproc\n"
	".size narrow, . - narrow\n"
	".p2align 6, 0xcc\n");

/* Written by gdb. */
volatile unsigned long gdb_hits, gdb_reached;

void checkpoint(void);
__asm__(".text\n"
	".type checkpoint, @function\n"
	"checkpoint:\n"
	"	nop\n"
	"	ret\n"
	".size checkpoint, . - checkpoint\n");

/* ---- the program ------------------------------------------------------------------------------------------------- */

struct subject {
	const char *name;
	unsigned long (*call)(unsigned long);
	unsigned int tail; /* offset of what phase 2 writes: behind the first byte, or behind the trap byte behind it */
	uint8_t trap;      /* the library's on the first byte */
};

static const struct subject subjects[] = { { "wide", wide, 1, 0xcc }, { "narrow", narrow, 2, 0xce } };

static unsigned long hits, reached;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

/* Let gdb go on in its script. */
static void stop_at(const char *what)
{
	CONTEXT("%s", what);
	checkpoint();
	reached++;
	if (gdb_reached != reached) {
		FAIL("gdb is at step %lu, not %lu", gdb_reached, reached);
		exit(1);
	}
}

static const uint8_t *text_of(const struct subject *subject)
{
	return (const uint8_t *)(uintptr_t)subject->call;
}

static void check_hits(const struct subject *subject, unsigned long wanted)
{
	unsigned long before = hits;

	for (unsigned long n = 0; n < CALLS; n++)
		CHECK_EQ(subject->call(n), 2 * n);
	CHECK_EQ(hits - before, wanted);
}

static void check_original(const struct subject *subject, const uint8_t *original)
{
	CHECK(memcmp(original, text_of(subject), 16) == 0);
}

static void check_gdb_hits(unsigned long wanted)
{
	CHECK_EQ(gdb_hits, wanted);
}

static patch_t make(const struct subject *subject)
{
	patch_t patch = NULL;

	REQUIRE_OK(
		make_probe((uintptr_t)subject->call, procedure, NULL, PATCH_TRAP_POLICY_FORBID, PATCH_ENABLED, &patch));
	return patch;
}

/* The order of stop_at() is that of script_for(). */
static void before_commit(const struct subject *subject, patch_t patch)
{
	patch_t second = NULL;

	stop_at("set at a site that is to be patched");
	CHECK_EQ(*text_of(subject), 0xcc);
	harness_commit_refused(text_of(subject));
	check_hits(subject, 0);
	harness_commit_refused(text_of(subject));
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
	CHECK_EQ(*text_of(subject), 0xcc);
	CHECK_STATUS(make_probe((uintptr_t)subject->call, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED,
				&second),
		     PATCH_ECHANGED);
	stop_at("deleted");
	check_gdb_hits(CALLS);
}

static void over_jump(const struct subject *subject, patch_t patch, const uint8_t *original)
{
	CHECK_OK(patch_commit());
	check_hits(subject, CALLS);
	stop_at("set over a jump");
	CHECK_EQ(*text_of(subject), 0xcc);
	check_hits(subject, CALLS);
	CHECK_OK(patch_disable(patch));
	harness_commit_refused(text_of(subject));
	check_hits(subject, CALLS);
	stop_at("deleted");
	check_gdb_hits(2 * CALLS);
	CHECK_OK(patch_commit());
	check_original(subject, original);
	check_hits(subject, 0);
}

static void in_displacement(const struct subject *subject, patch_t patch, const uint8_t *original)
{
	CHECK_OK(patch_enable(patch));
	CHECK_OK(patch_commit());
	stop_at("set in a jump's displacement");
	CHECK_EQ(text_of(subject)[2], 0xcc);
	CHECK_OK(patch_disable(patch));
	harness_commit_refused(text_of(subject));
	stop_at("deleted");
	check_gdb_hits(0);
	CHECK_OK(patch_commit());
	check_original(subject, original);
	check_hits(subject, 0);
}

static void check_removal(const struct subject *subject, patch_t patch, const uint8_t *original)
{
	CHECK_OK(patch_disable(patch));
	CHECK_OK(patch_commit());
	check_original(subject, original);
}

/* The commit meets the breakpoint, and does not write over it. */
static void check_commit_refused(const struct subject *subject, patch_t patch, const char *caught)
{
	stop_at(caught);
	CHECK_OK(patch_enable(patch));
	CHECK_STATUS(patch_commit(), PATCH_EFAIL);
	CHECK(harness_chain_has(PATCH_ECHANGED));
	CHECK_EQ(*text_of(subject), 0xcc);
}

/* gdb has put this byte back, and the next commit goes on. */
static void check_next_commit(const struct subject *subject, patch_t patch, const uint8_t *original, uint8_t byte)
{
	CHECK_EQ(*text_of(subject), byte);
	check_hits(subject, 0);
	CHECK_OK(patch_commit());
	check_hits(subject, CALLS);
	check_removal(subject, patch, original);
}

/* Behind the check of the commit, in front of the look right before its first write. */
static void during_commit(const struct subject *subject, patch_t patch, const uint8_t *original)
{
	check_commit_refused(subject, patch, "caught behind the check");
	/* gdb executes the original instruction; those behind it may be traps already. */
	check_hits(subject, 0);
	stop_at("deleted");
	check_gdb_hits(CALLS);
	check_next_commit(subject, patch, original, *original);
}

/* Between the last look and the write: gdb keeps the original byte, and puts it back over the jump. */
static void stale_original(const struct subject *subject, patch_t patch, const uint8_t *original, bool keep)
{
	stop_at("caught at the write of phase 1");
	CHECK_OK(patch_enable(patch));
	CHECK_OK(patch_commit());
	stop_at("deleted");
	/* Half a jump, which nobody may meet; the next commit sees it. */
	CHECK_EQ(*text_of(subject), *original);
	CHECK(memcmp(original, text_of(subject), 16) != 0);
	CHECK_OK(keep ? patch_enable(patch) : patch_disable(patch));
	CHECK_OK(patch_commit());
	check_hits(subject, keep ? CALLS : 0);
	check_removal(subject, patch, original);
	check_hits(subject, 0);
}

/* It keeps our trap byte, and puts that back over the jump: threads trap, and are served. */
static void stale_trap(const struct subject *subject, patch_t patch, const uint8_t *original)
{
	stop_at("caught at the write of phase 2");
	CHECK_OK(patch_enable(patch));
	CHECK_OK(patch_commit());
	stop_at("deleted");
	CHECK_EQ(*text_of(subject), 0xcc);
	check_hits(subject, CALLS);
	CHECK_OK(patch_disable(patch));
	harness_commit_refused(text_of(subject));
	check_hits(subject, CALLS);
	stop_at("the jump's first byte put back");
	CHECK_OK(patch_commit());
	check_original(subject, original);
	check_hits(subject, 0);
}

/* A trap byte that is no int3 can be told from a breakpoint: the commit sees it, and the next one goes on. */
static void breakpoint_over_trap(const struct subject *subject, patch_t patch, const uint8_t *original)
{
	check_commit_refused(subject, patch, "caught at the write of phase 2");
	stop_at("deleted");
	check_next_commit(subject, patch, original, subject->trap);
	stop_at("nothing");
}

static int program(void)
{
	uint8_t original[16];

	harness_start();
	REQUIRE_OK(patch_init(NULL, 0));
	for (size_t s = 0; s < sizeof(subjects) / sizeof(subjects[0]); s++) {
		const struct subject *subject = &subjects[s];
		patch_t patch = make(subject);

		memcpy(original, text_of(subject), sizeof(original));
		before_commit(subject, patch);
		patch = make(subject);
		over_jump(subject, patch, original);
		in_displacement(subject, patch, original);
		during_commit(subject, patch, original);
		stale_original(subject, patch, original, false);
		stale_original(subject, patch, original, true);
		(subject->trap == 0xcc ? stale_trap : breakpoint_over_trap)(subject, patch, original);
		CHECK_OK(patch_unmake(patch));
		CHECK_OK(patch_commit());
	}
	CHECK_OK(patch_fini());
	return harness_end();
}

/* ---- gdb --------------------------------------------------------------------------------------------------------- */

static unsigned int step;

/*
 * Until the next stop_at(), counting the stops at the breakpoint. Any other SIGTRAP is the program's, and passed on:
 * not by `handle SIGTRAP pass`, with which gdb gives the program the signals of its own breakpoints and steps, too.
 * Breakpoints are in the text only while the program runs.
 */
static void to_checkpoint(FILE *script)
{
	fprintf(script,
		"continue\n"
		"while $pc != (unsigned long)(char *)&checkpoint\n"
		"if $pc == $place\n"
		"set $hits = $hits + 1\n"
		"continue\n"
		"else\n"
		"signal SIGTRAP\n"
		"end\n"
		"end\n"
		"set var *(unsigned long *)&gdb_reached = %u\n",
		++step);
}

static void set_breakpoint(FILE *script, const char *name, unsigned int offset)
{
	fprintf(script,
		"set $hits = 0\nset $place = (unsigned long)(char *)&%s + %u\nbreak *$place\nset $mine = $bpnum\n",
		name, offset);
}

static void delete_breakpoint(FILE *script)
{
	fprintf(script, "delete $mine\nset var *(unsigned long *)&gdb_hits = $hits\n");
}

/* In the next commit: the breakpoint is there from the write on whose address is that of the site and `offset`. */
static void break_at_write(FILE *script, const char *name, unsigned int offset)
{
	fprintf(script,
		"catch syscall pwrite64\n"
		"condition $bpnum $r10 == %u + (unsigned long)(char *)&%s\n"
		"continue\n"
		"delete $bpnum\n",
		offset, name);
	set_breakpoint(script, name, 0);
}

/* From the end of its first look at the text on. */
static void break_behind_check(FILE *script, const char *name)
{
	/* gdb before 12 does not know its name. */
	fprintf(script, "catch syscall %d\ncontinue\ncontinue\ndelete $bpnum\n", SYS_process_vm_readv);
	set_breakpoint(script, name, 0);
}

static void script_for(FILE *script, const struct subject *subject)
{
	const char *name = subject->name;

	to_checkpoint(script); /* before_commit() */
	set_breakpoint(script, name, 0);
	to_checkpoint(script);
	delete_breakpoint(script);
	to_checkpoint(script); /* over_jump() */
	set_breakpoint(script, name, 0);
	to_checkpoint(script);
	delete_breakpoint(script);
	to_checkpoint(script); /* in_displacement() */
	set_breakpoint(script, name, 2);
	to_checkpoint(script);
	delete_breakpoint(script);
	to_checkpoint(script); /* during_commit() */
	break_behind_check(script, name);
	to_checkpoint(script);
	delete_breakpoint(script);
	for (int i = 0; i < 2; i++) {
		to_checkpoint(script); /* stale_original() */
		break_at_write(script, name, 0);
		to_checkpoint(script);
		delete_breakpoint(script);
	}
	to_checkpoint(script); /* stale_trap() */
	break_at_write(script, name, subject->tail);
	to_checkpoint(script);
	delete_breakpoint(script);
	to_checkpoint(script);
	if (subject->trap == 0xcc)
		fprintf(script, "set var *(unsigned char *)&%s = 0xe9\n", name);
}

static void write_script(const char *path)
{
	FILE *script = fopen(path, "w");

	REQUIRE(script != NULL);
	fprintf(script, "set $hits = 0\nset $place = 0\nset pagination off\nset confirm off\nset width 0\n"
			/* gdb has it from 12 on. */
			"python\ntry: gdb.execute('set debuginfod enabled off')\nexcept gdb.error: pass\nend\n"
			"handle SIGILL nostop noprint pass\n"
			"break main\nrun\ndelete\nbreak *(char *)&checkpoint\n");
	for (size_t s = 0; s < sizeof(subjects) / sizeof(subjects[0]); s++)
		script_for(script, &subjects[s]);
	fprintf(script, "continue\nquit $_exitcode\n");
	REQUIRE(fclose(script) == 0);
}

static int run(char *const arguments[])
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		dup2(STDERR_FILENO, STDOUT_FILENO);
		execvp(arguments[0], arguments);
		_exit(127);
	}
	REQUIRE(pid > 0 && waitpid(pid, &status, 0) == pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Can gdb run programs here? */
static void require_gdb(void)
{
	char *const arguments[] = { (char *)GDB,         (char *)"-q",  (char *)"-batch", (char *)"-nx",
				    (char *)"-ex",       (char *)"run", (char *)"-ex",    (char *)"quit $_exitcode",
				    (char *)"/bin/true", NULL };
	int status = run(arguments);

	if (status == 127)
		SKIP("there is no gdb");
	if (status != 0)
		SKIP("gdb cannot run a program here: %d", status);
}

int main(int argc, char **argv)
{
	static char self[4096], path[] = "/tmp/libpatch-gdb-XXXXXX";
	char *const arguments[] = { (char *)GDB, (char *)"-q", (char *)"-batch", (char *)"-nx", (char *)"-x", path,
				    (char *)"--args", self, (char *)"program", NULL };
	int fd, status;

	if (argc > 1 && strcmp(argv[1], "program") == 0)
		return program();
	harness_start();
	require_gdb();
	REQUIRE(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0);
	fd = mkstemp(path);
	REQUIRE(fd >= 0);
	close(fd);
	write_script(path);
	status = run(arguments);
	unlink(path);
	CHECK_EQ(status, 0);
	return harness_end();
}
