/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Of how many functions of large modules are all exits found? Every function that a module's unwind table describes is
 * asked about; at least 99 of 100 must be complete, in each module. The returns that are found are compared with
 * objdump's: of all described code none is missing, and none is too many.
 *
 * Modules are mapped as a loader would do it, without relocating or running anything: programs, too. In front: libc.
 * With LIBPATCH_EVERY_INSTRUCTION: all modules below; one that is not on this machine is named as missing.
 *
 * exits [-v] [MODULE...]: these files alone. -v: each function that is not complete, and why.
 */
#include "stress.h"

#include "elf/eh_frame.h"
#include "elf/cfa.h"
#include "plan/exits.h"
#include "plan/scan.h"
#include "sys/mem_read.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PERCENT_WANTED 99.0
#define REASONS 16

static bool verbose;

/* ---- a module as it would be loaded ------------------------------------------------------------------------------ */

struct loaded {
	const char *path;
	const uint8_t *file;
	size_t file_size;
	struct module module;
	uintptr_t text, text_end;
	uintptr_t linkage, linkage_end; /* .plt */
};

static void map_segment(const struct loaded *loaded, int fd, const Elf64_Phdr *segment)
{
	uintptr_t start = ALIGN_DOWN(loaded->module.bias + segment->p_vaddr, PAGE_SIZE);
	uint64_t offset = ALIGN_DOWN(segment->p_offset, PAGE_SIZE);

	REQUIRE(mmap((void *)start, segment->p_offset + segment->p_filesz - offset, PROT_READ,
		     MAP_PRIVATE | MAP_FIXED, fd, (off_t)offset) != MAP_FAILED);
}

static void find_linkage(struct loaded *loaded)
{
	const Elf64_Ehdr *elf = (const void *)loaded->file;
	const Elf64_Shdr *sections = (const void *)(loaded->file + elf->e_shoff);

	for (size_t i = 0; elf->e_shoff != 0 && i < elf->e_shnum; i++) {
		if (strcmp((const char *)loaded->file + sections[elf->e_shstrndx].sh_offset + sections[i].sh_name,
			   ".plt") == 0) {
			loaded->linkage = loaded->module.bias + sections[i].sh_addr;
			loaded->linkage_end = loaded->linkage + sections[i].sh_size;
		}
	}
}

