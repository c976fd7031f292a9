/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Diversions: the target finds registers, flags, stack and red zone as they are at the site, and so does the original
 * behind the way back, which can be called at any time; whatever else is, comes and goes at the place; in any order of
 * coming and going, from the target itself and from handlers, on other threads; and each call gives one of both
 * results.
 */
#include "harness.h"

#include <pthread.h>

/* ---- what the target finds --------------------------------------------------------------------------------------- */

#define STATES 3
enum { AT_CALL, AT_TARGET, AT_ORIGINAL };

struct state {
	uint64_t registers[16], flags, unused, red_zone[16];
	uint8_t xmm[16][16];
};
_Static_assert(sizeof(struct state) == 528, "CAPTURE");

struct state states[STATES];
uint64_t drive_entry, drive_stack;
void *captured_original;

/* Keeps everything. */
__asm__(".macro CAPTURE n\n"
	"	mov %rax, states+528*\\n(%rip)\n"
	"	.set at, 8\n"
	"	.irp r, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15\n"
	"	mov %\\r, states+528*\\n+at(%rip)\n"
	"	.set at, at+8\n"
	"	.endr\n"
	"	.irp i, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16\n"
	"	mov -8*\\i(%rsp), %rax\n"
	"	mov %rax, states+528*\\n+136+8*\\i(%rip)\n"
	"	.endr\n"
	"	.irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n"
	"	movups %xmm\\i, states+528*\\n+272+16*\\i(%rip)\n"
	"	.endr\n"
	"	lea -128(%rsp), %rsp\n"
	"	pushfq\n"
	"	pop states+528*\\n+128(%rip)\n"
	"	lea 128(%rsp), %rsp\n"
	"	mov states+528*\\n(%rip), %rax\n"
	".endm\n"
	".macro FUNCTION name, insns:vararg\n"
	".p2align 6, 0xcc\n"
	".globl \\name\n.type \\name, @function\n"
	"\\name:\n"
	".cfi_startproc\n"
	"	\\insns\n"
	"	CAPTURE 2\n"
	"	ret\n"
	".cfi_endproc\n"
	".size \\name, . - \\name\n"
	".endm\n"
	".text\n"
	"drive:\n"
	"	push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
	"	mov %rdi, drive_entry(%rip)\n"
	"	mov %rsp, drive_stack(%rip)\n"
	"	lea -512(%rsp), %rsp\n"
	"	lea 1f(%rip), %rax\n"
	"	push %rax\n"
	"	.irp i, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16\n"
	"	movq $0x1000+\\i, -8*\\i(%rsp)\n"
	"	.endr\n"
	"	mov $0x2000, %eax\n"
	"	.irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n"
	"	inc %eax\n"
	"	movq %rax, %xmm\\i\n"
	"	pshufd $0x44, %xmm\\i, %xmm\\i\n"
	"	.endr\n"
	"	lea -256(%rsp), %rsp\n"
	"	push %rsi\n"
	"	popfq\n"
	"	lea 256(%rsp), %rsp\n"
	"	.set at, 0x3000\n"
	"	.irp r, rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15\n"
	"	movabs $0x5555555500000000+at, %\\r\n"
	"	.set at, at+1\n"
	"	.endr\n"
	"	CAPTURE 0\n"
	"	jmp *drive_entry(%rip)\n"
	"1:	cld\n"
	"	mov drive_stack(%rip), %rsp\n"
	"	pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
	"	ret\n"
	"target_goes_on:\n"
	"	CAPTURE 1\n"
	"	jmp *captured_original(%rip)\n"
	"target_returns:\n"
	"	CAPTURE 1\n"
	"	ret\n"
	"FUNCTION site_long, nopl 0(%rax, %rax)\n"
	"FUNCTION site_short, nop; nop; xchg %ax, %ax; nop\n"
	"FUNCTION site_endbr, endbr64; nop; xchg %ax, %ax; nop; nop\n"
	"FUNCTION site_middle, nop; nopw 0(%rax, %rax); nopl 0(%rax)\n"
	".p2align 6, 0xcc\n");
