/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The kernel's own probes (uprobes) at patched sites, and patches at probed ones. What the kernel wrote is seen at
 * commit and at removal (PATCH_ECHANGED) and stays; once its probe is gone, the next commit goes through. The kernel
 * puts back what the file holds, whatever has become of the bytes meanwhile: what it leaves of ours is made whole by
 * the next commit. A thread whose trap of ours is served only after a uprobe came to its place lives.
 */
#include "harness.h"

#include <libpatch/tools.h>
#include <linux/perf_event.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>

#define CALLS 50
#define ROUNDS 8

/*
 * Each doubles its argument. wide: its first instruction has room for a jump. narrow: a jump covers three, the first of
 * one byte. nop5: begins with a nop of five bytes, which the kernel turns into a call (Linux 6.18).
 */
unsigned long wide(unsigned long), narrow(unsigned long), nop5(unsigned long);
__asm__(".text\n"
	".p2align 12, 0xcc\n"
	".type wide, @function\n"
	"wide:\n"
	".cfi_startproc\n"
	"	lea 0(,%rdi,2), %rax\n" /* 48 8d 04 3d 00 00 00 00 */
	"	ret\n"
	".cfi_endproc\n"
	".size wide, . - wide\n"
	".p2align 6, 0xcc\n"
	".type narrow, @function\n"
	"narrow:\n"
	".cfi_startproc\n"
	"	push %rbx\n"          /* 53 */
	"	mov %rdi, %rax\n"     /* 48 89 f8 */
	"	lea (%rdi,%rdi), %rax\n" /* 48 8d 04 3f */
	"	pop %rbx\n"
	"	ret\n"
	".cfi_endproc\n"
	".size narrow, . - narrow\n"
	".p2align 6, 0xcc\n"
	".type nop5, @function\n"
	"nop5:\n"
	".cfi_startproc\n"
	"	.byte 0x0f, 0x1f, 0x44, 0x00, 0x00\n"
	"	lea (%rdi,%rdi), %rax\n"
	"	ret\n"
	".cfi_endproc\n"
	".size nop5, . - nop5\n"
	".p2align 12, 0xcc\n");

struct subject {
	const char *name;
	unsigned long (*call)(unsigned long);
};

static const struct subject subjects[] = { { "wide", wide }, { "narrow", narrow }, { "nop5", nop5 } };
#define SUBJECTS (sizeof(subjects) / sizeof(subjects[0]))

static const int policies[] = { PATCH_TRAP_POLICY_ALLOW, PATCH_TRAP_POLICY_FORCE };

static _Atomic unsigned long hits;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	atomic_fetch_add_explicit(&hits, 1, memory_order_relaxed);
}

/* ---- uprobes ----------------------------------------------------------------------------------------------------- */

static int uprobe_type(void)
{
	FILE *file = fopen("/sys/bus/event_source/devices/uprobe/type", "r");
	int type = -1;

	if (file != NULL) {
		if (fscanf(file, "%d", &type) != 1)
			type = -1;
		fclose(file);
	}
	return type;
}

static uint64_t file_offset(const uint8_t *address)
{
	FILE *file = fopen("/proc/self/maps", "r");
	unsigned long lower, upper, offset;
	char line[512];

	REQUIRE(file != NULL);
	while (fgets(line, sizeof(line), file) != NULL)
		if (sscanf(line, "%lx-%lx %*s %lx", &lower, &upper, &offset) == 3 && (uintptr_t)address >= lower &&
		    (uintptr_t)address < upper) {
			fclose(file);
			return (uintptr_t)address - lower + offset;
		}
	REQUIRE(!"mapped");
	return 0;
}

