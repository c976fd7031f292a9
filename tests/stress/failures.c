/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One failure at a time: of the allocations and system calls that a scenario makes, the n-th fails, for all n until
 * there are no more. After each the program runs on, with right results; the step that failed succeeds when it is made
 * again; and when all is unmade, every byte of text is back, and memory, mappings and descriptors are what they are
 * without a failure. One child for each n.
 *
 * failures [scenario [n]]
 */
#include "stress.h"

#include "code/arena.h"
#include "code/pad.h"
#include "base/heap.h"
#include "base/inject.h"
#include "code/code_ranges.h"
#include "sys/text.h"

#include <dirent.h>

#define INSTRUCTIONS_MAX 16
#define STEPS_MAX 16
#define CHILD_SECONDS 60

/* ---- what is patched --------------------------------------------------------------------------------------------- */

uint64_t straight(uint64_t a);
extern const uint8_t straight_end[];
uint64_t branched(uint64_t a);
extern const uint8_t branched_end[];
uint64_t looping(uint64_t n);
extern const uint8_t looping_end[];
uint64_t calling(uint64_t a);
extern const uint8_t calling_end[];

__asm__(".text\n.p2align 6, 0xcc\n"
	/* 3 * a + 0x1005 */
	".globl straight\n.type straight, @function\nstraight:\n.cfi_startproc\n"
	" mov $5, %eax\n push %rbx\n mov %rdi, %rbx\n add %rbx, %rax\n add %rbx, %rax\n add %rbx, %rax\n"
	" add $0x1000, %rax\n pop %rbx\n ret\n"
	".cfi_endproc\n.globl straight_end\nstraight_end:\n.size straight, . - straight\n.p2align 6, 0xcc\n"
	/*
	 * 2 * n; the loop's head is inside a window at the start, and its bytes do for a punned jump; more branches go
	 * there than are led
	 */
	".globl branched\n.type branched, @function\nbranched:\n.cfi_startproc\n"
	" mov %edi, %eax\n1: sub $0xffffffffffffffff, %rax\n dec %rdi\n jnz 1b\n"
	" .rept 8\n jg 1b\n .endr\n ret\n"
	".cfi_endproc\n.globl branched_end\nbranched_end:\n.size branched, . - branched\n.p2align 6, 0xcc\n"
	/* the same, and nobody knows its extent */
	".globl looping\n.type looping, @function\nlooping:\n"
	" mov %edi, %eax\n1: sub $0xffffffffffffffff, %rax\n dec %rdi\n jnz 1b\n ret\n"
	".globl looping_end\nlooping_end:\n.size looping, . - looping\n.p2align 6, 0xcc\n"
	/* 3 * a + 0x1005 */
	".globl calling\n.type calling, @function\ncalling:\n.cfi_startproc\n"
	" push %rbx\n mov %rdi, %rbx\n call straight\n add $0, %rax\n pop %rbx\n ret\n"
	".cfi_endproc\n.globl calling_end\ncalling_end:\n.size calling, . - calling\n.p2align 6, 0xcc\n");

#define TURNS 5000 /* more traps than a boundary has before it is reported */

static uint64_t model_straight(uint64_t a)
{
	return 3 * a + 0x1005;
}

static uint64_t model_branched(uint64_t a)
{
	return 2 * a;
}

struct subject {
	const char *name;
	uint64_t (*function)(uint64_t);
	const uint8_t *end;
	uint64_t (*model)(uint64_t);
};

enum subject_name { STRAIGHT, BRANCHED, LOOPING, CALLING, SUBJECTS };

static const struct subject subjects[SUBJECTS] = {
	[STRAIGHT] = { "straight", straight, straight_end, model_straight },
	[BRANCHED] = { "branched", branched, branched_end, model_branched },
	[LOOPING] = { "looping", looping, looping_end, model_branched },
	[CALLING] = { "calling", calling, calling_end, model_straight },
};

/* ---- scenarios --------------------------------------------------------------------------------------------------- */

enum operation { END, INIT, MAKE, AROUND, CALL, ENABLE, DISABLE, UNMAKE, COMMIT, RUN_LONG, FINI };

struct step {
	enum operation operation;
	unsigned int patch;       /* of the scenario */
	unsigned int instruction; /* MAKE, AROUND and CALL */
	int policy;
	int strategy; /* that it has to get without a failure */
};

