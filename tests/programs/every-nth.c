/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A probe on every k-th instruction of a program that knows nothing of it.
 *
 *   LD_PRELOAD=every-nth.so EVERY_NTH_K=16 EVERY_NTH_OFFSET=3 EVERY_NTH_REPORT=/tmp/report sqlite3 ...
 *
 *   EVERY_NTH_MODULES=NAMES  file names or patterns, comma separated; "main" is the executable. Default: main
 *   EVERY_NTH_K=N            distance of the probed instructions. Default: 1
 *   EVERY_NTH_OFFSET=N       the first one. Default: 0
 *   EVERY_NTH_FROM=N         leave out instructions before this one, and
 *   EVERY_NTH_TO=N           from this one on: for bisection
 *   EVERY_NTH_POLICY=NAME    allow (default), forbid or force
 *   EVERY_NTH_MODEL=NAME     probe (default) or around: the procedure is also called after the instruction
 *   EVERY_NTH_STATE=NAME     gp (default): the procedure destroys the general purpose registers that a C function may;
 *                            all: also xmm0 to xmm15, and it is offered every register
 *   EVERY_NTH_TOGGLE=MS      while the program runs, a thread takes away a third of the patches and puts another third
 *                            back, every MS milliseconds. Default: 0, never
 *   EVERY_NTH_REPORT=FILE    lines are appended here; standard error is the program's
 *   EVERY_NTH_UNION=FILE     one letter per instruction, kept from run to run: what became of it, see letter_of()
 *   EVERY_NTH_LIST=FILE      one line per probed instruction: its number, its place, the letter, its hits
 *                            before and after, the traps taken in the bytes it was displaced with, its bytes
 *
 * Instructions are counted through the functions that the unwind tables describe, decoded from the first byte of each,
 * in the order of the modules and of their addresses: the numbers are the same in each run of the same files.
 *
 * At the end (exit(), _exit(), return from main) every patch is removed with patch_fini(), and the whole text is
 * compared with a copy from before. The process that was started under the tool reports, once; what it forks inherits
 * the patches and does not report; what it or they execute runs without the tool and without these variables.
 *
 * The procedure also looks at what it is given: the located address, the distance to the program's stack, alignment,
 * the direction flag. Threads may lose each other's hits.
 */
#define _GNU_SOURCE
#include "common/functions.h"
#include "common/probe_code.h"
#include "common/thread.h"

#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <Zydis/Zydis.h>
#include <libpatch/patch.h>

#define REASONS_MAX 32
#define TEXTS_MAX 256
#define RED_ZONE 128
#define DIRECTION_FLAG 0x400

#define NOT_REFUSED 0xff

struct site {
	uintptr_t address;
	uint64_t hits;
	uint64_t posts; /* hits after the instruction */
	patch_t patch; /* NULL: refused */
	size_t number; /* of the instruction */
	uint32_t module;
	uint8_t length;
	uint8_t reason; /* why it was refused, else NOT_REFUSED */
};

struct reason {
	char text[160];
	size_t count;
};

/* An executable segment, as it was. */
struct text {
	const uint8_t *address;
	const uint8_t *copy;
	size_t size;
	size_t module;
};

/* What a procedure found wrong, and at which site first. */
struct violation {
	const char *what;
	uint64_t count;
	uintptr_t first;
};

enum {
	WRONG_ADDRESS,
	WRONG_STACK,
	WRONG_ALIGNMENT,
	WRONG_DIRECTION,
	VIOLATIONS
};

static struct violation violations[VIOLATIONS] = {
	[WRONG_ADDRESS] = {.what = "program_counter is not the located address"},
	[WRONG_STACK] = {.what = "the context is not below the red zone"},
	[WRONG_ALIGNMENT] = {.what = "the procedure's stack is misaligned"},
	[WRONG_DIRECTION] = {.what = "the direction flag is set"},
};

static sem_t stop_toggling;
static pthread_t toggler;
static bool toggles;
static unsigned long toggle_ms;
static size_t toggled; /* commits */

/* A file that is written to at the end. A program may restrict itself and open none then, or close any descriptor. */
struct kept_file {
	const char *path;
	int fd;
	struct stat status; /* of the file, when it was opened */
};

