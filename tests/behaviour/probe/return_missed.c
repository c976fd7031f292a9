/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * PROBE_RETURN: a call of a function is entered once and returned from once, by whatever way it leaves, with the stack
 * pointer that it was entered with and with its results; a return is never told without its entry; and what does not
 * return (longjmp, the end of a thread, a call pending when the patch goes) costs nothing later on.
 */
#include "harness.h"

#include <pthread.h>
#include <setjmp.h>
#include <ucontext.h>

/* ---- functions that leave in every way there is ------------------------------------------------------------------ */

#define FUNCTION(name, code) \
	__asm__(".text\n.p2align 4\n.type " #name ", @function\n" #name ":\n.cfi_startproc\n" code "\n.cfi_endproc\n" \
		".size " #name ", . - " #name "\n" #name "_end:\n"); \
	long name(long n); \
	extern const uint8_t name##_end[];

FUNCTION(leaf, "	lea 1(%rdi), %rax\n	ret")
FUNCTION(leaf_endbr, "	endbr64\n	lea 1(%rdi), %rax\n	ret")
FUNCTION(only_ret, "	ret\n	nopl (%rax)\n	nopl (%rax)")
FUNCTION(rep_ret, "	lea 1(%rdi), %rax\n	rep ret")
FUNCTION(bnd_ret, "	lea 1(%rdi), %rax\n	.byte 0xF2; ret")
FUNCTION(ret_imm, "	lea 1(%rdi), %rax\n	ret $0")
FUNCTION(framed, "	push %rbp\n.cfi_adjust_cfa_offset 8\n.cfi_offset %rbp, -16\n	mov %rsp, %rbp\n"
		 ".cfi_def_cfa_register %rbp\n	sub $64, %rsp\n	and $-64, %rsp\n	call leaf\n	leave\n"
		 ".cfi_def_cfa %rsp, 8\n	ret")
FUNCTION(two_rets, "	test %rdi, %rdi\n	js 1f\n	lea 1(%rdi), %rax\n	ret\n1:	mov %rdi, %rax\n	ret")
FUNCTION(lone_ret, "	lea 1(%rdi), %rax\n	test $1, %dil\n	jne 2f\n	cmp $100, %rdi\n	jg 2f\n"
		   "	lea 3(%rax), %rax\n	sub $3, %rax\n	jmp 2f\n	nopl 8(%rax,%rax)\n2:	ret")
FUNCTION(tail_direct, "	add $5, %rdi\n	jmp leaf")
FUNCTION(tail_reg, "	lea leaf(%rip), %rax\n	jmp *%rax")
FUNCTION(tail_memory, "	jmp *leaf_pointer(%rip)")
FUNCTION(tail_branch, "	test $1, %dil\n	jne leaf\n	lea 2(%rdi), %rax\n	ret")
/* Where functions are not aligned, a branch to one is a tail call as well. */
__asm__(".text\n.p2align 4\n	nop\n.type tail_branch_small, @function\ntail_branch_small:\n.cfi_startproc\n"
	"	test $1, %dil\n	jne leaf_small\n	lea 2(%rdi), %rax\n	ret\n.cfi_endproc\n"
	".type leaf_small, @function\nleaf_small:\n.cfi_startproc\n	lea 1(%rdi), %rax\n	nopl (%rax)\n	ret\n"
	".cfi_endproc\n.p2align 4\n	nop\n.type tail_branch_by_chance, @function\n	.p2align 4\n"
	"tail_branch_by_chance:\n.cfi_startproc\n"
	"	test $1, %dil\n	jne leaf_small\n	lea 2(%rdi), %rax\n	ret\n.cfi_endproc\n"
	".type behind_small, @function\nbehind_small:\n.cfi_startproc\n	ret\n.cfi_endproc\n");
long tail_branch_small(long n), tail_branch_by_chance(long n), leaf_small(long n);
FUNCTION(tail_of_framed, "	push %rbx\n.cfi_adjust_cfa_offset 8\n.cfi_offset %rbx, -16\n	mov %rdi, %rbx\n"
			 "	call leaf\n"
			 "	mov %rbx, %rdi\n	pop %rbx\n.cfi_adjust_cfa_offset -8\n	jmp leaf")
FUNCTION(again, "	test %rdi, %rdi\n	je 1f\n	dec %rdi\n	jmp again\n1:	mov $7, %eax\n	ret")
FUNCTION(again_branch, "	dec %rdi\n	nopl (%rax)\n	jns again_branch\n	mov $7, %eax\n	ret")
/* By a pointer it calls itself: each time is a return and a call. */
FUNCTION(again_indirect, "	dec %rdi\n	js 1f\n	lea again_indirect(%rip), %rax\n	jmp *%rax\n"
			 "1:	mov $7, %eax\n	ret")
/* Cases 0 to 2 are inside, 3 is another function's. */
FUNCTION(by_table, "	and $3, %edi\n	lea by_table_cases(%rip), %rax\n	jmp *(%rax,%rdi,8)\n"
		   "by_table_0:	mov $10, %eax\n	ret\nby_table_1:	mov $11, %eax\n	jmp by_table_3\n"
		   "by_table_2:	mov $12, %eax\nby_table_3:	ret")
FUNCTION(with_cold, "	test $1, %dil\n	jne with_cold_cold\n	lea 1(%rdi), %rax\n	ret\n	nop\n"
		    "with_cold_back:	add $1, %rax\n	ret\n"
		    ".pushsection .text.unlikely, \"ax\"\n.p2align 4\n	int3\n"
		    ".cfi_startproc\nwith_cold_cold:	mov %rdi, %rax\n	test $2, %dil\n"
		    "	je with_cold_back\n	add $1, %rax\n	ret\n.cfi_endproc\n.popsection")
FUNCTION(with_framed_cold, "	push %rbx\n.cfi_adjust_cfa_offset 8\n	test $1, %dil\n	jne with_framed_cold_cold\n"
			   "	lea 1(%rdi), %rax\n	pop %rbx\n.cfi_adjust_cfa_offset -8\n	ret\n"
			   ".pushsection .text.unlikely, \"ax\"\n.p2align 4\n.cfi_startproc\n"
			   ".cfi_def_cfa_offset 16\nwith_framed_cold_cold:	lea 1(%rdi), %rax\n	pop %rbx\n"
			   ".cfi_adjust_cfa_offset -8\n	ret\n.cfi_endproc\n.popsection")
FUNCTION(falls, "	add $4, %rdi\n	nopl (%rax)")
__asm__("falls_into:\n.cfi_startproc\n	lea 1(%rdi), %rax\n	ret\n.cfi_endproc\n");
FUNCTION(counts_down, "	test %rdi, %rdi\n	je 1f\n	sub $8, %rsp\n.cfi_adjust_cfa_offset 8\n	dec %rdi\n"
		      "	call counts_down\n	inc %rax\n	add $8, %rsp\n.cfi_adjust_cfa_offset -8\n	ret\n"
		      "1:	xor %eax, %eax\n	ret")

/* Its end is another's middle, which no entry describes: not all exits can be found. */
__asm__(".text\n.p2align 4\n.type odd, @function\nodd:\n.cfi_startproc\n"
	"	test %rdi, %rdi\n	jne 1f\n	mov $3, %eax\n	ret\n"
	"1:	lea 1(%rdi), %rax\n.cfi_endproc\n	nopl (%rax)\nodd_behind:	ret\n.size odd, . - odd\n"
	".p2align 4\n.type undescribed, @function\nundescribed:	lea 1(%rdi), %rax\n	nopl (%rax)\n	ret\n"
	".size undescribed, . - undescribed\n"
	".data\n.p2align 3\nleaf_pointer:	.quad leaf\n"
	"by_table_cases:	.quad by_table_0, by_table_1, by_table_2, leaf\n"
	".text\n");
long odd(long n), undescribed(long n);

/* Not to be seen through: each call is one. */
#define HIDE(value) __asm__ volatile("" : "+r"(value))
#define CALL(function, n) hidden(function)(n)

static inline long (*hidden(long (*function)(long)))(long)
{
	HIDE(function);
	return function;
}

NOINLINE static long fib(long n)
{
	return n < 2 ? n : CALL(fib, n - 1) + CALL(fib, n - 2);
}

NOINLINE static long double on_x87(long n)
{
	HIDE(n);
	return (long double)n * 3;
}

NOINLINE static double in_xmm(long n)
{
	HIDE(n);
	return (double)n / 4;
}

NOINLINE static __int128 in_two(long n)
{
	HIDE(n);
	return (__int128)n << 64 | 5;
}

/* `same`: how often a call enters and leaves, as long as it is with `argument`. */
static const struct form {
	const char *name;
	long (*function)(long n);
	long argument, result;
	unsigned int same;
	/* Behind the function's last byte, where the exits of all of it are inside. */
	const uint8_t *end;
} forms[] = {
	{ "leaf", leaf, 4, 5, 1, leaf_end },
	{ "leaf_endbr", leaf_endbr, 4, 5, 1, leaf_endbr_end },
	{ "rep_ret", rep_ret, 4, 5, 1, rep_ret_end },
	{ "bnd_ret", bnd_ret, 4, 5, 1, bnd_ret_end },
	{ "ret_imm", ret_imm, 4, 5, 1, ret_imm_end },
	{ "framed", framed, 4, 5, 1, framed_end },
	{ "two_rets", two_rets, 4, 5, 1, two_rets_end },
	{ "two_rets, the other", two_rets, -4, -4, 1, two_rets_end },
	{ "lone_ret, branched to", lone_ret, 5, 6, 1, lone_ret_end },
	{ "lone_ret, jumped to", lone_ret, 4, 5, 1, lone_ret_end },
	{ "lone_ret, by the second", lone_ret, 200, 201, 1, lone_ret_end },
	{ "tail_direct", tail_direct, 4, 10, 1, tail_direct_end },
	{ "tail_reg", tail_reg, 4, 5, 1, tail_reg_end },
	{ "tail_memory", tail_memory, 4, 5, 1, tail_memory_end },
	{ "tail_branch, taken", tail_branch, 5, 6, 1, tail_branch_end },
	{ "tail_branch, not taken", tail_branch, 4, 6, 1, tail_branch_end },
	{ "tail_branch_small, taken", tail_branch_small, 5, 6, 1, NULL },
	{ "tail_branch_small, not taken", tail_branch_small, 4, 6, 1, NULL },
	{ "tail_branch_by_chance, taken", tail_branch_by_chance, 5, 6, 1, NULL },
	{ "leaf_small", leaf_small, 4, 5, 1, NULL },
	{ "tail_of_framed", tail_of_framed, 4, 5, 1, tail_of_framed_end },
	{ "again", again, 6, 7, 1, again_end },
	{ "again, not", again, 0, 7, 1, again_end },
	{ "again_branch", again_branch, 6, 7, 1, again_branch_end },
	{ "again_indirect", again_indirect, 6, 7, 7, again_indirect_end },
	{ "by_table, 0", by_table, 0, 10, 1, by_table_end },
	{ "by_table, 1", by_table, 1, 11, 1, by_table_end },
	{ "by_table, 2", by_table, 2, 12, 1, by_table_end },
	{ "by_table, out", by_table, 3, 4, 1, by_table_end },
	{ "with_cold, not", with_cold, 4, 5, 1, NULL },
	{ "with_cold, returns there", with_cold, 3, 4, 1, NULL },
	{ "with_cold, comes back", with_cold, 5, 6, 1, NULL },
	{ "with_framed_cold, not", with_framed_cold, 4, 5, 1, NULL },
	{ "with_framed_cold", with_framed_cold, 5, 6, 1, NULL },
	{ "falls", falls, 4, 9, 1, falls_end },
	{ "counts_down", counts_down, 9, 9, 10, counts_down_end },
	{ "fib", fib, 10, 55, 177, NULL },
};
#define FORMS (sizeof(forms) / sizeof(*forms))

/* ---- what is seen ------------------------------------------------------------------------------------------------ */

#define DEPTH 4096

/* Of one function, by one thread: which stack pointers it was entered with. */
static __thread struct seen {
	unsigned long entered, returned;
	unsigned long odd; /* returns without an entry, from elsewhere, or reported elsewhere */
	long result;
	uintptr_t entries[DEPTH];
	unsigned int depth;
} seen;
static uintptr_t inside_lower, inside_upper; /* 0: not looked at */

/* No libc: it is called from patched code, at any moment. */
GP_ONLY static void procedure(struct patch_exec_context *context, uint8_t post)
{
	uintptr_t stack = (uintptr_t)context->stack_pointer;

	if (!post) {
		++seen.entered;
		if (context->program_counter != *(const uintptr_t *)context->user_data)
			++seen.odd;
		/* What lies below was left without a return. */
		while (seen.depth > 0 && seen.entries[seen.depth - 1] <= stack)
			--seen.depth;
		if (seen.depth < DEPTH)
			seen.entries[seen.depth++] = stack;
		return;
	}
	++seen.returned;
	seen.result = (long)context->general_purpose_registers[PATCH_X86_64_RAX];
	while (seen.depth > 0 && seen.entries[seen.depth - 1] < stack)
		--seen.depth;
	if (seen.depth == 0 || seen.entries[seen.depth - 1] != stack)
		++seen.odd;
	else
		--seen.depth;
	if (inside_lower != 0 && (context->program_counter < inside_lower || context->program_counter >= inside_upper))
		++seen.odd;
}

static void forget_seen(void)
{
	seen.entered = seen.returned = seen.odd = 0;
	seen.depth = 0;
}

static void check_seen(unsigned long entered, unsigned long returned)
{
	CHECK_EQ(seen.entered, entered);
	CHECK_EQ(seen.returned, returned);
	CHECK_EQ(seen.odd, 0);
	forget_seen();
}

static uint64_t registers = PATCH_REGS_GP_ONLY;

static patch_status try_make(void *function, void (*called)(struct patch_exec_context *, uint8_t), void *user_data,
			     int policy, int exits, patch_t *patch)
{
	struct patch_location location = { .type = PATCH_LOCATION_ADDRESS, .address = (uintptr_t)function };
	struct patch_exec_model model = { .type = PATCH_EXEC_MODEL_PROBE_RETURN };
	patch_attr attr;

	model.probe.clobber_registers = registers;
	model.probe.procedure = called;
	model.probe.user_data = user_data;
	REQUIRE_OK(patch_attr_init(&attr, sizeof(attr)));
	REQUIRE_OK(patch_attr_set_trap_policy(&attr, policy));
	REQUIRE_OK(patch_attr_set_exits(&attr, exits));
	REQUIRE_OK(patch_attr_set_initial_state(&attr, PATCH_ENABLED));
	return patch_make(&location, &model, &attr, patch, NULL);
}

static uintptr_t located;

static patch_t make(void *function, int policy)
{
	patch_t patch;

	located = (uintptr_t)function;
	REQUIRE_OK(try_make(function, procedure, &located, policy, PATCH_EXITS_ALL, &patch));
	REQUIRE_OK(patch_commit());
	return patch;
}

static void unmake(patch_t patch)
{
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
	CHECK_OK(patch_synchronize(-1));
}

/* ---- each way ---------------------------------------------------------------------------------------------------- */

static void check_ways(int policy)
{
	for (const struct form *form = forms; form < &forms[FORMS]; form++) {
		patch_t patch;

		CONTEXT("%s, policy %d", form->name, policy);
		patch = make(form->function, policy);
		inside_lower = form->end != NULL ? (uintptr_t)form->function : 0;
		inside_upper = (uintptr_t)form->end;
		for (unsigned int i = 1; i <= 3; i++) {
			CHECK_EQ(form->function(form->argument), form->result);
			if (form->function != tail_direct && strncmp(form->name, "tail", 4) != 0 &&
			    form->function != falls && strcmp(form->name, "by_table, out") != 0)
				CHECK_EQ(seen.result, form->result);
			check_seen(form->same, form->same);
		}
		inside_lower = 0;
		unmake(patch);
		CHECK_EQ(form->function(form->argument), form->result);
		check_seen(0, 0);
	}
}

/* One patch on each function, the others NULL. */
static void make_all(patch_t patches[FORMS], int policy)
{
	static uintptr_t addresses[FORMS];

	for (size_t i = 0; i < FORMS; i++) {
		addresses[i] = (uintptr_t)forms[i].function;
		patches[i] = NULL;
		if (i == 0 || forms[i].function != forms[i - 1].function)
			REQUIRE_OK(try_make((void *)forms[i].function, procedure, &addresses[i], policy,
					    PATCH_EXITS_ALL, &patches[i]));
	}
	REQUIRE_OK(patch_commit());
}

static void unmake_all(patch_t patches[FORMS])
{
	for (size_t i = 0; i < FORMS; i++)
		if (patches[i] != NULL)
			CHECK_OK(patch_unmake(patches[i]));
	CHECK_OK(patch_commit());
	CHECK_OK(patch_synchronize(-1));
}

/* All of them at once, some of whose instructions share windows. */
static void check_all_at_once(int policy)
{
	patch_t patches[FORMS];
	unsigned long times = 0;

	CONTEXT("all at once, policy %d", policy);
	make_all(patches, policy);
	for (size_t i = 0; i < FORMS; i++) {
		CHECK_EQ(forms[i].function(forms[i].argument), forms[i].result);
		times += forms[i].same;
	}
	/*
	 * These call leaf: framed, tail_direct, tail_reg, tail_memory, tail_branch, by_table; tail_of_framed twice. And
	 * leaf_small: tail_branch_small, tail_branch_by_chance.
	 */
	CHECK_EQ(seen.entered, times + 10);
	CHECK_EQ(seen.returned, times + 10);
	forget_seen();
	unmake_all(patches);
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

static long rax, rdx;
static double xmm0;
static long double st0;
static bool changes;

static void look_at_results(struct patch_exec_context *context, uint8_t post)
{
	struct patch_x86_64_legacy *legacy;

	if (!post)
		return;
	rax = (long)context->general_purpose_registers[PATCH_X86_64_RAX];
	rdx = (long)context->general_purpose_registers[PATCH_X86_64_RDX];
	REQUIRE_OK(patch_x86_sse_state(context->extended_states, &legacy));
	memcpy(&xmm0, legacy->xmm0, sizeof(xmm0));
	memcpy(&st0, (const uint8_t *)legacy + 32, 10);
	if (!changes)
		return;
	context->general_purpose_registers[PATCH_X86_64_RAX] = 77;
	xmm0 = 8.25;
	memcpy(legacy->xmm0, &xmm0, sizeof(xmm0));
}

static void check_results(void)
{
	void *functions[] = { (void *)leaf, (void *)in_two, (void *)in_xmm, (void *)on_x87 };
	patch_t patches[4];

	CONTEXT("results");
	registers = PATCH_REGS_ALL;
	for (unsigned int i = 0; i < 4; i++)
		REQUIRE_OK(try_make(functions[i], look_at_results, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_EXITS_ALL,
				    &patches[i]));
	REQUIRE_OK(patch_commit());
	CHECK_EQ(leaf(8), 9);
	CHECK_EQ(rax, 9);
	CHECK(in_two(3) == ((__int128)3 << 64 | 5));
	CHECK_EQ(rax, 5);
	CHECK_EQ(rdx, 3);
	CHECK(in_xmm(3) == 0.75);
	CHECK(xmm0 == 0.75);
	CHECK(on_x87(3) == 9.0L);
	CHECK(st0 == 9.0L);
	changes = true;
	CHECK_EQ(leaf(8), 77);
	CHECK(in_xmm(3) == 8.25);
	CHECK(on_x87(3) == 9.0L);
	changes = false;
	for (unsigned int i = 0; i < 4; i++)
		unmake(patches[i]);
	registers = PATCH_REGS_GP_ONLY;
}

/* ---- what does not return ---------------------------------------------------------------------------------------- */

static jmp_buf jump;

NOINLINE static long jumper(long n)
{
	if (n == 0)
		longjmp(jump, 1);
	return CALL(jumper, n - 1) + 1;
}

NOINLINE static long returns_at_last(long n)
{
	return n == 0 ? 0 : CALL(returns_at_last, n - 1) + 1;
}

static void check_longjmp(void)
{
	patch_t patch = make((void *)jumper, PATCH_TRAP_POLICY_ALLOW), other;

	CONTEXT("longjmp");
	other = make((void *)returns_at_last, PATCH_TRAP_POLICY_ALLOW);
	for (volatile long frames = 0; frames < 32; frames++) {
		located = (uintptr_t)jumper;
		if (setjmp(jump) == 0)
			jumper(frames);
		check_seen((unsigned long)frames + 1, 0);
		located = (uintptr_t)returns_at_last;
		CHECK_EQ(returns_at_last(frames), frames);
		check_seen((unsigned long)frames + 1, (unsigned long)frames + 1);
	}
	unmake(patch);
	unmake(other);
}

NOINLINE static long ends_thread(long n)
{
	if (n == 0)
		pthread_exit((void *)5);
	return CALL(ends_thread, n - 1) + 1;
}

static void *end_within(void *argument)
{
	ends_thread((long)argument);
	return NULL;
}

static pthread_barrier_t started;

NOINLINE static long is_cancelled(long n)
{
	if (n == 0) {
		pthread_barrier_wait(&started);
		for (;;)
			pause();
	}
	return CALL(is_cancelled, n - 1) + 1;
}

static void *cancel_within(void *argument)
{
	is_cancelled((long)argument);
	return NULL;
}

static void *return_all(void *argument)
{
	forget_seen();
	located = (uintptr_t)returns_at_last;
	CHECK_EQ(returns_at_last((long)argument), (long)argument);
	check_seen((unsigned long)(uintptr_t)argument + 1, (unsigned long)(uintptr_t)argument + 1);
	return NULL;
}

/* Stacks of threads are used again: what was noted on one must not be taken for the next one's. */
static void check_ends_of_threads(void)
{
	patch_t patches[] = { make((void *)ends_thread, PATCH_TRAP_POLICY_ALLOW),
			      make((void *)is_cancelled, PATCH_TRAP_POLICY_ALLOW),
			      make((void *)returns_at_last, PATCH_TRAP_POLICY_ALLOW) };

	CONTEXT("ends of threads");
	REQUIRE(pthread_barrier_init(&started, NULL, 2) == 0);
	for (long n = 0; n < 50; n++) {
		pthread_t thread;

		located = (uintptr_t)ends_thread;
		REQUIRE(pthread_create(&thread, NULL, end_within, (void *)n) == 0);
		REQUIRE(pthread_join(thread, NULL) == 0);
		located = (uintptr_t)is_cancelled;
		REQUIRE(pthread_create(&thread, NULL, cancel_within, (void *)n) == 0);
		pthread_barrier_wait(&started);
		REQUIRE(pthread_cancel(thread) == 0);
		REQUIRE(pthread_join(thread, NULL) == 0);
		REQUIRE(pthread_create(&thread, NULL, return_all, (void *)n) == 0);
		REQUIRE(pthread_join(thread, NULL) == 0);
	}
	for (unsigned int i = 0; i < 3; i++)
		unmake(patches[i]);
}

/* ---- inside while the patch changes ------------------------------------------------------------------------------ */

static patch_t changed;
static void (*between)(void);

NOINLINE static long changes_within(long n)
{
	if (n == 0)
		between();
	else
		CALL(changes_within, n - 1);
	HIDE(n);
	return n;
}

static void enable(void)
{
	CHECK_OK(patch_enable(changed));
	CHECK_OK(patch_commit());
}

static void disable(void)
{
	CHECK_OK(patch_disable(changed));
	CHECK_OK(patch_commit());
}

static void toggle(void)
{
	disable();
	enable();
}

static void release(void)
{
	CHECK_OK(patch_unmake(changed));
	CHECK_OK(patch_commit());
}

static void make_another(void)
{
	changed = make((void *)changes_within, PATCH_TRAP_POLICY_ALLOW);
}

static void check_changes_inside(void)
{
	CONTEXT("changed inside");
	changed = make((void *)changes_within, PATCH_TRAP_POLICY_ALLOW);
	for (unsigned int i = 0; i < 100; i++) {
		between = disable;
		changes_within(3);
		check_seen(4, 0);
		between = enable;
		changes_within(3);
		check_seen(0, 0);
		between = toggle;
		changes_within(3);
		check_seen(4, 0);
	}
	between = release;
	changes_within(3);
	check_seen(4, 0);
	CHECK_OK(patch_synchronize(-1));
	between = make_another;
	changes_within(3);
	check_seen(0, 0);
	between = release;
	changes_within(3);
	check_seen(4, 0);
	CHECK_OK(patch_synchronize(-1));
}

static void end_all(void)
{
	CHECK_OK(patch_fini());
}

static void do_nothing(void)
{
}

/* Calls pending at the end return as if nothing had been. */
static void finish_inside(void *unused)
{
	(void)unused;
	changed = make((void *)changes_within, PATCH_TRAP_POLICY_ALLOW);
	between = end_all;
	changes_within(3);
	check_seen(4, 0);
	between = do_nothing;
	changes_within(3);
	check_seen(0, 0);
}

/* ---- handlers, coroutines, forks --------------------------------------------------------------------------------- */

static unsigned int handled;

static void handle(int number)
{
	(void)number;
	++handled;
	if (handled < 40)
		CHECK_EQ(fib(5), 5);
}

NOINLINE static long raises(long n)
{
	raise(SIGUSR1);
	return n;
}

static void check_handlers(void)
{
	static uint8_t memory[1 << 16];
	stack_t stack = { .ss_sp = memory, .ss_size = sizeof(memory) };
	patch_t patches[] = { make((void *)fib, PATCH_TRAP_POLICY_ALLOW),
			      make((void *)raises, PATCH_TRAP_POLICY_ALLOW) };

	CONTEXT("handlers");
	REQUIRE(sigaltstack(&stack, NULL) == 0);
	for (unsigned int i = 0; i < 20; i++) {
		struct sigaction action = { .sa_handler = handle, .sa_flags = i % 2 ? SA_ONSTACK : 0 };

		REQUIRE(sigaction(SIGUSR1, &action, NULL) == 0);
		raises(5);
		CHECK_EQ(seen.entered, 1 + 15);
		CHECK_EQ(seen.returned, 1 + 15);
		forget_seen();
	}
	unmake(patches[0]);
	unmake(patches[1]);
}

#define COROUTINES 64
#define TURNS 58

static ucontext_t scheduler, coroutines[COROUTINES];
static unsigned int running;
static unsigned long coroutine_returns;

NOINLINE static long yields(long n)
{
	swapcontext(&coroutines[running], &scheduler);
	return n;
}

static void coroutine(void)
{
	for (unsigned int i = 0; i < TURNS; i++)
		yields(i);
	for (;;)
		swapcontext(&coroutines[running], &scheduler);
}

GP_ONLY static void count_returns(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	coroutine_returns += post;
}

static void *switch_all(void *unused)
{
	(void)unused;
	for (running = 0; running < COROUTINES; running++)
		swapcontext(&scheduler, &coroutines[running]);
	return NULL;
}

/* For the compiler getcontext() returns twice, so its caller has no variables that change. */
static void make_coroutine(ucontext_t *made, uint8_t *stack, size_t size)
{
	REQUIRE(getcontext(made) == 0);
	made->uc_stack.ss_sp = stack;
	made->uc_stack.ss_size = size;
	makecontext(made, coroutine, 0);
}

/* On adjacent stacks, which are moved to another thread at each turn. */
static void check_coroutines(void)
{
	static uint8_t stacks[COROUTINES][16384] __attribute__((aligned(4096)));
	patch_t patch;

	CONTEXT("coroutines");
	for (unsigned int i = 0; i < COROUTINES; i++)
		make_coroutine(&coroutines[i], stacks[i], sizeof(stacks[i]));
	REQUIRE_OK(try_make((void *)yields, count_returns, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_EXITS_ALL, &patch));
	REQUIRE_OK(patch_commit());
	for (unsigned int turn = 0; turn <= TURNS; turn++) {
		pthread_t thread;

		if (turn % 2 == 0) {
			switch_all(NULL);
			continue;
		}
		REQUIRE(pthread_create(&thread, NULL, switch_all, NULL) == 0);
		REQUIRE(pthread_join(thread, NULL) == 0);
	}
	CHECK_EQ(coroutine_returns, COROUTINES * TURNS);
	unmake(patch);
}

NOINLINE static long forks(long n)
{
	int status;
	pid_t child = fork();

	REQUIRE(child >= 0);
	if (child == 0)
		return -n;
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 0);
	return n;
}

static void check_forks(void)
{
	patch_t patch = make((void *)forks, PATCH_TRAP_POLICY_ALLOW);

	CONTEXT("fork");
	if (forks(5) < 0)
		_exit(seen.entered != 1 || seen.returned != 1 || seen.odd != 0);
	check_seen(1, 1);
	unmake(patch);
}

/* ---- several on one function ------------------------------------------------------------------------------------- */

static char order[64];

GP_ONLY static void note_order(struct patch_exec_context *context, uint8_t post)
{
	size_t at = strlen(order);

	if (at + 2 < sizeof(order)) {
		order[at] = *(const char *)context->user_data;
		order[at + 1] = post ? ')' : '(';
	}
}

static patch_t make_other(int type, uintptr_t address, const char *name)
{
	struct patch_location location = { .type = PATCH_LOCATION_ADDRESS, .address = address };
	struct patch_exec_model model = { .type = type };
	patch_t patch;

	model.probe.clobber_registers = PATCH_REGS_GP_ONLY;
	model.probe.procedure = note_order;
	model.probe.user_data = (void *)(uintptr_t)name;
	REQUIRE_OK(patch_make(&location, &model, NULL, &patch, NULL));
	CHECK_OK(patch_enable(patch));
	return patch;
}

static void expect_order(const char *expected)
{
	memset(order, 0, sizeof(order));
	CHECK_EQ(leaf(1), 2);
	CHECK_MSG(strcmp(order, expected) == 0, "%s, wanted %s", order, expected);
}

/* Whatever subset is enabled, and with other patches on the entry and on the exit. */
static void check_several(void)
{
	static const char *const names[] = { "a", "b", "c" };
	patch_t patches[3], others[3];

	CONTEXT("several");
	for (unsigned int i = 0; i < 3; i++)
		REQUIRE_OK(try_make((void *)leaf, note_order, (void *)(uintptr_t)names[i], PATCH_TRAP_POLICY_ALLOW,
				    PATCH_EXITS_ALL, &patches[i]));
	REQUIRE_OK(patch_commit());
	expect_order("a(b(c(c)b)a)");
	for (unsigned int round = 0; round < 64; round++) {
		unsigned int set = round * 5 % 8;
		char expected[32] = "";

		for (unsigned int i = 0; i < 3; i++) {
			CHECK_OK(set >> i & 1 ? patch_enable(patches[i]) : patch_disable(patches[i]));
			if (set >> i & 1)
				strcat(strcat(expected, names[i]), "(");
		}
		CHECK_OK(patch_commit());
		for (unsigned int i = 3; i-- > 0;)
			if (set >> i & 1)
				strcat(strcat(expected, names[i]), ")");
		expect_order(expected);
	}
	for (unsigned int i = 0; i < 3; i++)
		CHECK_OK(patch_enable(patches[i]));
	others[0] = make_other(PATCH_EXEC_MODEL_PROBE, (uintptr_t)leaf, "p");
	others[1] = make_other(PATCH_EXEC_MODEL_PROBE, (uintptr_t)leaf_end - 1, "q");
	others[2] = make_other(PATCH_EXEC_MODEL_PROBE_AROUND, (uintptr_t)leaf_end - 1, "r");
	CHECK_OK(patch_commit());
	memset(order, 0, sizeof(order));
	CHECK_EQ(leaf(1), 2);
	CHECK_MSG(strncmp(order, "a(b(c(p(", 8) == 0 && strstr(order, "q(") != NULL && strstr(order, "r(") != NULL &&
			  strstr(order, "r)") != NULL && strstr(order, "c)b)a)") != NULL && strlen(order) == 20,
		  "%s", order);
	for (unsigned int i = 0; i < 3; i++) {
		unmake(others[i]);
		unmake(patches[i]);
	}
	expect_order("");
}

/* ---- refusals ---------------------------------------------------------------------------------------------------- */

static void check_refusals(void)
{
	struct patch_info info;
	patch_t patch;

	CONTEXT("refusals");
	CHECK_STATUS(try_make((void *)undescribed, procedure, &located, PATCH_TRAP_POLICY_ALLOW, PATCH_EXITS_ALL,
			      &patch),
		     PATCH_ENOTSUP);
	CHECK_STATUS(try_make((void *)undescribed, procedure, &located, PATCH_TRAP_POLICY_ALLOW, PATCH_EXITS_KNOWN,
			      &patch),
		     PATCH_ENOTSUP);
	CHECK_STATUS(try_make((uint8_t *)leaf + 4, procedure, &located, PATCH_TRAP_POLICY_ALLOW, PATCH_EXITS_ALL,
			      &patch),
		     PATCH_ENOTSUP);
	CHECK_STATUS(try_make((void *)odd, procedure, &located, PATCH_TRAP_POLICY_ALLOW, PATCH_EXITS_ALL,
			      &patch),
		     PATCH_ENOTSUP);
	CHECK(strstr(harness_last_error(), "control runs on") != NULL);
	located = (uintptr_t)odd;
	REQUIRE_OK(try_make((void *)odd, procedure, &located, PATCH_TRAP_POLICY_ALLOW, PATCH_EXITS_KNOWN, &patch));
	REQUIRE_OK(patch_commit());
	CHECK_OK(patch_info(patch, &info, sizeof(info)));
	CHECK_EQ(info.exits, 1);
	CHECK_EQ(odd(0), 3);
	check_seen(1, 1);
	CHECK_EQ(odd(6), 7);
	check_seen(1, 0);
	unmake(patch);
	REQUIRE_OK(try_make((void *)two_rets, procedure, &located, PATCH_TRAP_POLICY_ALLOW, PATCH_EXITS_ALL, &patch));
	CHECK_OK(patch_info(patch, &info, sizeof(info)));
	CHECK_EQ(info.exits, 2);
	unmake(patch);
}

/* ---- under toggling ---------------------------------------------------------------------------------------------- */

#define RUNNERS 3

static unsigned long epoch; /* odd while patches change */
static unsigned int stop, wrong;

static void *run_forms(void *unused)
{
	unsigned long checked = 0;

	(void)unused;
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		for (size_t i = 0; i < FORMS; i++) {
			unsigned long before = __atomic_load_n(&epoch, __ATOMIC_SEQ_CST);
			long result;

			seen.entered = seen.returned = 0;
			result = forms[i].function(forms[i].argument);
			if (result != forms[i].result || seen.returned > seen.entered)
				__atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED);
			/* Nothing changed meanwhile: all returns were seen. */
			if (before % 2 != 0 || before != __atomic_load_n(&epoch, __ATOMIC_SEQ_CST))
				continue;
			++checked;
			if (seen.entered != seen.returned)
				__atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED);
		}
	}
	CHECK(checked > 0);
	CHECK_EQ(seen.odd, 0);
	return NULL;
}

