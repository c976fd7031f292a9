/* SPDX-License-Identifier: MIT */
/*
 * How much of this file, or of that process, could be patched, and how?
 *
 *   coverage libsqlite3.so.0 /usr/bin/python3.11     function entries
 *   coverage --all libz.so.1                         every instruction, too
 *   coverage --every=100 --pid 1234                  process 1234: its modules, each 100th instruction
 *   coverage --table libz.so.1                       one line per site instead of sums
 *   coverage --all --summary FILE...                 one line per module
 *
 * For each module: how many of its function entries and instructions get a jump over one instruction, over several, a
 * trap, or are refused, with PATCH_TRAP_POLICY_ALLOW and with FORBID, and why; memory needed for all at once; time per
 * patch_make(). Each site is planned as if it were patched alone. Nothing is committed, unless by --commit: then all at
 * once, in a process of its own. doc/coverage.md tells how to read it.
 *
 * How. Results are true only for code that lies in memory as it will when it is patched: libpatch asks the dynamic
 * linker for modules, and what a jump can reach depends on where they are. So coverage-agent.so is loaded
 *
 *   a library       into this program, and loads the library there;
 *   a program       by LD_PRELOAD into that program, whose main() never runs: the agent reports and exits before;
 *   another one     (static, privileged, of another libc) that would not load it: into this program. The program is
 *                   started, stopped before its first instruction, and killed when it is known where the kernel put
 *                   what. The agent occupies the same addresses and maps the program's segments among them;
 *   a process       the same, for each of its modules, with what /proc tells. The process is not touched.
 *
 * CONSTRUCTORS OF THE LIBRARY RUN, and so may those of libraries that a program needs: do not use it on files that you
 * would not execute. Nothing of a program that is mapped by the agent, or of a process's modules, is executed.
 *
 * Functions are known by unwind tables (.eh_frame_hdr); import stubs are left out, and split-off cold parts count as
 * functions. What gcc -static links has tables but no index: its functions are taken from the file's section headers,
 * and libpatch plans as if it knew none, as it would in that program.
 *
 * Exit status: 0 everything was examined; 1 something was not; 2 wrong usage.
 */
#define _GNU_SOURCE
#include "file.h"
#include "layout.h"
#include "coverage.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

/* Addresses are random: another process is luckier. */
#define COLLISIONS_MAX 16

static char self[4096];  /* this program: host of libraries */
static char agent[4224]; /* coverage-agent.so */
static const char *module_pattern = "*"; /* of a process */

/* What the agent is to be told of a layout. fd < 0: there is none. */
struct place {
	int fd;
	const char *root;
	const char *label;
};

static const struct place own_place = {-1, "", ""};

static int complain(const char *what, const char *why)
{
	fflush(stdout);
	fprintf(stderr, "coverage: %s: %s\n", what, why);
	return 1;
}

/* ---- examining --------------------------------------------------------------------------------------------------- */

static void become_host(const char *path, bool is_program, const struct place *place)
{
	const char *program = is_program ? path : self;
	int null = open("/dev/null", O_RDWR);
	char layout[64];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (null >= 0)
		dup2(null, STDIN_FILENO);
	if (setenv("LD_PRELOAD", agent, 1) || setenv(COVERAGE_FILE, is_program ? "" : path, 1))
		_exit(COVERAGE_FAILED);
	if (place->fd >= 0) {
		snprintf(layout, sizeof(layout), "/proc/self/fd/%d", place->fd);
		if (setenv(COVERAGE_LAYOUT, layout, 1) || setenv(COVERAGE_ROOT, place->root, 1) ||
		    setenv(COVERAGE_LABEL, place->label, 1))
			_exit(COVERAGE_FAILED);
		personality((unsigned long)personality(0xffffffff) & ~(unsigned long)ADDR_NO_RANDOMIZE);
	}
	unsetenv("LD_BIND_NOW");
	execl(program, program, (char *)NULL);
	complain(program, strerror(errno));
	_exit(COVERAGE_FAILED);
}

