/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The protocol, stopped at every step, for every change that a region can go through: the text is what the invariants
 * say (I1, I2, I4), the program runs right, each call is counted once or not at all. Then the same with every core
 * synchronisation, every write and every mapping made to fail.
 */
#include "bytes.h"

#include "arch/trap_bytes.h"
#include "code/arena.h"
#include "code/pc_map.h"
#include "base/inject.h"
#include "patch/region.h"
#include "trap/registry.h"
#include "runtime/lock.h"
#include "sys/text.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <libpatch/patch.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- what is patched -------------------------------------------------------------------------------------------- */

#define TARGET(name, body)                                                                                             \
	".globl " #name "\n.hidden " #name "\n.type " #name ", @function\n" #name ":\n.cfi_startproc\n" body           \
	".cfi_endproc\n.size " #name ", . - " #name "\n.hidden " #name "_end\n" #name "_end:\n.p2align 4, 0xcc\n"

/* Two pages: writes to them are two, and fail by themselves. */
__asm__(".text\n.p2align 12, 0xcc\n"
	/* clang-format off */
	TARGET(five,     "mov $0x12345678, %eax\n add %rdi, %rax\n xor %rsi, %rax\n ret\n")
	TARGET(one_four, "push %rbx\n lea 4(%rdi), %rbx\n lea (%rbx, %rsi), %rax\n pop %rbx\n ret\n")
	TARGET(four_one, "lea 4(%rdi), %rax\n nop\n xor %rsi, %rax\n ret\n")
	TARGET(two_two_one, "mov %edi, %eax\n xor %esi, %eax\n nop\n ret\n")
	TARGET(loop_head, "mov %esi, %eax\n 1: inc %eax\n dec %dil\n jnz 1b\n ret\n")
	".p2align 12, 0xcc\n"
	TARGET(three_one_one, "mov %rdi, %rax\n push %rbx\n pop %rbx\n sub %rsi, %rax\n ret\n")
	TARGET(ones, "push %rbx\n push %rdi\n pop %rbx\n push %rsi\n pop %rax\n add %rbx, %rax\n pop %rbx\n ret\n")
	TARGET(three_six, "mov %rdi, %rax\n add $0x11223344, %rax\n xor %rsi, %rax\n ret\n")
	TARGET(endbr, "endbr64\n mov %rdi, %rax\n sub %rsi, %rax\n mov $7, %ecx\n add %rcx, %rax\n ret\n")
	TARGET(call_inside, "push %rbx\n call 1f\n pop %rbx\n ret\n 1: lea (%rdi, %rsi, 2), %rax\n ret\n")
	".p2align 12, 0xcc\n");
/* clang-format on */

#define TARGETS(T)                                                                                                     \
	T(five, 0, 5, 0x12345678 + a ^ b)                                                                              \
	T(one_four, 0, 1, a + 4 + b)                                                                                   \
	T(four_one, 0, 4, (a + 4) ^ b)                                                                                 \
	T(two_two_one, 0, 2, (uint32_t)(a ^ b))                                                                        \
	T(loop_head, 0, 2, (uint32_t)b + (uint8_t)a)                                                                   \
	T(three_one_one, 0, 4, a - b)                                                                                  \
	T(ones, 0, 3, a + b)                                                                                           \
	T(three_six, 0, 3, (a + 0x11223344) ^ b)                                                                       \
	T(endbr, 4, 7, a - b + 7)                                                                                      \
	T(call_inside, 0, 6, a + 2 * b)

#define DECLARE(name, site, inner, value)                                                                              \
	extern uint8_t name[], name##_end[];                                                                           \
	static uint64_t name##_model(uint64_t a, uint64_t b)                                                           \
	{                                                                                                              \
		return value;                                                                                          \
	}
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wparentheses"
TARGETS(DECLARE)
#pragma GCC diagnostic pop

static const struct target {
	const char *name;
	uint8_t *code;
	uint8_t *end;
	uint64_t (*model)(uint64_t a, uint64_t b);
	uint8_t site;  /* offset of the first instruction that can be patched */
	uint8_t inner; /* of one in the window or right behind it */
} targets[] = {
#define LIST(name, site, inner, value) { #name, name, name##_end, name##_model, site, inner },
	TARGETS(LIST)
};

#define COUNT ARRAY_SIZE(targets)
#define TEXT_MAX 64
/* Of a call: few, so that expected hits are easy to tell. */
#define ARGUMENT_A 0x1122334455667703UL
#define ARGUMENT_B 0x0102030405060708UL

enum which { SITE, INNER, PATCHES };

static patch_t patches[COUNT][PATCHES];
static bool was_on[COUNT][PATCHES];
static bool on[COUNT][PATCHES];
static uint8_t original[COUNT][TEXT_MAX];
static struct { size_t target; enum which which; } marks[COUNT][PATCHES];

static size_t size_of(size_t i)
{
	return (size_t)(targets[i].end - targets[i].code);
}

static uintptr_t address_of(size_t i, enum which which)
{
	return (uintptr_t)targets[i].code + (which == SITE ? targets[i].site : targets[i].inner);
}

/* How often one call meets the instruction. */
static unsigned int visits(size_t i, enum which which)
{
	return targets[i].code == loop_head && which == INNER ? (uint8_t)ARGUMENT_A : 1;
}

static bool call(size_t i)
{
	uint64_t (*f)(uint64_t, uint64_t) = (uint64_t(*)(uint64_t, uint64_t))(uintptr_t)targets[i].code;

	return f(ARGUMENT_A, ARGUMENT_B) == targets[i].model(ARGUMENT_A, ARGUMENT_B);
}

/* ---- what is under test now, for messages ----------------------------------------------------------------------- */

#define MESSAGES 6

/* Shared with the children that the work is done in. */
static struct report {
	char context[200];
	const char *place;
	unsigned int failures;
	char messages[MESSAGES + 1][512];
} *report;

static void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void fail(const char *format, ...)
{
	char *message = report->messages[report->failures];
	size_t used, size = sizeof(report->messages[0]);
	char context[sizeof(report->context)];
	va_list arguments;

	if (report->failures++ >= MESSAGES)
		return;
	strcpy(context, report->context);
	used = (size_t)snprintf(message, size, "%s, %s: ", context, report->place);
	va_start(arguments, format);
	vsnprintf(message + used, size - used, format, arguments);
	va_end(arguments);
}

