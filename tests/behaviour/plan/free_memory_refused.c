/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Sites are refused although there is memory that they could use: holes at the edges of what a jump reaches, holes of a
 * page, few or many; with their slots or their code used up; and a limit to what the process maps. Every site must get
 * its jump, without traps, and work.
 */
#include "harness.h"

#include <sys/resource.h>

#define MIB ((intptr_t)1 << 20)
#define GIB ((intptr_t)1 << 30)
#define PAGE ((size_t)4096)
#define SITES_MAX 8192
#define SITE_SIZE 16
#define DATA_SIZE PAGE

/* The sites, and in front of them a page of data that their operands refer to. */
static uint8_t *text;
static uint64_t counters[SITES_MAX];
static uint64_t hits;

enum kind {
	JUMP,    /* one instruction of five bytes */
	OPERAND, /* one with an operand in the page of data */
	WINDOW,  /* two: the jump has a byte on a boundary, and goes by a pad */
	KINDS
};
static const char *const kind_names[] = { "jump", "operand", "window" };

struct hole {
	intptr_t at; /* from the sites */
	size_t size;
	size_t count; /* so many, with as much between them */
};

struct reach_case {
	const char *name;
	size_t around; /* so much is taken on either side, but for the holes */
	struct hole holes[2];
	unsigned int sites[KINDS]; /* how many there must be room for */
	int type;
};

#define WITHIN ((size_t)0x88000000)
/* Nor has what a jump reaches anything in its own reach. */
#define BEYOND (2 * WITHIN)
#define LOWER (-2 * GIB + 4 * MIB)
#define UPPER (2 * GIB - 8 * MIB)

static const struct reach_case cases[] = {
	{ "lower edge", WITHIN, { { LOWER, 2 * MIB, 1 } }, { 3500, 3500, 1500 }, PATCH_EXEC_MODEL_PROBE },
	{ "upper edge", WITHIN, { { UPPER, 2 * MIB, 1 } }, { 3500, 3500, 1500 }, PATCH_EXEC_MODEL_PROBE },
	{ "middle", BEYOND, { { -512 * MIB, 2 * MIB, 1 } }, { 3500, 3500, 1500 }, PATCH_EXEC_MODEL_PROBE },
	{ "both edges, code used up", BEYOND, { { LOWER, 2 * MIB, 1 }, { UPPER, 8 * MIB, 1 } }, { 6000, 6000, 2000 },
	  PATCH_EXEC_MODEL_PROBE },
	{ "both edges, slots used up", BEYOND, { { LOWER, 4 * MIB, 1 }, { UPPER, 4 * MIB, 1 } }, { 8000, 8000, 2000 },
	  PATCH_EXEC_MODEL_COUNT },
	{ "a page at the lower edge", WITHIN, { { LOWER, PAGE, 1 } }, { 80, 80, 0 }, PATCH_EXEC_MODEL_PROBE },
	{ "a page at the upper edge", WITHIN, { { UPPER, PAGE, 1 } }, { 80, 80, 0 }, PATCH_EXEC_MODEL_PROBE },
	{ "a page, and nothing in its reach", BEYOND, { { 512 * MIB, PAGE, 1 } }, { 80, 80, 0 },
	  PATCH_EXEC_MODEL_PROBE },
	{ "two pages", BEYOND, { { 512 * MIB, PAGE, 2 } }, { 160, 160, 10 }, PATCH_EXEC_MODEL_COUNT },
	{ "a page below, a page above", BEYOND, { { LOWER, PAGE, 1 }, { UPPER, PAGE, 1 } }, { 160, 160, 0 },
	  PATCH_EXEC_MODEL_PROBE },
	{ "many pages at the lower edge", WITHIN, { { LOWER, PAGE, 300 } }, { 6000, 6000, 500 },
	  PATCH_EXEC_MODEL_PROBE },
	{ "many pages at both edges", BEYOND, { { LOWER, PAGE, 150 }, { UPPER - MIB, PAGE, 150 } }, { 6000, 6000, 500 },
	  PATCH_EXEC_MODEL_PROBE },
};