#define ALLOW PATCH_TRAP_POLICY_ALLOW
#define FORBID PATCH_TRAP_POLICY_FORBID
#define FORCE PATCH_TRAP_POLICY_FORCE
#define JUMP PATCH_STRATEGY_JUMP
#define CONSTRAINED PATCH_STRATEGY_CONSTRAINED_JUMP
#define PUNNED PATCH_STRATEGY_PUNNED_JUMP
#define TRAP PATCH_STRATEGY_TRAP

struct scenario {
	const char *name;
	enum subject_name subject;
	bool far;    /* nothing is free within 2 GiB */
	enum text_way way;
	struct step steps[STEPS_MAX];
};

#define STEP(what) { .operation = what }
#define CHANGE(what, n) { .operation = what, .patch = n }
#define ON_OFF(n) STEP(COMMIT), CHANGE(DISABLE, n), STEP(COMMIT), CHANGE(ENABLE, n), STEP(COMMIT)

static const struct scenario scenarios[] = {
	{ "init", STRAIGHT, false, TEXT_NONE, { STEP(INIT), { MAKE, 0, 0, ALLOW, JUMP }, STEP(COMMIT), STEP(FINI) } },
	{ "jump", STRAIGHT, false, TEXT_NONE,
	  { { MAKE, 0, 0, ALLOW, JUMP }, ON_OFF(0), CHANGE(UNMAKE, 0), STEP(COMMIT) } },
	{ "constrained", STRAIGHT, false, TEXT_NONE,
	  { { MAKE, 0, 1, ALLOW, CONSTRAINED }, ON_OFF(0), CHANGE(UNMAKE, 0), STEP(COMMIT) } },
	{ "punned", BRANCHED, false, TEXT_NONE,
	  { { MAKE, 0, 0, ALLOW, PUNNED }, ON_OFF(0), CHANGE(UNMAKE, 0), STEP(COMMIT) } },
	{ "trap", STRAIGHT, false, TEXT_NONE,
	  { { MAKE, 0, 2, FORCE, TRAP }, ON_OFF(0), CHANGE(UNMAKE, 0), STEP(COMMIT) } },
	{ "far", STRAIGHT, true, TEXT_NONE,
	  { { MAKE, 0, 0, ALLOW, TRAP }, ON_OFF(0), CHANGE(UNMAKE, 0), STEP(COMMIT) } },
	{ "join", STRAIGHT, false, TEXT_NONE,
	  { { MAKE, 0, 1, ALLOW, CONSTRAINED }, STEP(COMMIT), { MAKE, 1, 2, ALLOW, CONSTRAINED },
	    ON_OFF(1), CHANGE(UNMAKE, 0), STEP(COMMIT) } },
	{ "take in", STRAIGHT, false, TEXT_NONE,
	  { { MAKE, 0, 2, FORBID, CONSTRAINED }, STEP(COMMIT), { MAKE, 1, 1, FORBID, CONSTRAINED },
	    ON_OFF(1), CHANGE(UNMAKE, 0), STEP(COMMIT) } },
	{ "give way", BRANCHED, false, TEXT_NONE,
	  { { MAKE, 0, 0, ALLOW, PUNNED }, STEP(COMMIT), { MAKE, 1, 1, ALLOW, CONSTRAINED },
	    ON_OFF(1), CHANGE(UNMAKE, 1), STEP(COMMIT) } },
	{ "convert", STRAIGHT, false, TEXT_NONE,
	  { { MAKE, 0, 1, ALLOW, CONSTRAINED }, STEP(COMMIT), { MAKE, 1, 1, FORCE, TRAP },
	    ON_OFF(1), CHANGE(UNMAKE, 1), STEP(COMMIT),
	    { MAKE, 2, 1, FORBID, CONSTRAINED }, STEP(COMMIT) } },
	{ "around", STRAIGHT, false, TEXT_NONE,
	  { { AROUND, 0, 3, ALLOW, CONSTRAINED }, ON_OFF(0), CHANGE(UNMAKE, 0), STEP(COMMIT) } },
	{ "around a call", CALLING, false, TEXT_NONE,
	  { { AROUND, 0, 2, ALLOW, JUMP }, ON_OFF(0), CHANGE(UNMAKE, 0), STEP(COMMIT) } },
	{ "a call and its return", CALLING, false, TEXT_NONE,
	  { { CALL, 0, 2, ALLOW, JUMP }, ON_OFF(0), CHANGE(UNMAKE, 0), STEP(COMMIT) } },
	{ "replan", LOOPING, false, TEXT_NONE,
	  { { MAKE, 0, 0, ALLOW, CONSTRAINED }, STEP(COMMIT), STEP(RUN_LONG), STEP(COMMIT),
	    CHANGE(DISABLE, 0), STEP(COMMIT) } },
	{ "page swap", STRAIGHT, false, TEXT_PAGE_SWAP,
	  { { MAKE, 0, 0, ALLOW, JUMP }, ON_OFF(0), CHANGE(UNMAKE, 0), STEP(COMMIT) } },
	{ "writable text", STRAIGHT, false, TEXT_MPROTECT,
	  { { MAKE, 0, 0, ALLOW, JUMP }, ON_OFF(0), CHANGE(UNMAKE, 0), STEP(COMMIT) } },
	{ "fini", STRAIGHT, false, TEXT_NONE,
	  { { MAKE, 0, 0, ALLOW, JUMP }, { MAKE, 1, 4, FORCE, TRAP }, STEP(COMMIT), STEP(FINI) } },
};