#define EXPECT(condition, ...)                                                                                         \
	do {                                                                                                           \
		if (!(condition))                                                                                      \
			fail(__VA_ARGS__);                                                                             \
	} while (0)

#define EXPECT_STATUS(call, expected)                                                                                  \
	do {                                                                                                           \
		patch_status status_ = (call);                                                                         \
		EXPECT(status_ == (expected), "%s is %s (%s), not %s", #call, patch_status_string(status_),            \
		       last_message(), patch_status_string(expected));                                                 \
	} while (0)

static const char *last_message(void)
{
	static struct patch_error error;

	return patch_last_error(&error) == PATCH_OK ? "" : error.message;
}

/* ---- threads that call the targets ------------------------------------------------------------------------------ */

static unsigned int hits[COUNT][PATCHES];
static _Thread_local bool counted;
static sem_t asked, answered;
static _Atomic unsigned int wrong;
static _Atomic uint64_t rounds;
static bool looping;

static void procedure(struct patch_exec_context *ctx, uint8_t post)
{
	const size_t *mark = ctx->user_data;

	(void)post;
	if (counted)
		hits[mark[0]][*(const enum which *)&mark[1]]++;
}

/* Calls each target once when asked to: the committing thread's own hooks are suppressed. */
static void *answer(void *unused)
{
	size_t i;

	(void)unused;
	counted = true;
	for (;;) {
		sem_wait(&asked);
		for (i = 0; i < COUNT; i++)
			wrong += !call(i);
		sem_post(&answered);
	}
	return NULL;
}

/* Calls them all the time, so that it is anywhere when the text changes. */
static void *loop(void *unused)
{
	size_t i;

	(void)unused;
	for (;;) {
		for (i = 0; i < COUNT; i++)
			wrong += !call(i);
		atomic_fetch_add(&rounds, 1);
	}
	return NULL;
}

static void ask(void)
{
	uint64_t until;

	memset(hits, 0, sizeof(hits));
	sem_post(&asked);
	sem_wait(&answered);
	/* A round that began after the text was changed has ended. */
	until = atomic_load(&rounds) + 2;
	while (looping && atomic_load(&rounds) < until)
		sched_yield();
	EXPECT(atomic_exchange(&wrong, 0) == 0, "a wrong result");
}

static void start_threads(bool with_loop)
{
	pthread_t thread;

	sem_init(&asked, 0, 0);
	sem_init(&answered, 0, 0);
	looping = with_loop;
	if (pthread_create(&thread, NULL, answer, NULL) != 0 ||
	    (with_loop && pthread_create(&thread, NULL, loop, NULL) != 0))
		abort();
}

/* ---- the text at a step ----------------------------------------------------------------------------------------- */

static const char *const point_names[] = {
	"checked", "published", "phase 0", "phase 1", "sync 1", "phase 2", "sync 2", "phase 3", "sync 3", "phase 4",
};

/* A region, or a pad, as the commit found it and as it has to leave it. */
struct view {
	const struct region *region;
	uintptr_t start;
	size_t length;
	bool install;
	bool changes;
	bool is_boundary[WINDOW_LENGTH_MAX];
	uint8_t trap[WINDOW_LENGTH_MAX]; /* of instructions */
	uint8_t cut[WINDOW_LENGTH_MAX];  /* the same, of punned jumps */
	bool is_punned[WINDOW_LENGTH_MAX]; /* a jump that reads bytes behind the region was there */
	uint8_t base[WINDOW_LENGTH_MAX];
	uint8_t final[WINDOW_LENGTH_MAX];
};

static struct view views[4 * COUNT];
static size_t view_count;
static uint8_t text_before[COUNT][TEXT_MAX];
/* The commit's steps, one letter each, several writes in a row once. */
static char steps[64];
static bool observed;
/* Text was written since the last core synchronisation: now, and before this commit. */
static bool unseen, unseen_before;
/* As things are when entries are retired. */
static unsigned int active;
static bool unseen_at_end;
/* By the commit. */
static unsigned int retired;

static bool is_trap(uint8_t byte)
{
	return arch_trap_class(byte) != ARCH_TRAP_NONE;
}

static bool is_viewed(const struct region *region)
{
	size_t i;

	for (i = 0; i < view_count; i++) {
		if (views[i].region == region)
			return true;
	}
	return false;
}

static void finish_view(struct view *view)
{
	memcpy(view->base, (const void *)view->start, view->length);
	view->changes = memcmp(view->base, view->final, view->length) != 0;
}

static void view_region(const struct region *region)
{
	struct view *view = &views[view_count++];
	unsigned int k;

	*view = (struct view){ .region = region, .start = region->start, .length = region->length };
	view->install = region_wanted(region);
	memcpy(view->final, region->original, region->length);
	for (k = 1; k < region->count; k++)
		view->is_boundary[region->offsets[k]] = true;
	for (k = 0; k < region->count; k++) {
		view->cut[region->offsets[k]] =
			region->offsets[k + 1] - region->offsets[k] > 1 ? ARCH_INT3 : ARCH_INVALID;
		view->trap[region->offsets[k]] = view->install && region->strategy == PATCH_STRATEGY_TRAP ?
							 ARCH_INT3 : view->cut[region->offsets[k]];
	}
	if (view->install) {
		for (k = 0; k < region->count; k++)
			if (region->strategy != PATCH_STRATEGY_TRAP || region_is_hooked(region, region->offsets[k]))
				view->final[region->offsets[k]] = view->trap[region->offsets[k]];
		if (region->strategy != PATCH_STRATEGY_TRAP)
			memcpy(view->final, region_trampoline(region)->jump, MIN(region->length, ARCH_JMP_SIZE));
	}
	finish_view(view);
	for (k = 0; k < region->count; k++)
		view->is_punned[region->offsets[k]] = view->changes && region->entries[k]->punned;
	/* A pad is a region of one instruction. One that nobody could be led to before is written in one piece. */
	if (view->install && region->pad != 0 && region->pad_reachable && region->strategy != PATCH_STRATEGY_TRAP) {
		view = &views[view_count++];
		*view = (struct view){ .region = region, .start = region->pad, .length = ARCH_JMP_SIZE };
		view->trap[0] = ARCH_INT3;
		view->install = true;
		trampoline_pad_bytes(region_trampoline(region), region->pad, view->final);
		finish_view(view);
	}
}

