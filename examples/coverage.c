/* SPDX-License-Identifier: MIT */
/*
 * How much of this file, or of that process, could be patched, and how?
 *
 *   coverage libsqlite3.so.0 /usr/bin/python3.11     function entries
 *   coverage --all libz.so.1                         every instruction, too
 *   coverage --every=100 1234                        process 1234: its modules, each 100th instruction
 *   coverage --table libz.so.1                       one line per site instead of sums
 *
 * For each module: how many of its function entries and instructions get a jump over one instruction, over several, a
 * trap, or are refused, with PATCH_TRAP_POLICY_ALLOW and with FORBID, and why; memory needed for all entries at once;
 * time per patch_make(). Each site is planned as if it were patched alone. Nothing is committed: no patch ever runs.
 *
 * How. Results are true only for code that lies in memory as it will when it is patched: libpatch asks the dynamic
 * linker for modules, and what a jump can reach depends on where they are. So coverage-agent.so is loaded with
 *
 *   a program       by LD_PRELOAD into that program, whose main() never runs: the agent reports and exits before;
 *   a library       into this program, and loads the library there.
 *
 * CONSTRUCTORS OF THE LIBRARY RUN, and so may those of libraries that a program needs: do not use it on files that you
 * would not execute. The agent plans in processes forked for the purpose, of sites too far apart to share bytes.
 *
 * A process is not touched: the files that it has mapped executable are examined, one by one, as above. Functions are
 * known by unwind tables (.eh_frame_hdr); import stubs are left out, and split-off cold parts count as functions.
 * Statically linked programs have no dynamic linker that would load the agent: they cannot be examined yet.
 *
 * Exit status: 0 everything was examined; 1 something was not; 2 wrong usage.
 */
#define _GNU_SOURCE
#include "coverage.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

enum kind {
	LIBRARY,
	PROGRAM,
	NEITHER
};

static char self[4096];  /* this program: host of libraries */
static char agent[4224]; /* coverage-agent.so */

static int complain(const char *what, const char *why)
{
	fflush(stdout);
	fprintf(stderr, "coverage: %s: %s\n", what, why);
	return 1;
}

/* ---- what kind of file? Every offset in it is suspect ------------------------------------------------------------- */

static const Elf64_Phdr *segment(const uint8_t *file, size_t size, uint32_t type)
{
	const Elf64_Ehdr *header = (const void *)file;
	const Elf64_Phdr *segments = (const void *)(file + header->e_phoff);

	if (header->e_phentsize != sizeof(*segments) || header->e_phoff > size || header->e_phoff % 8 ||
	    (size - header->e_phoff) / sizeof(*segments) < header->e_phnum)
		return NULL;
	for (size_t i = 0; i < header->e_phnum; i++)
		if (segments[i].p_type == type && segments[i].p_offset <= size &&
		    segments[i].p_filesz <= size - segments[i].p_offset)
			return &segments[i];
	return NULL;
}

/* Value of an entry of the dynamic section; false: it has none. */
static bool dynamic(const uint8_t *file, size_t size, int64_t tag, uint64_t *value)
{
	const Elf64_Phdr *where = segment(file, size, PT_DYNAMIC);
	const Elf64_Dyn *entries;

	if (!where || where->p_offset % 8)
		return false;
	entries = (const void *)(file + where->p_offset);
	for (size_t i = 0; i < where->p_filesz / sizeof(*entries) && entries[i].d_tag != DT_NULL; i++)
		if (entries[i].d_tag == tag) {
			*value = entries[i].d_un.d_val;
			return true;
		}
	return false;
}

static enum kind classify(const uint8_t *file, size_t size, const char **why)
{
	const Elf64_Ehdr *header = (const void *)file;
	const Elf64_Phdr *interpreter;
	uint64_t flags = 0, ignored;
	static const char loader[] = "/ld-linux-x86-64.so.2";

	*why = "no ELF file";
	if (size < sizeof(*header) || memcmp(file, ELFMAG, SELFMAG))
		return NEITHER;
	*why = "neither a program nor a shared library for x86-64";
	if (header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_machine != EM_X86_64 ||
	    (header->e_type != ET_EXEC && header->e_type != ET_DYN))
		return NEITHER;
	interpreter = segment(file, size, PT_INTERP);
	dynamic(file, size, DT_FLAGS_1, &flags);
	if (header->e_type == ET_DYN && !(flags & DF_1_PIE) &&
	    (!interpreter || dynamic(file, size, DT_SONAME, &ignored)))
		return LIBRARY;
	*why = "a statically linked program cannot be examined yet";
	if (!interpreter)
		return NEITHER;
	/* Another one (musl's) might ignore the agent and run the program. */
	*why = "the program's dynamic linker is not glibc's: cannot be examined";
	if (interpreter->p_filesz < sizeof(loader) || file[interpreter->p_offset + interpreter->p_filesz - 1] ||
	    memcmp(file + interpreter->p_offset + interpreter->p_filesz - sizeof(loader), loader, sizeof(loader)))
		return NEITHER;
	return PROGRAM;
}

