/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * PROBE_AROUND on every form of call, jump and return: the second call comes when the operands are read and, for a
 * call, the return address is pushed, before the first instruction of where it leads, and sees what that one sees. It
 * comes when the first call disables or unmakes its patch, when a handler does so in between, and when handlers in
 * between execute the same instruction; it never comes without a first call. An unwinder shows the instruction and its
 * caller.
 */
#include "harness.h"

#include <setjmp.h>
#include <stdatomic.h>
#include <sys/time.h>
#include <unwind.h>

#define TAG ((uint64_t)1 << 48) /* an address with it is none */

/* What the code below is told, and what it leaves of each execution. */
uint64_t tag __attribute__((used)), *table __attribute__((used));
uint64_t at_target[PATCH_ARCH_GREGS_COUNT + 1] __attribute__((used)); /* general_purpose_registers, then rsp */
uint64_t at_site_rsp __attribute__((used)), returns_to __attribute__((used)), reached __attribute__((used));
extern uint64_t rip_table[];
void around_callee(void);

#define STORE(register, index) "	mov %" #register ", at_target + 8 * " #index "(%rip)\n"
#define RECORD \
	STORE(rax, 0) STORE(rbx, 1) STORE(rcx, 2) STORE(rdx, 3) STORE(rsi, 4) STORE(rdi, 5) STORE(rbp, 6) STORE(r8, 7) \
	STORE(r9, 8) STORE(r10, 9) STORE(r11, 10) STORE(r12, 11) STORE(r13, 12) STORE(r14, 13) STORE(r15, 14) \
	STORE(rsp, 15) "	incq reached(%rip)\n"

/*
 * `setup` may use 32 bytes on the stack, rax, rcx, r10 and r11. At the instruction rax has the tag, which the first
 * call takes off and the second puts back; CF, ZF and OF are 0. `popped`: what the instruction takes off the stack.
 */