static void view_regions(void)
{
	size_t i, offset;

	view_count = 0;
	for (i = 0; i < COUNT; i++) {
		for (offset = 0; offset < size_of(i); offset++) {
			const struct region *region = region_at((uintptr_t)targets[i].code + offset);

			if (region != NULL && !is_viewed(region))
				view_region(region);
		}
	}
}

/* What a byte has to be once the point is reached. */
static uint8_t wanted_byte(const struct view *view, size_t at, enum inject_point point)
{
	bool way_in = at == 0 || view->is_boundary[at];
	uint8_t base = view->is_punned[at] && point >= INJECT_COMMIT_PHASE_0 ? view->cut[at] : view->base[at];

	if (point < INJECT_COMMIT_PHASE_1 || !view->changes)
		return base;
	if (view->install && at == 0 && point < (view->region->strategy == PATCH_STRATEGY_PUNNED_JUMP ?
						 INJECT_COMMIT_PHASE_4 : INJECT_COMMIT_PHASE_3))
		return view->trap[0];
	if (point >= INJECT_COMMIT_PHASE_3)
		return view->final[at];
	if (!way_in)
		return point < INJECT_COMMIT_PHASE_2 ? base : view->final[at];
	if (view->install)
		return !is_trap(view->final[at]) || (is_trap(base) && point < INJECT_COMMIT_PHASE_2) ? base :
												       view->final[at];
	/*
	 * To be removed. The region may have taken in another, and nothing else of it may ever have been installed:
	 * then its jump is somewhere in the middle, and what is original stays so.
	 */
	return base == view->final[at] || is_trap(base) ? base : view->trap[at];
}

/* I2: the ways in are closed, but to instructions all of whose bytes are original and stay so. */
static bool is_closed(const struct view *view, size_t at)
{
	const uint8_t *now = (const uint8_t *)view->start;
	size_t end = at + 1;

	if (is_trap(now[at]))
		return true;
	while (end < view->length && !view->is_boundary[end])
		end++;
	return (!view->install || view->region->strategy == PATCH_STRATEGY_TRAP) &&
	       memcmp(view->base + at, view->final + at, end - at) == 0;
}

static void check_view(const struct view *view, enum inject_point point)
{
	const uint8_t *now = (const uint8_t *)view->start;
	bool tail_changes = false, closed = true;
	size_t i;

	/* I1 */
	EXPECT(now[0] == view->region->original[0] || now[0] == view->trap[0] ||
		       now[0] == ARCH_INT3 || now[0] == ARCH_JMP_REL32,
	       "%#lx: the first byte is %#x (I1)", view->start, now[0]);
	for (i = 0; i < view->length; i++) {
		uint8_t wanted = wanted_byte(view, i, point);

		EXPECT(now[i] == wanted, "%#lx+%zu is %#x, not %#x (I4)", view->start, i, now[i], wanted);
		if (view->is_boundary[i] && view->install && point >= INJECT_COMMIT_PHASE_1 &&
		    view->region->strategy != PATCH_STRATEGY_TRAP)
			EXPECT(is_trap(now[i]), "%#lx+%zu is %#x, no trap byte", view->start, i, now[i]);
		if (i == 0 || view->is_boundary[i])
			closed = closed && is_closed(view, i);
		else
			tail_changes = tail_changes || view->base[i] != view->final[i];
	}
	if (tail_changes && point >= INJECT_COMMIT_PHASE_1 && point <= INJECT_COMMIT_SYNC_2)
		EXPECT(closed, "%#lx: bytes change although not every way in is a trap byte (I2)", view->start);
}

/* I3: from publishing on, a trap at any instruction of a region being installed leads to code that stands for it. */
static void check_entries(const struct view *view)
{
	const struct region *region = view->region;
	unsigned int k;

	if (!view->install || view->start != region->start)
		return;
	for (k = 0; k < region->count; k++) {
		uintptr_t address = region->start + region->offsets[k];
		struct registry_entry *entry = registry_find(address);
		uintptr_t original_pc = 0;

		if (k > 0 && !is_trap(view->final[region->offsets[k]]) && !is_trap(view->base[region->offsets[k]]))
			continue;
		EXPECT(entry != NULL && REGISTRY_STATE(entry->state) == REGISTRY_ACTIVE, "%#lx: not active (I3)",
		       address);
		EXPECT(entry != NULL && pc_map_original(entry->target, &original_pc) && original_pc == address,
		       "%#lx: its code stands for %#lx (I3)", address, original_pc);
	}
}

static const struct view *view_of(uintptr_t address)
{
	size_t i;

	for (i = 0; i < view_count; i++) {
		if (address >= views[i].start && address < views[i].start + views[i].length)
			return &views[i];
	}
	return NULL;
}

static void check_hits(size_t i, enum which which, enum inject_point point)
{
	const struct view *view = view_of(address_of(i, which));
	unsigned int old = was_on[i][which] ? visits(i, which) : 0;
	/* A patch opens when the commit has led the text to all of its hooks. */
	unsigned int new = on[i][which] ? old : 0;
	bool either = false;

	if (view == NULL || point < INJECT_COMMIT_PUBLISHED)
		new = old;
	/* Where the text leads to the hooks already, or still, they are as they are to be from the start. */
	else if (point < INJECT_COMMIT_PHASE_1 || (!view->install && point < INJECT_COMMIT_PHASE_3))
		either = true;
	/* In a loop over a trap byte, some turns may lead to the old code and some to the new. */
	if (either)
		EXPECT(hits[i][which] <= MAX(old, new) && (visits(i, which) > 1 || hits[i][which] == old ||
							   hits[i][which] == new),
		       "%s: hit %u times, not %u or %u", targets[i].name, hits[i][which], old, new);
	else
		EXPECT(hits[i][which] == new, "%s: hit %u times, not %u", targets[i].name, hits[i][which], new);
}

static void check_around(size_t i)
{
	const uint8_t *now = targets[i].code;
	size_t at;

	for (at = 0; at < size_of(i); at++) {
		if (view_of((uintptr_t)now + at) == NULL)
			EXPECT(now[at] == original[i][at], "%s+%zu is %#x, not %#x, outside of every region",
			       targets[i].name, at, now[at], original[i][at]);
	}
}

static void add_step(char step)
{
	size_t length = strlen(steps);

	if (length + 1 < sizeof(steps) && (step != 'w' || length == 0 || steps[length - 1] != 'w'))
		steps[length] = step;
}

