/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where the function branches to a boundary of a window, the branches go to generated code, too: calls do not trap, and
 * all of them are seen, while patches come and go there and at the branches.
 */
#include "harness.h"

#include <pthread.h>
#include <sched.h>

/*
 * The only window for the `ret` begins at `add $0, %al`, with NAME_inner as a boundary, which BRANCH leads to; behind
 * the `ret` the next function begins. What a function returns is its argument plus 1.
 */
#define TAIL(name) "	add $0, %al\n" #name "_inner:	add $0, %al\n" #name "_ret:	ret\n"
#define BRANCH(name, branch) #name "_branch:	" branch " " #name "_inner\n	nopl 8(%rax,%rax)\n"
#define FUNCTION(name, code)                                                                                           \
	__asm__(".type " #name ", @function\n.globl " #name "\n" #name ":\n.cfi_startproc\n"                           \
		"	lea 1(%rdi), %rax\n" code ".cfi_endproc\n.size " #name ", . - " #name "\n");                   \
	long name(long n);                                                                                             \
	extern const uint8_t name##_branch[], name##_ret[];
/* Odd arguments take the branch, if it is conditional. */
#define FORWARD(name, prepare, branch, far)                                                                            \
	FUNCTION(name, "	nopl (%rax)\n" prepare BRANCH(name, branch) far TAIL(name))
#define BACKWARD(name, prepare, branch, far)                                                                           \
	FUNCTION(name, "	jmp 1f\n	nopl 8(%rax,%rax)\n2:\n" TAIL(name) far "1:	nopl 8(%rax,%rax)\n"   \
		       prepare BRANCH(name, branch) "	jmp 2b\n")
#define FAR "	.skip 256, 0x90\n"
#define TEST "	test $1, %dil\n"
#define COUNT "	mov %edi, %ecx\n	and $1, %ecx\n	inc %ecx\n"

__asm__(".text\n.p2align 4\n");
FORWARD(jcc_forward, TEST, "jne", "")
FORWARD(jcc_forward_far, TEST, "jne", FAR)
FORWARD(jmp_forward, "", "jmp", "")
FORWARD(jmp_forward_far, "", "jmp", FAR)
FORWARD(loop_forward, COUNT, "loop", "")
FORWARD(jrcxz_forward, COUNT "	sub $2, %rcx\n", "jrcxz", "")
BACKWARD(jcc_backward, TEST, "jne", "")
BACKWARD(jcc_backward_far, TEST, "jne", FAR)
BACKWARD(jmp_backward, "", "jmp", "")
BACKWARD(jmp_backward_far, "", "jmp", FAR)
BACKWARD(loop_backward, COUNT, "loop", "")
BACKWARD(jrcxz_backward, COUNT "	sub $2, %rcx\n", "jrcxz", "")
__asm__("last_one:	mov $0, %eax\n	ret\n");

static const struct form {
	const char *name;
	long (*function)(long n);
	const uint8_t *branch, *ret;
} forms[] = {
#define FORM(name) { #name, name, name##_branch, name##_ret }
	FORM(jcc_forward),   FORM(jcc_forward_far),   FORM(jmp_forward),   FORM(jmp_forward_far),
	FORM(loop_forward),  FORM(jrcxz_forward),     FORM(jcc_backward),  FORM(jcc_backward_far),
	FORM(jmp_backward),  FORM(jmp_backward_far),  FORM(loop_backward), FORM(jrcxz_backward),
};
#define FORMS (sizeof(forms) / sizeof(forms[0]))
#define CALLS 1000L

struct hits {
	uint64_t before;
	uint64_t behind;
};

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	struct hits *hits = context->user_data;

	__atomic_fetch_add(post ? &hits->behind : &hits->before, 1, __ATOMIC_RELAXED);
}

static uint64_t traps(void)
{
	struct patch_statistics statistics;

	CHECK_OK(patch_statistics(&statistics, sizeof(statistics)));
	return statistics.traps;
}

static patch_t make(uint8_t type, const void *address, int policy, struct hits *hits)
{
	struct patch_location location = { .type = PATCH_LOCATION_ADDRESS, .address = (uintptr_t)address };
	struct patch_exec_model model = { .type = type };
	patch_t patch = NULL;
	patch_attr attr;

	model.probe.procedure = procedure;
	model.probe.user_data = hits;
	CHECK_OK(patch_attr_init(&attr, sizeof(attr)));
	CHECK_OK(patch_attr_set_trap_policy(&attr, policy));
	CHECK_OK(patch_attr_set_initial_state(&attr, PATCH_ENABLED));
	CHECK_OK(patch_make(&location, &model, &attr, &patch, NULL));
	return patch;
}

static void unmake(patch_t patch)
{
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
}

/* The traps that many calls take. */
static uint64_t call(const struct form *form)
{
	uint64_t before = traps();

	for (long n = 0; n < CALLS; ++n)
		CHECK_EQ(form->function(n), n + 1);
	return traps() - before;
}

