/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Random functions of mostly short instructions, with loops, branches into them, and calls; random patches of them
 * come and go. What is right was seen before, by single-stepping: results from each entry, and how often each
 * instruction is reached. By the seed, the function is in the program's text with unwind information, or in a mapping
 * that nothing is known of; and
 *
 *   - steps of the library fail, and the function is run at each step of the protocol;
 *   - another party puts original bytes back;
 *   - threads run the function all the time.
 *
 * After each commit that succeeded, hits are exact and the registry agrees with the text. One child for each seed.
 *
 * functions [seconds [seed]]: with a seed, that one alone. LIBPATCH_STRESS_VERBOSE: say each step.
 */
#include "stress.h"

#include "functions.h"
#include "base/inject.h"
#include "patch/region.h"
#include "trap/registry.h"

#include <fcntl.h>
#include <sys/ucontext.h>

#define STEPS 80
#define STEPS_WITH_THREADS 400
#define THREADS 2
#define PATCHES 128
#define CHILD_SECONDS 60
#define LAST (list.count - 1) /* its `ret`: nothing comes after it */

enum mode { FAULTS, RESTORED, THREADED };

struct made {
	patch_t patch; /* NULL: unmade */
	unsigned int instruction;
	bool wanted, around;
};

static uint64_t seed, state;
static enum mode mode;
static bool verbose;
static uintptr_t lower, upper;
static struct instructions list;
static struct text_copy original;
static struct registers reference[TARGET_MAX_INSTRUCTIONS];
static unsigned int reached[TARGET_MAX_INSTRUCTIONS];
static unsigned int hits[TARGET_MAX_INSTRUCTIONS][2];
static struct made made[PATCHES];
static unsigned int made_count;
static _Atomic bool stop;

/* The n-th passing of the point from now on fails. */
static struct {
	enum inject_point point;
	unsigned int countdown;
	int error;
} fault;

#define SAY(...) \
	do { \
		if (verbose) \
			harness_say(__VA_ARGS__); \
	} while (0)

static unsigned int pick(unsigned int count)
{
	return (unsigned int)((stress_random(&state) >> 20) % count);
}

/* ---- running it -------------------------------------------------------------------------------------------------- */

static struct registers start_of(unsigned int k)
{
	return (struct registers){ .rax = 0x1234567 + k, .rcx = 9 + k, .rdx = 0x77, .rbx = 3, .r9 = 0 };
}

static bool run_one(const char *where, unsigned int k)
{
	const struct registers *wanted = &reference[k];
	struct registers is = start_of(k);

	function_enter(list.address[k], &is, 0x202 | (k & 1));
	if (memcmp(&is, wanted, sizeof(is)) == 0)
		return true;
	FAIL("%s, entered at +%zd: rax %#lx rcx %#lx rdx %#lx rbx %#lx r9 %#lx, wanted %#lx %#lx %#lx %#lx %#lx", where,
	     list.address[k] - lower, is.rax, is.rcx, is.rdx, is.rbx, is.r9, wanted->rax, wanted->rcx, wanted->rdx,
	     wanted->rbx, wanted->r9);
	return false;
}

static void run_all(const char *where)
{
	for (unsigned int k = 0; k < list.count && run_one(where, k); k++)
		;
}

static void *run_for_ever(void *unused)
{
	(void)unused;
	while (!atomic_load(&stop) && harness_failures == 0)
		run_all("thread");
	return NULL;
}

static void count_step(int signal, siginfo_t *info, void *context)
{
	greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
	uintptr_t rip = (uintptr_t)registers[REG_RIP];

	(void)signal;
	(void)info;
	for (unsigned int k = 0; k < list.count; k++)
		reached[k] += list.address[k] == rip;
	if (rip == (uintptr_t)function_back)
		registers[REG_EFL] &= ~0x100;
}

/* What is right, before anything is patched. */
static void trace(void)
{
	struct sigaction action = { .sa_sigaction = count_step, .sa_flags = SA_SIGINFO }, before;

	REQUIRE(sigaction(SIGTRAP, &action, &before) == 0);
	for (unsigned int k = 0; k < list.count; k++) {
		reference[k] = start_of(k);
		function_enter(list.address[k], &reference[k], 0x302 | (k & 1));
	}
	REQUIRE(sigaction(SIGTRAP, &before, NULL) == 0);
	run_all("without patches");
}

static int inject(enum inject_point point)
{
	static const char *const names[] = { "checked", "published", "phase 0", "phase 1", "sync 1",
					     "phase 2", "sync 2",    "phase 3", "sync 3",  "phase 4" };

	if (point <= INJECT_COMMIT_PHASE_4)
		run_all(names[point]);
	return point == fault.point && fault.countdown > 0 && --fault.countdown == 0 ? fault.error : 0;
}

/* ---- changing it ------------------------------------------------------------------------------------------------- */

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	__atomic_fetch_add(&(*(unsigned int(*)[2])context->user_data)[post], 1, __ATOMIC_RELAXED);
}