#define FORM(name, setup, instruction, popped) \
	__asm__(".text\n.p2align 6\n.type " #name ", @function\n" #name ":\n.cfi_startproc\n" \
		"	mov (%rsp), %r10\n	mov %r10, returns_to(%rip)\n" \
		"	push %rbx\n.cfi_adjust_cfa_offset 8\n.cfi_offset %rbx, -16\n" \
		"	sub $32, %rsp\n.cfi_adjust_cfa_offset 32\n" \
		"	xor %eax, %eax\n	mov $3, %ecx\n" setup \
		"	xor tag(%rip), %rax\n	mov %rsp, at_site_rsp(%rip)\n	test %esp, %esp\n" \
		#name "_site: " instruction "\n" \
		#name "_behind: cmpq $0, reached(%rip)\n	jne 1f\n" \
		#name "_land:\n.cfi_adjust_cfa_offset -" #popped "\n" RECORD \
		"1:	add $(32 - " #popped "), %rsp\n.cfi_adjust_cfa_offset -(32 - " #popped ")\n" \
		"	pop %rbx\n.cfi_adjust_cfa_offset -8\n	ret\n.cfi_endproc\n" \
		".size " #name ", . - " #name "\n.p2align 6, 0xcc\n"); \
	void name(void); \
	extern const uint8_t name##_site[], name##_behind[], name##_land[];

__asm__(".text\n.p2align 6\n.type around_callee, @function\naround_callee:\n.cfi_startproc\n" RECORD
	"	ret\n.cfi_endproc\n.size around_callee, . - around_callee\n"
	".data\n.p2align 12\nrip_table: .quad 0, 0\n.p2align 12\n.text\n");

/* Where the form leads is in table[1] and rip_table[0]. */
#define TABLE "	mov table(%rip), %rax\n"
#define TARGET TABLE "	mov 8(%rax), %rax\n"
#define ON_STACK "	mov table(%rip), %r10\n	mov 8(%r10), %r10\n	mov %r10, "
/* A tail call. The code behind the jump, with what it says to unwinders, is not reached. */
#define NO_FRAME "	add $32, %rsp\n.cfi_adjust_cfa_offset -32\n	pop %rbx\n.cfi_adjust_cfa_offset -8\n"

FORM(call_rel, "", "call around_callee", 0)
FORM(call_rax, TARGET, "call *%rax", 0)
FORM(call_r11, TARGET "	mov %rax, %r11\n", "call *%r11", 0)
FORM(call_notrack, TARGET, "notrack call *%rax", 0)
FORM(call_mem, TABLE, "call *8(%rax)", 0)
FORM(call_index, TABLE, "call *-16(%rax,%rcx,8)", 0)
FORM(call_rip, "", "call *rip_table(%rip)", 0)
FORM(call_rsp, ON_STACK "(%rsp)\n", "call *(%rsp)", 0)
FORM(call_rsp8, ON_STACK "8(%rsp)\n", "call *8(%rsp)", 0)
FORM(call_below, ON_STACK "-8(%rsp)\n", "call *-8(%rsp)", 0)
FORM(call_rsp_index, ON_STACK "24(%rsp)\n", "call *(%rsp,%rcx,8)", 0)
FORM(jmp_near, "", ".byte 0xe9; .long jmp_near_land - jmp_near_behind", 0)
FORM(jmp_short, "", "jmp jmp_short_land", 0)
FORM(jmp_tail, NO_FRAME, "jmp around_callee", 0)
FORM(jmp_rax, TARGET, "jmp *%rax", 0)
FORM(jmp_r11, TARGET "	mov %rax, %r11\n", "jmp *%r11", 0)
FORM(jmp_notrack, TARGET, "notrack jmp *%rax", 0)
FORM(jmp_mem, TABLE, "jmp *8(%rax)", 0)
FORM(jmp_index, TABLE, "jmp *-16(%rax,%rcx,8)", 0)
FORM(jmp_rip, "", "jmp *rip_table(%rip)", 0)
FORM(jmp_tail_mem, NO_FRAME TABLE, "jmp *8(%rax)", 0)
FORM(jmp_rsp, ON_STACK "(%rsp)\n", "jmp *(%rsp)", 0)
FORM(jmp_rsp8, ON_STACK "8(%rsp)\n", "jmp *8(%rsp)", 0)
FORM(jmp_below, ON_STACK "-120(%rsp)\n", "jmp *-120(%rsp)", 0)
FORM(jcc_taken, "", "jne jcc_taken_land", 0)
FORM(jcc_not_taken, "", "je jcc_not_taken_land", 0)
FORM(loop_taken, "", "loop loop_taken_land", 0)
FORM(loop_not_taken, "	mov $1, %ecx\n", "loop loop_not_taken_land", 0)
FORM(jrcxz_taken, "	xor %ecx, %ecx\n", "jrcxz jrcxz_taken_land", 0)
FORM(ret_near, ON_STACK "(%rsp)\n", "ret", 8)
FORM(ret_16, ON_STACK "(%rsp)\n", "ret $16", 24)
FORM(load, TABLE, "mov 8(%rax), %r11", 0)

enum leads { TO_CALLEE, TO_LAND, TO_TAIL, TO_BEHIND };
enum reads { NOTHING, OF_TABLE, OF_RIP }; /* where a read can fault */

static const struct form {
	const char *name;
	void (*function)(void);
	const uint8_t *site, *behind, *land;
	enum leads leads;
	enum reads reads;
} forms[] = {
#define F(name, leads, reads) { #name, name, name##_site, name##_behind, name##_land, leads, reads }
	F(call_rel, TO_CALLEE, NOTHING),      F(call_rax, TO_CALLEE, NOTHING),       F(call_r11, TO_CALLEE, NOTHING),
	F(call_notrack, TO_CALLEE, NOTHING),  F(call_mem, TO_CALLEE, OF_TABLE),      F(call_index, TO_CALLEE, OF_TABLE),
	F(call_rip, TO_CALLEE, OF_RIP),       F(call_rsp, TO_CALLEE, NOTHING),       F(call_rsp8, TO_CALLEE, NOTHING),
	F(call_below, TO_CALLEE, NOTHING),    F(call_rsp_index, TO_CALLEE, NOTHING), F(jmp_near, TO_LAND, NOTHING),
	F(jmp_short, TO_LAND, NOTHING),       F(jmp_tail, TO_TAIL, NOTHING),         F(jmp_rax, TO_LAND, NOTHING),
	F(jmp_r11, TO_LAND, NOTHING),         F(jmp_notrack, TO_LAND, NOTHING),      F(jmp_mem, TO_LAND, OF_TABLE),
	F(jmp_index, TO_LAND, OF_TABLE),      F(jmp_rip, TO_LAND, OF_RIP),           F(jmp_tail_mem, TO_TAIL, OF_TABLE),
	F(jmp_rsp, TO_LAND, NOTHING),         F(jmp_rsp8, TO_LAND, NOTHING),         F(jmp_below, TO_LAND, NOTHING),
	F(jcc_taken, TO_LAND, NOTHING),       F(jcc_not_taken, TO_BEHIND, NOTHING),  F(loop_taken, TO_LAND, NOTHING),
	F(loop_not_taken, TO_BEHIND, NOTHING), F(jrcxz_taken, TO_LAND, NOTHING),     F(ret_near, TO_LAND, NOTHING),
	F(ret_16, TO_LAND, NOTHING),          F(load, TO_BEHIND, OF_TABLE),
};
#define FORMS (sizeof(forms) / sizeof(*forms))

static const struct form *form;
static patch_t patch;
static unsigned int calls[2], faults, destroyed;
static struct patch_exec_context seen[2]; /* as the procedure has left it */
static uint64_t seen_reached, seen_top;
static void (*in_first)(void), (*in_second)(void), (*in_handler)(void);
static uint64_t move_to; /* by the first call */
static sigjmp_buf back;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	__atomic_fetch_add(&calls[post], 1, __ATOMIC_RELAXED);
	context->general_purpose_registers[PATCH_X86_64_RAX] ^= tag;
	seen[post] = *context;
	if (post) {
		seen_reached = reached;
		seen_top = *(const uint64_t *)context->stack_pointer;
	}
	if (!post && move_to != 0)
		context->program_counter = move_to;
	if (post ? in_second != NULL : in_first != NULL)
		(post ? in_second : in_first)();
}

