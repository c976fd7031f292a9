/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The program's stack overflows in what a hook needs of it: the hook's frame, the library, the procedure, what that
 * calls. The program's handler sees a fault of the instruction that the hook is on, with all registers the program's,
 * and may do what handlers of overflows do: leave by a jump, have the thread go on elsewhere with other registers, give
 * it more stack. Enumerated: how much stack there is, word by word, so that everything that is executed in a hook
 * overflows; models, masks, flags, numbers of patches, how the procedure was compiled, what the handler does. And with
 * a signal that was put off, and with a probe on what the procedure calls. Other faults are seen where they are.
 */
#include "harness.h"

#include <dlfcn.h>
#include <setjmp.h>
#include <ucontext.h>

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI };

uint64_t run_before[16] __attribute__((used)), run_after[16] __attribute__((used));
uint64_t run_flags __attribute__((used)), run_flags_after __attribute__((used)), run_kept __attribute__((used));
extern const uint8_t run_entry[], run_middle[], run_call[], run_last[], run_return[], run_leaf[], run_out[];

/* Calls run_entry with registers, flags and stack as above, and notes what there is behind it. */
void run(void);
#define EACH_BUT_RSP(what)                                                                                            \
	what(rax, 0) what(rcx, 8) what(rdx, 16) what(rbx, 24) what(rbp, 40) what(rsi, 48) what(rdi, 56) what(r8, 64)  \
	what(r9, 72) what(r10, 80) what(r11, 88) what(r12, 96) what(r13, 104) what(r14, 112) what(r15, 120)
#define LOAD(name, offset) "	mov run_before+" #offset "(%rip), %" #name "\n"
#define STORE(name, offset) "	mov %" #name ", run_after+" #offset "(%rip)\n"
__asm__(".text\n.p2align 6\n.type run, @function\nrun:\n"
	"	push %rbx\n	push %rbp\n	push %r12\n	push %r13\n	push %r14\n	push %r15\n"
	"	mov %rsp, run_kept(%rip)\n	push run_flags(%rip)\n	popfq\n"
	EACH_BUT_RSP(LOAD) LOAD(rsp, 32)
	"	call run_entry\n"
	"run_out:\n" EACH_BUT_RSP(STORE) STORE(rsp, 32)
	"	mov run_kept(%rip), %rsp\n	pushfq\n	pop run_flags_after(%rip)\n	cld\n"
	"	pop %r15\n	pop %r14\n	pop %r13\n	pop %r12\n	pop %rbp\n	pop %rbx\n	ret\n"
	".size run, . - run\n"
	".p2align 4\n.type run_entry, @function\nrun_entry:\n.cfi_startproc\n	lea 0x11111(%rdx), %rdx\n"
	"run_middle:	lea 0x22222(%rbx), %rbx\n"
	"run_call:	call run_leaf\n"
	"run_last:	lea 0x33333(%rbp), %rbp\n"
	"run_return:	ret\n.cfi_endproc\n.size run_entry, . - run_entry\n"
	".p2align 4\n.type run_leaf, @function\nrun_leaf:\n.cfi_startproc\n	nopl 0x12345(%rax)\n	ret\n"
	".cfi_endproc\n.size run_leaf, . - run_leaf\n");

/* ---- the stack -------------------------------------------------------------------------------------------------- */

#define GUARD_SIZE 65536
#define ROOM 65536
#define NEEDED 24 /* by the program */
static uint8_t *stack; /* its lower end, below which is the guard */

static void set_guard(int protection)
{
	REQUIRE(mprotect(stack - GUARD_SIZE, GUARD_SIZE, protection) == 0);
}

static void set_up(void)
{
	static uint8_t signals[65536];
	const stack_t alternate = { .ss_sp = signals, .ss_size = sizeof(signals) };

	stack = mmap(NULL, GUARD_SIZE + ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(stack != MAP_FAILED && sigaltstack(&alternate, NULL) == 0);
	stack += GUARD_SIZE;
	set_guard(PROT_NONE);
	for (unsigned int i = 0; i < 16; i++)
		run_before[i] = 0x1010101010101010U * i + 0x123456789;
}

/* ---- what the program has where --------------------------------------------------------------------------------- */

static uint64_t general(const greg_t *registers, unsigned int number)
{
	static const uint8_t places[] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
					  REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };

	return (uint64_t)registers[places[number]];
}