static int run_agent(const char *path, bool is_program, const struct place *place)
{
	int status = 0;
	pid_t child;

	for (int tries = 0; tries < COLLISIONS_MAX; tries++) {
		fflush(stdout);
		child = fork();
		if (child == 0)
			become_host(path, is_program, place);
		if (child < 0 || waitpid(child, &status, 0) < 0)
			return complain(path, strerror(errno));
		if (!WIFEXITED(status))
			return complain(path, strsignal(WTERMSIG(status)));
		if (WEXITSTATUS(status) != COVERAGE_COLLIDED)
			break;
	}
	switch (WEXITSTATUS(status)) {
	case COVERAGE_DONE:
		return 0;
	case COVERAGE_INCOMPLETE:
		return complain(path, "some sites could not be tried, see above");
	case COVERAGE_FAILED:
		return 1; /* it said why */
	case COVERAGE_COLLIDED:
		return complain(path, "this tool comes to lie where that program is: no address space randomisation?");
	default:
		return complain(path, "the agent did not run");
	}
}

/* ---- programs that would not load the agent ---------------------------------------------------------------------- */

/* A child that has become the program, and is stopped before its first instruction; -1 and errno. */
static pid_t start_stopped(const char *path)
{
	int status;
	pid_t child = fork();

	if (child == 0) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL))
			_exit(127);
		execl(path, path, (char *)NULL);
		_exit(127);
	}
	if (child < 0 || waitpid(child, &status, 0) < 0)
		return -1;
	if (WIFSTOPPED(status)) {
		ptrace(PTRACE_SETOPTIONS, child, NULL, PTRACE_O_EXITKILL);
		return child;
	}
	errno = EACCES;
	return -1;
}

static int examine_closed(const char *path, const char *why)
{
	char absolute[PATH_MAX], label[256];
	struct place place = {-1, "", label};
	int failed, status;
	pid_t child;

	if (!realpath(path, absolute))
		return complain(path, strerror(errno));
	child = start_stopped(absolute);
	if (child < 0)
		return complain(path, "it cannot be started under ptrace(2), to see where its segments come to lie");
	place.fd = layout_of(child);
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	if (place.fd < 0)
		return complain(path, "its mappings cannot be read");
	snprintf(label, sizeof(label), "%s: mapped as the kernel did at its start", why);
	failed = run_agent(absolute, false, &place);
	close(place.fd);
	return failed;
}

static int examine_path(const char *path)
{
	const char *why;

	switch (file_kind(path, &why)) {
	case LIBRARY:
		return run_agent(path, false, &own_place);
	case PROGRAM:
		return run_agent(path, true, &own_place);
	case CLOSED:
		return examine_closed(path, why);
	default:
		return complain(path, why);
	}
}

/* ---- processes --------------------------------------------------------------------------------------------------- */

static bool seen(char **paths, size_t count, const char *path)
{
	for (size_t i = 0; i < count; i++)
		if (!strcmp(paths[i], path))
			return true;
	return false;
}

/* Files mapped executable: "lower-upper r-xp offset device inode   path" (proc(5)) */
static size_t find_modules(int layout, char **paths, size_t capacity)
{
	char *line = NULL, name[64];
	size_t size = 0, count = 0;
	FILE *maps;

	snprintf(name, sizeof(name), "/proc/self/fd/%d", layout);
	maps = fopen(name, "re");
	while (maps && getline(&line, &size, maps) > 0 && count < capacity) {
		char protection[5], *path = strchr(line, '/');

		if (sscanf(line, "%*x-%*x %4s", protection) != 1 || protection[2] != 'x' || !path)
			continue;
		path[strcspn(path, "\n")] = '\0';
		if (!fnmatch(module_pattern, strrchr(path, '/') + 1, 0) && !seen(paths, count, path) &&
		    (paths[count] = strdup(path)))
			count++;
	}
	free(line);
	if (maps)
		fclose(maps);
	return count;
}