static void destroy(void *user_data)
{
	(void)user_data;
	destroyed++;
}

static patch_t make(int policy)
{
	struct patch_location location = location_at((uintptr_t)form->site);
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE_AROUND, procedure, NULL);
	patch_attr attr = attr_of(policy, PATCH_ENABLED);
	patch_t made = NULL;

	model.probe.read_registers = model.probe.write_registers = PATCH_REGS_GP_ONLY;
	model.probe.clobber_registers = PATCH_REGS_ALL;
	model.probe.destroy = destroy;
	REQUIRE_OK(patch_make(&location, &model, &attr, &made, NULL));
	REQUIRE_OK(patch_commit());
	return made;
}

static void unmake(void)
{
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
}

static void disable(void)
{
	CHECK_OK(patch_disable(patch));
	CHECK_OK(patch_commit());
}

static void protect(int protection)
{
	if (form->reads != NOTHING)
		mprotect(form->reads == OF_TABLE ? (void *)table : (void *)rip_table, 4096, protection);
}

static NOINLINE void execute(void)
{
	calls[0] = calls[1] = 0;
	reached = 0;
	seen_reached = 1;
	form->function();
	__asm__ volatile("");
	CHECK_EQ(reached, 1);
}

static uint64_t leads_to(void)
{
	return form->leads == TO_LAND	? (uint64_t)form->land :
	       form->leads == TO_BEHIND ? (uint64_t)form->behind :
					  (uint64_t)around_callee;
}

static void check_pair(void)
{
	uint64_t pc = form->leads == TO_TAIL   ? (uint64_t)form->site :
		      form->leads == TO_CALLEE ? (uint64_t)form->behind :
						 leads_to();

	CHECK_EQ(calls[0], 1);
	CHECK_EQ(calls[1], 1);
	CHECK_EQ(seen[0].program_counter, (uintptr_t)form->site);
	CHECK_EQ(seen[0].stack_pointer, at_site_rsp);
	CHECK_EQ(seen_reached, 0);
	CHECK_EQ(seen[1].program_counter, pc);
	CHECK_EQ(seen[1].stack_pointer, at_target[PATCH_ARCH_GREGS_COUNT]);
	CHECK_EQ(seen[1].status_register, seen[0].status_register);
	if (form->leads == TO_CALLEE)
		CHECK_EQ(seen_top, (uintptr_t)form->behind);
	for (unsigned int r = 0; r < PATCH_ARCH_GREGS_COUNT; r++)
		CHECK_EQ(seen[1].general_purpose_registers[r], at_target[r]);
	CHECK_EQ(at_target[PATCH_X86_64_RAX] & TAG, tag);
}