static uint64_t expected(unsigned int number, const uint8_t *pc)
{
	uint64_t value = run_before[number];

	if (pc == run_out)
		return number == RSP ? value : expected(number, run_return);
	if (number == RDX)
		value += pc > run_entry ? 0x11111 : 0;
	else if (number == RBX)
		value += pc > run_middle ? 0x22222 : 0;
	else if (number == RBP)
		value += pc == run_return ? 0x33333 : 0;
	else if (number == RSP)
		value -= pc == run_leaf ? 16 : 8;
	return value;
}

#define STATUS_FLAGS 0x8d5
#define DIRECTION_FLAG 0x400
#define FLAGS (STATUS_FLAGS | DIRECTION_FLAG)

/* ---- the procedure ---------------------------------------------------------------------------------------------- */

static volatile unsigned int calls, wrong_results;
static volatile int depth;
static uint8_t acts; /* on this call */

#if defined(__clang__)
#define UNOPTIMIZED __attribute__((optnone))
#else
#define UNOPTIMIZED __attribute__((optimize("O0")))
#endif
#define DEEP(name, ...)                                                                                               \
	__VA_ARGS__ GP_ONLY NOINLINE static long name(long n, long a, long b, long c)                                 \
	{                                                                                                             \
		volatile long frame[40];                                                                              \
		long below = 0;                                                                                       \
                                                                                                                      \
		frame[0] = a;                                                                                         \
		frame[39] = b;                                                                                        \
		if (n > 0)                                                                                            \
			below = name(n - 1, a + 3, b ^ c, c * 3);                                                     \
		return below * 5 + frame[0] + frame[39] * 3 + c;                                                      \
	}                                                                                                             \
	__VA_ARGS__ GP_ONLY static void procedure_##name(struct patch_exec_context *context, uint8_t post)            \
	{                                                                                                             \
		calls++;                                                                                              \
		if (post == acts && name(depth, 1, 2, 3) != (long)(intptr_t)context->user_data)                       \
			wrong_results++;                                                                              \
	}
DEEP(optimized, )
DEEP(unoptimized, UNOPTIMIZED)

static void procedure_wild(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	*(volatile int *)context->user_data = 1;
}

static long model_result(long n, long a, long b, long c)
{
	return (n > 0 ? 5 * model_result(n - 1, a + 3, b ^ c, c * 3) : 0) + a + 3 * b + c;
}

/* ---- the handler ------------------------------------------------------------------------------------------------ */

enum way { JUMPS, EDITS, GIVES_STACK, REFUSES };
static const char *const way_names[] = { "jumps", "edits", "gives stack", "refuses" };
static enum way way;
static sigjmp_buf out;
static volatile unsigned int faults;
static const uint8_t *volatile seen;

static void on_fault(int signo, siginfo_t *info, void *data);

static void set_handler(void)
{
	const struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK };

	REQUIRE(sigaction(SIGSEGV, &action, NULL) == 0);
}

static void check_address(uintptr_t address, uintptr_t stack_pointer)
{
	/* The second time it is one that handlers take for an overflow that look at the stack pointer. */
	if (way == REFUSES && faults == 2)
		CHECK(address % 8 == 0 && address < stack_pointer && address >= stack_pointer - 128);
	else
		CHECK(address < (uintptr_t)stack && address >= (uintptr_t)stack - GUARD_SIZE);
}