/* ---- the failure ------------------------------------------------------------------------------------------------- */

enum kind { ALLOCATION, SYSTEM_CALL, TEXT_WRITE, SYNCHRONISATION, MAPPING, KINDS };

static const struct {
	const char *name;
	enum inject_point point;
	int error;
} kinds[KINDS] = {
	[ALLOCATION] = { "allocation", INJECT_ALLOC, ENOMEM },
	[SYSTEM_CALL] = { "system call", INJECT_SYSCALL, EPERM },
	[TEXT_WRITE] = { "text write", INJECT_TEXT_WRITE, EIO },
	[SYNCHRONISATION] = { "synchronisation", INJECT_SYNC, EPERM },
	[MAPPING] = { "mapping", INJECT_MMAP, ENOMEM },
};

/* What is left when everything was unmade. */
struct totals {
	uint64_t heap, code, pads, retired, ranges, mappings, mapped, descriptors;
};

static struct {
	const struct scenario *scenario;
	enum kind kind;
	uint64_t n; /* 0: none fails */
} now;

/* Of a child, for its parent. */
static struct {
	struct totals totals;
	bool passed;   /* the failure was met, or none was due */
	/* patch_fini() may have exchanged pages of text, not knowing that there are no threads: that splits mappings */
	bool exchanged;
	bool otherwise; /* it made no call fail, but take another way, which may have another use for memory */
} *shared;

static uint64_t passed;
static bool armed, fired, ran_long;
static struct instructions list;
static struct text_copy original;
static uint64_t hits;

static int inject(enum inject_point point)
{
	if (!armed || point != kinds[now.kind].point || ++passed != now.n)
		return 0;
	fired = true;
	return kinds[now.kind].error;
}

/* ---- steps ------------------------------------------------------------------------------------------------------- */

static patch_t patches[4];
static unsigned int patch_instruction[4];
static bool alive;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	if (context->user_data == &hits)
		hits++;
}

static void run(uint64_t count, const char *when)
{
	const struct subject *subject = &subjects[now.scenario->subject];
	uint64_t value = subject->function(count);

	if (value != subject->model(count))
		FAIL("%s: %s(%llu) returned %#llx", when, subject->name, (unsigned long long)count,
		     (unsigned long long)value);
}

static patch_status perform(const struct step *step)
{
	struct patch_location location;
	struct patch_exec_model model;
	patch_status status;
	patch_attr attr;

	switch (step->operation) {
	case INIT:
		status = patch_init(NULL, 0);
		alive = alive || status == PATCH_OK;
		return status;
	case MAKE:
	case AROUND:
	case CALL:
		location = location_at(list.address[step->instruction]);
		model = model_of(step->operation == MAKE   ? PATCH_EXEC_MODEL_PROBE :
				 step->operation == AROUND ? PATCH_EXEC_MODEL_PROBE_AROUND :
							     PATCH_EXEC_MODEL_PROBE_CALL,
				 procedure, &hits);
		attr = attr_of(step->policy, PATCH_ENABLED);
		status = patch_make(&location, &model, &attr, &patches[step->patch], NULL);
		patch_instruction[step->patch] = step->instruction;
		if (status != PATCH_OK)
			patches[step->patch] = NULL;
		return status;
	case ENABLE:
		return patch_enable(patches[step->patch]);
	case DISABLE:
		return patch_disable(patches[step->patch]);
	case UNMAKE:
		status = patch_unmake(patches[step->patch]);
		if (status == PATCH_OK)
			patches[step->patch] = NULL;
		return status;
	case COMMIT:
		return patch_commit();
	case RUN_LONG:
		ran_long = true; /* what a commit does of its own accord then is not tried again */
		run(TURNS, "for long");
		return PATCH_OK;
	case FINI:
		status = patch_fini();
		alive = status != PATCH_OK;
		return status;
	default:
		return PATCH_OK;
	}
}