static void check_none(void)
{
	uint64_t before = tag;

	tag = 0;
	execute();
	CHECK_EQ(calls[0], 0);
	CHECK_EQ(calls[1], 0);
	tag = before;
}

/* ---- the first call -------------------------------------------------------------------------------------------- */

static void with_policy(int policy)
{
	in_first = NULL;
	patch = make(policy);
	execute();
	check_pair();

	in_first = disable;
	execute();
	check_pair();
	in_first = NULL;
	check_none();
	CHECK_OK(patch_enable(patch));
	CHECK_OK(patch_commit());
	execute();
	check_pair();

	destroyed = 0;
	in_first = unmake;
	execute();
	check_pair();
	in_first = NULL;
	check_none();
	CHECK_OK(patch_synchronize(-1));
	CHECK_EQ(destroyed, 1);
}

/* The first call moves the thread: there is no second, and nothing is kept for one. */
static void moved_away(void)
{
	if (form->leads == TO_TAIL || form->function == ret_near || form->function == ret_16)
		return;
	patch = make(PATCH_TRAP_POLICY_ALLOW);
	move_to = (uintptr_t)form->land;
	execute();
	CHECK_EQ(calls[0], 1);
	CHECK_EQ(calls[1], 0);
	move_to = 0;
	destroyed = 0;
	unmake();
	CHECK_OK(patch_synchronize(-1));
	CHECK_EQ(destroyed, 1);
}

/* ---- unwinding from the second call ------------------------------------------------------------------------------ */

static bool at_instruction, at_caller;

static _Unwind_Reason_Code on_frame(struct _Unwind_Context *context, void *argument)
{
	int interrupted = 0;
	uintptr_t ip = (uintptr_t)_Unwind_GetIPInfo(context, &interrupted);
	const uint8_t *site = argument;

	at_caller |= at_instruction && ip == returns_to;
	at_instruction |= interrupted && ip == (uintptr_t)site;
	return _URC_NO_REASON;
}

static void look_for(const uint8_t *instruction)
{
	at_instruction = at_caller = false;
	_Unwind_Backtrace(on_frame, (void *)(uintptr_t)instruction);
}

static void look_before(void)
{
	look_for(form->site);
}

/* Behind any other instruction the program is at the next one. */
static void look(void)
{
	look_for(form->function == load ? form->behind : form->site);
}

static void unwinding(void)
{
	patch = make(PATCH_TRAP_POLICY_ALLOW);
	in_second = look;
	execute();
	check_pair();
	CHECK(at_instruction);
	CHECK(at_caller);
	in_first = look_before;
	in_second = NULL;
	execute();
	CHECK(at_caller);
	in_first = NULL;
	unmake();
}

/* ---- handlers in between ----------------------------------------------------------------------------------------- */

static void on_fault(int signo)
{
	(void)signo;
	faults++;
	protect(PROT_READ | PROT_WRITE);
	if (in_handler != NULL)
		in_handler();
}

/* The same instruction, and what was noted of it so far. */
static void again(void)
{
	unsigned int calls_before[2] = { calls[0], calls[1] };
	uint64_t site_before = at_site_rsp, return_before = returns_to;
	struct patch_exec_context seen_before = seen[0];

	for (unsigned int n = 0; n < 20; n++) {
		execute();
		check_pair();
	}
	calls[0] = calls_before[0];
	calls[1] = calls_before[1];
	at_site_rsp = site_before;
	returns_to = return_before;
	seen[0] = seen_before;
	reached = 0;
}

/* The patch is disabled, but its hooks are there: those of this execution are passed over, both. */
static void disable_and_again(void)
{
	unsigned int calls_before[2] = { calls[0], calls[1] };
	uint64_t site_before = at_site_rsp, return_before = returns_to;

	disable();
	check_none();
	calls[0] = calls_before[0];
	calls[1] = calls_before[1];
	at_site_rsp = site_before;
	returns_to = return_before;
	reached = 0;
}

/* Each leaves a pair above that of the interrupted instruction. */
static void jump_out(void)
{
	siglongjmp(back, 1);
}

static void again_and_out(void)
{
	static sigjmp_buf outer;

	memcpy(&outer, &back, sizeof(outer));
	in_handler = jump_out;
	for (volatile unsigned int n = 0; n < 5; n++) {
		protect(PROT_NONE);
		if (sigsetjmp(back, 1) == 0)
			form->function();
		CHECK_EQ(calls[1], 0);
	}
	memcpy(&back, &outer, sizeof(back));
	in_handler = again_and_out;
	calls[0] = 1;
}