static struct kept_file report_file, union_file;
static const char *list_file;
static struct functions functions;
static struct text texts[TEXTS_MAX];
static size_t text_count;
static struct site *sites;
static size_t site_count, site_capacity;
static size_t instruction_count;
static size_t undecoded_bytes;
static struct reason reasons[REASONS_MAX];
static size_t reason_count;
static uint64_t make_ns, commit_ns;
static patch_status commit_status;
static pid_t owner; /* the process that reports */

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Where the program does not look for descriptors. */
#define KEPT_FROM 600

static int kept_open(const struct kept_file *file)
{
	return open(file->path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
}

static void keep(struct kept_file *file)
{
	int fd = kept_open(file);

	file->fd = fcntl(fd, F_DUPFD_CLOEXEC, KEPT_FROM);
	if (file->fd >= 0)
		fstat(file->fd, &file->status);
	close(fd);
}

/* Another descriptor of the file; negative: it cannot be had. */
static int kept_descriptor(const struct kept_file *file)
{
	struct stat status;

	if (file->fd < 0 || fstat(file->fd, &status) != 0 || status.st_dev != file->status.st_dev ||
	    status.st_ino != file->status.st_ino)
		return kept_open(file);
	return fcntl(file->fd, F_DUPFD_CLOEXEC, KEPT_FROM);
}

/* One line of the report, or a part of one. No malloc. */
static __attribute__((format(printf, 1, 2))) void say(const char *format, ...)
{
	char line[1024];
	va_list arguments;
	int length, fd;

	va_start(arguments, format);
	length = vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	fd = kept_descriptor(&report_file);
	if (fd < 0)
		return;
	if (write(fd, line, (size_t)length < sizeof(line) ? (size_t)length : sizeof(line) - 1) < 0)
		line[0] = '\0';
	close(fd);
}

static void complain(const char *what)
{
	struct patch_error error;

	if (patch_last_error(&error) == PATCH_OK)
		return;
	for (const struct patch_error *at = &error; at; at = at->next)
		say("error %s: %s: %s: %s %s\n", what, patch_status_string(at->code), at->origin, at->message,
		    at->irritant);
}

/* ---- in the program's threads: calls nothing --------------------------------------------------------------------- */

PROBE_CODE static void found(struct violation *violation, const struct site *site)
{
	violation->count++;
	if (!violation->first)
		violation->first = site->address;
}

PROBE_CODE static inline __attribute__((always_inline)) void
look(const struct patch_exec_context *context, uint8_t post)
{
	struct site *site = context->user_data;

	if (post) {
		__asm__("incq %0" : "+m"(site->posts) : : "cc");
	} else {
		__asm__("incq %0" : "+m"(site->hits) : : "cc");
		if (context->program_counter != site->address)
			found(&violations[WRONG_ADDRESS], site);
	}
	if ((uintptr_t)(context + 1) > context->stack_pointer - RED_ZONE)
		found(&violations[WRONG_STACK], site);
	if ((uintptr_t)__builtin_frame_address(0) % 16)
		found(&violations[WRONG_ALIGNMENT], site);
	if (__builtin_ia32_readeflags_u64() & DIRECTION_FLAG)
		found(&violations[WRONG_DIRECTION], site);
}

/* What any C function may do to its caller's registers. */
#define DESTROY_GENERAL_PURPOSE                                                                                        \
	"mov $0x5aa55aa55aa55aa5, %%rax\n\tmov %%rax, %%rcx\n\tmov %%rax, %%rdx\n\tmov %%rax, %%rsi\n\t"               \
	"mov %%rax, %%rdi\n\tmov %%rax, %%r8\n\tmov %%rax, %%r9\n\tmov %%rax, %%r10\n\tmov %%rax, %%r11\n\t"           \
	"add %%rax, %%rax\n\t"
#define DESTROYED_GENERAL_PURPOSE "rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "cc", "memory"

PROBE_CODE static void on_site(struct patch_exec_context *context, uint8_t post)
{
	look(context, post);
	__asm__ volatile(DESTROY_GENERAL_PURPOSE : : : DESTROYED_GENERAL_PURPOSE);
}

/* The compiler is not told of the vector registers: it would not let a function without them name them. */
PROBE_CODE static void on_site_all(struct patch_exec_context *context, uint8_t post)
{
	look(context, post);
	__asm__ volatile("pcmpeqd %%xmm0, %%xmm0\n\tpcmpeqd %%xmm1, %%xmm1\n\tpcmpeqd %%xmm2, %%xmm2\n\t"
			 "pcmpeqd %%xmm3, %%xmm3\n\tpcmpeqd %%xmm4, %%xmm4\n\tpcmpeqd %%xmm5, %%xmm5\n\t"
			 "pcmpeqd %%xmm6, %%xmm6\n\tpcmpeqd %%xmm7, %%xmm7\n\tpcmpeqd %%xmm8, %%xmm8\n\t"
			 "pcmpeqd %%xmm9, %%xmm9\n\tpcmpeqd %%xmm10, %%xmm10\n\tpcmpeqd %%xmm11, %%xmm11\n\t"
			 "pcmpeqd %%xmm12, %%xmm12\n\tpcmpeqd %%xmm13, %%xmm13\n\tpcmpeqd %%xmm14, %%xmm14\n\t"
			 "pcmpeqd %%xmm15, %%xmm15\n\t" DESTROY_GENERAL_PURPOSE
			 :
			 :
			 : DESTROYED_GENERAL_PURPOSE);
}

/* ---- which instructions ------------------------------------------------------------------------------------------ */

static unsigned long number(const char *name, unsigned long otherwise)
{
	const char *value = getenv(name);

	return value && value[0] ? strtoul(value, NULL, 0) : otherwise;
}

static bool named(const char *variable, const char *value)
{
	const char *given = getenv(variable);

	return given && !strcmp(given, value);
}

static int compare_extents(const void *a, const void *b)
{
	const struct extent *left = a, *right = b;

	if (left->module != right->module)
		return left->module < right->module ? -1 : 1;
	return left->lower < right->lower ? -1 : left->lower > right->lower;
}

static bool add_site(uintptr_t address, uint8_t length, size_t module)
{
	if (site_count == site_capacity) {
		void *larger;

		site_capacity = site_capacity ? site_capacity * 2 : 4096;
		larger = reallocarray(sites, site_capacity, sizeof(*sites));
		if (!larger)
			return false;
		sites = larger;
	}
	sites[site_count++] = (struct site){
		.address = address,
		.number = instruction_count,
		.module = (uint32_t)module,
		.length = length,
		.reason = NOT_REFUSED,
	};
	return true;
}

static bool choose_sites(void)
{
	size_t k = number("EVERY_NTH_K", 1), offset = number("EVERY_NTH_OFFSET", 0);
	size_t from = number("EVERY_NTH_FROM", 0), to = number("EVERY_NTH_TO", SIZE_MAX);
	uintptr_t end = 0; /* of what was decoded: extents may overlap */
	size_t module = 0;
	ZydisDecoder decoder;

	if (!k)
		k = 1;
	ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	qsort(functions.extents, functions.extent_count, sizeof(*functions.extents), compare_extents);
	for (size_t i = 0; i < functions.extent_count; i++) {
		const struct extent *extent = &functions.extents[i];

		if (extent->module != module)
			end = 0;
		module = extent->module;
		for (uintptr_t at = extent->lower; at < extent->upper;) {
			ZydisDecodedInstruction instruction;
			ZydisDecoderContext context;

			if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, &context, (const void *)at,
									extent->upper - at, &instruction))) {
				undecoded_bytes++;
				at++;
				continue;
			}
			if (at >= end) {
				if (instruction_count >= from && instruction_count < to &&
				    instruction_count % k == offset % k && !add_site(at, instruction.length, module))
					return false;
				instruction_count++;
				end = at + instruction.length;
			}
			at += instruction.length;
		}
	}
	return true;
}