static void check_strategy(const struct step *step)
{
	struct patch_info info = { 0 };

	CHECK_OK(patch_info(patches[step->patch], &info, sizeof(info)));
	CHECK_EQ(info.strategy, step->strategy);
}

static bool is_make(const struct step *step)
{
	return step->operation == MAKE || step->operation == AROUND || step->operation == CALL;
}

/* With the failure, if it is its turn; then what failed, or what came out another way, again. */
static void do_step(const struct step *step, unsigned int index)
{
	patch_status status;
	bool before = fired;

	armed = now.n != 0;
	status = perform(step);
	armed = false;
	run(7, "after the step");
	if (fired && !before) {
		CONTEXT("%s, %s %llu failed in step %u: status %d", now.scenario->name, kinds[now.kind].name,
			(unsigned long long)now.n, index, (int)status);
		shared->exchanged = status == PATCH_OK && step->operation == FINI;
		shared->otherwise = status == PATCH_OK && (is_make(step) || step->operation == INIT || ran_long);
		if (is_make(step) && status == PATCH_OK) {
			/* For want of memory near by it is another strategy now: not what is compared. */
			CHECK_OK(patch_unmake(patches[step->patch]));
			CHECK_OK(patch_commit());
			status = PATCH_ENOMEM;
		}
		if (status != PATCH_OK)
			status = perform(step);
		if (step->operation == COMMIT)
			CHECK_OK(patch_commit());
		run(7, "after the step was repeated");
	}
	CHECK_EQ(status, PATCH_OK);
	if (status != PATCH_OK)
		harness_say("%s\n", harness_last_error());
	else if (is_make(step))
		check_strategy(step);
}

static uint64_t count_descriptors(void)
{
	DIR *directory = opendir("/proc/self/fd");
	uint64_t count = 0;

	REQUIRE(directory != NULL);
	while (readdir(directory))
		count++;
	closedir(directory);
	return count;
}

static void count_mappings(struct totals *totals)
{
	FILE *file = fopen("/proc/self/maps", "r");
	unsigned long lower, upper;
	char line[512];

	REQUIRE(file != NULL);
	while (fgets(line, sizeof(line), file)) {
		if (strstr(line, "[heap]") || strstr(line, "[stack]"))
			continue;
		totals->mappings++;
		if (sscanf(line, "%lx-%lx", &lower, &upper) == 2)
			totals->mapped += upper - lower;
	}
	fclose(file);
}

static struct totals take_totals(void)
{
	struct arena_usage arenas;
	struct pad_usage pads;
	struct region_usage { uint64_t regions, installed, retired; } regions;
	struct totals totals = { 0 };
	void region_usage(struct region_usage * usage);

	arena_usage(&arenas);
	pad_usage(&pads);
	region_usage(&regions);
	totals.heap = heap_in_use();
	totals.code = arenas.code_bytes;
	totals.pads = pads.pads;
	totals.retired = regions.retired;
	totals.ranges = code_ranges_count();
	totals.descriptors = count_descriptors();
	count_mappings(&totals);
	return totals;
}