void drive(const void *entry, uint64_t flags);
void target_goes_on(void);
void target_returns(void);
extern const uint8_t site_long[], site_short[], site_endbr[], site_middle[];

static patch_status divert(const void *at, void *target, void **original, int policy, patch_t *patch)
{
	const struct patch_location location = location_at((uintptr_t)at);
	struct patch_exec_model model = { .type = PATCH_EXEC_MODEL_DIVERT };
	patch_attr attr = attr_of(policy, PATCH_DISABLED);

	model.divert.target = target;
	model.divert.original = original;
	return patch_make(&location, &model, &attr, patch, NULL);
}

static void commit(void)
{
	CHECK_OK(patch_commit());
}

static void set(patch_t patch, bool enabled)
{
	CHECK_OK(enabled ? patch_enable(patch) : patch_disable(patch));
	commit();
}

static void compare(int a, int b)
{
	for (unsigned int i = 0; i < 16; i++) {
		CHECK_EQ(states[a].registers[i], states[b].registers[i]);
		CHECK_EQ(states[a].red_zone[i], states[b].red_zone[i]);
	}
	CHECK_EQ(states[a].flags, states[b].flags);
	CHECK(memcmp(states[a].xmm, states[b].xmm, sizeof(states[a].xmm)) == 0);
}

static bool was_at(int state)
{
	const struct state none = { 0 };

	return memcmp(&states[state], &none, sizeof(none)) != 0;
}

static void run(const void *entry, uint64_t flags)
{
	memset(states, 0, sizeof(states));
	drive(entry, flags);
}

static void state_of(const uint8_t *function, const uint8_t *at, int policy)
{
	static const uint64_t flags[] = { 0x202, 0x202 | 0xcd5 };
	struct patch_info info;
	uintptr_t located = 0;
	patch_t patch, alone;
	patch_status status = divert(at, (void *)target_goes_on, &captured_original, policy, &patch);

	CONTEXT("site +%zu, policy %s", (size_t)(at - function), policy_name(policy));
	if (status == PATCH_ENOJUMP && policy == PATCH_TRAP_POLICY_FORBID)
		return;
	REQUIRE_OK(status);
	REQUIRE_OK(divert(at, (void *)target_returns, NULL, policy, &alone));
	CHECK_OK(patch_info(patch, &info, sizeof(info)));
	CHECK_EQ(info.address, at);
	CHECK_EQ(info.state, PATCH_DISABLED);
	CHECK_OK(patch_olx_original_pc((uintptr_t)captured_original, &located));
	CHECK(located == (uintptr_t)at || located == (uintptr_t)at + 4);
	for (size_t i = 0; i < 2; i++) {
		/* Not committed, then disabled, as to text. */
		run(captured_original, flags[i]);
		CHECK(!was_at(AT_TARGET));
		compare(AT_CALL, AT_ORIGINAL);
		set(patch, true);
		CHECK_OK(patch_info(patch, &info, sizeof(info)));
		CHECK_EQ(info.state, PATCH_ENABLED);
		run(function, flags[i]);
		compare(AT_CALL, AT_TARGET);
		compare(AT_CALL, AT_ORIGINAL);
		set(alone, true);
		run(function, flags[i]);
		compare(AT_CALL, AT_TARGET);
		CHECK(!was_at(AT_ORIGINAL));
		run(captured_original, flags[i]);
		CHECK(!was_at(AT_TARGET));
		compare(AT_CALL, AT_ORIGINAL);
		set(alone, false);
		set(patch, false);
		run(function, flags[i]);
		CHECK(!was_at(AT_TARGET));
		compare(AT_CALL, AT_ORIGINAL);
	}
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_unmake(alone));
	commit();
}

static void state(void *unused)
{
	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	for (int policy = PATCH_TRAP_POLICY_ALLOW; policy <= PATCH_TRAP_POLICY_FORCE; policy++) {
		state_of(site_long, site_long, policy);
		state_of(site_short, site_short, policy);
		state_of(site_endbr, site_endbr, policy);
		state_of(site_middle, site_middle + 1, policy);
	}
	CHECK_OK(patch_fini());
}