static int copy_text(struct dl_phdr_info *info, size_t size, void *data)
{
	size_t module;

	(void)size;
	(void)data;
	for (module = 0; module < functions.module_count; module++)
		if (functions.modules[module].base == info->dlpi_addr)
			break;
	if (module == functions.module_count)
		return 0;
	for (int i = 0; i < info->dlpi_phnum && text_count < TEXTS_MAX; i++) {
		const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
		const void *address = (const void *)(info->dlpi_addr + segment->p_vaddr);
		void *copy;

		if (segment->p_type != PT_LOAD || !(segment->p_flags & PF_X))
			continue;
		copy = mmap(NULL, segment->p_memsz, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (copy == MAP_FAILED)
			return 1;
		memcpy(copy, address, segment->p_memsz);
		texts[text_count++] = (struct text){address, copy, segment->p_memsz, module};
	}
	return 0;
}

static const uint8_t *original_bytes(const struct site *site)
{
	for (size_t i = 0; i < text_count; i++)
		if (site->address - (uintptr_t)texts[i].address < texts[i].size)
			return texts[i].copy + (site->address - (uintptr_t)texts[i].address);
	return NULL;
}

/* ---- patching ---------------------------------------------------------------------------------------------------- */

/* Reasons are told apart by their words. */
static uint8_t reason_index(const char *otherwise)
{
	struct patch_error error;
	char text[sizeof(reasons[0].text)];
	size_t i;

	if (patch_last_error(&error) == PATCH_OK)
		snprintf(text, sizeof(text), "%s", otherwise);
	else
		snprintf(text, sizeof(text), "%s: %s", patch_status_string(error.code), error.message);
	for (i = 0; i < reason_count; i++)
		if (!strcmp(reasons[i].text, text))
			break;
	if (i == REASONS_MAX)
		i--;
	else if (i == reason_count)
		memcpy(reasons[reason_count++].text, text, sizeof(text));
	reasons[i].count++;
	return (uint8_t)i;
}

static void make_all(void)
{
	struct patch_exec_model model = {.type = PATCH_EXEC_MODEL_PROBE};
	struct patch_location location = {
		.type = PATCH_LOCATION_ADDRESS,
		.direction = PATCH_LOCATION_FORWARD,
		.algorithm = PATCH_LOCATION_FIRST,
	};
	patch_attr attr;

	patch_attr_init(&attr, sizeof(attr));
	patch_attr_set_initial_state(&attr, PATCH_ENABLED);
	if (named("EVERY_NTH_POLICY", "forbid"))
		patch_attr_set_trap_policy(&attr, PATCH_TRAP_POLICY_FORBID);
	else if (named("EVERY_NTH_POLICY", "force"))
		patch_attr_set_trap_policy(&attr, PATCH_TRAP_POLICY_FORCE);
	if (named("EVERY_NTH_MODEL", "around"))
		model.type = PATCH_EXEC_MODEL_PROBE_AROUND;
	model.probe.procedure = on_site;
	model.probe.clobber_registers = PATCH_REGS_NO_STATE;
	if (named("EVERY_NTH_STATE", "all")) {
		model.probe.procedure = on_site_all;
		model.probe.read_registers = PATCH_REGS_GP_ONLY;
		model.probe.write_registers = PATCH_REGS_GP_ONLY;
		model.probe.clobber_registers = PATCH_REGS_ALL;
	}
	for (size_t i = 0; i < site_count; i++) {
		location.address = sites[i].address;
		model.probe.user_data = &sites[i];
		if (patch_make(&location, &model, &attr, &sites[i].patch, NULL) != PATCH_OK) {
			sites[i].patch = NULL;
			sites[i].reason = reason_index("patch_make() failed without a reason");
		}
	}
	patch_attr_fini(&attr);
}

/* ---- toggling while the program runs, in a thread of its own ----------------------------------------------------- */

#define PHASES 3

/* One third of the patches is away at any time, but for the first and the last moments. */
static void *toggle(void *unused)
{
	struct timespec until;

	(void)unused;
	for (size_t phase = 0;; phase++) {
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += (long)(toggle_ms % 1000) * 1000000;
		until.tv_sec += (time_t)(toggle_ms / 1000) + until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		if (sem_clockwait(&stop_toggling, CLOCK_MONOTONIC, &until) == 0)
			break;
		for (size_t i = 0; i < site_count; i++) {
			if (!sites[i].patch)
				continue;
			if (i % PHASES == phase % PHASES)
				patch_disable(sites[i].patch);
			else
				patch_enable(sites[i].patch);
		}
		if (patch_commit() != PATCH_OK)
			complain("patch_commit() while the program runs");
		toggled++;
	}
	for (size_t i = 0; i < site_count; i++)
		if (sites[i].patch)
			patch_enable(sites[i].patch);
	if (patch_commit() != PATCH_OK)
		complain("patch_commit() at the end");
	return NULL;
}

static void start_toggling(void)
{
	sem_init(&stop_toggling, 0, 0);
	toggles = thread_start(&toggler, toggle) == 0;
	if (!toggles)
		say("error start: pthread_create()\n");
}

static void end_toggling(void)
{
	if (!toggles)
		return;
	sem_post(&stop_toggling);
	pthread_join(toggler, NULL);
}

/* ---- the report -------------------------------------------------------------------------------------------------- */

/* Of the file that EVERY_NTH_UNION names: how the patch was placed, in capitals when it was hit. */
static char letter_of(const struct site *site, const struct patch_info *info)
{
	static const char by_strategy[] = {
		[PATCH_STRATEGY_JUMP] = 'j',
		[PATCH_STRATEGY_CONSTRAINED_JUMP] = 'c',
		[PATCH_STRATEGY_TRAP] = 't',
		[PATCH_STRATEGY_PUNNED_JUMP] = 'p',
	};

	if (!site->patch)
		return 'r';
	if (info->state != PATCH_ENABLED)
		return 'x'; /* planned, but not in place */
	return (char)(by_strategy[info->strategy] - (site->hits ? 'a' - 'A' : 0));
}

/* The letters of all instructions, '.' for those that no run has chosen; NULL when there is no such file. */
static char *map_union(void)
{
	int fd = kept_descriptor(&union_file);
	struct stat status;
	char *letters = MAP_FAILED;

	if (fd < 0)
		return NULL;
	if (fstat(fd, &status) == 0 && (!status.st_size || (size_t)status.st_size == instruction_count) &&
	    ftruncate(fd, (off_t)instruction_count) == 0)
		letters = mmap(NULL, instruction_count, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (letters == MAP_FAILED)
		return NULL;
	if (!status.st_size)
		memset(letters, '.', instruction_count);
	return letters;
}

static void list_site(FILE *list, const struct site *site, const struct patch_info *info, char letter)
{
	const struct module *module = &functions.modules[site->module];
	const uint8_t *bytes = original_bytes(site);

	fprintf(list, "%zu %s+0x%jx %c %ju %ju %ju", site->number, module->name,
		(uintmax_t)(site->address - module->base), letter, (uintmax_t)site->hits, (uintmax_t)site->posts,
		(uintmax_t)info->trap_hits);
	for (uint8_t i = 0; bytes && i < site->length; i++)
		fprintf(list, " %02x", bytes[i]);
	if (site->reason != NOT_REFUSED)
		fprintf(list, " %s", reasons[site->reason].text);
	putc('\n', list);
}

struct sums {
	size_t by_letter[256];
	uint64_t hits;
	uint64_t posts;
	size_t hit_sites;
};

static void add_up(struct sums *sums)
{
	char *letters = union_file.path ? map_union() : NULL;
	FILE *list = list_file ? fopen(list_file, "we") : NULL;

	if (union_file.path && !letters)
		say("error union: %s cannot be used\n", union_file.path);
	for (size_t i = 0; i < site_count; i++) {
		struct patch_info info = {.state = PATCH_DISABLED};
		char letter;

		if (sites[i].patch && patch_info(sites[i].patch, &info, sizeof(info)) != PATCH_OK)
			complain("patch_info()");
		letter = letter_of(&sites[i], &info);
		if (letters && letters[sites[i].number] != (letter & ~0x20))
			letters[sites[i].number] = letter; /* what was hit stays so */
		if (list)
			list_site(list, &sites[i], &info, letter);
		sums->by_letter[(unsigned char)letter | 0x20]++;
		sums->hits += sites[i].hits;
		sums->posts += sites[i].posts;
		sums->hit_sites += sites[i].hits != 0;
	}
	if (list)
		fclose(list);
	if (letters)
		munmap(letters, instruction_count);
}

/* True when every byte is what it was. */
static bool compare_texts(void)
{
	bool same = true;

	for (size_t i = 0; i < text_count; i++)
		for (size_t k = 0; k < texts[i].size; k++) {
			if (texts[i].address[k] == texts[i].copy[k])
				continue;
			say("error text: %s+0x%jx: 0x%02x, was 0x%02x\n", functions.modules[texts[i].module].name,
			    (uintmax_t)((uintptr_t)&texts[i].address[k] - functions.modules[texts[i].module].base),
			    texts[i].address[k], texts[i].copy[k]);
			same = false;
			break;
		}
	return same;
}

static void report(void)
{
	struct sums sums = {.hits = 0};
	struct patch_statistics statistics = {.traps = 0};
	patch_status fini;
	uint64_t start;
	bool restored;

	end_toggling();
	add_up(&sums);
	patch_statistics(&statistics, sizeof(statistics));
	start = now_ns();
	fini = patch_fini();
	start = now_ns() - start;
	if (fini != PATCH_OK)
		complain("patch_fini()");
	restored = compare_texts();
	for (size_t i = 0; i < reason_count; i++)
		say("refused %zu %s\n", reasons[i].count, reasons[i].text);
	for (size_t i = 0; i < VIOLATIONS; i++)
		if (violations[i].count)
			say("error probe: %s: %ju times, first at 0x%jx\n", violations[i].what,
			    (uintmax_t)violations[i].count, (uintmax_t)violations[i].first);
	say("end pid=%d instructions=%zu undecoded=%zu chosen=%zu jump=%zu constrained=%zu punned=%zu trap=%zu "
	    "refused=%zu "
	    "missing=%zu hits=%ju posts=%ju sites_hit=%zu traps=%ju toggled=%zu make_ms=%ju commit_ms=%ju fini_ms=%ju "
	    "code_kb=%ju commit=%s fini=%s restored=%s\n",
	    (int)owner, instruction_count, undecoded_bytes, site_count, sums.by_letter['j'], sums.by_letter['c'],
	    sums.by_letter['p'], sums.by_letter['t'], sums.by_letter['r'], sums.by_letter['x'], (uintmax_t)sums.hits,
	    (uintmax_t)sums.posts, sums.hit_sites, (uintmax_t)statistics.traps, toggled, (uintmax_t)(make_ns / 1000000),
	    (uintmax_t)(commit_ns / 1000000), (uintmax_t)(start / 1000000), (uintmax_t)(statistics.code_bytes / 1024),
	    commit_status == PATCH_OK ? "ok" : "failed", fini == PATCH_OK ? "ok" : "failed", restored ? "yes" : "no");
}

/* Once, in the process that was started under the tool: not in what it forked or vforked. */
static void finish(void)
{
	static bool finished;

	if (owner && getpid() == owner && !__atomic_exchange_n(&finished, true, __ATOMIC_ACQ_REL))
		report();
}

__attribute__((destructor)) static void at_exit(void)
{
	finish();
}

__attribute__((visibility("default"), noreturn)) void _exit(int status)
{
	finish();
	for (;;)
		syscall(SYS_exit_group, status);
}

__attribute__((visibility("default"), noreturn)) void _Exit(int status)
{
	_exit(status);
}

/* ---- start ------------------------------------------------------------------------------------------------------- */

/*
 * The program is to see the environment that it would have without the tool. Some have an unsetenv() of their own,
 * which is not ready yet.
 */
static void clean_environment(void)
{
	char **kept = environ;

	for (char **at = environ; at && *at; at++)
		if (strncmp(*at, "LD_PRELOAD=", 11) && strncmp(*at, "EVERY_NTH_", 10))
			*kept++ = *at;
	if (kept)
		*kept = NULL;
}

static const char *copy_of(const char *variable)
{
	const char *value = getenv(variable);

	return value && value[0] ? strdup(value) : NULL;
}

__attribute__((constructor)) static void start(void)
{
	const char *names = getenv("EVERY_NTH_MODULES");
	uint64_t begin;

	report_file.path = copy_of("EVERY_NTH_REPORT");
	if (!report_file.path)
		return;
	keep(&report_file);
	union_file.path = copy_of("EVERY_NTH_UNION");
	if (union_file.path)
		keep(&union_file);
	list_file = copy_of("EVERY_NTH_LIST");
	say("begin pid=%d\n", (int)getpid());
	if (!functions_collect(names && names[0] ? names : "main", &functions) || !choose_sites() ||
	    dl_iterate_phdr(copy_text, NULL)) {
		say("error start: out of memory\n");
		return;
	}
	for (size_t i = 0; i < functions.module_count; i++)
		if (!functions.modules[i].described)
			say("error start: %s has no unwind table\n", functions.modules[i].name);
	if (patch_init(NULL, 0) != PATCH_OK) {
		complain("patch_init()");
		return;
	}
	toggle_ms = number("EVERY_NTH_TOGGLE", 0);
	begin = now_ns();
	make_all();
	clean_environment();
	make_ns = now_ns() - begin;
	begin = now_ns();
	commit_status = patch_commit();
	commit_ns = now_ns() - begin;
	if (commit_status != PATCH_OK)
		complain("patch_commit()");
	owner = getpid();
	if (toggle_ms)
		start_toggling();
}