/* No memory is free within 2 GiB of the code, which is put in the middle. */
static uintptr_t place_far(const struct subject *subject)
{
	const uintptr_t middle = 0x100000000000u, reach = 0x88000000u;
	uint8_t *area = mmap((void *)(middle - reach), 2 * reach, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	uintptr_t start = (uintptr_t)subject->function;

	REQUIRE(area == (uint8_t *)(middle - reach));
	REQUIRE(mprotect((void *)middle, 4096, PROT_READ | PROT_WRITE) == 0);
	memcpy((void *)middle, (void *)start, (uintptr_t)subject->end - start);
	REQUIRE(mprotect((void *)middle, 4096, PROT_READ | PROT_EXEC) == 0);
	return middle;
}

static void run_scenario(void *argument)
{
	const struct scenario *scenario = now.scenario;
	struct subject subject = subjects[scenario->subject];
	uintptr_t start = (uintptr_t)subject.function;
	struct patch_option option = { .type = PATCH_OPT_ENABLE_WXE };
	bool far = scenario->far;

	(void)argument;
	alarm(CHILD_SECONDS);
	list = code_decode(start, (uintptr_t)subject.end);
	if (far) {
		uintptr_t to = place_far(&subject);

		for (unsigned int i = 0; i < list.count; i++)
			list.address[i] += to - start;
		start = to;
	}
	original = text_save(start, (size_t)((uintptr_t)subject.end - (uintptr_t)subject.function));
	libpatch_inject = inject;
	if (scenario->steps[0].operation != INIT) {
		REQUIRE_OK(patch_init(&option, 1));
		alive = true;
	}
	if (scenario->way != TEXT_NONE)
		text_set_way(scenario->way);
	for (unsigned int i = 0; i < STEPS_MAX && scenario->steps[i].operation != END; i++) {
		CONTEXT("%s, %s %llu, step %u", scenario->name, kinds[now.kind].name, (unsigned long long)now.n, i);
		do_step(&scenario->steps[i], i);
	}
	if (alive) {
		for (unsigned int i = 0; i < 4; i++)
			if (patches[i])
				CHECK_OK(patch_unmake(patches[i]));
		CHECK_OK(patch_commit());
		CHECK_OK(patch_commit());
	}
	CHECK_TEXT_SAME(&original);
	run(7, "at the end");
	shared->totals = take_totals();
	shared->passed = fired || now.n == 0;
	if (alive)
		CHECK_OK(patch_fini());
	CHECK_TEXT_SAME(&original);
}

#define COMPARE(field)                                                                                                 \
	do {                                                                                                           \
		if (shared->totals.field != wanted.field)                                                              \
			FAIL("%s, the %llu. %s fails: " #field " is %llu at the end, else %llu", scenario->name,       \
			     (unsigned long long)now.n, kinds[now.kind].name,                                          \
			     (unsigned long long)shared->totals.field, (unsigned long long)wanted.field);              \
	} while (0)

/* A few of them, or under check-stress all. */
static unsigned int stride = 7;

/* The last failure that there is. */
static uint64_t try_all(const struct scenario *scenario, enum kind kind, uint64_t only)
{
	struct totals wanted;
	int status;

	now.scenario = scenario;
	now.kind = kind;
	now.n = 0;
	status = harness_child(run_scenario, NULL);
	if (status) {
		FAIL("%s without failures: wait status %#x", scenario->name, (unsigned int)status);
		return 0;
	}
	wanted = shared->totals;
	for (now.n = only ? only : 1;; now.n += stride) {
		memset(shared, 0, sizeof(*shared));
		status = harness_child(run_scenario, NULL);
		if (status)
			FAIL("%s, the %llu. %s fails: wait status %#x", scenario->name, (unsigned long long)now.n,
			     kinds[kind].name, (unsigned int)status);
		if (status == 0 && !shared->passed)
			return now.n > stride ? now.n - stride : 0;
		if (status == 0) {
			COMPARE(descriptors);
		}
		/* Else other code, and room for pads elsewhere, is kept for reuse. */
		if (status == 0 && !shared->otherwise) {
			COMPARE(code);
			COMPARE(pads);
			COMPARE(retired);
			COMPARE(heap);
			COMPARE(ranges);
			if (!shared->exchanged)
				COMPARE(mappings);
			COMPARE(mapped);
		}
		if (only || (status && now.n > 3000))
			return now.n;
	}
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : NULL;
	uint64_t only = argc > 2 ? strtoull(argv[2], NULL, 0) : 0;

	if (getenv("LIBPATCH_STRESS_SECONDS") || argc > 1)
		stride = 1;
	harness_start_seconds(harness_seconds("LIBPATCH_TEST_TIMEOUT", 1200));
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(shared != MAP_FAILED);
	for (size_t i = 0; i < sizeof(scenarios) / sizeof(scenarios[0]); i++) {
		if (name && strcmp(name, scenarios[i].name))
			continue;
		printf("%-14s", scenarios[i].name);
		fflush(stdout);
		for (enum kind kind = 0; kind < KINDS; kind++) {
			printf("  %4llu %ss", (unsigned long long)try_all(&scenarios[i], kind, only), kinds[kind].name);
			fflush(stdout);
		}
		printf("\n");
		fflush(stdout);
	}
	return harness_end();
}