static int examine_process(const char *text)
{
	pid_t pid = (pid_t)strtol(text, NULL, 10);
	char *paths[1024], root[64], label[64];
	struct place place = {layout_of(pid), root, label};
	int failed = 0;
	size_t count;

	if (place.fd < 0)
		return complain(text, "no such process, or its mappings may not be read");
	snprintf(root, sizeof(root), "/proc/%d/root", (int)pid);
	snprintf(label, sizeof(label), "in process %d", (int)pid);
	count = find_modules(place.fd, paths, sizeof(paths) / sizeof(*paths));
	if (!count)
		failed = complain(text, "it has mapped no such file executable");
	for (size_t i = 0; i < count; i++) {
		failed |= run_agent(paths[i], false, &place);
		free(paths[i]);
	}
	close(place.fd);
	return failed;
}

/* ---- what is meant ----------------------------------------------------------------------------------------------- */

/* A name without slashes that is no file here is looked up as the dynamic linker does, in a process of its own. */
static bool look_up(const char *name, char *path, size_t size)
{
	int channel[2], status;
	pid_t child;
	ssize_t got;

	if (pipe(channel))
		return false;
	child = fork();
	if (child == 0) {
		void *handle = dlopen(name, RTLD_LAZY | RTLD_LOCAL);
		char directory[4096];

		if (!handle || dlinfo(handle, RTLD_DI_ORIGIN, directory))
			_exit(1);
		_exit(dprintf(channel[1], "%s/%s", directory, name) < 0);
	}
	close(channel[1]);
	got = read(channel[0], path, size - 1);
	path[got > 0 ? got : 0] = '\0';
	close(channel[0]);
	if (child > 0)
		waitpid(child, &status, 0);
	return got > 0;
}

static int examine(const char *what)
{
	char path[4352];

	if (access(what, F_OK) == 0) {
		/* Programs and libraries are looked for in other places when there is no slash. */
		snprintf(path, sizeof(path), "%s%.4000s", strchr(what, '/') ? "" : "./", what);
		return examine_path(path);
	}
	if (what[0] && what[strspn(what, "0123456789")] == '\0')
		return examine_process(what);
	if (!strchr(what, '/') && look_up(what, path, sizeof(path)))
		return examine_path(path);
	return complain(what, "no such file, library or process");
}

/* ---- options ----------------------------------------------------------------------------------------------------- */

static const char usage[] =
	"Usage: coverage [OPTION]... [FILE|LIBRARY|PID...]\n"
	"How many function entries and instructions could be patched, and how. Constructors of libraries run.\n"
	"\n"
	"  -a, --all        every instruction, not only function entries\n"
	"  -e, --every=K    every K-th instruction\n"
	"  -t, --table      a line per site: address in the file, strategy, window, symbol, reason\n"
	"  -s, --summary    a line per module instead of sums\n"
	"  -p, --pid=PID    every module of a running process, which is not touched\n"
	"  -m, --module=PATTERN  of processes only the modules whose file name matches\n"
	"  -b, --both       try FORBID also where ALLOW gives a jump, which FORBID does then, too\n"
	"  -c, --commit     commit everything at once, in a process of its own, to see what memory that takes\n"
	"  -l, --limit=N    plan all instructions at once if there are no more than N (default 400000)\n"
	"  -j, --jobs=N     processes at a time (default: one per processor)\n"
	"  -h, --help\n";

/* The agent stands beside this program, or where libtool builds it. */
static bool find_agent(void)
{
	static const char *const places[] = {"", ".libs/"};
	ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
	int directory;

	if (length <= 0)
		return false;
	directory = (int)(strrchr(self, '/') - self) + 1;
	for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
		snprintf(agent, sizeof(agent), "%.*s%scoverage-agent.so", directory, self, places[i]);
		if (access(agent, R_OK) == 0)
			return true;
	}
	return false;
}