static void forget_unmade(void)
{
	unsigned int kept = 0;

	for (unsigned int n = 0; n < made_count; n++)
		if (made[n].patch)
			made[kept++] = made[n];
	made_count = kept;
}

static void make_one(void)
{
	static const int policies[] = { PATCH_TRAP_POLICY_ALLOW,  PATCH_TRAP_POLICY_ALLOW,  PATCH_TRAP_POLICY_ALLOW,
					PATCH_TRAP_POLICY_FORBID, PATCH_TRAP_POLICY_FORBID, PATCH_TRAP_POLICY_FORCE };
	unsigned int k = pick(list.count);
	bool around = pick(3) == 0;
	struct patch_location location = location_at(list.address[k]);
	struct patch_exec_model model = model_of(around ? PATCH_EXEC_MODEL_PROBE_AROUND : PATCH_EXEC_MODEL_PROBE,
						 procedure, hits[k]);
	int policy = policies[pick(6)];
	bool wanted = pick(3) != 0;
	patch_attr attr = attr_of(policy, wanted ? PATCH_ENABLED : PATCH_DISABLED);
	struct made *new;
	patch_status status;

	if (made_count == PATCHES)
		forget_unmade();
	if (made_count == PATCHES)
		return;
	new = &made[made_count];
	status = patch_make(&location, &model, &attr, &new->patch, NULL);
	SAY("  make +%zd, %s%s%s: %d\n", list.address[k] - lower, policy_name(policy), around ? ", around" : "",
	    wanted ? "" : ", disabled", status);
	/* what conflicts with others there, cannot be displaced, or had no memory is refused: that is no news here */
	if (status != PATCH_OK)
		return;
	new->instruction = k;
	new->around = around;
	new->wanted = wanted;
	made_count++;
}

static struct made *pick_one(void)
{
	struct made *one = made_count > 0 ? &made[pick(made_count)] : NULL;

	return one && one->patch ? one : NULL;
}

static void change_one(void)
{
	struct made *one = pick_one();
	unsigned int what = pick(4);

	if (!one)
		return;
	SAY("  %s +%zd\n", what == 0 ? "enable" : what == 1 ? "disable" : "unmake",
	    list.address[one->instruction] - lower);
	if (what > 1) {
		CHECK_OK(patch_unmake(one->patch));
		one->patch = NULL;
	} else {
		one->wanted = what == 0;
		CHECK_OK(one->wanted ? patch_enable(one->patch) : patch_disable(one->patch));
	}
}

static void write_text(uintptr_t at, const void *bytes, size_t size)
{
	int memory = open("/proc/self/mem", O_RDWR | O_CLOEXEC);

	REQUIRE(memory >= 0);
	REQUIRE(pwrite(memory, bytes, size, (off_t)at) == (ssize_t)size);
	close(memory);
}

/* A window's bytes, or all of them; the next commit is told to look at everything. */
static void restore_some(void)
{
	struct made *one = pick_one();
	struct patch_info info = { 0 };

	if (!one || patch_info(one->patch, &info, sizeof(info)) != PATCH_OK)
		return;
	if (pick(3) == 0) {
		info.lower = lower;
		info.upper = upper;
	}
	SAY("  restored +%zd to +%zd\n", info.lower - lower, info.upper - lower);
	write_text(info.lower, original.bytes + (info.lower - original.start), info.upper - info.lower);
	for (unsigned int n = 0; n < made_count; n++)
		if (made[n].patch)
			CHECK_OK(made[n].wanted ? patch_enable(made[n].patch) : patch_disable(made[n].patch));
}

static void arm(void)
{
	static const enum inject_point points[] = { INJECT_MMAP, INJECT_TEXT_WRITE, INJECT_SYNC };
	static const int errors[] = { EPERM, EIO, ENOMEM };

	fault.point = points[pick(3)];
	fault.error = errors[pick(3)];
	fault.countdown = pick(3) == 0 && mode != THREADED ? 1 + pick(12) : 0;
}

/* ---- what holds after a commit ----------------------------------------------------------------------------------- */

static void check_hits(void)
{
	unsigned int wanted[TARGET_MAX_INSTRUCTIONS][2] = { { 0 } };

	memset(hits, 0, sizeof(hits));
	run_all("probed");
	for (unsigned int n = 0; n < made_count; n++)
		if (made[n].patch && made[n].wanted) {
			wanted[made[n].instruction][0] += reached[made[n].instruction];
			if (made[n].around && made[n].instruction != LAST)
				wanted[made[n].instruction][1] += reached[made[n].instruction];
		}
	for (unsigned int k = 0; k < list.count; k++)
		for (unsigned int post = 0; post < 2; post++)
			if (hits[k][post] != wanted[k][post] && !(post == 1 && k == LAST))
				FAIL("+%zd: %u calls %s it, wanted %u", list.address[k] - lower, hits[k][post],
				     post ? "after" : "before", wanted[k][post]);
}

static bool in_use(const struct region *region)
{
	return region->installed || region->attachments;
}

