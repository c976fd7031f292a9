/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A tool that starts late: while a program that knows nothing of it runs, a thread calls patch_init(), puts a probe on
 * every function, takes thirds of them away and back, undoes everything, and calls patch_fini(). It must not print.
 *
 *   LD_PRELOAD=late-start.so LATE_START_REPORT=/tmp/report redis-server ...
 *
 *   LATE_START_REPORT=FILE   lines are appended here; without it nothing is done
 *   LATE_START_MODULES=NAMES file names or patterns, comma separated; "main" is the executable.
 *                            Default: main,libc.so.6
 *   LATE_START_AFTER=MS      when. Default: 300
 *   LATE_START_ROUNDS=N      how often patches are taken away and put back. Default: 60
 *   LATE_START_EVERY=MS      how often a round is. Default: 20
 *   LATE_START_HITS=N        how many hits the program must have between two commits. Default: 0; else it must run
 *                            until the tool is over, or leave by exit()
 *   LATE_START_POLICY=forbid no traps. Default: allow
 *   LATE_START_PROGRAM=NAME  only in the program of this name: what starts it is left alone
 *
 * Reports of one process are a line "begin", lines "refused", "error", and a line "end". A program that ends by exit()
 * waits for the last. Behind it, or where the tool could not begin, there is a file with the report's name and ".over".
 * The process that was started under the tool has the thread; what it forks inherits patches only.
 */
#define _GNU_SOURCE
#include "common/functions.h"
#include "common/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libpatch/patch.h>

#define TEXTS_MAX 256
#define PHASES 3
#define SAME_REASONS 24

struct site {
	patch_t patch; /* NULL: refused */
	atomic_uint hits;
};

/* An executable segment, as it was, and the path of its module, which may go. */
struct text {
	const char *path;
	const uint8_t *address;
	const uint8_t *copy;
	size_t size;
};

static const char *report_file, *modules;
static unsigned long after_ms, rounds, every_ms, hits_wanted;
static int policy;
static struct functions functions;
static struct site *sites;
static struct text texts[TEXTS_MAX];
static size_t text_count;
static struct {
	char text[160];
	size_t count;
} reasons[SAME_REASONS];
static pthread_t thread;
static pid_t owner;
static atomic_ulong program_hits;
static atomic_bool leaving;
/* In a hook of malloc() it must not be allocated. */
static __thread bool is_tool __attribute__((tls_model("initial-exec")));

static void say(const char *format, ...)
{
	va_list arguments;
	char line[1024];
	int fd = open(report_file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
	int length;

	va_start(arguments, format);
	length = vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	if (fd < 0)
		return;
	if (write(fd, line, (size_t)length) != length)
		abort();
	close(fd);
}

static void complain(const char *what)
{
	struct patch_error error;

	patch_last_error(&error);
	say("error %s: %s %s\n", what, error.message, error.irritant);
	for (const struct patch_error *next = error.next; next; next = next->next)
		say("error ... %s %s\n", next->message, next->irritant);
}

static void sleep_ms(unsigned long ms)
{
	struct timespec time = { (time_t)(ms / 1000), (long)(ms % 1000) * 1000000 };

	while (nanosleep(&time, &time) != 0)
		;
}

static uint64_t now_ms(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
}

/* Anywhere in the program, libc's lowest functions among them: no call. */
static void on_hit(struct patch_exec_context *context, uint8_t post)
{
	struct site *site = context->user_data;

	(void)post;
	if (is_tool)
		return;
	atomic_fetch_add_explicit(&site->hits, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&program_hits, 1, memory_order_relaxed);
}

/* How long that takes is the program's matter; but one that leaves waits for this thread. */
static void wait_for_hits(void)
{
	const unsigned long before = atomic_load(&program_hits);

	while (atomic_load(&program_hits) - before < hits_wanted && !atomic_load(&leaving))
		sleep_ms(1);
}

static bool is_text(const ElfW(Phdr) *segment)
{
	return segment->p_type == PT_LOAD && (segment->p_flags & PF_X) && (segment->p_flags & PF_R) &&
	       !(segment->p_flags & PF_W);
}

static int copy_text(struct dl_phdr_info *info, size_t size, void *unused)
{
	(void)size;
	(void)unused;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
		const uint8_t *address = (const uint8_t *)(info->dlpi_addr + segment->p_vaddr);
		const char *path;
		uint8_t *copy;

		if (!is_text(segment) || text_count == TEXTS_MAX)
			continue;
		path = strdup(info->dlpi_name);
		copy = malloc(segment->p_memsz);
		if (!path || !copy)
			return 1;
		memcpy(copy, address, segment->p_memsz);
		texts[text_count++] = (struct text){ path, address, copy, segment->p_memsz };
	}
	return 0;
}