/* Not to be taken from whoever starts this. */
static const char *const switches[] = {COVERAGE_LAYOUT, COVERAGE_ROOT,    COVERAGE_LABEL, COVERAGE_EVERY,
				       COVERAGE_TABLE,  COVERAGE_SUMMARY, COVERAGE_BOTH,  COVERAGE_COMMIT};

static bool is_number(const char *text)
{
	return text[0] && text[strspn(text, "0123456789")] == '\0' && strtoul(text, NULL, 10) > 0;
}

static const struct option options[] = {
	{"all", no_argument, NULL, 'a'},
	{"both", no_argument, NULL, 'b'},
	{"commit", no_argument, NULL, 'c'},
	{"every", required_argument, NULL, 'e'},
	{"help", no_argument, NULL, 'h'},
	{"jobs", required_argument, NULL, 'j'},
	{"limit", required_argument, NULL, 'l'},
	{"module", required_argument, NULL, 'm'},
	{"pid", required_argument, NULL, 'p'},
	{"summary", no_argument, NULL, 's'},
	{"table", no_argument, NULL, 't'},
	{NULL, 0, NULL, 0},
};

/* For the agent. False: wrong usage. */
static bool set_number(const char *name, const char *text)
{
	if (!is_number(text)) {
		complain(text, "not a positive number");
		return false;
	}
	return setenv(name, text, 1) == 0;
}

static bool set_option(int option)
{
	switch (option) {
	case 'a':
		return setenv(COVERAGE_EVERY, "1", 1) == 0;
	case 'b':
		return setenv(COVERAGE_BOTH, "1", 1) == 0;
	case 'c':
		return setenv(COVERAGE_COMMIT, "1", 1) == 0;
	case 'e':
		return set_number(COVERAGE_EVERY, optarg);
	case 'j':
		return set_number(COVERAGE_JOBS, optarg);
	case 'l':
		return set_number(COVERAGE_LIMIT, optarg);
	case 's':
		return setenv(COVERAGE_SUMMARY, "1", 1) == 0;
	case 't':
		return setenv(COVERAGE_TABLE, "1", 1) == 0;
	default:
		fputs(usage, stderr);
		return false;
	}
}

static bool set_defaults(void)
{
	char jobs[32];

	snprintf(jobs, sizeof(jobs), "%ld", sysconf(_SC_NPROCESSORS_ONLN));
	for (size_t i = 0; i < sizeof(switches) / sizeof(*switches); i++)
		unsetenv(switches[i]);
	return setenv(COVERAGE_JOBS, jobs, 1) == 0 && setenv(COVERAGE_LIMIT, "400000", 1) == 0;
}

int main(int argc, char **argv)
{
	const char *pids[64];
	size_t pid_count = 0;
	int option, failed = 0;

	if (!set_defaults())
		return complain("environment", strerror(errno));
	while ((option = getopt_long(argc, argv, "abce:hj:l:m:p:st", options, NULL)) != -1) {
		if (option == 'h') {
			fputs(usage, stdout);
			return 0;
		}
		if (option == 'm')
			module_pattern = optarg;
		else if (option == 'p' && is_number(optarg) && pid_count < sizeof(pids) / sizeof(*pids))
			pids[pid_count++] = optarg;
		else if (!set_option(option))
			return 2;
	}
	if (optind == argc && !pid_count) {
		fputs(usage, stderr);
		return 2;
	}
	if (!find_agent())
		return complain("coverage-agent.so", "it is not beside this program");
	if (getenv(COVERAGE_SUMMARY))
		fputs(COVERAGE_SUMMARY_HEAD, stdout);
	for (size_t i = 0; i < pid_count; i++)
		failed |= examine_process(pids[i]);
	for (; optind < argc; optind++)
		failed |= examine(argv[optind]);
	return failed;
}