static bool is_active(const struct registry_entry *entry)
{
	return entry != NULL && REGISTRY_STATE(entry->state) == REGISTRY_ACTIVE;
}

static unsigned int count_active(void)
{
	unsigned int count = 0;
	size_t i, offset;

	for (i = 0; i < COUNT; i++) {
		for (offset = 0; offset < size_of(i); offset++)
			count += is_active(registry_find((uintptr_t)targets[i].code + offset));
	}
	for (i = 0; i < view_count; i++)
		count += is_active(views[i].region->pad_entry);
	return count;
}

static void watch_synchronisation(enum inject_point point)
{
	static bool text;

	if (point == INJECT_COMMIT_CHECKED || point == INJECT_COMMIT_PUBLISHED)
		text = point == INJECT_COMMIT_PUBLISHED;
	if (point == INJECT_SYNC)
		unseen = false;
	if (point == INJECT_TEXT_WRITE && text)
		unseen = true;
	if (!observed)
		return;
	if (point == INJECT_COMMIT_CHECKED && steps[0] == '\0')
		unseen_before = unseen;
	if (point >= INJECT_COMMIT_PUBLISHED && point <= INJECT_COMMIT_SYNC_3) {
		active = count_active();
		unseen_at_end = unseen;
	}
}

static int observe(enum inject_point point)
{
	size_t i;

	watch_synchronisation(point);
	if ((point > INJECT_COMMIT_PHASE_4 && point != INJECT_SYNC && point != INJECT_TEXT_WRITE) || !observed)
		return 0;
	/* A second batch of the commit: boundaries that trapped too often are planned again. */
	if (point == INJECT_COMMIT_CHECKED && steps[0] != '\0') {
		retired = active - count_active();
		observed = false;
		return 0;
	}
	if (point == INJECT_TEXT_WRITE || point == INJECT_SYNC) {
		add_step(point == INJECT_SYNC ? 's' : 'w');
		return 0;
	}
	report->place = point_names[point];
	if (point == INJECT_COMMIT_CHECKED) {
		view_regions();
		for (i = 0; i < COUNT; i++)
			EXPECT(memcmp(text_before[i], targets[i].code, size_of(i)) == 0, "%s: text changed before",
			       targets[i].name);
	}
	add_step("cp01a2b3d4"[point]);
	for (i = 0; i < view_count; i++) {
		check_view(&views[i], point);
		if (point >= INJECT_COMMIT_PUBLISHED)
			check_entries(&views[i]);
	}
	ask();
	for (i = 0; i < COUNT; i++) {
		check_around(i);
		check_hits(i, SITE, point);
		check_hits(i, INNER, point);
	}
	report->place = "";
	return 0;
}

/* ---- changes ---------------------------------------------------------------------------------------------------- */

static int policy;

static void save_original(void)
{
	size_t i;

	for (i = 0; i < COUNT; i++)
		memcpy(original[i], targets[i].code, size_of(i));
}

static patch_status try_make(size_t i, enum which which)
{
	struct patch_location location = {
		.type = PATCH_LOCATION_ADDRESS,
		.address = which == SITE ? (uintptr_t)targets[i].code : address_of(i, which),
	};
	struct patch_exec_model model = {
		.type = PATCH_EXEC_MODEL_PROBE,
		.probe = {
			.clobber_registers = PATCH_REGS_ALL,
			.user_data = &marks[i][which],
			.procedure = procedure,
		},
	};
	patch_attr attr;

	marks[i][which].target = i;
	marks[i][which].which = which;
	patch_attr_init(&attr, sizeof(attr));
	patch_attr_set_trap_policy(&attr, policy);
	patch_attr_set_initial_state(&attr, PATCH_ENABLED);
	return patch_make(&location, &model, &attr, &patches[i][which], NULL);
}

static void make(size_t i, enum which which)
{
	EXPECT_STATUS(try_make(i, which), PATCH_OK);
	on[i][which] = true;
}

static void unmake(size_t i, enum which which)
{
	EXPECT_STATUS(patch_unmake(patches[i][which]), PATCH_OK);
	patches[i][which] = NULL;
	on[i][which] = false;
}

static void enable(size_t i, enum which which)
{
	EXPECT_STATUS(patch_enable(patches[i][which]), PATCH_OK);
	on[i][which] = true;
}

static void disable(size_t i, enum which which)
{
	EXPECT_STATUS(patch_disable(patches[i][which]), PATCH_OK);
	on[i][which] = false;
}

static patch_status commit(void)
{
	size_t i;
	patch_status status;

	for (i = 0; i < COUNT; i++)
		memcpy(text_before[i], targets[i].code, size_of(i));
	memset(steps, 0, sizeof(steps));
	status = patch_commit();
	if (observed)
		retired = active - count_active();
	if (status == PATCH_OK)
		memcpy(was_on, on, sizeof(on));
	return status;
}

/* I5: where nothing of ours is left, a trap is the program's. */
static void expect_retired(size_t i, bool settled)
{
	size_t offset;

	for (offset = 0; offset < size_of(i); offset++) {
		const struct region *region = region_at((uintptr_t)targets[i].code + offset);

		if (region != NULL && (settled || !region->installed) &&
		    targets[i].code[offset] == original[i][offset] && !is_trap(original[i][offset]))
			EXPECT(!is_active(registry_find((uintptr_t)targets[i].code + offset)),
			       "%s+%zu: original, but active (I5)", targets[i].name, offset);
	}
}

static bool pads_expected = true;

/* Of a pad that leads where it should. */
static void expect_pads_settled(size_t i)
{
	size_t offset;

	for (offset = 0; offset < size_of(i); offset++) {
		const struct region *region = region_at((uintptr_t)targets[i].code + offset);

		if (region != NULL && region->installed && region->pad != 0 && region->strategy != PATCH_STRATEGY_TRAP)
			EXPECT(!is_active(region->pad_entry), "%s: its pad is still active", targets[i].name);
	}
}