/* ---- several, and others ----------------------------------------------------------------------------------------- */

/* subject(n) is n + 1; of its jump's window, the second instruction is patched, too. */
unsigned long subject(unsigned long n);
extern const uint8_t subject_second[];
__asm__(".text\n"
	".p2align 6, 0xcc\n"
	".globl subject\n.type subject, @function\n"
	"subject:\n"
	".cfi_startproc\n"
	"	mov %rdi, %rax\n"
	"subject_second: inc %rax\n"
	"	nop\n"
	"	ret\n"
	".cfi_endproc\n"
	".size subject, . - subject\n"
	".p2align 6, 0xcc\n");

typedef unsigned long (*function)(unsigned long n);

#define DIVERTS 4
static struct diversion {
	patch_t patch;
	void *original;
	unsigned int made; /* order of making */
	bool there, enabled;
} diversions[DIVERTS];
static unsigned int making;

static unsigned long call(void *code, unsigned long n)
{
	return ((function)code)(n);
}

/* Small results stand for many calls. */
#define REPLACEMENT(i) \
	static unsigned long replacement_##i(unsigned long n) \
	{ \
		return 3 * call(diversions[i].original, n) + (i); \
	}
REPLACEMENT(0)
REPLACEMENT(1)
REPLACEMENT(2)
REPLACEMENT(3)
static function const replacements[DIVERTS] = { replacement_0, replacement_1, replacement_2, replacement_3 };

/* What diversions make of n that were made before `order`. */
static unsigned long expected(unsigned int order, unsigned long n)
{
	const struct diversion *last = NULL;

	for (unsigned int i = 0; i < DIVERTS; i++) {
		const struct diversion *d = &diversions[i];

		if (d->there && d->enabled && d->made < order && (last == NULL || d->made > last->made))
			last = d;
	}
	return last != NULL ? 3 * expected(last->made, n) + (unsigned long)(last - diversions) : n + 1;
}

static void check_all(void)
{
	CHECK_EQ(subject(5), expected(UINT32_MAX, 5));
	for (unsigned int i = 0; i < DIVERTS; i++)
		if (diversions[i].there)
			CHECK_EQ(call(diversions[i].original, 7), expected(diversions[i].made, 7));
}

static void make(unsigned int i)
{
	struct diversion *d = &diversions[i];

	*d = (struct diversion){ .made = making++, .there = true };
	REQUIRE_OK(divert((const void *)subject, (void *)replacements[i], &d->original, i % 2 ?
			  PATCH_TRAP_POLICY_ALLOW : PATCH_TRAP_POLICY_FORBID, &d->patch));
	check_all();
}

static void enable(unsigned int i, bool enabled)
{
	diversions[i].enabled = enabled;
	set(diversions[i].patch, enabled);
	check_all();
}

static void unmake(unsigned int i)
{
	CHECK_OK(patch_unmake(diversions[i].patch));
	commit();
	diversions[i].there = false;
	check_all();
}

static unsigned long seen[2], counted[1];

static GP_ONLY void count(struct patch_exec_context *context, uint8_t post)
{
	if (context->user_data != NULL)
		++*(unsigned long *)context->user_data;
	else
		++seen[post];
}

static patch_t other(int type, const void *at, void *data)
{
	const struct patch_location location = location_at((uintptr_t)at);
	struct patch_exec_model model = model_of(type, count, data);
	patch_attr attr = attr_of(PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED);
	patch_t patch;

	if (type == PATCH_EXEC_MODEL_COUNT) {
		model = (struct patch_exec_model){ .type = type };
		model.count.counter = counted;
	}
	REQUIRE_OK(patch_make(&location, &model, &attr, &patch, NULL));
	commit();
	return patch;
}

