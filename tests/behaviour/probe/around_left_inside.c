/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * PROBE_AROUND at an instruction that a handler has interrupted. The handler executes the instruction, too, which
 * faults, and is left for another place in the same handler; so that execution has no second calls. The interrupted one
 * has those of its own first calls, whatever was opened and closed in between.
 */
#include "targets.h"

#include <setjmp.h>
#include <sys/mman.h>

uint64_t site_load(const uint64_t *from), site_push(const uint64_t *from), site_pop(uint64_t *to),
	site_call(const uintptr_t *callee);
extern const uint8_t site_load_insn[], site_push_insn[], site_pop_insn[], site_call_insn[];

/* The instruction, then one that keeps its code in the text. */
#define SITE(name, setup, instruction, end) \
	__asm__(".text\n.p2align 6, 0xcc\n.globl " #name "\n.type " #name ", @function\n" #name ":\n.cfi_startproc\n" \
		setup #name "_insn: " instruction "\n nop\n nop\n nop\n nop\n nop\n" end \
		" ret\n.cfi_endproc\n.size " #name ", . - " #name "\n.p2align 6, 0xcc\n")

SITE(site_load, "", "mov (%rdi), %rax", "");
SITE(site_push, "", "push (%rdi)", " pop %rax\n");
SITE(site_pop, " push $1\n .cfi_adjust_cfa_offset 8\n", "pop (%rdi)", ".cfi_adjust_cfa_offset -8\n mov (%rdi), %rax\n");
SITE(site_call, " sub $8, %rsp\n .cfi_adjust_cfa_offset 8\n", "call *(%rdi)",
     " add $8, %rsp\n.cfi_adjust_cfa_offset -8\n");

static uint64_t one(void)
{
	return 1;
}

static const struct form {
	const char *name;
	uint64_t (*function)(const uint64_t *page);
	const uint8_t *insn;
	uint8_t length;
} forms[] = {
	{ "mov", site_load, site_load_insn, 3 },
	{ "push", site_push, site_push_insn, 2 },
	{ "pop", (uint64_t (*)(const uint64_t *))site_pop, site_pop_insn, 2 },
	{ "call", (uint64_t (*)(const uint64_t *))site_call, site_call_insn, 2 },
};

static const struct form *form;
static uint64_t *page;
static patch_t patches[2];
static unsigned int calls[2][2]; /* by patch, by `post` */
static int depth;
static sigjmp_buf inner;
static void (*in_handler)(void);

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	calls[(uintptr_t)context->user_data][post]++;
}

static void neighbour(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static void open_patch(size_t which, bool open)
{
	CHECK_OK(open ? patch_enable(patches[which]) : patch_disable(patches[which]));
	CHECK_OK(patch_commit());
}

static void execute_and_leave(void)
{
	if (sigsetjmp(inner, 1) == 0)
		form->function(page);
	depth = 1;
}

static void on_fault(int signo)
{
	(void)signo;
	if (++depth > 1)
		siglongjmp(inner, 1);
	in_handler();
	REQUIRE(mprotect(page, 4096, PROT_READ | PROT_WRITE) == 0);
}

static void interrupted(void (*handler)(void))
{
	in_handler = handler;
	depth = 0;
	memset(calls, 0, sizeof(calls));
	REQUIRE(mprotect(page, 4096, PROT_NONE) == 0);
	CHECK_EQ(form->function(page), 1);
	CHECK_EQ(depth, 1);
}

static void check_calls(size_t which, unsigned int first, unsigned int second)
{
	CHECK_EQ(calls[which][0], first);
	CHECK_EQ(calls[which][1], second);
}

/* Each is alone there, with a record of its own. */
static void other_opened(void)
{
	open_patch(0, false);
	open_patch(1, true);
	execute_and_leave();
}

static void both_opened(void)
{
	open_patch(1, true);
	execute_and_leave();
}

static void one_closed(void)
{
	open_patch(0, false);
	execute_and_leave();
}

static void one_opened(void)
{
	open_patch(0, true);
	execute_and_leave();
}

/* Its own first hook is passed over, after which there are executions above it that are not. */
static void closed_then_opened(void)
{
	open_patch(0, false);
	if (sigsetjmp(inner, 1) == 0)
		form->function(page);
	depth = 1;
	open_patch(0, true);
	execute_and_leave();
}

static void run_form(void *unused)
{
	const int flags[] = { SA_NODEFER, SA_NODEFER | SA_ONSTACK };
	static uint8_t alternate[1 << 17];
	const stack_t stack = { .ss_sp = alternate, .ss_size = sizeof(alternate) };
	struct patch_location location = location_at((uintptr_t)form->insn);
	patch_attr attr = attr_of(PATCH_TRAP_POLICY_ALLOW, PATCH_DISABLED);
	patch_t other;

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE(sigaltstack(&stack, NULL) == 0);
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(page != MAP_FAILED);
	page[0] = form->function == forms[3].function ? (uintptr_t)one : 1;
	for (uintptr_t i = 0; i < 2; i++) {
		struct patch_exec_model model =
			model_of(PATCH_EXEC_MODEL_PROBE_AROUND, procedure, (void *)i);

		REQUIRE_OK(patch_make(&location, &model, &attr, &patches[i], NULL));
	}
	REQUIRE_OK(make_probe((uintptr_t)form->insn + form->length, neighbour, NULL, PATCH_TRAP_POLICY_ALLOW,
			      PATCH_ENABLED, &other));
	REQUIRE_OK(patch_commit());
	for (size_t i = 0; i < 2; i++) {
		struct sigaction action = { .sa_handler = on_fault, .sa_flags = flags[i] };

		CONTEXT("%s, %s stack", form->name, i == 0 ? "the same" : "another");
		REQUIRE(sigaction(SIGSEGV, &action, NULL) == 0);
		open_patch(0, true);
		interrupted(other_opened);
		check_calls(0, 1, 1);
		check_calls(1, 1, 0);

		open_patch(0, true);
		open_patch(1, false);
		interrupted(both_opened);
		check_calls(0, 2, 1);
		check_calls(1, 1, 0);

		interrupted(one_closed);
		check_calls(0, 1, 1);
		check_calls(1, 2, 1);

		open_patch(1, false);
		interrupted(one_opened);
		check_calls(0, 1, 0);
		check_calls(1, 0, 0);

		interrupted(closed_then_opened);
		check_calls(0, 2, 1);

		/* Nothing is left that an execution as high on the stack could find. */
		memset(calls, 0, sizeof(calls));
		for (unsigned int n = 0; n < 20; n++)
			form->function(page);
		check_calls(0, 20, 20);
		open_patch(0, false);
		form->function(page);
		check_calls(0, 20, 20);
	}
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	for (form = forms; form < forms + sizeof(forms) / sizeof(*forms); form++)
		harness_isolated(form->name, run_form, NULL);
	return harness_end();
}