/* Everything is as wanted, by hits and by bytes. */
static void expect_settled(void)
{
	size_t i, which;

	ask();
	for (i = 0; i < COUNT; i++) {
		for (which = 0; which < PATCHES; which++) {
			unsigned int expected = on[i][which] ? visits(i, which) : 0;

			EXPECT(hits[i][which] == expected, "%s: hit %u times, not %u", targets[i].name, hits[i][which],
			       expected);
		}
		if (!on[i][SITE] && !on[i][INNER])
			EXPECT(memcmp(targets[i].code, original[i], size_of(i)) == 0, "%s: bytes are not back",
			       targets[i].name);
		expect_retired(i, true);
		if (pads_expected)
			expect_pads_settled(i);
	}
}

/* After a failure: it runs right, and nothing counts a call that was neither on nor is to be. */
static void expect_sane(void)
{
	size_t i, which;

	ask();
	for (i = 0; i < COUNT; i++) {
		for (which = 0; which < PATCHES; which++) {
			unsigned int most = on[i][which] || was_on[i][which] ? visits(i, which) : 0;

			EXPECT(hits[i][which] <= most, "%s: hit %u times", targets[i].name, hits[i][which]);
		}
	}
}

static void remove_all(void)
{
	struct patch_statistics statistics;
	size_t i, which;

	for (i = 0; i < COUNT; i++) {
		for (which = 0; which < PATCHES; which++) {
			if (patches[i][which] != NULL)
				unmake(i, which);
		}
	}
	EXPECT_STATUS(commit(), PATCH_OK);
	expect_settled();
	EXPECT_STATUS(patch_statistics(&statistics, sizeof(statistics)), PATCH_OK);
	EXPECT(statistics.patches == 0 && statistics.regions_installed == 0, "%lu patches, %lu regions installed left",
	       statistics.patches, statistics.regions_installed);
}

/* A change: what is there before, what is asked for, and how to ask for the opposite before it is committed. */
struct change {
	const char *name;
	void (*prepare)(size_t i);
	void (*act)(size_t i);
	void (*undo)(size_t i);
};

static void nothing(size_t i)
{
	(void)i;
}

static void make_site(size_t i)
{
	make(i, SITE);
}

static void make_inner(size_t i)
{
	make(i, INNER);
}

static void make_both(size_t i)
{
	make(i, SITE);
	make(i, INNER);
}

static void make_both_from_behind(size_t i)
{
	make(i, INNER);
	make(i, SITE);
}

/* From jump to trap, but where a patch forbids it. */
static void force_inner(size_t i)
{
	int before = policy;

	policy = policy == PATCH_TRAP_POLICY_ALLOW ? PATCH_TRAP_POLICY_FORCE : policy;
	make(i, INNER);
	policy = before;
}

static void unmake_site(size_t i)
{
	unmake(i, SITE);
}

static void unmake_inner(size_t i)
{
	unmake(i, INNER);
}

static void unmake_both(size_t i)
{
	unmake(i, SITE);
	unmake(i, INNER);
}

static void enable_site(size_t i)
{
	enable(i, SITE);
}

static void disable_site(size_t i)
{
	disable(i, SITE);
}

static void enable_both(size_t i)
{
	enable(i, SITE);
	enable(i, INNER);
}

static void disable_both(size_t i)
{
	disable(i, SITE);
	disable(i, INNER);
}

static void make_and_disable_site(size_t i)
{
	make(i, SITE);
	disable(i, SITE);
}

static void swap_site_for_inner(size_t i)
{
	make(i, INNER);
	disable(i, SITE);
}

static void swap_inner_for_site(size_t i)
{
	make(i, SITE);
	disable(i, INNER);
}

static const struct change changes[] = {
	{ "install", nothing, make_site, unmake_site },
	{ "install two", nothing, make_both, unmake_both },
	{ "install two from behind", nothing, make_both_from_behind, disable_both },
	{ "install, disabled", nothing, make_and_disable_site, enable_site },
	{ "disable", make_site, disable_site, enable_site },
	{ "unmake", make_site, unmake_site, make_site },
	{ "join", make_site, make_inner, unmake_inner },
	{ "be forced to a trap", make_site, force_inner, unmake_inner },
	{ "take in", make_inner, make_site, unmake_site },
	{ "take in, disabled", make_inner, make_and_disable_site, enable_site },
	{ "swap for one behind", make_site, swap_site_for_inner, enable_site },
	{ "swap for one before", make_inner, swap_inner_for_site, enable_both },
	{ "leave", make_both, unmake_inner, make_inner },
	{ "leave the rest", make_both, unmake_site, make_site },
	{ "disable one", make_both, disable_site, enable_site },
	{ "disable two", make_both, disable_both, enable_both },
	{ "unmake two", make_both, unmake_both, make_both },
	{ "unmake two from behind", make_both_from_behind, unmake_both, make_both_from_behind },
};

/* Things asked for and taken back before they were committed. */
static void make_site_unmake_both(size_t i)
{
	make(i, SITE);
	unmake_both(i);
}

static void make_inner_unmake_both(size_t i)
{
	make(i, INNER);
	unmake_both(i);
}

static void make_site_disable_both(size_t i)
{
	make(i, SITE);
	disable_both(i);
}

static const struct change changes_of_mind[] = {
	{ "join and remove", make_site, make_inner_unmake_both, make_both },
	{ "take in and remove", make_inner, make_site_unmake_both, make_both },
	{ "take in and disable", make_inner, make_site_disable_both, enable_both },
};

static const char *policy_name(int which)
{
	static const char *const names[] = { "ALLOW", "FORBID", "FORCE" };

	return names[which];
}

#define ALL COUNT

/* Target `i`, or all of them in one batch. */
static void each(size_t i, void (*act)(size_t i))
{
	size_t k;

	for (k = i == ALL ? 0 : i; k < COUNT && (i == ALL || k == i); k++)
		act(k);
}

static void describe(const struct change *change, size_t i, const char *how, int n)
{
	snprintf(report->context, sizeof(report->context), "%s of %s, %s%s%d", change->name,
		 i == ALL ? "all" : targets[i].name,
		 policy_name(policy), how, n);
}

/* ---- step by step ----------------------------------------------------------------------------------------------- */

static bool is_step(const char **at, char step)
{
	if (**at != step)
		return false;
	++*at;
	return true;
}