static void faulting(void (*handler)(void))
{
	in_handler = handler;
	faults = 0;
	protect(PROT_NONE);
	execute();
	CHECK(faults > 0);
	in_handler = NULL;
}

static void idle(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static void interrupted(int flags)
{
	patch_t other; /* keeps the hooks of the first one in the text */
	struct sigaction action = { .sa_handler = on_fault, .sa_flags = SA_NODEFER | flags };

	sigaction(SIGSEGV, &action, NULL);
	REQUIRE_OK(make_probe((uintptr_t)form->site, idle, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &other));
	patch = make(PATCH_TRAP_POLICY_ALLOW);
	faulting(NULL);
	check_pair();
	faulting(again);
	check_pair();
	faulting(disable);
	check_pair();
	check_none();
	CHECK_OK(patch_enable(patch));
	CHECK_OK(patch_commit());
	faulting(disable_and_again);
	check_pair();
	check_none();
	CHECK_OK(patch_enable(patch));
	CHECK_OK(patch_commit());
	if (flags == 0) {
		faulting(again_and_out);
		CHECK_EQ(calls[1], 1);
		/* From a lower stack than this: nothing is left of those that were left. */
		execute();
	}
	destroyed = 0;
	faulting(unmake);
	check_pair();
	check_none();
	CHECK_OK(patch_synchronize(-1));
	CHECK_EQ(destroyed, 1);

	/* No second call where the handler does not return, then or later; and the next pair is whole. */
	patch = make(PATCH_TRAP_POLICY_ALLOW);
	in_handler = jump_out;
	protect(PROT_NONE);
	if (sigsetjmp(back, 1) == 0)
		execute();
	in_handler = NULL;
	CHECK_EQ(calls[0], 1);
	CHECK_EQ(calls[1], 0);
	disable();
	check_none();
	CHECK_OK(patch_enable(patch));
	CHECK_OK(patch_commit());
	execute();
	check_pair();
	destroyed = 0;
	unmake();
	CHECK_OK(patch_synchronize(-1));
	CHECK_EQ(destroyed, 1);
	CHECK_OK(patch_unmake(other));
	CHECK_OK(patch_commit());
}

static volatile sig_atomic_t ticks;

static void on_tick(int signo)
{
	uint64_t before = reached;

	(void)signo;
	ticks++;
	form->function();
	reached = before;
}

/* Wherever they come, first and second calls are as many. */
static void ticking(void)
{
	const struct itimerval often = { { 0, 100 }, { 0, 100 } }, never = { { 0, 0 }, { 0, 0 } };
	struct sigaction action = { .sa_handler = on_tick };

	patch = make(PATCH_TRAP_POLICY_ALLOW);
	sigaction(SIGALRM, &action, NULL);
	calls[0] = calls[1] = 0;
	tag = 0;
	ticks = 0;
	setitimer(ITIMER_REAL, &often, NULL);
	while (ticks < 20)
		form->function();
	setitimer(ITIMER_REAL, &never, NULL);
	atomic_signal_fence(memory_order_seq_cst); /* it is a leaf for the compiler: no handler runs in it */
	CHECK(calls[0] > 0);
	CHECK_EQ(calls[0], calls[1]);
	tag = TAG;
	unmake();
}

/* ---- others ------------------------------------------------------------------------------------------------------ */

static char order[8];
static unsigned int order_count;

static void note(struct patch_exec_context *context, uint8_t post)
{
	if (order_count < sizeof(order) - 1)
		order[order_count++] = (char)(*(const char *)context->user_data + (post ? 'A' - 'a' : 0));
	if (!post && in_first != NULL)
		in_first();
}

/* Several at one instruction: the second calls in reverse; one is disabled by another one. */
static void several(void)
{
	static const struct {
		void (*in_first)(void);
		const char *order;
	} cases[] = { { NULL, "abcCBA" }, { disable, "acCA" } };
	struct patch_location location = location_at((uintptr_t)form->site);
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE_AROUND, note, NULL);
	patch_attr attr = attr_of(PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED);
	patch_t patches[3];

	tag = 0;
	for (unsigned int n = 0; n < 3; n++) {
		model.probe.user_data = (void *)(uintptr_t)&"abc"[n];
		REQUIRE_OK(patch_make(&location, &model, &attr, &patches[n], NULL));
	}
	REQUIRE_OK(patch_commit());
	for (unsigned int n = 0; n < sizeof(cases) / sizeof(*cases); n++) {
		patch = patches[1];
		in_first = cases[n].in_first;
		order_count = 0;
		memset(order, 0, sizeof(order));
		execute();
		in_first = NULL;
		CHECK_MSG(strcmp(order, cases[n].order) == 0, "order %s, wanted %s", order, cases[n].order);
	}
	for (unsigned int n = 0; n < 3; n++)
		CHECK_OK(patch_unmake(patches[n]));
	CHECK_OK(patch_commit());
	tag = TAG;
}