static void no_call_traps(const struct form *form, int policy)
{
	struct hits hits = { 0, 0 };
	uint8_t original[512];
	patch_t patch;

	CONTEXT("%s, policy %d", form->name, policy);
	memcpy(original, (const void *)(uintptr_t)form->function, sizeof(original));
	patch = make(PATCH_EXEC_MODEL_PROBE_RETURN, (const void *)(uintptr_t)form->function, policy, &hits);
	CHECK_OK(patch_commit());
	CHECK_EQ(call(form), 0u);
	CHECK_EQ(hits.before, (uint64_t)CALLS);
	CHECK_EQ(hits.behind, (uint64_t)CALLS);
	CHECK_OK(patch_disable(patch));
	CHECK_OK(patch_commit());
	CHECK(memcmp(original, (const void *)(uintptr_t)form->function, sizeof(original)) == 0);
	CHECK_EQ(call(form), 0u);
	CHECK_EQ(hits.before, (uint64_t)CALLS);
	CHECK_OK(patch_enable(patch));
	CHECK_OK(patch_commit());
	CHECK_EQ(call(form), 0u);
	CHECK_EQ(hits.behind, 2u * CALLS);
	unmake(patch);
	CHECK(memcmp(original, (const void *)(uintptr_t)form->function, sizeof(original)) == 0);
	CHECK_EQ(call(form), 0u);
}

/*
 * The branch has a patch of its own, which stays when the window that it was led into goes. The `ret` gets a trap by
 * itself then: who branches must come by there, and not by what was the window's.
 */
static void led_where_it_should(const struct form *form)
{
	struct hits at_branch = { 0, 0 }, returns = { 0, 0 }, at_ret = { 0, 0 };
	patch_t branch, function, ret;

	CONTEXT("%s", form->name);
	branch = make(PATCH_EXEC_MODEL_PROBE, form->branch, PATCH_TRAP_POLICY_ALLOW, &at_branch);
	CHECK_OK(patch_commit());
	function = make(PATCH_EXEC_MODEL_PROBE_RETURN, (const void *)(uintptr_t)form->function,
			PATCH_TRAP_POLICY_ALLOW, &returns);
	CHECK_OK(patch_commit());
	CHECK_EQ(call(form), 0u);
	unmake(function);
	ret = make(PATCH_EXEC_MODEL_PROBE, form->ret, PATCH_TRAP_POLICY_FORCE, &at_ret);
	CHECK_OK(patch_commit());
	CHECK_EQ(call(form), (uint64_t)CALLS);
	CHECK_EQ(at_branch.before, 2u * CALLS);
	CHECK_EQ(returns.behind, (uint64_t)CALLS);
	CHECK_EQ(at_ret.before, (uint64_t)CALLS);
	unmake(ret);
	unmake(branch);
	CHECK_EQ(call(form), 0u);
}

#define THREADS 2

static _Atomic bool stop;
static _Atomic unsigned long turns[THREADS];

static void *run(void *data)
{
	_Atomic unsigned long *own = data;

	for (; !stop; ++*own)
		for (size_t i = 0; i < FORMS; ++i)
			for (long n = 0; n < 16; ++n)
				CHECK_EQ(forms[i].function(n), n + 1);
	return NULL;
}

/* Commit, and let each thread come by everywhere. */
static void commit(void)
{
	CHECK_OK(patch_commit());
	for (size_t i = 0; i < THREADS; ++i) {
		unsigned long before = turns[i];

		while (turns[i] < before + 2)
			sched_yield();
	}
}

/* Threads run through, while all that is patched changes. */
static void threads_go_on(void)
{
	struct hits hits[FORMS] = { { 0, 0 } }, others[FORMS] = { { 0, 0 } };
	pthread_t threads[THREADS];

	CONTEXT("threads");
	for (size_t i = 0; i < THREADS; ++i)
		REQUIRE(pthread_create(&threads[i], NULL, run, &turns[i]) == 0);
	for (unsigned int round = 0; round < 24; ++round) {
		patch_t patches[FORMS], other[FORMS];

		for (size_t i = 0; i < FORMS; ++i) {
			const void *at = round % 4 == 0 ? forms[i].ret : forms[i].branch;
			int policy = round % 4 == 0 ? PATCH_TRAP_POLICY_FORCE : PATCH_TRAP_POLICY_ALLOW;

			if (round % 3 == 0)
				other[i] = make(PATCH_EXEC_MODEL_PROBE, at, policy, &others[i]);
			patches[i] = make(PATCH_EXEC_MODEL_PROBE_RETURN, (const void *)(uintptr_t)forms[i].function,
					  PATCH_TRAP_POLICY_ALLOW, &hits[i]);
		}
		commit();
		for (size_t i = 0; i < FORMS; ++i) {
			if (round % 3 == 0)
				CHECK_OK(patch_unmake(other[i]));
			CHECK_OK(patch_disable(patches[i]));
		}
		commit();
		for (size_t i = 0; i < FORMS; ++i)
			CHECK_OK(patch_enable(patches[i]));
		commit();
		for (size_t i = 0; i < FORMS; ++i)
			CHECK_OK(patch_unmake(patches[i]));
		commit();
	}
	stop = true;
	for (size_t i = 0; i < THREADS; ++i)
		REQUIRE(pthread_join(threads[i], NULL) == 0);
	for (size_t i = 0; i < FORMS; ++i)
		CHECK(hits[i].before > 0 && hits[i].behind > 0 && others[i].before > 0);
}

int main(void)
{
	harness_start();
	REQUIRE_OK(patch_init(NULL, 0));
	for (size_t i = 0; i < FORMS; ++i) {
		no_call_traps(&forms[i], PATCH_TRAP_POLICY_ALLOW);
		no_call_traps(&forms[i], PATCH_TRAP_POLICY_FORBID);
		led_where_it_should(&forms[i]);
	}
	threads_go_on();
	for (size_t i = 0; i < FORMS; ++i)
		no_call_traps(&forms[i], PATCH_TRAP_POLICY_ALLOW);
	CHECK_OK(patch_fini());
	return harness_end();
}