static void on_fault(int signo, siginfo_t *info, void *data)
{
	greg_t *registers = ((ucontext_t *)data)->uc_mcontext.gregs;

	seen = (const uint8_t *)registers[REG_RIP];
	faults++;
	check_address((uintptr_t)info->si_addr, (uintptr_t)registers[REG_RSP]);
	for (unsigned int i = 0; i < 16; i++)
		CHECK_EQ(general(registers, i), expected(i, seen));
	CHECK_EQ(registers[REG_EFL] & FLAGS, run_flags & FLAGS);
	switch (way) {
	case JUMPS:
		siglongjmp(out, 1);
	case EDITS:
		registers[REG_RIP] = (greg_t)run_out;
		registers[REG_R12] = 0x4242;
		registers[REG_RAX] = 0x4343;
		break;
	case GIVES_STACK:
		set_guard(PROT_READ | PROT_WRITE);
		break;
	case REFUSES:
		if (faults == 2)
			siglongjmp(out, 1);
		signal(signo, SIG_DFL);
		break;
	}
}

/* ---- each instruction that uses the stack ------------------------------------------------------------------------ */

struct kind {
	const char *name;
	int type;
	const uint8_t *site;
	uint8_t acts;
	const uint8_t *shown[2]; /* where the overflow may be seen, by which call it is in */
};

static const struct kind kinds[] = {
	{ "PROBE at entry", PATCH_EXEC_MODEL_PROBE, run_entry, 0, { run_entry, NULL } },
	{ "PROBE in the middle", PATCH_EXEC_MODEL_PROBE, run_middle, 0, { run_middle, NULL } },
	{ "PROBE at a return", PATCH_EXEC_MODEL_PROBE, run_return, 0, { run_return, NULL } },
	{ "AROUND, first call", PATCH_EXEC_MODEL_PROBE_AROUND, run_middle, 0, { run_middle, run_call } },
	{ "AROUND, second call", PATCH_EXEC_MODEL_PROBE_AROUND, run_middle, 1, { run_middle, run_call } },
	{ "AROUND of a call", PATCH_EXEC_MODEL_PROBE_AROUND, run_call, 1, { run_call, run_leaf } },
	{ "RETURN, first call", PATCH_EXEC_MODEL_PROBE_RETURN, run_entry, 0, { run_entry, run_return } },
	{ "RETURN, second call", PATCH_EXEC_MODEL_PROBE_RETURN, run_entry, 1, { run_entry, run_return } },
	{ "CALL, second call", PATCH_EXEC_MODEL_PROBE_CALL, run_call, 1, { run_call, run_last } },
};

static void check_end(const uint8_t *left_at)
{
	CHECK_EQ(run_flags_after & FLAGS, run_flags & FLAGS);
	for (unsigned int i = 0; i < 16; i++) {
		const uint64_t edited = i == 12 ? 0x4242 : i == RAX ? 0x4343 : expected(i, left_at);

		CHECK_EQ(run_after[i], left_at == run_out ? expected(i, run_out) : edited);
	}
}

static void expect_nothing(void)
{
}

static void (*expect_more)(void) = expect_nothing;

/* One call on so much stack. Returns whether it was too little. */
static bool run_on(size_t room)
{
	calls = faults = wrong_results = 0;
	run_before[RSP] = (uintptr_t)stack + room;
	if (sigsetjmp(out, 1) == 0) {
		run();
		check_end(faults != 0 && way == EDITS ? seen : run_out);
	} else {
		CHECK(way == JUMPS || way == REFUSES);
	}
	if (faults != 0 && way == GIVES_STACK)
		set_guard(PROT_NONE);
	CHECK_EQ(wrong_results, 0);
	expect_more();
	CHECK(faults <= (way == REFUSES ? 2 : 1));
	if (way == REFUSES && faults != 0) {
		CHECK_EQ(faults, 2);
		set_handler();
	}
	return faults != 0;
}

/* Nor in that of those that are deeper on the stack, if there is some. */
static void check_deeper(size_t room, unsigned int all)
{
	CHECK(run_on(room));
	set_guard(PROT_READ | PROT_WRITE);
	CHECK(!run_on(room - 2048));
	CHECK_EQ(calls, all);
	set_guard(PROT_NONE);
}

static unsigned int overflows[2]; /* by which call they are in */