/* Of its return PROBE_CALL tells, and only of a call's. */
static void returning(void)
{
	struct patch_location location = location_at((uintptr_t)form->site);
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE_CALL, procedure, NULL);
	patch_attr attr = attr_of(PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED);
	struct patch_error error;

	tag = 0;
	model.probe.read_registers = PATCH_REGS_GP_ONLY;
	if (form->leads != TO_CALLEE) {
		CHECK_STATUS(patch_make(&location, &model, &attr, &patch, NULL), PATCH_ENOTSUP);
		patch_last_error(&error);
		CHECK(strstr(error.message, "PROBE_AROUND") != NULL);
	} else {
		REQUIRE_OK(patch_make(&location, &model, &attr, &patch, NULL));
		REQUIRE_OK(patch_commit());
		execute();
		CHECK_EQ(calls[0], 1);
		CHECK_EQ(calls[1], 1);
		CHECK_EQ(seen_reached, 1);
		CHECK_EQ(seen[1].program_counter, (uintptr_t)form->behind);
		CHECK_EQ(seen[1].stack_pointer, at_site_rsp);
		unmake();
	}
	tag = TAG;
}

static void run_form(void *unused)
{
	static uint8_t alternate[1 << 17];
	const stack_t stack = { .ss_sp = alternate, .ss_size = sizeof(alternate) };

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	sigaltstack(&stack, NULL);
	table[1] = leads_to();
	rip_table[0] = table[1];
	with_policy(PATCH_TRAP_POLICY_ALLOW);
	with_policy(PATCH_TRAP_POLICY_FORCE);
	moved_away();
	unwinding();
	if (form->reads != NOTHING) {
		interrupted(0);
		interrupted(SA_ONSTACK);
	}
	ticking();
	several();
	returning();
	CHECK_OK(patch_fini());
}

/* A child in its parent's memory gets a second call, and so does the parent. */
pid_t raw_vfork(void);
extern const uint8_t raw_vfork_site[];
__asm__(".text\n.p2align 6\n.type raw_vfork, @function\nraw_vfork:\n.cfi_startproc\n"
	"	pop %rdi\n.cfi_adjust_cfa_offset -8\n.cfi_register %rip, %rdi\n	mov $58, %eax\n"
	"raw_vfork_site: syscall\n"
	"	push %rdi\n.cfi_adjust_cfa_offset 8\n.cfi_offset %rip, -8\n	ret\n.cfi_endproc\n"
	".size raw_vfork, . - raw_vfork\n.p2align 6, 0xcc\n");

static void of_vfork(void *unused)
{
	static const struct form syscall = { .site = raw_vfork_site };
	int status;
	pid_t child;

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	form = &syscall;
	tag = 0;
	patch = make(PATCH_TRAP_POLICY_ALLOW);
	child = raw_vfork();
	if (child == 0)
		_exit(0);
	CHECK(child > 0);
	waitpid(child, &status, 0);
	CHECK_EQ(calls[0], 1);
	CHECK_EQ(calls[1], 2);
	destroyed = 0;
	unmake();
	CHECK_OK(patch_synchronize(-1));
	CHECK_EQ(destroyed, 1);
	CHECK_OK(patch_fini());
}

int main(int argc, char **argv)
{
	harness_start();
	tag = TAG;
	table = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(table != MAP_FAILED);
	for (form = forms; form < forms + FORMS; form++)
		if (argc <= 1 || !strcmp(argv[1], form->name)) {
			CONTEXT("%s", form->name);
			harness_isolated(form->name, run_form, NULL);
		}
	if (argc <= 1)
		harness_isolated("vfork()", of_vfork, NULL);
	return harness_end();
}