static enum kind kind_of(const char *path, const char **why)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	enum kind kind = NEITHER;
	struct stat status;
	void *file;

	*why = strerror(errno);
	if (fd < 0)
		return NEITHER;
	*why = "not a file";
	if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) {
		*why = "empty, or cannot be mapped";
		file = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
		if (file != MAP_FAILED) {
			kind = classify(file, (size_t)status.st_size, why);
			munmap(file, (size_t)status.st_size);
		}
		if (kind == PROGRAM && (status.st_mode & (S_ISUID | S_ISGID) ||
					fgetxattr(fd, "security.capability", NULL, 0) > 0)) {
			*why = "the program has privileges of its own: it would not load the agent";
			kind = NEITHER;
		}
	}
	close(fd);
	return kind;
}

/* ---- examining ---------------------------------------------------------------------------------------------------- */

static void become_host(const char *path, enum kind kind)
{
	const char *program = kind == PROGRAM ? path : self;
	int null = open("/dev/null", O_RDWR);

	if (null >= 0)
		dup2(null, STDIN_FILENO);
	if (setenv("LD_PRELOAD", agent, 1) || setenv(COVERAGE_FILE, kind == PROGRAM ? "" : path, 1))
		_exit(COVERAGE_FAILED);
	unsetenv("LD_BIND_NOW");
	execl(program, program, (char *)NULL);
	complain(program, strerror(errno));
	_exit(COVERAGE_FAILED);
}

static int examine_path(const char *path)
{
	const char *why;
	enum kind kind = kind_of(path, &why);
	int status;
	pid_t child;

	if (kind == NEITHER)
		return complain(path, why);
	fflush(stdout);
	child = fork();
	if (child == 0)
		become_host(path, kind);
	if (child < 0 || waitpid(child, &status, 0) < 0)
		return complain(path, strerror(errno));
	if (WIFEXITED(status) && WEXITSTATUS(status) == COVERAGE_DONE)
		return 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) == COVERAGE_INCOMPLETE)
		return complain(path, "some sites could not be tried, see above");
	if (WIFEXITED(status) && WEXITSTATUS(status) == COVERAGE_FAILED)
		return 1; /* it said why */
	return complain(path, WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "the agent did not run");
}

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

static bool seen(char **paths, size_t count, const char *path)
{
	for (size_t i = 0; i < count; i++)
		if (!strcmp(paths[i], path))
			return true;
	return false;
}

/* "lower-upper r-xp offset device inode   path" (proc(5)) */
static int examine_process(const char *pid)
{
	char *line = NULL, *paths[1024], name[64];
	size_t size = 0, count = 0;
	int failed = 0;
	FILE *maps;

	snprintf(name, sizeof(name), "/proc/%.20s/maps", pid);
	maps = fopen(name, "re");
	if (!maps)
		return complain(pid, strerror(errno));
	while (getline(&line, &size, maps) > 0 && count < sizeof(paths) / sizeof(*paths)) {
		char protection[5], *path = strchr(line, '/');

		if (sscanf(line, "%*x-%*x %4s", protection) != 1 || protection[2] != 'x' || !path)
			continue;
		path[strcspn(path, "\n")] = '\0';
		if (!seen(paths, count, path) && (paths[count] = strdup(path)))
			count++;
	}
	free(line);
	fclose(maps);
	if (!count)
		return complain(pid, "it has no executable mappings of files");
	printf("process %s: %zu modules\n\n", pid, count);
	for (size_t i = 0; i < count; i++) {
		failed |= examine_path(paths[i]);
		free(paths[i]);
	}
	return failed;
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

/* ---- options ------------------------------------------------------------------------------------------------------ */

static const char usage[] =
	"Usage: coverage [OPTION]... FILE|LIBRARY|PID...\n"
	"How many function entries and instructions could be patched, and how. Constructors of libraries run.\n"
	"\n"
	"  -a, --all        every instruction, not only function entries\n"
	"  -e, --every=K    every K-th instruction\n"
	"  -t, --table      a line per site: address in the file, strategy, window, symbol, reason\n"
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

static bool is_number(const char *text)
{
	return text[0] && text[strspn(text, "0123456789")] == '\0' && strtoul(text, NULL, 10) > 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"all", no_argument, NULL, 'a'},
		{"every", required_argument, NULL, 'e'},
		{"table", no_argument, NULL, 't'},
		{"jobs", required_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	const char *every = "0", *table = "0";
	char jobs[32];
	int option, failed = 0;

	snprintf(jobs, sizeof(jobs), "%ld", sysconf(_SC_NPROCESSORS_ONLN));
	while ((option = getopt_long(argc, argv, "ae:tj:h", options, NULL)) != -1) {
		switch (option) {
		case 'a':
			every = "1";
			break;
		case 't':
			table = "1";
			break;
		case 'e':
		case 'j':
			if (!is_number(optarg)) {
				complain(optarg, "not a positive number");
				return 2;
			}
			if (option == 'e')
				every = optarg;
			else
				snprintf(jobs, sizeof(jobs), "%.20s", optarg);
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default:
			fputs(usage, stderr);
			return 2;
		}
	}
	if (optind == argc) {
		fputs(usage, stderr);
		return 2;
	}
	if (!find_agent())
		return complain("coverage-agent.so", "it is not beside this program");
	if (setenv(COVERAGE_EVERY, every, 1) || setenv(COVERAGE_TABLE, table, 1) || setenv(COVERAGE_JOBS, jobs, 1))
		return complain("environment", strerror(errno));
	for (; optind < argc; optind++)
		failed |= examine(argv[optind]);
	return failed;
}