static void subsets(void)
{
	for (unsigned int subset = 1; subset < 2U << DIVERTS; subset++) {
		unsigned int gray = (subset ^ subset >> 1) & ((1U << DIVERTS) - 1);

		CONTEXT("diversions %#x", gray);
		for (unsigned int i = 0; i < DIVERTS; i++)
			if (diversions[i].enabled != (gray >> i & 1))
				enable(i, gray >> i & 1);
	}
}

/* Entry probes see each call once, and calls of the original not at all. */
static void others(void)
{
	static const int types[] = { PATCH_EXEC_MODEL_PROBE, PATCH_EXEC_MODEL_COUNT, PATCH_EXEC_MODEL_PROBE_AROUND,
				     PATCH_EXEC_MODEL_PROBE_RETURN };
	unsigned long second = 0;
	patch_t patches[4], inner;

	for (unsigned int i = 0; i < DIVERTS; i++)
		enable(i, true);
	for (unsigned int t = 0; t < 4; t++) {
		CONTEXT("model %d joins", types[t]);
		patches[t] = other(types[t], (const void *)subject, NULL);
		check_all();
		subsets();
	}
	for (unsigned int i = 0; i < DIVERTS; i++)
		enable(i, true);
	CONTEXT("others are in front");
	seen[0] = counted[0] = 0;
	CHECK_EQ(subject(5), expected(UINT32_MAX, 5));
	CHECK_EQ(seen[0], 3);
	CHECK_EQ(counted[0], 1);
	CHECK_EQ(call(diversions[0].original, 5), 6);
	CHECK_EQ(seen[0], 3);
	CHECK_EQ(counted[0], 1);
	/* Originals lead to what is built for it, though they were given out before. */
	inner = other(PATCH_EXEC_MODEL_PROBE, subject_second, &second);
	CHECK_EQ(call(diversions[0].original, 5), 6);
	CHECK_EQ(second, 1);
	check_all();
	CHECK_OK(patch_unmake(inner));
	for (unsigned int t = 0; t < 4; t++) {
		CONTEXT("model %d goes", types[t]);
		CHECK_OK(patch_unmake(patches[t]));
		commit();
		check_all();
	}
}

static void several(void *unused)
{
	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	for (unsigned int i = 0; i < DIVERTS; i++)
		make(i);
	subsets();
	others();
	for (unsigned int i = 0; i < DIVERTS; i++)
		unmake(i);
	/* Every order of going, with another one coming each time. */
	for (unsigned int order = 0; order < DIVERTS * DIVERTS * DIVERTS * DIVERTS; order++) {
		CONTEXT("order %u", order);
		for (unsigned int i = 0, digits = order; i < DIVERTS; i++, digits /= DIVERTS) {
			unsigned int which = digits % DIVERTS;

			if (diversions[which].there)
				unmake(which);
			make(which);
			enable(which, digits % 3 != 0);
		}
	}
	for (unsigned int i = 0; i < DIVERTS; i++)
		diversions[i].enabled = false;
	CHECK_OK(patch_fini());
	check_all();
}

/* ---- from inside ------------------------------------------------------------------------------------------------- */

static unsigned long depth;

/* It calls the function by its name, which is itself, and then without itself. */
static unsigned long toggles_itself(unsigned long n)
{
	unsigned long direct;

	if (n > 0)
		return subject(n - 1) + 100;
	++depth;
	set(diversions[0].patch, false);
	direct = subject(n);
	set(diversions[0].patch, true);
	for (unsigned long i = 0; i < 100; i++)
		direct += call(diversions[0].original, i) - i - 1;
	return direct;
}

static void on_signal(int number)
{
	static bool on;

	(void)number;
	on = !on;
	set(diversions[0].patch, on);
}