static void sweep(const struct kind *kind, unsigned int number)
{
	const unsigned int all = number * (kind->type == PATCH_EXEC_MODEL_PROBE ? 1 : 2);
	size_t room = NEEDED;
	const int before = harness_failures;

	for (; room < ROOM / 2 && run_on(room) && harness_failures == before; room += 8) {
		const unsigned int second = seen == kind->shown[1];

		if (!second)
			CHECK_EQ((uintptr_t)seen, (uintptr_t)kind->shown[0]);
		overflows[second]++;
		if (way == GIVES_STACK)
			CHECK_EQ(calls, all);
		/* The hook that was left does not stand in the way of others. */
		if (room % 64 == 0) {
			CHECK(!run_on(ROOM));
			CHECK_EQ(calls, all);
		}
		if (room % 64 == 8 && way == EDITS)
			check_deeper(room, all);
	}
	CHECK(!run_on(ROOM));
	CHECK_EQ(calls, all);
}

static const uint64_t masks[] = { PATCH_REGS_GP_ONLY, PATCH_REGS_ALL, PATCH_REGS_VECTOR | PATCH_REGS_GP_ONLY };

static uint32_t stack_kind = PATCH_STACK_PROGRAM;

static patch_t make(const uint8_t *site, int type, probe_procedure procedure, void *user_data, uint64_t mask)
{
	struct patch_exec_model model = model_of(type, procedure, user_data);
	struct patch_location location = location_at((uintptr_t)site);
	patch_attr attr = attr_of(PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED);
	patch_t patch;

	model.probe.clobber_registers = mask;
	attr.stack = stack_kind;
	REQUIRE_OK(patch_make(&location, &model, &attr, &patch, NULL));
	return patch;
}

static void *result(void)
{
	return (void *)(intptr_t)model_result(depth, 1, 2, 3);
}

static void with_handlers(const struct kind *kind, unsigned int number, uint64_t mask, probe_procedure procedure,
			  const char *name)
{
	static const uint64_t flags[] = { STATUS_FLAGS, DIRECTION_FLAG, 0 };
	patch_t patches[3];

	acts = kind->acts;
	for (unsigned int i = 0; i < number; i++)
		patches[i] = make(kind->site, kind->type, procedure, result(), mask);
	REQUIRE_OK(patch_commit());
	for (way = JUMPS; way <= REFUSES; way++) {
		run_flags = flags[(way + (unsigned int)depth) % 3];
		CONTEXT("%s, %u patches, mask %#llx, %s, depth %d, flags %#llx, handler %s", kind->name, number,
			(unsigned long long)mask, name, depth, (unsigned long long)run_flags, way_names[way]);
		sweep(kind, number);
	}
	for (unsigned int i = 0; i < number; i++)
		CHECK_OK(patch_unmake(patches[i]));
	CHECK_OK(patch_commit());
}

static void with_patches(const struct kind *kind, unsigned int number, uint64_t mask, bool is_optimized)
{
	with_handlers(kind, number, mask, is_optimized ? procedure_optimized : procedure_unoptimized,
		      is_optimized ? "optimized" : "unoptimized");
}

static void all_of_kind(void *data)
{
	const struct kind *kind = data;

	REQUIRE_OK(patch_init(NULL, 0));
	for (size_t m = 0; m < sizeof(masks) / sizeof(masks[0]); m++) {
		static const int depths[] = { 0, 1, 5 };

		for (size_t d = 0; d < 3; d++) {
			depth = depths[d];
			with_patches(kind, d == 1 ? 3 : 1, masks[m], d != 2);
			with_patches(kind, d == 1 ? 1 : 3, masks[m], d == 2);
		}
	}
	CHECK(overflows[kind->acts] > 200);
	CHECK_OK(patch_fini());
}

/* ---- others ----------------------------------------------------------------------------------------------------- */

static pid_t raiser;
static volatile unsigned int raised, handled, handled_in_procedure;

static bool is_in(const uint8_t *pc, const void *function)
{
	return (uintptr_t)pc - (uintptr_t)function < 256;
}

static void procedure_raising(struct patch_exec_context *context, uint8_t post);