/* A uprobe on the program's file, counting this thread's hits; < 0: errno says why not. */
static int uprobe_at(const uint8_t *address)
{
	struct perf_event_attr attr = { .type = (uint32_t)uprobe_type(), .size = sizeof(attr) };
	static const char path[] = "/proc/self/exe";

	attr.config1 = (uintptr_t)path;
	attr.config2 = file_offset(address);
	return (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
}

static int place(const uint8_t *address)
{
	int fd = uprobe_at(address);

	REQUIRE(fd >= 0);
	return fd;
}

static unsigned long uprobe_hits(int fd)
{
	uint64_t count = 0;

	REQUIRE(read(fd, &count, sizeof(count)) == sizeof(count));
	return count;
}

static void require_uprobes(void)
{
	int fd;

	if (uprobe_type() < 0)
		SKIP("the kernel has no uprobes");
	fd = uprobe_at((const uint8_t *)(uintptr_t)wide);
	if (fd < 0)
		SKIP("no uprobe can be placed: %s", strerror(errno));
	if (*(const volatile uint8_t *)(uintptr_t)wide != 0xcc)
		SKIP("uprobes cannot be placed on the file of this program");
	close(fd);
}

/* ---- one thread -------------------------------------------------------------------------------------------------- */

static const uint8_t *text_of(const struct subject *subject)
{
	return (const uint8_t *)(uintptr_t)subject->call;
}

static void call_it(const struct subject *subject)
{
	for (unsigned long n = 0; n < CALLS; n++)
		CHECK_EQ(subject->call(n), 2 * n);
}

/* Calls and what they should count. */
static void check_hits(const struct subject *subject, unsigned long wanted)
{
	unsigned long before = hits;

	call_it(subject);
	CHECK_EQ(hits - before, wanted);
}

static patch_t make(const struct subject *subject, int policy)
{
	patch_t patch = NULL;

	REQUIRE_OK(make_probe((uintptr_t)subject->call, procedure, NULL, policy, PATCH_ENABLED, &patch));
	return patch;
}

/* What is there is not the program's: it must not be taken for the original. */
static void make_refused(const struct subject *subject, int policy)
{
	patch_t patch = NULL;

	CHECK_STATUS(make_probe((uintptr_t)subject->call, procedure, NULL, policy, PATCH_ENABLED, &patch),
		     PATCH_ECHANGED);
	CHECK_OK(patch_commit());
}

static void unmake(const struct subject *subject, patch_t patch, const uint8_t *original)
{
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
	CHECK(memcmp(original, text_of(subject), 32) == 0);
	check_hits(subject, 0);
}

enum order { UPROBE_AFTER_MAKE, UPROBE_BEFORE_MAKE, UPROBE_HIT_BEFORE_MAKE, ORDERS };

static void uprobe_first(const struct subject *subject, int policy, enum order order)
{
	uint8_t original[32];
	patch_t patch = NULL;
	int fd;

	CONTEXT("%s, %s, order %d", subject->name, policy_name(policy), (int)order);
	memcpy(original, text_of(subject), sizeof(original));
	if (order == UPROBE_AFTER_MAKE)
		patch = make(subject, policy);
	fd = place(text_of(subject));
	if (order == UPROBE_HIT_BEFORE_MAKE)
		check_hits(subject, 0);
	if (order == UPROBE_AFTER_MAKE)
		harness_commit_refused(text_of(subject));
	else
		make_refused(subject, policy);
	check_hits(subject, 0);
	CHECK_EQ(uprobe_hits(fd), order == UPROBE_HIT_BEFORE_MAKE ? 2 * CALLS : CALLS);
	if (order == UPROBE_AFTER_MAKE)
		harness_commit_refused(text_of(subject));
	else
		make_refused(subject, policy);
	close(fd);
	if (order != UPROBE_AFTER_MAKE)
		patch = make(subject, policy);
	CHECK_OK(patch_commit());
	check_hits(subject, CALLS);
	unmake(subject, patch, original);
}

enum then { THEN_REMOVE, THEN_KEEP, THENS };

/* A uprobe over an installed patch. hit: the kernel may go on to exchange more bytes then. */
static void uprobe_second(const struct subject *subject, enum then then, bool hit)
{
	uint8_t original[32];
	patch_t patch;
	int fd;

	CONTEXT("%s, uprobe over a jump%s, then %d", subject->name, hit ? ", hit" : "", (int)then);
	memcpy(original, text_of(subject), sizeof(original));
	patch = make(subject, PATCH_TRAP_POLICY_FORBID);
	REQUIRE_OK(patch_commit());
	check_hits(subject, CALLS);
	fd = place(text_of(subject));
	CHECK_EQ(*text_of(subject), 0xcc);
	if (hit) {
		/* The kernel executes the file's instruction: the patch is passed over. */
		check_hits(subject, 0);
		CHECK_EQ(uprobe_hits(fd), CALLS);
	}
	CHECK_OK(then == THEN_REMOVE ? patch_disable(patch) : patch_enable(patch));
	harness_commit_refused(text_of(subject));
	close(fd);
	CHECK_EQ(*text_of(subject), original[0]);
	CHECK_OK(patch_commit());
	check_hits(subject, then == THEN_REMOVE ? 0 : CALLS);
	unmake(subject, patch, original);
}

/* Over an int3 of ours: the kernel takes it for its own, and nobody can see by the bytes that it is there. */
static void uprobe_takes_trap(const struct subject *subject, enum then then)
{
	uint8_t original[32], trap;
	patch_t patch;
	int fd;

	CONTEXT("%s, uprobe over a trap, then %d", subject->name, (int)then);
	memcpy(original, text_of(subject), sizeof(original));
	patch = make(subject, PATCH_TRAP_POLICY_FORCE);
	REQUIRE_OK(patch_commit());
	check_hits(subject, CALLS);
	trap = *text_of(subject);
	fd = place(text_of(subject));
	check_hits(subject, 0);
	if (*text_of(subject) != trap) {
		/* Ours was none, or the kernel has made a call of it when a thread came by: that is seen. */
		CHECK_OK(patch_disable(patch));
		harness_commit_refused(text_of(subject));
		close(fd);
		CHECK_OK(patch_commit());
	} else if (then == THEN_REMOVE) {
		CHECK_OK(patch_disable(patch));
		CHECK_OK(patch_commit());
		CHECK(memcmp(original, text_of(subject), sizeof(original)) == 0);
		close(fd);
		CHECK(memcmp(original, text_of(subject), sizeof(original)) == 0);
	} else {
		close(fd);
		/* It has taken our byte away. */
		check_hits(subject, 0);
		CHECK_OK(patch_enable(patch));
		CHECK_OK(patch_commit());
		check_hits(subject, CALLS);
	}
	unmake(subject, patch, original);
}

/*
 * On an instruction that a jump covers: the trap byte there is part of the jump, and what the kernel leaves of it leads
 * elsewhere. Nobody may come by until a commit has put it right.
 */
static void uprobe_inside(const struct subject *subject, size_t offset, enum then then)
{
	uint8_t original[32];
	patch_t patch;
	int fd;

	CONTEXT("%s+%zu, uprobe inside a jump, then %d", subject->name, offset, (int)then);
	memcpy(original, text_of(subject), sizeof(original));
	patch = make(subject, PATCH_TRAP_POLICY_FORBID);
	REQUIRE_OK(patch_commit());
	check_hits(subject, CALLS);
	fd = place(text_of(subject) + offset);
	close(fd);
	CHECK_OK(then == THEN_REMOVE ? patch_disable(patch) : patch_enable(patch));
	CHECK_OK(patch_commit());
	check_hits(subject, then == THEN_REMOVE ? 0 : CALLS);
	unmake(subject, patch, original);
}

static void alone(void *argument)
{
	(void)argument;
	REQUIRE_OK(patch_init(NULL, 0));
	for (size_t s = 0; s < SUBJECTS; s++) {
		const struct subject *subject = &subjects[s];

		for (int p = 0; p < 2; p++)
			for (enum order order = 0; order < ORDERS; order++)
				uprobe_first(subject, policies[p], order);
		for (enum then then = 0; then < THENS; then++) {
			uprobe_second(subject, then, false);
			uprobe_second(subject, then, true);
			uprobe_takes_trap(subject, then);
		}
	}
	for (enum then then = 0; then < THENS; then++) {
		uprobe_inside(&subjects[1], 1, then);
		uprobe_inside(&subjects[1], 4, then);
	}
	CHECK_OK(patch_fini());
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

static _Atomic bool stop;
static _Atomic unsigned long wrong, calls;

static void *run(void *argument)
{
	const struct subject *subject = argument;

	for (unsigned long n = 0; !atomic_load_explicit(&stop, memory_order_relaxed); n++) {
		if (subject->call(n) != 2 * n)
			atomic_fetch_add(&wrong, 1);
		atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
	}
	return NULL;
}

static void wait_for_calls(void)
{
	unsigned long before = calls;

	while (calls < before + 3)
		sched_yield();
}

/*
 * Uprobes come and go at a site under running threads, at each step of its patch. Only where the first instruction is
 * one byte long, or the kernel puts back all of it, is what it leaves of a jump harmless: see "Others in the text" in
 * doc/hazards.md.
 */
static void under_threads(void *argument)
{
	const struct subject *subject = argument;
	uint8_t original[32];
	pthread_t threads[2];

	memcpy(original, text_of(subject), sizeof(original));
	REQUIRE_OK(patch_init(NULL, 0));
	for (int i = 0; i < 2; i++)
		REQUIRE(pthread_create(&threads[i], NULL, run, argument) == 0);
	for (int round = 0; round < ROUNDS; round++) {
		bool close_first = round % 2, remove = round / 2 % 2;
		patch_t patch = make(subject, round / 4 % 2 ? PATCH_TRAP_POLICY_FORCE : PATCH_TRAP_POLICY_FORBID);
		int fd = place(text_of(subject));

		CONTEXT("%s, threads, round %d", subject->name, round);
		wait_for_calls();
		harness_commit_refused(text_of(subject));
		close(fd);
		CHECK_OK(patch_commit());
		wait_for_calls();
		fd = place(text_of(subject));
		wait_for_calls();
		if (remove)
			CHECK_OK(patch_disable(patch));
		else
			CHECK_OK(patch_enable(patch));
		if (!close_first) {
			patch_commit(); /* a uprobe that lies under our trap is not seen */
			wait_for_calls();
		}
		close(fd);
		wait_for_calls();
		CHECK_OK(patch_commit());
		wait_for_calls();
		CHECK_OK(patch_unmake(patch));
		CHECK_OK(patch_commit());
		CHECK(memcmp(original, text_of(subject), sizeof(original)) == 0);
		wait_for_calls();
	}
	stop = true;
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	CHECK_EQ(wrong, 0);
	CHECK_OK(patch_fini());
}

/* ---- late traps -------------------------------------------------------------------------------------------------- */

enum { RUNNING, TRAPPED, GO_ON };
static _Atomic int late;

/* In front of the library's handler: the first trap waits. */
static void late_handler(int signo, siginfo_t *info, void *context)
{
	int expected = RUNNING;

	if (atomic_compare_exchange_strong(&late, &expected, TRAPPED))
		while (late != GO_ON)
			sched_yield();
	libpatch_on_trap(signo, info, context);
}

static void *call_subject(void *argument)
{
	const struct subject *subject = argument;

	if (subject->call(21) != 42)
		atomic_fetch_add(&wrong, 1);
	return NULL;
}

/* What comes to the place of our trap, whose patch is gone, before it is served. */
static void served_late(void *argument)
{
	const struct subject *subject = argument;
	struct sigaction action = { .sa_sigaction = late_handler, .sa_flags = SA_SIGINFO };
	pthread_t thread;
	patch_t patch;
	int fd;

	REQUIRE_OK(patch_init(NULL, 0));
	patch = make(subject, PATCH_TRAP_POLICY_FORCE);
	REQUIRE_OK(patch_commit());
	/* With the library's mask, by which it knows who is in its handler, should it have to look at threads. */
	sigfillset(&action.sa_mask);
	sigdelset(&action.sa_mask, SIGILL);
	REQUIRE(sigaction(SIGTRAP, &action, NULL) == 0 && sigaction(SIGILL, &action, NULL) == 0);
	REQUIRE(pthread_create(&thread, NULL, call_subject, argument) == 0);
	while (late != TRAPPED)
		sched_yield();
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
	fd = place(text_of(subject));
	CHECK_EQ(*text_of(subject), 0xcc);
	late = GO_ON;
	REQUIRE(pthread_join(thread, NULL) == 0);
	CHECK_EQ(wrong, 0);
	close(fd);
	check_hits(subject, 0);
	/* And SIGTRAP is the library's still. */
	patch = make(subject, PATCH_TRAP_POLICY_FORCE);
	CHECK_OK(patch_commit());
	check_hits(subject, CALLS);
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	require_uprobes();
	harness_isolated("one thread", alone, NULL);
	harness_isolated("threads, first instruction of one byte", under_threads, (void *)&subjects[1]);
	harness_isolated("threads, nop of five bytes", under_threads, (void *)&subjects[2]);
	for (size_t s = 0; s < SUBJECTS; s++)
		harness_isolated("a trap served late", served_late, (void *)&subjects[s]);
	return harness_end();
}