static void check_entry(const struct registry_entry *entry, ptrdiff_t at, uint8_t live, uint8_t was)
{
	enum registry_state is = REGISTRY_STATE(atomic_load(&entry->state));

	if (is == REGISTRY_ACTIVE && live == was && was != 0xcc)
		FAIL("+%td: active, but the byte is the original %02x", at, live);
	if (is != REGISTRY_ACTIVE && live != was && entry->region)
		FAIL("+%td: not active, but the byte is %02x", at, live);
	if (entry->punned && live != 0xe9)
		FAIL("+%td: a punned jump, but the byte is %02x", at, live);
}

static void check_registry(void)
{
	const struct region *owner = NULL;

	for (uintptr_t a = lower - 16; a < upper + 8; a++) {
		uint8_t live = *(const volatile uint8_t *)a, was = original.bytes[a - original.start];
		const struct registry_entry *entry = registry_find(a);
		const struct region *region = entry ? entry->region : NULL;

		if (region && region != owner && in_use(region)) {
			if (owner && a < owner->start + owner->owned)
				FAIL("regions overlap: +%zd and +%zd", owner->start - lower, region->start - lower);
			if (region->start != a)
				FAIL("a region from +%zd is first met at +%zd", region->start - lower, a - lower);
			owner = region;
		}
		if (live != was && !(owner && owner->installed && a < owner->start + owner->length))
			FAIL("+%zd: %02x, was %02x, and no region is there", a - lower, live, was);
		if (entry)
			check_entry(entry, (ptrdiff_t)(a - lower), live, was);
	}
}

/* ---- seeds ------------------------------------------------------------------------------------------------------- */

static void put_function(void)
{
	uint8_t code[FUNCTION_MAX];
	size_t size;

	lower = seed & 1 ? function_in_text() : function_in_mapping();
	size = function_generate(&state, lower, code);
	upper = lower + size;
	write_text(lower, code, size);
	list = code_decode(lower, upper);
	original = text_save(lower - 32, size + 64);
}

static void do_step(void)
{
	unsigned int choice = pick(10);
	patch_status status;

	SAY("step: fault %d in %u\n", fault.point, fault.countdown);
	if (mode == RESTORED && pick(8) == 0)
		restore_some();
	if (choice < 4) {
		make_one();
	} else if (choice < 7) {
		change_one();
	} else {
		status = patch_commit();
		SAY("  commit: %d\n", status);
	}
	fault.countdown = 0;
	run_all("at rest");
	if (choice < 8 || harness_failures)
		return;
	CHECK_OK(patch_commit());
	if (mode != THREADED)
		check_hits();
	check_registry();
}

static void run_seed(void *unused)
{
	pthread_t threads[THREADS];
	unsigned int steps;

	(void)unused;
	alarm(CHILD_SECONDS);
	state = 0x9e3779b97f4a7c15u * (seed + 1);
	for (unsigned int n = 0; n < 8; n++)
		pick(2);
	/* Threads take far longer than the others. */
	mode = seed / 2 % 16 == 15 ? THREADED : seed / 2 % 2 ? RESTORED : FAULTS;
	steps = mode == THREADED ? STEPS_WITH_THREADS : STEPS;
	put_function();
	trace();
	REQUIRE_OK(patch_init(NULL, 0));
	if (mode != THREADED)
		libpatch_inject = inject;
	for (unsigned int n = 0; mode == THREADED && n < THREADS; n++)
		REQUIRE(pthread_create(&threads[n], NULL, run_for_ever, NULL) == 0);
	for (unsigned int step = 0; step < steps && harness_failures == 0; step++) {
		CONTEXT("seed %llu, step %u", (unsigned long long)seed, step);
		arm();
		do_step();
	}
	CONTEXT("seed %llu, at the end", (unsigned long long)seed);
	arm();
	if (patch_fini() != PATCH_OK) {
		run_all("after a patch_fini() that failed");
		fault.countdown = 0;
		CHECK_OK(patch_fini());
	}
	run_all("after patch_fini()");
	stop = true;
	for (unsigned int n = 0; mode == THREADED && n < THREADS; n++)
		pthread_join(threads[n], NULL);
	CHECK_TEXT_SAME(&original);
}

int main(int argc, char **argv)
{
	unsigned int seconds = 8, threads = 1;
	bool alone = argc > 2;
	uint64_t first;
	double start;

	stress_arguments(alone ? 2 : argc, argv, &seconds, &threads);
	if (alone)
		seed = strtoull(argv[2], NULL, 0);
	verbose = getenv("LIBPATCH_STRESS_VERBOSE") != NULL;
	harness_start_seconds(seconds + 120);
	start = stress_now();
	first = seed;
	do {
		CONTEXT("seed %llu", (unsigned long long)seed);
		int status = harness_child(run_seed, NULL);

		if (status)
			FAIL("seed %llu: wait status %#x", (unsigned long long)seed, (unsigned int)status);
		seed++;
	} while (!alone && stress_now() - start < (double)seconds && harness_failures < 8);
	printf("%llu seeds\n", (unsigned long long)(seed - first));
	return harness_end();
}
