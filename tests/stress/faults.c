/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Patches of all policies, PROBE and PROBE_AROUND, come and go at random on a function of awkward instructions, while
 * mappings, writes to text and core synchronisations fail at random. At every step of the protocol the function is run
 * from its start and entered at each of its instructions, and the result is right. After a commit that succeeded each
 * patch is called as often as it should be; at the end every byte is back. One child for each seed.
 *
 * faults [seconds [seed]]: with a seed, that one alone
 */
#include "stress.h"

#include "base/inject.h"

#define STEPS 60
#define PATCHES 64
#define INSTRUCTIONS 11
#define CHILD_SECONDS 60 /* of one seed, which takes milliseconds */
#define CALLBACK_OFFSET 0x1000

typedef uint64_t (*callback)(uint64_t a);

uint64_t awkward(uint64_t a, callback function);
extern const uint8_t awkward_end[];

/* ((a + 3) * 2 + a + CALLBACK_OFFSET), in 32 bits */
__asm__(".text\n.p2align 6, 0xcc\n"
	".globl awkward\n.type awkward, @function\nawkward:\n.cfi_startproc\n"
	" push %rbx\n mov %edi, %ebx\n mov %ebx, %eax\n add $3, %eax\n mov %eax, %edi\n call *%rsi\n add %ebx, %eax\n"
	" mov $0x1000, %ecx\n add %ecx, %eax\n pop %rbx\n ret\n"
	".cfi_endproc\n.globl awkward_end\nawkward_end:\n.size awkward, . - awkward\n"
	".p2align 4, 0xcc\n");

/* Registers that the function has at one of its instructions. */
struct entry {
	uint64_t rbx, rax, rdi, rcx;
};

uint64_t enter_awkward(uintptr_t at, const struct entry *entry, callback function);
__asm__(".globl enter_awkward\n.type enter_awkward, @function\nenter_awkward:\n.cfi_startproc\n"
	" push %rbx\n mov %rdi, %r11\n mov %rsi, %r10\n mov %rdx, %rsi\n"
	" mov (%r10), %rbx\n mov 8(%r10), %rax\n mov 16(%r10), %rdi\n mov 24(%r10), %rcx\n jmp *%r11\n"
	".cfi_endproc\n.size enter_awkward, . - enter_awkward\n");

struct made {
	patch_t patch; /* NULL: unmade */
	unsigned int instruction;
	bool wanted, around;
};

static struct instructions list;
static struct text_copy original;
static uint64_t seed, state;
static struct made made[PATCHES];
static unsigned int made_count;
static unsigned int hits[INSTRUCTIONS][2];

/* The n-th passing of the point from now on fails. */
static struct {
	enum inject_point point;
	unsigned int countdown;
	int error;
} fault;

static uint64_t twice(uint64_t a)
{
	return 2 * a;
}

static unsigned int pick(unsigned int count)
{
	return (unsigned int)((stress_random(&state) >> 20) % count);
}

/* ---- running it -------------------------------------------------------------------------------------------------- */

static void check_result(const char *where, unsigned int instruction, uint64_t a, uint64_t value)
{
	uint32_t wanted = (uint32_t)((a + 3) * 2 + a + CALLBACK_OFFSET);

	if ((uint32_t)value != wanted)
		FAIL("%s, entered at instruction %u: %#x, wanted %#x", where, instruction, (uint32_t)value, wanted);
}

/* From the start, and from every other instruction but `ret`. */
static void run_all(const char *where)
{
	const uint64_t a = 7, junk = 99;
	const struct entry entries[INSTRUCTIONS - 1] = {
		[1] = { junk, junk, a, junk },
		[2] = { a, junk, junk, junk },
		[3] = { a, a, junk, junk },
		[4] = { a, a + 3, junk, junk },
		[5] = { a, junk, a + 3, junk },
		[6] = { a, 2 * (a + 3), junk, junk },
		[7] = { a, 2 * (a + 3) + a, junk, junk },
		[8] = { a, 2 * (a + 3) + a, junk, CALLBACK_OFFSET },
		[9] = { a, 2 * (a + 3) + a + CALLBACK_OFFSET, junk, CALLBACK_OFFSET },
	};

	check_result(where, 0, a, awkward(a, twice));
	for (unsigned int i = 1; i < INSTRUCTIONS - 1; i++)
		check_result(where, i, a, enter_awkward(list.address[i], &entries[i], twice));
}

static int inject(enum inject_point point)
{
	static const char *const names[] = { "checked", "published", "phase 0", "phase 1", "sync 1",
					     "phase 2", "sync 2",    "phase 3", "sync 3",  "phase 4" };

	if (point >= INJECT_COMMIT_CHECKED && point <= INJECT_COMMIT_PHASE_4)
		run_all(names[point - INJECT_COMMIT_CHECKED]);
	return point == fault.point && fault.countdown > 0 && --fault.countdown == 0 ? fault.error : 0;
}

/* ---- changing it ------------------------------------------------------------------------------------------------- */

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(*(unsigned int(*)[2])context->user_data)[post]++;
}

