/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A program may have AC set when a signal comes, and the kernel leaves it set for the handler: what the library does
 * there, and where the handler has returned, reads words that are not aligned. A function with AC set faults where it
 * reads such a word itself, is stepped through instruction by instruction, generated code included, and makes a system
 * call that a filter turns into a signal. The handler has AC set as it would without the library, and so has what it
 * returns to; also when there is something to be done at its end.
 */
#include "harness.h"
#include "seccomp.h"

#define AC 0x40000
#define TF 0x100

/* Reads a word at rdi. */
__asm__(".text\n.balign 16\n.type checked_function, @function\nchecked_function:\n.cfi_startproc\n"
	"lea 4(%rdi), %rax\nmov -4(%rax), %eax\nchecked_behind:\nadd $1, %eax\nret\n"
	".cfi_endproc\n.size checked_function, . - checked_function\n");
extern uint8_t checked_function[], checked_behind[];
#define READ (checked_function + 4)

static int words[4] __attribute__((aligned(16))) = { 6, 6, 6, 6 };
static volatile unsigned int hits, faults, steps, filtered;
static volatile uint64_t program_without, handler_without;

static GP_ONLY void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	hits += 1 + post;
}

static GP_ONLY void note_flags(const ucontext_t *context)
{
	program_without |= ~(uint64_t)context->uc_mcontext.gregs[REG_EFL] & AC;
	handler_without |= ~__builtin_ia32_readeflags_u64() & AC;
}

static GP_ONLY void on_fault(int signo, siginfo_t *info, void *context)
{
	ucontext_t *frame = context;

	(void)signo;
	note_flags(frame);
	if (info->si_code == BUS_ADRALN && frame->uc_mcontext.gregs[REG_RIP] == (greg_t)READ)
		faults++;
	frame->uc_mcontext.gregs[REG_RAX] = 6;
	frame->uc_mcontext.gregs[REG_RIP] = (greg_t)checked_behind;
}

static GP_ONLY void on_step(int signo, siginfo_t *info, void *context)
{
	(void)signo;
	(void)info;
	/* The last steps are those of who takes both flags away. */
	if (((ucontext_t *)context)->uc_mcontext.gregs[REG_EFL] & AC)
		note_flags(context);
	steps++;
}

static GP_ONLY void on_filtered(int signo, siginfo_t *info, void *context)
{
	(void)signo;
	(void)info;
	note_flags(context);
	filtered++;
	((ucontext_t *)context)->uc_mcontext.gregs[REG_RAX] = 5;
}

#define BEGIN(flags) "lea -128(%%rsp), %%rsp\n\tpushfq\n\torq $" #flags ", (%%rsp)\n\tpopfq\n\t"
#define END "pushfq\n\tmov (%%rsp), %%rcx\n\tandq $~0x40100, (%%rsp)\n\tpopfq\n\tlea 128(%%rsp), %%rsp"

static void call_checked(const void *word)
{
	uint64_t after;
	uint32_t result;

	__asm__ volatile(BEGIN(0x40000) "call checked_function\n\t" END
			 : "=&a"(result), "=&c"(after), "+D"(word)
			 :
			 : "rdx", "rsi", "r8", "r9", "r10", "r11", "cc", "memory");
	CHECK_EQ(result, 7);
	CHECK(after & AC);
}

static void call_stepped(const void *word)
{
	uint32_t result;

	__asm__ volatile(BEGIN(0x40100) "call checked_function\n\t" END
			 : "=&a"(result), "+D"(word)
			 :
			 : "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "cc", "memory");
	CHECK_EQ(result, 7);
}

static void check(int type, int policy, int stack)
{
	struct patch_location location =
		location_at((uintptr_t)(type == PATCH_EXEC_MODEL_PROBE_RETURN ? checked_function : READ));
	struct patch_exec_model model = model_of(type, procedure, NULL);
	patch_attr attr = attr_of(policy, PATCH_ENABLED);
	const unsigned int calls = type == PATCH_EXEC_MODEL_PROBE ? 1 : 3;
	patch_t patch;

	CONTEXT("model %d, %s, stack %d", type, policy_name(policy), stack);
	model.probe.clobber_registers = PATCH_REGS_NO_STATE;
	patch_attr_set_stack(&attr, stack);
	REQUIRE_OK(patch_make(&location, &model, &attr, &patch, NULL));
	REQUIRE_OK(patch_commit());
	hits = faults = steps = 0;
	program_without = handler_without = 0;
	call_checked((char *)words + 1);
	CHECK_EQ(faults, 1);
	/* Control is behind the instruction when the handler has led it there. */
	CHECK_EQ(hits, type == PATCH_EXEC_MODEL_PROBE_AROUND ? 1 : calls);
	hits = 0;
	call_stepped(words);
	CHECK_EQ(hits, calls);
	CHECK_MSG(steps > 5, "%u steps", steps);
	CHECK_EQ(program_without, 0);
	CHECK_EQ(handler_without, 0);
	REQUIRE_OK(patch_unmake(patch));
	REQUIRE_OK(patch_commit());
}

static void check_all(void)
{
	for (int type = PATCH_EXEC_MODEL_PROBE; type <= PATCH_EXEC_MODEL_PROBE_RETURN; type++)
		for (int stack = PATCH_STACK_PROGRAM; stack <= PATCH_STACK_OWN; stack++) {
			check(type, PATCH_TRAP_POLICY_ALLOW, stack);
			check(type, PATCH_TRAP_POLICY_FORCE, stack);
		}
}

static void check_filtered(void *unused)
{
	uint64_t after;
	long result;

	(void)unused;
	CONTEXT("a filter");
	if (filter_call(SYS_getppid, SECCOMP_RET_TRAP, 0) != 0)
		SKIP("filters of system calls are not allowed here");
	program_without = handler_without = 0;
	__asm__ volatile(BEGIN(0x40000) "mov %[number], %%eax\n\tsyscall\n\t" END
			 : "=&a"(result), "=&c"(after)
			 : [number] "i"(SYS_getppid)
			 : "r11", "cc", "memory");
	CHECK_EQ(result, 5);
	CHECK_EQ(filtered, 1);
	CHECK(after & AC);
	CHECK_EQ(program_without, 0);
	CHECK_EQ(handler_without, 0);
}

static void handle(int signo, void (*handler)(int, siginfo_t *, void *))
{
	struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO };

	REQUIRE(sigaction(signo, &action, NULL) == 0);
}

int main(void)
{
	sigset_t ill;

	harness_start();
	REQUIRE_OK(patch_init(NULL, 0));
	handle(SIGBUS, on_fault);
	handle(SIGTRAP, on_step);
	handle(SIGSYS, on_filtered);
	check_all();
	/* What the thread believes of its mask is looked at when a handler has returned. */
	sigemptyset(&ill);
	sigaddset(&ill, SIGILL);
	REQUIRE(pthread_sigmask(SIG_BLOCK, &ill, NULL) == 0);
	check_all();
	harness_isolated("filter", check_filtered, NULL);
	CHECK_OK(patch_fini());
	return harness_end();
}