static bool compare_text(const struct text *text)
{
	for (size_t k = 0; k < text->size; k++)
		if (text->address[k] != text->copy[k]) {
			say("error text: %p: 0x%02x, was 0x%02x\n", (const void *)&text->address[k], text->address[k],
			    text->copy[k]);
			return false;
		}
	return true;
}

/* Of what is still there, and does not go meanwhile. */
static int compare_module(struct dl_phdr_info *info, size_t size, void *same)
{
	(void)size;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
		const uint8_t *address = (const uint8_t *)(info->dlpi_addr + segment->p_vaddr);

		for (size_t n = 0; n < text_count && is_text(segment); n++)
			if (texts[n].address == address && texts[n].size == segment->p_memsz &&
			    strcmp(texts[n].path, info->dlpi_name) == 0)
				*(bool *)same &= compare_text(&texts[n]);
	}
	return 0;
}

static bool compare_texts(void)
{
	bool same = true;

	dl_iterate_phdr(compare_module, &same);
	return same;
}

static void note_refusal(void)
{
	struct patch_error error;

	patch_last_error(&error);
	for (size_t i = 0; i < SAME_REASONS; i++) {
		if (!reasons[i].count)
			snprintf(reasons[i].text, sizeof(reasons[i].text), "%s", error.message);
		if (strcmp(reasons[i].text, error.message) == 0) {
			reasons[i].count++;
			return;
		}
	}
}

static size_t make_all(void)
{
	struct patch_location location = { .type = PATCH_LOCATION_ADDRESS };
	struct patch_exec_model model = { .type = PATCH_EXEC_MODEL_PROBE };
	patch_attr attr;
	size_t made = 0;

	patch_attr_init(&attr, sizeof(attr));
	patch_attr_set_initial_state(&attr, PATCH_ENABLED);
	patch_attr_set_trap_policy(&attr, policy);
	model.probe.procedure = on_hit;
	model.probe.clobber_registers = PATCH_REGS_GP_ONLY;
	for (size_t i = 0; i < functions.extent_count; i++) {
		location.address = functions.extents[i].lower;
		model.probe.user_data = &sites[i];
		if (patch_make(&location, &model, &attr, &sites[i].patch, NULL) == PATCH_OK) {
			made++;
			continue;
		}
		sites[i].patch = NULL;
		note_refusal();
	}
	patch_attr_fini(&attr);
	return made;
}

static bool commit(const char *when)
{
	if (patch_commit() == PATCH_OK)
		return true;
	complain(when);
	return false;
}

/* One third is away at any time. */
static unsigned long toggle(bool *committed)
{
	unsigned long round;

	for (round = 0; round < rounds; round++) {
		for (size_t i = 0; i < functions.extent_count; i++) {
			if (!sites[i].patch)
				continue;
			if (i % PHASES == round % PHASES)
				patch_disable(sites[i].patch);
			else
				patch_enable(sites[i].patch);
		}
		*committed &= commit("patch_commit() of a round");
		wait_for_hits();
		sleep_ms(every_ms);
	}
	return round;
}

static void undo(bool *committed)
{
	for (size_t i = 0; i < functions.extent_count; i++)
		if (sites[i].patch && patch_unmake(sites[i].patch) != PATCH_OK)
			complain("patch_unmake()");
	*committed &= commit("patch_commit() of what is undone");
}