/* I2, I4, I5, I11: what comes next rests on what was written, which is synchronised; and nothing else is. */
static bool are_right(const char *at)
{
	bool written = unseen_before, punned;

	/* What is disabled and was so concerns no region. */
	if (*at == '\0')
		return retired == 0;
	if (!is_step(&at, 'c'))
		return false;
	/* Generated code. */
	is_step(&at, 'w');
	if (!is_step(&at, 'p'))
		return false;
	/* No text changes. */
	if (*at == '\0')
		return true;
	for (const char *phase = "012"; *phase != '\0'; phase++) {
		written |= is_step(&at, 'w');
		if (!is_step(&at, *phase)) {
			if (*phase == '0')
				continue;
			return false;
		}
		if (is_step(&at, 's') != written)
			return false;
		written = false;
		if (*phase > '0' && !is_step(&at, "ab"[*phase - '1']))
			return false;
	}
	written |= is_step(&at, 'w');
	punned = strchr(at, '4') != NULL;
	return is_step(&at, '3') && is_step(&at, 's') == (written && (retired > 0 || punned)) && is_step(&at, 'd') &&
	       strcmp(at, punned ? "w4" : "") == 0;
}

static void expect_steps(void)
{
	EXPECT(are_right(steps), "the steps were %s, and %u entries were retired", steps, retired);
	EXPECT(retired == 0 || !unseen_at_end, "%u entries were retired when not all cores had seen what was written",
	       retired);
}

static void step_through(const struct change *change, size_t i, int again)
{
	describe(change, i, ", run ", again);
	each(i, change->prepare);
	EXPECT_STATUS(commit(), PATCH_OK);
	expect_settled();
	each(i, change->act);
	active = count_active();
	observed = true;
	EXPECT_STATUS(commit(), PATCH_OK);
	observed = false;
	expect_steps();
	expect_settled();
	remove_all();
}

static void init(bool with_loop)
{
	save_original();
	EXPECT_STATUS(patch_init(NULL, 0), PATCH_OK);
	start_threads(with_loop);
}

/*
 * Run it in a child, where the library knows nothing yet: regions, once made, stay, and a second patch at the same
 * place is another case than the first.
 */