static bool load(struct loaded *loaded, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat status;
	const Elf64_Ehdr *elf;
	const Elf64_Phdr *headers;
	uintptr_t lower, upper;
	void *room;

	*loaded = (struct loaded){ .path = path };
	if (fd < 0)
		return false;
	REQUIRE(fstat(fd, &status) == 0);
	loaded->file_size = (size_t)status.st_size;
	loaded->file = mmap(NULL, loaded->file_size, PROT_READ, MAP_PRIVATE, fd, 0);
	REQUIRE(loaded->file != MAP_FAILED);
	elf = (const void *)loaded->file;
	headers = (const void *)(loaded->file + elf->e_phoff);
	segments_extent(headers, elf->e_phnum, 0, &lower, &upper);
	room = mmap(NULL, upper - lower, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(room != MAP_FAILED);
	loaded->module = (struct module){ .lower = (uintptr_t)room,
					  .upper = (uintptr_t)room + (upper - lower),
					  .headers = headers,
					  .header_count = elf->e_phnum,
					  .bias = (uintptr_t)room - lower };
	for (size_t i = 0; i < elf->e_phnum; i++) {
		if (headers[i].p_type == PT_LOAD && headers[i].p_filesz != 0)
			map_segment(loaded, fd, &headers[i]);
		if (headers[i].p_type == PT_LOAD && (headers[i].p_flags & PF_X)) {
			loaded->text = loaded->module.bias + headers[i].p_vaddr;
			loaded->text_end = loaded->text + headers[i].p_filesz;
		}
		if (headers[i].p_type == PT_GNU_EH_FRAME)
			loaded->module.eh_frame_hdr = (const void *)(loaded->module.bias + headers[i].p_vaddr);
	}
	close(fd);
	find_linkage(loaded);
	mem_trust(loaded->text, loaded->text_end);
	return true;
}

static void unload(struct loaded *loaded)
{
	mem_trust(0, 0);
	scan_forget();
	munmap((void *)loaded->module.lower, loaded->module.upper - loaded->module.lower);
	munmap((void *)loaded->file, loaded->file_size);
}

/* ---- its functions ----------------------------------------------------------------------------------------------- */

struct tally {
	unsigned int functions, parts, complete, without, most;
	unsigned int kinds[EXIT_AGAIN + 1];
	struct {
		const char *message;
		unsigned int count;
		uintptr_t first;
	} reasons[REASONS];
	double decoding, all; /* seconds */
	uint8_t *described;   /* a byte of text is 1 in a piece, 2 where a return begins */
};

static void count_reason(struct tally *tally, const struct refusal *refusal)
{
	unsigned int i = 0;

	while (i < REASONS - 1 && tally->reasons[i].message != NULL &&
	       strcmp(tally->reasons[i].message, refusal->message) != 0)
		i++;
	tally->reasons[i].message = refusal->message;
	if (tally->reasons[i].count++ == 0)
		tally->reasons[i].first = refusal->irritant;
}

static void mark(const struct loaded *loaded, struct tally *tally, const struct exits *exits)
{
	for (size_t i = 0; i < exits->piece_count; i++)
		for (uintptr_t at = exits->pieces[i].lower; at < exits->pieces[i].upper; at++)
			tally->described[at - loaded->text] |= 1;
	for (size_t i = 0; i < exits->place_count; i++)
		if (exits->places[i].kind == EXIT_RET)
			tally->described[exits->places[i].address - loaded->text] |= 2;
}

static bool contains(const struct exits *exits, uintptr_t address)
{
	for (size_t i = 0; i < exits->piece_count; i++)
		if (address - exits->pieces[i].lower < exits->pieces[i].upper - exits->pieces[i].lower)
			return true;
	return false;
}

/* What must be so of every answer. */
static void check_answer(const struct exits *exits, uintptr_t lower)
{
	CHECK(exits->entry == lower && exits->pieces[0].lower == lower && exits->pieces[0].callable);
	for (size_t i = 0; i < exits->place_count; i++) {
		const struct exit_place *place = &exits->places[i];

		CHECK(contains(exits, place->address));
		CHECK(place->length != 0);
		if (place->kind == EXIT_AGAIN)
			CHECK(place->target == exits->entry || place->target == exits->body);
	}
}

static void ask(const struct loaded *loaded, struct tally *tally, uintptr_t lower)
{
	const struct exits *exits;
	struct cfa_rows rows;
	struct refusal refusal;
	patch_status status;

	if (lower >= loaded->linkage && lower < loaded->linkage_end)
		return;
	REQUIRE(cfa_begin(&rows, &loaded->module, lower));
	if (!cfa_is_bare(&rows)) {
		tally->parts++;
		return;
	}
	tally->functions++;
	status = exits_find_in(&loaded->module, lower, &exits, &refusal);
	CHECK(status != PATCH_ENOMEM);
	tally->complete += status == PATCH_OK;
	if (status != PATCH_OK) {
		count_reason(tally, &refusal);
		if (verbose)
			printf("  %#zx: %s: %#zx\n", lower - loaded->module.bias, refusal.message,
			       refusal.irritant - loaded->module.bias);
	}
	if (exits == NULL)
		return;
	check_answer(exits, lower);
	mark(loaded, tally, exits);
	tally->without += exits->place_count == 0;
	tally->most = MAX(tally->most, (unsigned int)exits->place_count);
	for (size_t i = 0; i < exits->place_count; i++)
		tally->kinds[exits->places[i].kind]++;
}

/* Returns how many entries there are; `visit` with each. */
static unsigned int for_each_entry(const struct loaded *loaded, struct tally *tally,
				   void (*visit)(const struct loaded *, struct tally *, uintptr_t))
{
	uintptr_t lower, upper, next = loaded->text;
	unsigned int count = 0;

	for (uintptr_t at = loaded->text; next != UINTPTR_MAX; at = next) {
		if (!eh_frame_function(&loaded->module, at, &lower, &upper, &next) || lower != at)
			continue;
		visit(loaded, tally, lower);
		count++;
	}
	return count;
}

static void decode_alone(const struct loaded *loaded, struct tally *tally, uintptr_t at)
{
	uintptr_t lower, upper;

	(void)tally;
	if (!eh_frame_function(&loaded->module, at, &lower, &upper, NULL))
		return;
	scan_set(lower, upper);
	scan_get();
}

static void find_alone(const struct loaded *loaded, struct tally *tally, uintptr_t at)
{
	const struct exits *exits;
	struct refusal refusal;

	(void)tally;
	exits_find_in(&loaded->module, at, &exits, &refusal);
}

static double timed(const struct loaded *loaded, void (*visit)(const struct loaded *, struct tally *, uintptr_t))
{
	struct timespec before, after;
	unsigned int count;

	scan_forget();
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
	count = for_each_entry(loaded, NULL, visit);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
	return ((double)(after.tv_sec - before.tv_sec) * 1e6 + (double)(after.tv_nsec - before.tv_nsec) / 1e3) /
	       MAX(count, 1u);
}

/* ---- the same by objdump ----------------------------------------------------------------------------------------- */

/* The address and the mnemonic of a line of its listing, without prefixes. */
static bool is_return(char *line, uintptr_t *address)
{
	char *end;

	*address = strtoull(line, &end, 16);
	if (end == line || *end != ':')
		return false;
	for (char *word = strtok(end + 1, " \t\n"); word != NULL; word = strtok(NULL, " \t\n")) {
		if (strcmp(word, "ret") == 0 || strcmp(word, "retq") == 0)
			return true;
		if (strcmp(word, "repz") != 0 && strcmp(word, "rep") != 0 && strcmp(word, "bnd") != 0)
			return false;
	}
	return false;
}

struct comparison {
	unsigned int same, missed, others;
};

/* What objdump lists of [lower, upper). False: it cannot be asked. */
static bool compare_within(const struct loaded *loaded, struct tally *tally, uintptr_t lower, uintptr_t upper,
			   struct comparison *comparison)
{
	char command[PATH_MAX + 200], line[512];
	uintptr_t address;
	FILE *listing;

	snprintf(command, sizeof(command),
		 "objdump -d --no-show-raw-insn --start-address=%#zx --stop-address=%#zx '%s' 2>/dev/null",
		 lower - loaded->module.bias, upper - loaded->module.bias, loaded->path);
	listing = popen(command, "r");
	REQUIRE(listing != NULL);
	while (fgets(line, sizeof(line), listing) != NULL) {
		uint8_t *described;

		if (!is_return(line, &address))
			continue;
		address += loaded->module.bias;
		if (address < lower || address >= upper)
			continue;
		described = &tally->described[address - loaded->text];
		if (!(*described & 1))
			continue;
		comparison->same += *described >> 1;
		if (!(*described >> 1) && comparison->missed++ == 0)
			printf("  a return that was not found: %#zx\n", address - loaded->module.bias);
		*described = 0;
	}
	return pclose(listing) == 0;
}

#define FUNCTIONS_MAX 50

/*
 * Of those that it did not list, functions alone: behind some paddings (of LLVM's, of 16 bytes) it reads on out of
 * step.
 */
static void compare_alone(const struct loaded *loaded, struct tally *tally, struct comparison *comparison)
{
	struct comparison again = { .same = 0 };
	unsigned int asked = 0;

	for (uintptr_t at = loaded->text; at < loaded->text_end; at++) {
		uintptr_t lower, upper;

		if (!(tally->described[at - loaded->text] >> 1))
			continue;
		if (asked++ < FUNCTIONS_MAX && eh_frame_function(&loaded->module, at, &lower, &upper, NULL))
			compare_within(loaded, tally, lower, upper, &again);
		if (!(tally->described[at - loaded->text] >> 1))
			continue;
		if (comparison->others++ == 0)
			printf("  a return that objdump does not find: %#zx\n", at - loaded->module.bias);
	}
	comparison->same += again.same;
}

static void compare(const struct loaded *loaded, struct tally *tally)
{
	struct comparison comparison = { .same = 0 };

	if (!compare_within(loaded, tally, loaded->text, loaded->text_end, &comparison) || comparison.same == 0) {
		printf("  objdump cannot be asked\n");
		return;
	}
	compare_alone(loaded, tally, &comparison);
	printf("  returns that objdump finds, too: %u; alone: %u; we alone: %u\n", comparison.same, comparison.missed,
	       comparison.others);
	CHECK_EQ(comparison.missed, 0);
	CHECK_EQ(comparison.others, 0);
}

/* ---- modules ----------------------------------------------------------------------------------------------------- */

static bool examine(const char *path, bool fully)
{
	struct tally tally = { 0 };
	struct loaded loaded;
	const char *name = strrchr(path, '/') != NULL ? strrchr(path, '/') + 1 : path;
	double decoding, all, percent;

	CONTEXT("%s", name);
	if (!load(&loaded, path))
		return false;
	tally.described = calloc(1, loaded.text_end - loaded.text + 1);
	REQUIRE(tally.described != NULL);
	for_each_entry(&loaded, &tally, ask);
	REQUIRE(tally.functions != 0);
	decoding = timed(&loaded, decode_alone);
	all = timed(&loaded, find_alone);
	percent = 100.0 * tally.complete / tally.functions;
	printf("%-22s %7u %7.3f %5u %5u | %7u %6u %5u %6u %4u %4u | %6u %5u | %5.2f %5.2f\n", name, tally.functions,
	       percent, tally.functions - tally.complete, tally.parts, tally.kinds[EXIT_RET], tally.kinds[EXIT_JUMP],
	       tally.kinds[EXIT_BRANCH], tally.kinds[EXIT_INDIRECT], tally.kinds[EXIT_FALL], tally.kinds[EXIT_AGAIN],
	       tally.without, tally.most, decoding, all);
	for (unsigned int i = 0; i < REASONS && tally.reasons[i].message != NULL; i++)
		printf("  %u: %s (first: %#zx)\n", tally.reasons[i].count, tally.reasons[i].message,
		       tally.reasons[i].first - loaded.module.bias);
	CHECK_MSG(percent >= PERCENT_WANTED, "%s: %.3f %%", name, percent);
	if (fully)
		compare(&loaded, &tally);
	fflush(stdout);
	free(tally.described);
	unload(&loaded);
	return true;
}

/* Libraries are where libc is, programs where the shell and the compiler find them. */
static const char *find_library(const char *name)
{
	static char path[PATH_MAX];
	struct link_map *map;

	REQUIRE(dlinfo(dlopen("libc.so.6", RTLD_NOW), RTLD_DI_LINKMAP, &map) == 0);
	snprintf(path, sizeof(path), "%.*s/%s", (int)(strrchr(map->l_name, '/') - map->l_name), map->l_name, name);
	return path;
}

static const char *find_by(const char *command)
{
	static char path[PATH_MAX];
	FILE *answer = popen(command, "r");

	path[0] = '\0';
	if (answer != NULL && fgets(path, sizeof(path), answer) == NULL)
		path[0] = '\0';
	if (answer != NULL)
		pclose(answer);
	path[strcspn(path, "\n")] = '\0';
	return path;
}

static void examine_all(void)
{
	static const char *const libraries[] = { "libsqlite3.so.0", "libcrypto.so.3", "libstdc++.so.6",
						 "libLLVM-14.so.1" };
	static const struct {
		const char *name, *command; /* that says where it is */
	} programs[] = {
		{ "python3.11", "readlink -e /usr/bin/python3.11" },
		{ "cc1", "gcc -print-prog-name=cc1" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(libraries); i++)
		if (!examine(find_library(libraries[i]), true))
			printf("%-22s is not on this machine\n", libraries[i]);
	for (size_t i = 0; i < ARRAY_SIZE(programs); i++)
		if (!examine(find_by(programs[i].command), true))
			printf("%-22s is not on this machine\n", programs[i].name);
}

int main(int argc, char **argv)
{
	bool everything = getenv("LIBPATCH_EVERY_INSTRUCTION") != NULL;
	char program[PATH_MAX];

	harness_start_seconds(everything ? 1800 : 120);
	verbose = argc > 1 && strcmp(argv[1], "-v") == 0;
	printf("module               functions complete%% refused parts | ret jmp jcc indirect fall again | "
	       "no exit, most | us per entry: decoding, all\n");
	if (argc > 1 + verbose) {
		for (int i = 1 + verbose; i < argc; i++)
			REQUIRE(examine(argv[i], true));
		return harness_end();
	}
	REQUIRE(examine(find_library("libc.so.6"), true));
	/* This program has symbols of everything, and code of all kinds. */
	REQUIRE(examine(realpath("/proc/self/exe", program), true));
	if (everything)
		examine_all();
	return harness_end();
}