static void GP_ONLY count_hit(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

static void write_site(unsigned int i, enum kind kind)
{
	static const uint8_t mov_eax = 0xb8, nop = 0x90, ret = 0xc3;
	static const uint8_t mov_eax_rip[] = { 0x8b, 0x05 };
	uint8_t *site = text + i * SITE_SIZE;
	int32_t distance = (int32_t)(text - DATA_SIZE + 4 * (i % 1024) - (site + 6));

	if (kind == OPERAND) {
		memcpy(site, mov_eax_rip, sizeof(mov_eax_rip));
		memcpy(site + 2, &distance, sizeof(distance));
		site[6] = ret;
		return;
	}
	if (kind == WINDOW)
		*site++ = nop;
	*site = mov_eax;
	memcpy(site + 1, &i, sizeof(i));
	site[5] = ret;
}

static int wanted_of(unsigned int i, enum kind kind)
{
	return (int)(kind == OPERAND ? i % 1024 + 7 : i);
}

/* Sites in the middle of what is taken. */
static void make_sites(enum kind kind, size_t around)
{
	const size_t size = DATA_SIZE + SITES_MAX * SITE_SIZE;
	uint8_t *area = mmap((void *)0x200000000000, 2 * around, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

	if (area != (uint8_t *)0x200000000000)
		SKIP("cannot take the addresses around a place");
	REQUIRE(mprotect(area + around, size, PROT_READ | PROT_WRITE) == 0);
	text = area + around + DATA_SIZE;
	memset(text, 0xcc, SITES_MAX * SITE_SIZE);
	for (unsigned int i = 0; i < 1024; i++)
		((int *)(void *)(text - DATA_SIZE))[i] = (int)i + 7;
	for (unsigned int i = 0; i < SITES_MAX; i++)
		write_site(i, kind);
	REQUIRE(mprotect(text, SITES_MAX * SITE_SIZE, PROT_READ | PROT_EXEC) == 0);
}

static void make_holes(const struct hole *hole)
{
	for (size_t i = 0; i < hole->count; i++)
		REQUIRE(munmap(text + hole->at + 2 * i * hole->size, hole->size) == 0);
}

static patch_status make(unsigned int i, int type)
{
	struct patch_location where = location_at((uintptr_t)text + i * SITE_SIZE);
	struct patch_exec_model what = { .type = type };
	patch_attr attr = attr_of(PATCH_TRAP_POLICY_FORBID, PATCH_ENABLED);
	patch_status status;
	patch_t patch;

	if (type == PATCH_EXEC_MODEL_COUNT) {
		what.count.counter = &counters[i];
	} else {
		what.probe.procedure = count_hit;
		what.probe.clobber_registers = PATCH_REGS_GP_ONLY;
	}
	status = patch_make(&where, &what, &attr, &patch, NULL);
	patch_attr_fini(&attr);
	return status;
}

static void check_sites(unsigned int sites, enum kind kind, int type)
{
	unsigned int made = 0;

	while (made < sites && make(made, type) == PATCH_OK)
		made++;
	CHECK_MSG(made == sites, "%u of %u: %s", made, sites, made < sites ? harness_last_error() : "");
	REQUIRE_OK(patch_commit());
	for (unsigned int i = 0; i < made; i++) {
		CHECK_EQ(text[i * SITE_SIZE], 0xe9);
		CHECK_EQ(call_code(text + i * SITE_SIZE), wanted_of(i, kind));
	}
	for (unsigned int i = 0; i < made && type == PATCH_EXEC_MODEL_COUNT; i++)
		hits += counters[i];
	CHECK_EQ(hits, made);
	CHECK_OK(patch_fini());
	for (unsigned int i = 0; i < made; i++)
		CHECK_EQ(call_code(text + i * SITE_SIZE), wanted_of(i, kind));
	CHECK_EQ(text[0] == 0xe9, 0);
}

struct reach_run {
	const struct reach_case *reach_case;
	enum kind kind;
};

static void run_case(void *argument)
{
	const struct reach_run *run = argument;
	const struct reach_case *reach_case = run->reach_case;

	make_sites(run->kind, reach_case->around);
	for (size_t i = 0; i < 2; i++)
		make_holes(&reach_case->holes[i]);
	REQUIRE_OK(patch_init(NULL, 0));
	check_sites(reach_case->sites[run->kind], run->kind, reach_case->type);
}

/* What the process may map more is less than what arenas and zones of pads are, where there is room. */
static void run_limited(void *argument)
{
	const enum kind kind = *(const enum kind *)argument;
	struct rlimit limit = { 0, 0 };
	unsigned long pages;
	FILE *file;

	make_sites(kind, MIB);
	REQUIRE_OK(patch_init(NULL, 0));
	file = fopen("/proc/self/statm", "r");
	REQUIRE(file != NULL && fscanf(file, "%lu", &pages) == 1);
	fclose(file);
	limit.rlim_cur = limit.rlim_max = pages * PAGE + MIB;
	REQUIRE(setrlimit(RLIMIT_AS, &limit) == 0);
	check_sites(100, kind, PATCH_EXEC_MODEL_PROBE);
}

int main(void)
{
	char name[128];

	harness_start();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		for (int kind = 0; kind < KINDS; kind++) {
			struct reach_run run = { &cases[i], (enum kind)kind };

			snprintf(name, sizeof(name), "%s, %s", cases[i].name, kind_names[kind]);
			CONTEXT("%s", name);
			if (cases[i].sites[kind] > 0)
				harness_isolated(name, run_case, &run);
		}
	for (int kind = 0; kind < KINDS; kind++) {
		enum kind limited = (enum kind)kind;

		snprintf(name, sizeof(name), "a limit, %s", kind_names[kind]);
		harness_isolated(name, run_limited, &limited);
	}
	return harness_end();
}