static void in_child(void (*run)(const void *), const void *data)
{
	unsigned int i;
	int status = 0;
	pid_t child;

	report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	cr_assert_neq(report, MAP_FAILED);
	report->place = "";
	fflush(NULL);
	child = fork();
	cr_assert_geq(child, 0);
	if (child == 0) {
		alarm(600); /* by the clock, of which a machine with other things to do gives little */
		run(data);
		_exit(0);
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	for (i = 0; i < report->failures && i < MESSAGES; i++)
		cr_expect_fail("%s", report->messages[i]);
	cr_expect_eq(status, 0, "%s, %s: the child ended with status %#x", report->context, report->place, status);
	munmap(report, sizeof(*report));
}

struct step_run {
	const struct change *change;
	int policy;
	bool all;
	bool with_loop;
	bool crowded;
};

/*
 * Take what displacements with int3 as their top byte lead to, as at a low fixed address: then trap bytes of the SIGILL
 * class are left.
 */
static void crowd(void)
{
	uintptr_t lower = ((uintptr_t)five & ~0xfffUL) - 0x34000000 - 0x100000;
	uintptr_t size = 0x1000000 + 0x200000;

	EXPECT(mmap((void *)lower, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_NORESERVE,
		    -1, 0) == (void *)lower,
	       "no room to be crowded");
}

static void step_run(const void *data)
{
	const struct step_run *run = data;
	size_t i;
	int again;

	policy = run->policy;
	if (run->crowded)
		crowd();
	init(run->with_loop);
	libpatch_inject = observe;
	for (again = 0; again < 2; again++) {
		if (run->all)
			step_through(run->change, ALL, again);
		for (i = 0; !run->all && i < COUNT; i++)
			step_through(run->change, i, again);
	}
	libpatch_inject = NULL;
	EXPECT_STATUS(patch_fini(), PATCH_OK);
	expect_settled();
}

static void step_through_all(const struct change *list, size_t count, bool with_loop, bool crowded)
{
	size_t c;
	int which, all;

	for (which = 0; which <= PATCH_TRAP_POLICY_FORCE; which++) {
		for (c = 0; c < count; c++) {
			/* With a thread everywhere, one batch of everything says it all. */
			for (all = with_loop; all < 2; all++) {
				const struct step_run run = { &list[c], which, all, with_loop, crowded };

				in_child(step_run, &run);
			}
		}
	}
}

Test(commit, every_step_of_every_change, .timeout = 3600)
{
	step_through_all(changes, ARRAY_SIZE(changes), false, false);
}

Test(commit, every_step_with_trap_bytes_of_sigill, .timeout = 3600)
{
	step_through_all(changes, ARRAY_SIZE(changes), false, true);
}

Test(commit, every_step_while_a_thread_runs_through_it, .timeout = 3600)
{
	step_through_all(changes, ARRAY_SIZE(changes), true, false);
}

Test(commit, every_step_of_a_change_taken_back, .timeout = 3600)
{
	step_through_all(changes_of_mind, ARRAY_SIZE(changes_of_mind), false, false);
}

/* ---- what others put back --------------------------------------------------------------------------------------- */

/*
 * The instruction of which somebody has put back the first byte only: a mixture, which no thread may meet while it
 * changes.
 */
static uint8_t *mixed;
static size_t mixed_size;
static const uint8_t *mixed_original;

static int observe_mixture(enum inject_point point)
{
	const struct registry_entry *entry = registry_find((uintptr_t)mixed);
	enum arch_trap_class class = arch_trap_class(mixed[0]);

	if (point < INJECT_COMMIT_PHASE_1 || point > INJECT_COMMIT_PHASE_4)
		return 0;
	report->place = point_names[point];
	EXPECT(is_trap(mixed[0]) || memcmp(mixed + 1, mixed_original + 1, mixed_size - 1) == 0 || mixed[0] == 0xe9,
	       "a mixture of two instructions can be executed");
	EXPECT(class == ARCH_TRAP_NONE || (is_active(entry) && (REGISTRY_CLASSES(entry->state) & 1U << class)),
	       "a trap that is not served");
	ask();
	report->place = "";
	return 0;
}

/* As a debugger would, but by the library's own means, which want its lock; in the middle of a commit it is held. */
static void write_as_another(struct text_write *write)
{
	struct lock_scope scope;
	bool locked = lock_acquire(&scope);

	EXPECT(text_apply(write, 1) == 0, "the text cannot be written");
	if (locked)
		lock_release(&scope);
}

static void mix(const struct region *region, unsigned int k)
{
	struct text_write write = {
		.address = region->start + region->offsets[k],
		.bytes = region->original + region->offsets[k],
		.length = 1,
	};

	mixed = (uint8_t *)write.address;
	mixed_size = region->offsets[k + 1] - region->offsets[k];
	mixed_original = write.bytes;
	write_as_another(&write);
}

/* Put back each instruction's first byte, then remove, or commit what is there once more. */
static void mixture_run(const void *data)
{
	bool crowded = *(const bool *)data;
	size_t i;

	policy = PATCH_TRAP_POLICY_FORBID;
	if (crowded)
		crowd();
	init(false);
	for (i = 0; i < COUNT * WINDOW_INSNS_MAX * 2; i++) {
		size_t target = i / (WINDOW_INSNS_MAX * 2);
		unsigned int k = i / 2 % WINDOW_INSNS_MAX;
		struct region *region;

		snprintf(report->context, sizeof(report->context), "%s, instruction %u, %s", targets[target].name, k,
			 i % 2 ? "kept" : "removed");
		make(target, SITE);
		EXPECT_STATUS(commit(), PATCH_OK);
		region = region_covering(address_of(target, SITE));
		if (region != NULL && k < region->count && region->offsets[k] < ARCH_JMP_SIZE) {
			mix(region, k);
			if (i % 2)
				enable(target, SITE);
			else
				disable(target, SITE);
			libpatch_inject = observe_mixture;
			EXPECT_STATUS(commit(), PATCH_OK);
			libpatch_inject = NULL;
			expect_settled();
		}
		remove_all();
	}
	EXPECT_STATUS(patch_fini(), PATCH_OK);
}

Test(commit, first_bytes_put_back_by_others, .timeout = 3600)
{
	const bool crowded[] = { false, true };

	in_child(mixture_run, &crowded[0]);
	in_child(mixture_run, &crowded[1]);
}

/* ---- what others write during a commit -------------------------------------------------------------------------- */

static enum inject_point foreign_point;
static uint8_t *foreign;
static uint8_t foreign_before;
static bool foreign_written;

static void write_byte(uint8_t *address, uint8_t byte)
{
	struct text_write write = { .address = (uintptr_t)address, .bytes = &byte, .length = 1 };

	write_as_another(&write);
}

static int write_foreign(enum inject_point point)
{
	if (point != foreign_point || foreign_written)
		return 0;
	foreign_written = true;
	foreign_before = *foreign;
	write_byte(foreign, 0xf4);
	return 0;
}

/* Behind the check of the commit, at each step: what the commit would write over stays, and is told. */
static void foreign_run(const void *data)
{
	size_t i;

	policy = *(const int *)data;
	init(false);
	for (i = 0; i < COUNT * 2; i++) {
		for (foreign_point = INJECT_COMMIT_CHECKED; foreign_point <= INJECT_COMMIT_SYNC_2; foreign_point++) {
			const struct region *region;
			patch_status status;

			snprintf(report->context, sizeof(report->context), "%s, foreign byte at %s of %s",
				 targets[i / 2].name, point_names[foreign_point], i % 2 ? "a removal" : "an install");
			make(i / 2, SITE);
			if (i % 2) {
				EXPECT_STATUS(commit(), PATCH_OK);
				disable(i / 2, SITE);
			}
			region = region_covering(address_of(i / 2, SITE));
			foreign = (uint8_t *)region->start;
			foreign_written = false;
			libpatch_inject = write_foreign;
			status = commit();
			libpatch_inject = NULL;
			if (foreign_written && *foreign == 0xf4) {
				/* A trap that is installed is not written again: the next commit that looks tells. */
				if (i % 2 || region->strategy != PATCH_STRATEGY_TRAP ||
				    foreign_point < INJECT_COMMIT_PHASE_1)
					EXPECT(status == PATCH_EFAIL, "not told");
				write_byte(foreign, foreign_before);
			} else {
				EXPECT(!foreign_written, "written over");
			}
			EXPECT_STATUS(commit(), PATCH_OK);
			expect_settled();
			remove_all();
		}
	}
	EXPECT_STATUS(patch_fini(), PATCH_OK);
}

Test(commit, others_write_during_it, .timeout = 3600)
{
	int which;

	for (which = 0; which <= PATCH_TRAP_POLICY_FORCE; which++)
		in_child(foreign_run, &which);
}

/* ---- failures --------------------------------------------------------------------------------------------------- */

static enum inject_point fault_point;
static int fault_errno;
/* The call, counted from 0, that fails, and how often the point was passed. */
static int fault_at, fault_calls;

static int fault(enum inject_point point)
{
	if (point != fault_point)
		return 0;
	return fault_calls++ == fault_at ? fault_errno : 0;
}

static void arm(enum inject_point point, int at, int error)
{
	fault_point = point;
	fault_at = at;
	fault_errno = error;
	fault_calls = 0;
	libpatch_inject = fault;
}

/* Did it fail? */
static bool disarm(void)
{
	libpatch_inject = NULL;
	return fault_calls > fault_at;
}

enum then { COMPLETE, UNDO, FAIL_AGAIN, THENS };

struct fault_run {
	const struct change *change;
	int policy;
	enum inject_point point;
	bool pads_expected;
};

/* False when the commit is over before the call that should fail. */
static bool fail_once(const struct fault_run *run, size_t i, int at, enum then then)
{
	static const char *const names[] = { ", completed after failure ", ", undone after failure ",
					     ", failed again after failure " };
	patch_status status;
	bool failed;
	size_t k;
	int again;

	describe(run->change, i, names[then], at);
	each(i, run->change->prepare);
	EXPECT_STATUS(commit(), PATCH_OK);
	each(i, run->change->act);
	arm(run->point, at, EPERM);
	status = commit();
	failed = disarm();
	if (failed) {
		EXPECT(status == PATCH_ESYS || status == PATCH_EFAIL, "the commit returned %s",
		       patch_status_string(status));
		expect_sane();
		for (k = 0; k < COUNT && status == PATCH_EFAIL; k++)
			expect_retired(k, false);
	} else {
		EXPECT(status == PATCH_OK, "the commit returned %s", patch_status_string(status));
	}
	for (again = 0; then == FAIL_AGAIN && failed && again < 3; again++) {
		arm(run->point, again, EPERM);
		commit();
		disarm();
		expect_sane();
	}
	if (then == UNDO)
		each(i, run->change->undo);
	EXPECT_STATUS(commit(), PATCH_OK);
	expect_settled();
	remove_all();
	return failed;
}

#define FAULTS_MAX 40

static void fault_run(const void *data)
{
	const struct fault_run *run = data;
	int at, then;
	size_t i;

	policy = run->policy;
	pads_expected = run->pads_expected;
	init(false);
	for (then = 0; then < THENS; then++) {
		for (i = 0; i <= ALL; i++) {
			/* One by one, then all. */
			for (at = 0; at < FAULTS_MAX && fail_once(run, i, at, then); at++)
				;
			EXPECT(at < FAULTS_MAX, "there is no end to failures");
		}
	}
	EXPECT_STATUS(patch_fini(), PATCH_OK);
	expect_settled();
}

static void fail_everywhere(enum inject_point point)
{
	size_t c;
	int which;

	for (which = 0; which <= PATCH_TRAP_POLICY_FORCE; which++) {
		for (c = 0; c < ARRAY_SIZE(changes); c++) {
			const struct fault_run run = { &changes[c], which, point, false };

			in_child(fault_run, &run);
		}
	}
}

Test(commit, core_synchronisation_fails, .timeout = 3600)
{
	fail_everywhere(INJECT_SYNC);
}

/* A pad that was led elsewhere is settled by the commit that completes the batch, too. */
Test(commit, pads_are_settled_after_a_failure)
{
	/* join */
	const struct fault_run run = { &changes[6], PATCH_TRAP_POLICY_ALLOW, INJECT_SYNC, true };

	in_child(fault_run, &run);
}

Test(commit, writes_fail, .timeout = 3600)
{
	fail_everywhere(INJECT_TEXT_WRITE);
}

/* I4: of an installation the second, of a removal the third; not left out because nothing is to be written any more. */
static void last_sync_run(const void *data)
{
	static const struct change *const list[] = { &changes[0], &changes[4] };
	static const int last[] = { 1, 2 };
	size_t c;

	(void)data;
	policy = PATCH_TRAP_POLICY_ALLOW;
	init(false);
	for (c = 0; c < ARRAY_SIZE(list); c++) {
		describe(list[c], 0, ", synchronisation ", last[c]);
		list[c]->prepare(0);
		EXPECT_STATUS(commit(), PATCH_OK);
		list[c]->act(0);
		arm(INJECT_SYNC, last[c], EPERM);
		EXPECT_STATUS(commit(), PATCH_ESYS);
		disarm();
		arm(INJECT_SYNC, FAULTS_MAX, 0);
		EXPECT_STATUS(commit(), PATCH_OK);
		EXPECT(fault_calls > 0, "no synchronisation made up for the one that failed (I5)");
		disarm();
		remove_all();
	}
}

Test(commit, the_last_synchronisation_is_made_up_for)
{
	in_child(last_sync_run, NULL);
}

/* All bytes are original again, by others, and so is what is wanted: nothing to write, but cores may have ours. */
static void put_back_run(const void *data)
{
	const struct region *region;
	unsigned int at;

	(void)data;
	policy = PATCH_TRAP_POLICY_ALLOW;
	init(false);
	make(0, SITE);
	make(1, SITE);
	EXPECT_STATUS(commit(), PATCH_OK);
	/* After it cores have seen all of ours. */
	unmake(1, SITE);
	EXPECT_STATUS(commit(), PATCH_OK);
	region = region_covering(address_of(0, SITE));
	for (at = 0; at < region->length; at++)
		write_byte((uint8_t *)region->start + at, region->original[at]);
	disable(0, SITE);
	arm(INJECT_SYNC, FAULTS_MAX, 0);
	EXPECT_STATUS(commit(), PATCH_OK);
	EXPECT(fault_calls > 0, "entries were retired without a synchronisation (I5)");
	disarm();
	expect_settled();
	EXPECT_STATUS(patch_fini(), PATCH_OK);
}

Test(commit, all_bytes_put_back_by_others)
{
	in_child(put_back_run, NULL);
}

/* ---- out of memory ---------------------------------------------------------------------------------------------- */

struct memory_run {
	int policy;
	int at;
	bool reached;
};

static void memory_run(const void *data)
{
	struct memory_run *run = *(struct memory_run *const *)data;
	bool made[COUNT][PATCHES] = { { false } };
	patch_status status;
	size_t i, which;

	policy = run->policy;
	save_original();
	snprintf(report->context, sizeof(report->context), "%s, mapping %d fails", policy_name(policy), run->at);
	arm(INJECT_MMAP, run->at, ENOMEM);
	status = patch_init(NULL, 0);
	EXPECT(status == PATCH_OK || status == PATCH_ENOMEM, "patch_init() returned %s", patch_status_string(status));
	if (status != PATCH_OK)
		EXPECT_STATUS(patch_init(NULL, 0), PATCH_OK);
	start_threads(false);
	for (which = 0; which < PATCHES; which++) {
		for (i = 0; i < COUNT; i++) {
			status = try_make(i, PATCHES - 1 - which);
			EXPECT(status == PATCH_OK || status == PATCH_ENOMEM, "patch_make() returned %s",
			       patch_status_string(status));
			made[i][PATCHES - 1 - which] = status == PATCH_OK;
			on[i][PATCHES - 1 - which] = status == PATCH_OK;
		}
	}
	status = commit();
	run->reached = disarm();
	if (status != PATCH_OK)
		expect_sane();
	EXPECT_STATUS(commit(), PATCH_OK);
	expect_settled();
	/* What failed left nothing behind. */
	for (i = 0; i < COUNT; i++) {
		for (which = 0; which < PATCHES; which++) {
			if (!made[i][which])
				make(i, which);
		}
	}
	EXPECT_STATUS(commit(), PATCH_OK);
	expect_settled();
	remove_all();
	EXPECT_STATUS(patch_fini(), PATCH_OK);
}

Test(commit, mappings_fail, .timeout = 3600)
{
	struct memory_run *run = mmap(NULL, sizeof(*run), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(run, MAP_FAILED);
	for (run->policy = 0; run->policy <= PATCH_TRAP_POLICY_FORCE; run->policy++) {
		run->at = 0;
		do {
			run->reached = false;
			in_child(memory_run, &run);
		} while (run->reached && ++run->at < 200);
		cr_expect_gt(run->at, 1, "only %d mappings were made", run->at);
	}
}