static void on_raised(int signo, siginfo_t *info, void *data)
{
	const uint8_t *pc = (const uint8_t *)((ucontext_t *)data)->uc_mcontext.gregs[REG_RIP];

	(void)signo;
	(void)info;
	handled++;
	handled_in_procedure += is_in(pc, procedure_raising) || is_in(pc, procedure_optimized) || is_in(pc, optimized);
}

/* Without more stack: by a system call that is not mediated, because its number is there to see. */
static void procedure_raising(struct patch_exec_context *context, uint8_t post)
{
	raised++;
	__asm__ volatile("mov %0, %%eax\n\tsyscall"
			 :
			 : "i"(SYS_tkill), "D"((long)raiser), "S"((long)SIGUSR1)
			 : "rax", "rcx", "r11", "memory");
	procedure_optimized(context, post);
}

/* System calls that are mediated. */
static void procedure_calling(struct patch_exec_context *context, uint8_t post)
{
	sigset_t none, before;

	sigemptyset(&none);
	if (sigprocmask(SIG_SETMASK, &none, &before) != 0 || sigprocmask(SIG_SETMASK, &before, NULL) != 0)
		wrong_results++;
	procedure_optimized(context, post);
}

static void expect_handled(void)
{
	CHECK_EQ(handled_in_procedure, 0);
	/* Behind a jump the last one comes at the next hook. */
	CHECK(handled == raised || (faults != 0 && (way == JUMPS || way == REFUSES) && handled + 1 == raised));
}

/* The call of the hook returns to a stub, which unblocks the signal. */
static void signal_put_off(void *unused)
{
	const struct sigaction action = { .sa_sigaction = on_raised, .sa_flags = SA_SIGINFO | SA_ONSTACK };

	(void)unused;
	REQUIRE(sigaction(SIGUSR1, &action, NULL) == 0);
	REQUIRE_OK(patch_init(NULL, 0));
	expect_more = expect_handled;
	raiser = getpid();
	depth = 1;
	for (size_t i = 0; i < 3; i++)
		with_handlers(&kinds[i], 1, PATCH_REGS_ALL, procedure_raising, "raising");
	CHECK_OK(patch_fini());
}

static void calls_mediated(void *unused)
{
	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	depth = 1;
	for (size_t i = 0; i < 3; i++)
		with_handlers(&kinds[i], 1, PATCH_REGS_ALL, procedure_calling, "calling");
	CHECK_OK(patch_fini());
}

/* Its hook is passed over, and asks the library. */
static void callee_probed(void *unused)
{
	patch_t patch;

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	depth = 1;
	patch = make((const uint8_t *)(uintptr_t)optimized, PATCH_EXEC_MODEL_PROBE, procedure_unoptimized, result(),
		     PATCH_REGS_ALL);
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		with_handlers(&kinds[i], 1, PATCH_REGS_ALL, procedure_optimized, "probed");
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
	CHECK_OK(patch_fini());
}

static const uint8_t *volatile wild_at;
static volatile uintptr_t wild_address;

static void on_wild(int signo, siginfo_t *info, void *data)
{
	(void)signo;
	wild_at = (const uint8_t *)((ucontext_t *)data)->uc_mcontext.gregs[REG_RIP];
	wild_address = (uintptr_t)info->si_addr;
	siglongjmp(out, 1);
}

static const struct sigaction wild = { .sa_sigaction = on_wild, .sa_flags = SA_SIGINFO | SA_ONSTACK };

static void other_fault(void *unused)
{
	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE(sigaction(SIGSEGV, &wild, NULL) == 0);
	make(run_entry, PATCH_EXEC_MODEL_PROBE, procedure_wild, (void *)16, PATCH_REGS_ALL);
	REQUIRE_OK(patch_commit());
	run_before[RSP] = (uintptr_t)stack + ROOM;
	if (sigsetjmp(out, 1) == 0)
		run();
	CHECK(is_in(wild_at, procedure_wild));
	CHECK_EQ(wild_address, 16);
	CHECK_OK(patch_fini());
}