static void run(void)
{
	struct patch_statistics statistics = { .traps = 0 };
	bool committed, restored;
	size_t made, hits = 0, hit_sites = 0;
	unsigned long toggled;
	uint64_t begun;

	sleep_ms(after_ms);
	say("begin pid=%d\n", (int)owner);
	if (!functions_collect(modules, &functions) || dl_iterate_phdr(copy_text, NULL) ||
	    !(sites = calloc(functions.extent_count + 1, sizeof(*sites)))) {
		say("error start: out of memory\n");
		return;
	}
	begun = now_ms();
	if (patch_init(NULL, 0) != PATCH_OK) {
		complain("patch_init()");
		return;
	}
	made = make_all();
	committed = commit("the first patch_commit()");
	wait_for_hits();
	toggled = toggle(&committed);
	patch_statistics(&statistics, sizeof(statistics));
	undo(&committed);
	if (patch_fini() != PATCH_OK) {
		complain("patch_fini()");
		committed = false;
	}
	restored = compare_texts();
	for (size_t i = 0; i < functions.extent_count; i++) {
		hits += sites[i].hits;
		hit_sites += sites[i].hits != 0;
	}
	for (size_t i = 0; i < SAME_REASONS && reasons[i].count; i++)
		say("refused %zu %s\n", reasons[i].count, reasons[i].text);
	say("end pid=%d functions=%zu patched=%zu hit=%zu hits=%zu traps=%ju toggled=%lu ms=%ju committed=%s "
	    "restored=%s\n",
	    (int)owner, functions.extent_count, made, hit_sites, hits, (uintmax_t)statistics.traps, toggled,
	    (uintmax_t)(now_ms() - begun), committed ? "yes" : "no", restored ? "yes" : "no");
}

static void *start_late(void *unused)
{
	is_tool = true;
	run();
	return unused;
}

/*
 * The program may leave when it is told that the tool is over. LeakSanitizer does not look into a thread that has begun
 * to end, and takes what libc frees last for lost (what dlsym() has said): so another one tells.
 */
static void *see_it_through(void *unused)
{
	pthread_t tool;
	char name[PATH_MAX];
	int fd;

	(void)unused;
	is_tool = true;
	if (thread_start(&tool, start_late) == 0)
		pthread_join(tool, NULL);
	else
		say("error start: pthread_create()\n");
	snprintf(name, sizeof(name), "%s.over", report_file);
	fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	if (fd >= 0)
		close(fd);
	return NULL;
}

__attribute__((destructor)) static void wait_for_the_end(void)
{
	if (!owner || getpid() != owner)
		return;
	atomic_store(&leaving, true);
	pthread_join(thread, NULL);
}

static unsigned long number(const char *variable, unsigned long otherwise)
{
	const char *value = getenv(variable);

	return value && value[0] ? strtoul(value, NULL, 0) : otherwise;
}

/* What the program starts runs without the tool, and sees the environment that it would have without it. */
static void clean_environment(void)
{
	char **kept = environ;

	for (char **at = environ; at && *at; at++)
		if (strncmp(*at, "LD_PRELOAD=", 11) && strncmp(*at, "LATE_START_", 11))
			*kept++ = *at;
	if (kept)
		*kept = NULL;
}

__attribute__((constructor)) static void start(void)
{
	const char *report = getenv("LATE_START_REPORT"), *names = getenv("LATE_START_MODULES");
	const char *forbids = getenv("LATE_START_POLICY"), *program = getenv("LATE_START_PROGRAM");

	if (!report || !report[0] || (program && strcmp(program, program_invocation_short_name) != 0))
		return;
	report_file = strdup(report);
	modules = strdup(names && names[0] ? names : "main,libc.so.6");
	after_ms = number("LATE_START_AFTER", 300);
	rounds = number("LATE_START_ROUNDS", 60);
	every_ms = number("LATE_START_EVERY", 20);
	hits_wanted = number("LATE_START_HITS", 0);
	policy = forbids && strcmp(forbids, "forbid") == 0 ? PATCH_TRAP_POLICY_FORBID : PATCH_TRAP_POLICY_ALLOW;
	clean_environment();
	owner = getpid();
	if (thread_start(&thread, see_it_through) != 0) {
		owner = 0;
		say("error start: pthread_create()\n");
	}
}