static void inside(void *unused)
{
	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(divert((const void *)subject, (void *)toggles_itself, &diversions[0].original,
			  PATCH_TRAP_POLICY_ALLOW, &diversions[0].patch));
	signal(SIGUSR1, on_signal);
	for (unsigned int i = 0; i < 50; i++) {
		raise(SIGUSR1);
		CHECK_EQ(subject(3), 301);
		raise(SIGUSR1);
		CHECK_EQ(subject(3), 4);
	}
	CHECK_EQ(depth, 50);
	set(diversions[0].patch, true);
	CHECK_OK(patch_fini());
	CHECK_EQ(subject(3), 4);
	CHECK_EQ(call(diversions[0].original, 3), 4);
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

#define THREADS 4
static volatile bool stop, allow_original;
static unsigned long wrong, calls_made, waiting_calls;
static unsigned int destroyed;
static pthread_barrier_t barrier;

static unsigned long plus_hundred(unsigned long n)
{
	return n + 100;
}

static unsigned long plus_hundred_too(unsigned long n)
{
	__asm__ volatile("");
	return n + 100;
}

static void *call_all_the_time(void *unused)
{
	unsigned long n, calls = 0, bad = 0;

	for (n = 0; !stop; n++, calls++) {
		bool may_be = allow_original;
		unsigned long result = subject(n);

		bad += result != n + 100 && !(may_be && result == n + 1);
	}
	__atomic_fetch_add(&wrong, bad, __ATOMIC_RELAXED);
	__atomic_fetch_add(&calls_made, calls, __ATOMIC_RELAXED);
	return unused;
}

static void begin(pthread_t threads[THREADS])
{
	stop = false;
	for (unsigned int i = 0; i < THREADS; i++)
		REQUIRE(pthread_create(&threads[i], NULL, call_all_the_time, NULL) == 0);
}

static void end(pthread_t threads[THREADS])
{
	stop = true;
	for (unsigned int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	CHECK_EQ(wrong, 0);
	CHECK(calls_made > 0);
}

/* Swapped, with and without a write to the text each time. */
static void swapped(void *unused)
{
	const unsigned long rounds = harness_seconds("LIBPATCH_STRESS_SECONDS", 0) != 0 ? 1000000 : 10000;
	pthread_t threads[THREADS];
	patch_t patch, stays = NULL;

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(divert((const void *)subject, (void *)plus_hundred, NULL, PATCH_TRAP_POLICY_ALLOW, &patch));
	allow_original = true;
	begin(threads);
	for (unsigned long i = 0; i < rounds; i++) {
		if (i == rounds / 4)
			stays = other(PATCH_EXEC_MODEL_COUNT, (const void *)subject, NULL);
		set(patch, i % 2 == 0);
	}
	end(threads);
	CHECK_OK(patch_unmake(stays));
	CHECK_OK(patch_fini());
}

/* One is always open while the oldest goes and another one comes: no call gets through between them. */
static void relayed(void *unused)
{
	pthread_t threads[THREADS];
	patch_t patches[2];
	uint64_t early = 0;

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(divert((const void *)subject, (void *)plus_hundred, NULL, PATCH_TRAP_POLICY_ALLOW, &patches[1]));
	set(patches[1], true);
	allow_original = false;
	begin(threads);
	for (unsigned int i = 0; i < 10000; i++) {
		void *original;
		struct patch_statistics statistics;

		REQUIRE_OK(divert((const void *)subject, (void *)(i % 2 ? plus_hundred : plus_hundred_too), &original,
				  PATCH_TRAP_POLICY_ALLOW, &patches[i % 2]));
		set(patches[i % 2], true);
		CHECK_OK(patch_unmake(patches[(i + 1) % 2]));
		commit();
		CHECK_EQ(call(original, 5), 6);
		CHECK_OK(patch_statistics(&statistics, sizeof(statistics)));
		if (i == 1000)
			early = statistics.heap_bytes + statistics.code_bytes;
		if (i > 1000)
			CHECK_EQ(statistics.heap_bytes + statistics.code_bytes, early);
	}
	end(threads);
	CHECK_OK(patch_fini());
}

static void destroy(void *data)
{
	destroyed += data == &destroyed;
}

static unsigned long waits(unsigned long n)
{
	waiting_calls++;
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	return call(diversions[0].original, n) + 1000;
}

static void *call_one(void *result)
{
	*(unsigned long *)result = subject(1);
	return NULL;
}

/* A thread is in the target when the patch goes: it is gone at once, and nobody comes any more. */
static void left_inside(void *unused)
{
	const struct patch_location location = location_at((uintptr_t)subject);
	struct patch_exec_model model = { .type = PATCH_EXEC_MODEL_DIVERT };
	unsigned long result = 0;
	pthread_t thread;
	patch_t patch;

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE(pthread_barrier_init(&barrier, NULL, 2) == 0);
	model.divert.target = (void *)waits;
	model.divert.original = &diversions[0].original;
	model.divert.user_data = &destroyed;
	model.divert.destroy = destroy;
	REQUIRE_OK(patch_make(&location, &model, NULL, &patch, NULL));
	set(patch, true);
	REQUIRE(pthread_create(&thread, NULL, call_one, &result) == 0);
	pthread_barrier_wait(&barrier);
	CHECK_OK(patch_unmake(patch));
	CHECK_EQ(destroyed, 0);
	commit();
	CHECK_EQ(destroyed, 1);
	CHECK_OK(patch_synchronize(-1));
	for (unsigned long n = 0; n < 1000; n++)
		CHECK_EQ(subject(n), n + 1);
	CHECK_EQ(waiting_calls, 1);
	pthread_barrier_wait(&barrier);
	pthread_join(thread, NULL);
	CHECK_EQ(result, 1002);
	CHECK_OK(patch_fini());
	CHECK_EQ(destroyed, 1);
}

/* ---- fork, and code far from free memory ------------------------------------------------------------------------- */

static void child(void *unused)
{
	(void)unused;
	check_all();
	enable(0, false);
	check_all();
	unmake(1);
}

static void forked(void *unused)
{
	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	make(0);
	make(1);
	enable(0, true);
	enable(1, true);
	CHECK_EQ(harness_child(child, NULL), 0);
	check_all();
	CHECK_OK(patch_fini());
	CHECK_EQ(subject(3), 4);
}

#define REACH ((size_t)0x88000000)

static void far(void *unused)
{
	uint8_t *at = (uint8_t *)0x200000000000;
	uint8_t *area = mmap(at, 2 * REACH, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	uint8_t *code = area + REACH;
	static const uint8_t bytes[] = { 0x48, 0x89, 0xf8, 0x48, 0xff, 0xc0, 0xc3 };
	patch_t patches[2];
	void *originals[2];
	uintptr_t located;

	(void)unused;
	if (area != at)
		SKIP("cannot take 4 GiB of addresses");
	REQUIRE(mprotect(code, 4096, PROT_READ | PROT_WRITE) == 0);
	memcpy(code, bytes, sizeof(bytes));
	REQUIRE(mprotect(code, 4096, PROT_READ | PROT_EXEC) == 0);
	REQUIRE_OK(patch_init(NULL, 0));
	for (unsigned int i = 0; i < 2; i++) {
		REQUIRE_OK(divert(code, (void *)replacements[i], &originals[i], PATCH_TRAP_POLICY_ALLOW,
				  &patches[i]));
		diversions[i].original = originals[i];
		CHECK_OK(patch_olx_original_pc((uintptr_t)originals[i], &located));
		CHECK_EQ(located, code);
	}
	CHECK_EQ(call(originals[1], 5), 6);
	set(patches[0], true);
	CHECK_EQ(call(code, 5), 18);
	CHECK_EQ(call(originals[1], 5), 18);
	set(patches[1], true);
	CHECK_EQ(call(code, 5), 55);
	set(patches[0], false);
	CHECK_EQ(call(code, 5), 19);
	CHECK_OK(patch_fini());
	CHECK_EQ(call(code, 5), 6);
}

int main(void)
{
	harness_start();
	harness_isolated("state", state, NULL);
	harness_isolated("several", several, NULL);
	harness_isolated("inside", inside, NULL);
	harness_isolated("swapped", swapped, NULL);
	harness_isolated("relayed", relayed, NULL);
	harness_isolated("left inside", left_inside, NULL);
	harness_isolated("forked", forked, NULL);
	harness_isolated("far", far, NULL);
	return harness_end();
}