/* A stack of the thread's own that overflows is the procedure's fault, too. */
static void own_stack(void *unused)
{
	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE(sigaction(SIGSEGV, &wild, NULL) == 0);
	stack_kind = PATCH_STACK_OWN;
	depth = 1 << 20;
	make(run_entry, PATCH_EXEC_MODEL_PROBE, procedure_optimized, NULL, PATCH_REGS_ALL);
	REQUIRE_OK(patch_commit());
	run_before[RSP] = (uintptr_t)stack + ROOM;
	if (sigsetjmp(out, 1) == 0)
		run();
	CHECK(is_in(wild_at, optimized));
	CHECK_OK(patch_fini());
}

static unsigned int *refusals; /* shared */

static void on_refused(int signo, siginfo_t *info, void *data)
{
	(void)info;
	(void)data;
	++*refusals;
	signal(signo, SIG_DFL);
}

static void refuse(void *unused)
{
	const struct sigaction action = { .sa_sigaction = on_refused, .sa_flags = SA_SIGINFO | SA_ONSTACK };

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE(sigaction(SIGSEGV, &action, NULL) == 0);
	make(run_entry, PATCH_EXEC_MODEL_PROBE, procedure_optimized, NULL, PATCH_REGS_ALL);
	REQUIRE_OK(patch_commit());
	depth = 1;
	run();
}

/* A handler that refuses whatever it is shown has the process end, as without. */
static void refused_for_good(void *unused)
{
	(void)unused;
	refusals = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(refusals != MAP_FAILED);
	/* In the hook's frame, in a call. */
	for (size_t room = 256; room <= 768; room += 512) {
		int status;

		run_before[RSP] = (uintptr_t)stack + room;
		*refusals = 0;
		status = harness_child(refuse, NULL);
		CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
		CHECK_EQ(*refusals, 2);
	}
}

static volatile size_t taken;

static void on_measure(int signo, siginfo_t *info, void *data)
{
	const stack_t *stack_of_signals = &((ucontext_t *)data)->uc_stack;

	(void)signo;
	(void)info;
	taken = (size_t)((char *)stack_of_signals->ss_sp + stack_of_signals->ss_size - (char *)data);
}

/* Where there is no room for unwinding, either, the fault is seen in the procedure. */
static void small_signal_stack(void *unused)
{
	static uint8_t signals[16384];
	const struct sigaction measure = { .sa_sigaction = on_measure, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	stack_t small = { .ss_sp = signals };

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE(sigaction(SIGUSR2, &measure, NULL) == 0 && raise(SIGUSR2) == 0);
	small.ss_size = taken + 3600;
	REQUIRE(taken + 3600 <= sizeof(signals) && sigaltstack(&small, NULL) == 0);
	REQUIRE(sigaction(SIGSEGV, &wild, NULL) == 0);
	make(run_entry, PATCH_EXEC_MODEL_PROBE, procedure_optimized, NULL, PATCH_REGS_GP_ONLY);
	REQUIRE_OK(patch_commit());
	run_before[RSP] = (uintptr_t)stack + 1024;
	depth = 10;
	if (sigsetjmp(out, 1) == 0)
		run();
	CHECK(wild_at < run_entry || wild_at > run_leaf + 16);
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	if (dlsym(RTLD_DEFAULT, "_dl_find_object") == NULL)
		SKIP("libc has no _dl_find_object()");
	set_up();
	set_handler();
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		harness_isolated(kinds[i].name, all_of_kind, (void *)(uintptr_t)&kinds[i]);
	harness_isolated("a signal put off", signal_put_off, NULL);
	harness_isolated("calls that are mediated", calls_mediated, NULL);
	harness_isolated("a probe in the procedure", callee_probed, NULL);
	harness_isolated("another fault", other_fault, NULL);
	harness_isolated("a stack of the thread's own", own_stack, NULL);
	harness_isolated("refused for good", refused_for_good, NULL);
	harness_isolated("a small stack of signals", small_signal_stack, NULL);
	return harness_end();
}