static void make_one(void)
{
	struct made *new = &made[made_count];
	unsigned int instruction = pick(INSTRUCTIONS);
	bool around = pick(3) == 0;
	struct patch_location location = location_at(list.address[instruction]);
	struct patch_exec_model model = model_of(around ? PATCH_EXEC_MODEL_PROBE_AROUND : PATCH_EXEC_MODEL_PROBE,
						 procedure, hits[instruction]);
	patch_attr attr = attr_of((int)pick(3), pick(4) == 0 ? PATCH_ENABLED : PATCH_DISABLED);

	if (made_count == PATCHES)
		return;
	/* what conflicts with others there, cannot be displaced, or had no memory is refused: that is no news here */
	if (patch_make(&location, &model, &attr, &new->patch, NULL) != PATCH_OK)
		return;
	new->instruction = instruction;
	new->around = around;
	new->wanted = attr.initial_state == PATCH_ENABLED;
	made_count++;
}

static void change_one(void)
{
	struct made *one;

	if (made_count == 0)
		return;
	one = &made[pick(made_count)];
	if (!one->patch)
		return;
	switch (pick(4)) {
	case 0:
	case 1:
		CHECK_OK(patch_enable(one->patch));
		one->wanted = true;
		break;
	case 2:
		CHECK_OK(patch_disable(one->patch));
		one->wanted = false;
		break;
	default:
		CHECK_OK(patch_unmake(one->patch));
		one->patch = NULL;
		break;
	}
}

static void arm(void)
{
	static const enum inject_point points[] = { INJECT_MMAP, INJECT_TEXT_WRITE, INJECT_SYNC };
	static const int errors[] = { EPERM, EIO, ENOMEM };

	fault.point = points[pick(3)];
	fault.error = errors[pick(3)];
	fault.countdown = pick(3) == 0 ? 1 + pick(fault.point == INJECT_MMAP ? 12 : 5) : 0;
}

/* Everything that was asked for is in effect. */
static void check_hits(void)
{
	unsigned int wanted[INSTRUCTIONS][2] = { { 0 } };

	memset(hits, 0, sizeof(hits));
	check_result("probed", 0, 1, awkward(1, twice));
	for (unsigned int n = 0; n < made_count; n++)
		if (made[n].patch && made[n].wanted) {
			wanted[made[n].instruction][0]++;
			wanted[made[n].instruction][1] += made[n].around;
		}
	for (unsigned int i = 0; i < INSTRUCTIONS; i++)
		for (unsigned int post = 0; post < 2; post++)
			if (hits[i][post] != wanted[i][post])
				FAIL("instruction %u: %u calls %s it, wanted %u", i, hits[i][post],
				     post ? "after" : "before", wanted[i][post]);
}

static void run_seed(void *argument)
{
	(void)argument;
	alarm(CHILD_SECONDS);
	state = 0x9e3779b97f4a7c15u * (seed + 1);
	REQUIRE_OK(patch_init(NULL, 0));
	libpatch_inject = inject;
	for (unsigned int step = 0; step < STEPS && harness_failures == 0; step++) {
		unsigned int choice = pick(10);

		CONTEXT("seed %llu, step %u", (unsigned long long)seed, step);
		arm();
		if (choice < 4)
			make_one();
		else if (choice < 8)
			change_one();
		else
			patch_commit(); /* succeeds or not */
		fault.countdown = 0;
		run_all("at rest");
		if (choice >= 8) {
			CHECK_OK(patch_commit());
			check_hits();
		}
	}
	CONTEXT("seed %llu, at the end", (unsigned long long)seed);
	arm();
	if (patch_fini() != PATCH_OK) {
		run_all("after a patch_fini() that failed");
		fault.countdown = 0;
		CHECK_OK(patch_fini());
	}
	run_all("after patch_fini()");
	CHECK_TEXT_SAME(&original);
	if (harness_failures)
		for (unsigned int byte = 0; byte < original.size; byte++)
			harness_say("%02x%c", ((const uint8_t *)original.start)[byte],
				    byte + 1 == original.size ? '\n' : ' ');
}

int main(int argc, char **argv)
{
	unsigned int seconds = 8, threads = 1;
	bool alone = argc > 2;
	double start;

	stress_arguments(alone ? 2 : argc, argv, &seconds, &threads);
	if (alone)
		seed = strtoull(argv[2], NULL, 0);
	harness_start_seconds(seconds + 120);
	list = code_decode((uintptr_t)awkward, (uintptr_t)awkward_end);
	REQUIRE(list.count == INSTRUCTIONS);
	original = text_save((uintptr_t)awkward - 16, (size_t)((uintptr_t)awkward_end - (uintptr_t)awkward) + 32);
	run_all("without patches");
	start = stress_now();
	do {
		CONTEXT("seed %llu", (unsigned long long)seed);
		int status = harness_child(run_seed, NULL);

		if (status)
			FAIL("seed %llu: wait status %#x", (unsigned long long)seed, (unsigned int)status);
	} while (!alone && (seed++ == 0 || stress_now() - start < (double)seconds) && harness_failures < 8);
	printf("%llu seeds\n", (unsigned long long)seed);
	return harness_end();
}