static void check_toggled(unsigned int rounds, int policy)
{
	pthread_t threads[RUNNERS];
	patch_t patches[FORMS];
	uint64_t random = 1;

	CONTEXT("toggled, policy %d", policy);
	stop = 0;
	make_all(patches, policy);
	for (unsigned int i = 0; i < RUNNERS; i++)
		REQUIRE(pthread_create(&threads[i], NULL, run_forms, NULL) == 0);
	for (unsigned int round = 0; round < rounds; round++) {
		__atomic_fetch_add(&epoch, 1, __ATOMIC_SEQ_CST);
		for (size_t i = 0; i < FORMS; i++) {
			random = random * 6364136223846793005U + 1442695040888963407U;
			if (patches[i] == NULL)
				continue;
			CHECK_OK(random >> 60 < 8 ? patch_enable(patches[i]) : patch_disable(patches[i]));
		}
		CHECK_OK(patch_commit());
		__atomic_fetch_add(&epoch, 1, __ATOMIC_SEQ_CST);
		if (round % 16 == 0)
			sched_yield();
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (unsigned int i = 0; i < RUNNERS; i++)
		REQUIRE(pthread_join(threads[i], NULL) == 0);
	CHECK_EQ(wrong, 0);
	unmake_all(patches);
}

int main(void)
{
	static const int policies[] = { PATCH_TRAP_POLICY_ALLOW, PATCH_TRAP_POLICY_FORBID, PATCH_TRAP_POLICY_FORCE };

	harness_start();
	REQUIRE_OK(patch_init(NULL, 0));
	for (unsigned int i = 0; i < 3; i++) {
		check_ways(policies[i]);
		if (policies[i] != PATCH_TRAP_POLICY_FORBID)
			check_all_at_once(policies[i]);
	}
	check_results();
	check_longjmp();
	check_ends_of_threads();
	check_changes_inside();
	CHECK_EQ(harness_child(finish_inside, NULL), 0);
	check_handlers();
	check_coroutines();
	check_forks();
	check_several();
	check_refusals();
	check_toggled(3000, PATCH_TRAP_POLICY_ALLOW);
	check_toggled(3000, PATCH_TRAP_POLICY_FORCE);
	CHECK_OK(patch_fini());
	return harness_end();
}
