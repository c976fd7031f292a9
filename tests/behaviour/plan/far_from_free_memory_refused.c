/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Code with every address within 2 GiB taken, and RIP-relative operands, calls and branches of all kinds: every
 * instruction of it can be patched, by a trap, and does what it did; with several probes on each, around each,
 * interrupted by signals, and with an operand that faults. What can not be done there is refused with the reason.
 */
#include "harness.h"

#include <sys/time.h>
#include <ucontext.h>
#include <unwind.h>

#define REACH ((size_t)0x88000000)
#define CODE_SIZE ((size_t)4096)

/*
 * One page of code, one of data, one that cannot be read at first. Slots of data at +0: pointers, filled in below; at
 * +64 numbers.
 */
__asm__(".macro I insn:vararg\n"
	".pushsection .rodata.far_insns, \"a\"\n"
	".short 9f - far_begin\n"
	".popsection\n"
	"9: \\insn\n"
	".endm\n"
	".pushsection .rodata.far_insns, \"a\"\n"
	"far_insns:\n"
	".popsection\n"
	".section .far_blob, \"ax\"\n"
	".balign 4096\n"
	"far_begin:\n"
	"I push %rbx\n"
	"I push %rbp\n"
	"I mov %rsp, %rbp\n"
	"I lea far_numbers(%rip), %rbx\n"
	"I mov far_numbers(%rip), %rax\n"
	"I add %rdi, far_numbers+8(%rip)\n"
	"I xor far_numbers+8(%rip), %rax\n"
	"I movb $7, far_numbers+16(%rip)\n"
	"I addl $0x12345, far_numbers+20(%rip)\n"
	"I lock xaddq %rax, far_numbers+24(%rip)\n"
	"I pushq far_numbers+24(%rip)\n"
	"I popq far_numbers+32(%rip)\n"
	"I cmpq $5, far_numbers+32(%rip)\n"
	"I setb far_numbers+40(%rip)\n"
	"I imul $77, far_numbers+8(%rip), %rcx\n"
	"I xor %rcx, %rax\n"
	"I movdqu far_numbers+48(%rip), %xmm1\n"
	"I paddd far_numbers+64(%rip), %xmm1\n"
	"I movups %xmm1, far_numbers+48(%rip)\n"
	"I xor %eax, (%rbx)\n"
	"I mov $3, %ecx\n"
	"1: I rolq $3, far_numbers(%rip)\n"
	"I loop 1b\n"
	"I jrcxz 2f\n"
	"I ud2\n"
	"2: I test $1, %dil\n"
	"I jz 3f\n"
	"I call far_leaf\n"
	"I jmp 4f\n"
	"3: I call *far_pointers(%rip)\n"
	"4: I push %rax\n"
	"I call *far_pointers(%rip)\n"
	"I pop %rcx\n"
	"I add %rcx, %rax\n"
	"I lea far_leaf(%rip), %rdx\n"
	"I call *%rdx\n"
	"I mov far_numbers(%rip), %rdx\n"
	"I and $0x70, %edx\n"
	"I jne 5f\n"
	"I inc %rax\n"
	"5: I call *far_pointers+8(%rip)\n"
	"I xor far_guarded(%rip), %rax\n"
	"I pop %rbp\n"
	"I pop %rbx\n"
	"I jmp *far_pointers+16(%rip)\n"
	"far_leaf:\n"
	"I add $17, %rax\n"
	"I rorq far_numbers+8(%rip)\n"
	"I ret\n"
	"far_last:\n"
	"I xor $3, %rax\n"
	"I ret\n"
	"far_end:\n"
	/* none of this is called */
	"far_refused:\n"
	"mov far_numbers(%rip), %rsp\n"
	"ret\n"
	".balign 4096\n"
	"far_pointers:\n"
	".quad 0, 0, 0, 0\n"
	"far_numbers:\n"
	".quad 1, 2, 3, 4, 5, 6, 7, 8, 9, 10\n"
	".balign 4096\n"
	"far_guarded:\n"
	".quad 0x1234567\n"
	".balign 4096\n"
	"far_blob_end:\n"
	".pushsection .rodata.far_insns, \"a\"\n"
	"far_insns_end:\n"
	".popsection\n"
	".text\n");

extern const uint8_t far_begin[], far_leaf[], far_last[], far_end[], far_refused[], far_pointers[], far_numbers[],
	far_guarded[], far_blob_end[];
extern const uint16_t far_insns[], far_insns_end[];

#define INSNS_MAX 64
#define RUNS 16

static uint8_t *code;
static size_t insn_count;
static uint64_t hits[INSNS_MAX], posts[INSNS_MAX];
static volatile uint64_t interrupted, faults;

struct result {
	uint64_t rax[RUNS];
	uint8_t data[CODE_SIZE];
};

/* Somewhere else. */
__asm__(".text\n"
	"outside_entry:\n"
	"add $1000, %rax\n"
	"ret\n");
extern const uint8_t outside_entry[];

static uintptr_t placed(const void *original)
{
	return (uintptr_t)code + (size_t)((const uint8_t *)original - far_begin);
}

static void GP_ONLY count(struct patch_exec_context *context, uint8_t post)
{
	(post ? posts : hits)[(uintptr_t)context->user_data]++;
}

static void GP_ONLY nothing(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static _Unwind_Reason_Code find_original(struct _Unwind_Context *context, void *data)
{
	uintptr_t *original = data;

	if (_Unwind_GetIP(context) == original[0])
		original[1]++;
	return _URC_NO_REASON;
}

/* Unwinders get from the far code to the program. */
static void unwind(struct patch_exec_context *context, uint8_t post)
{
	uintptr_t original[2] = { context->program_counter, 0 };

	(void)post;
	_Unwind_Backtrace(find_original, original);
	hits[0] += original[1];
}

/* Wherever it interrupts, the program's address can be told. */
static void on_profile(int signal, siginfo_t *info, void *context)
{
	uintptr_t pc = (uintptr_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP], original = 0;

	(void)signal;
	(void)info;
	if (patch_olx_original_pc(pc, &original) != PATCH_OK)
		return;
	interrupted++;
	if (original - (uintptr_t)code > (uintptr_t)(far_end - far_begin))
		harness_say("pc %#lx is said to be %#lx\n", (unsigned long)pc, (unsigned long)original);
}

static void on_fault(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)context;
	if (info->si_addr != (void *)placed(far_guarded))
		_exit(3);
	faults++;
	mprotect((void *)placed(far_guarded), CODE_SIZE, PROT_READ);
}

static void start_over(void)
{
	const uintptr_t pointers[] = { placed(far_leaf), (uintptr_t)outside_entry, placed(far_last) };

	memcpy((void *)placed(far_pointers), far_pointers, CODE_SIZE);
	memcpy((void *)placed(far_pointers), pointers, sizeof(pointers));
	mprotect((void *)placed(far_guarded), CODE_SIZE, PROT_NONE);
}

static void run(struct result *result)
{
	uint64_t (*function)(uint64_t);
	uintptr_t entry = (uintptr_t)code;
	size_t i;

	memcpy(&function, &entry, sizeof(function));
	start_over();
	for (i = 0; i < RUNS; i++)
		result->rax[i] = function(i * 0x123456789abcd);
	memcpy(result->data, (void *)placed(far_pointers), CODE_SIZE);
}

static void place(void)
{
	const uintptr_t at = 0x200000000000;
	size_t size = (size_t)(far_blob_end - far_begin);
	uint8_t *area = mmap((void *)at, 2 * REACH, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

	if (area != (uint8_t *)at)
		SKIP("cannot take 4 GiB of addresses");
	code = area + REACH;
	REQUIRE(mprotect(code, size, PROT_READ | PROT_WRITE) == 0);
	memcpy(code, far_begin, size);
	REQUIRE(mprotect(code, CODE_SIZE, PROT_READ | PROT_EXEC) == 0);
}

static size_t patch_all(int type, probe_procedure procedure, int policy, patch_t *patches)
{
	patch_attr attr = attr_of(policy, PATCH_ENABLED);
	size_t i, made = 0;

	for (i = 0; i < insn_count; i++) {
		struct patch_location location = location_at((uintptr_t)code + far_insns[i]);
		struct patch_exec_model model = model_of(type, procedure, (void *)i);
		patch_status status;

		model.probe.clobber_registers = PATCH_REGS_GP_ONLY;
		patches[i] = NULL;
		status = patch_make(&location, &model, &attr, &patches[i], NULL);
		made += status == PATCH_OK;
		/* There is nothing behind ud2. */
		if (status != PATCH_OK &&
		    (type == PATCH_EXEC_MODEL_PROBE || memcmp(code + far_insns[i], "\x0f\x0b", 2)))
			FAIL("instruction %zu at +%#x: %s: %s", i, far_insns[i], patch_status_string(status),
			     harness_last_error());
	}
	CHECK_OK(patch_commit());
	return made;
}

static void unpatch(patch_t *patches)
{
	size_t i;

	for (i = 0; i < insn_count; i++)
		if (patches[i])
			CHECK_OK(patch_unmake(patches[i]));
	CHECK_OK(patch_commit());
}

static void compare(const struct result *native)
{
	struct result result;

	memset(hits, 0, sizeof(hits));
	memset(posts, 0, sizeof(posts));
	faults = 0;
	run(&result);
	CHECK(memcmp(&result, native, sizeof(result)) == 0);
	CHECK_EQ(faults, 1);
}

static void check_hits(uint64_t times, bool after)
{
	size_t i;

	for (i = 0; i < insn_count; i++) {
		bool ud2 = memcmp(far_begin + far_insns[i], "\x0f\x0b", 2) == 0;

		if (ud2 || far_insns[i] >= (size_t)(far_leaf - far_begin))
			continue;
		if (hits[i] == 0 || (i == 0 && hits[i] != times * RUNS))
			FAIL("instruction %zu at +%#x: %llu hits", i, far_insns[i], (unsigned long long)hits[i]);
		if (after && posts[i] != hits[i])
			FAIL("instruction %zu at +%#x: %llu hits, %llu after", i, far_insns[i],
			     (unsigned long long)hits[i], (unsigned long long)posts[i]);
	}
}

static void check_policy(int policy, const struct result *native)
{
	const struct itimerval often = { { 0, 200 }, { 0, 200 } }, never = { { 0, 0 }, { 0, 0 } };
	static patch_t first[INSNS_MAX], second[INSNS_MAX];
	uint8_t before[CODE_SIZE];
	unsigned int i;

	memcpy(before, code, CODE_SIZE);
	CONTEXT("%s", policy_name(policy));
	patch_all(PATCH_EXEC_MODEL_PROBE, count, policy, first);
	for (i = 0; i < insn_count; i++)
		CHECK_EQ(code[far_insns[i]], 0xcc);
	compare(native);
	check_hits(1, false);

	CONTEXT("%s, two probes", policy_name(policy));
	patch_all(PATCH_EXEC_MODEL_PROBE, count, policy, second);
	compare(native);
	check_hits(2, false);
	for (i = 0; i < insn_count; i++)
		CHECK_OK(patch_disable(first[i]));
	CHECK_OK(patch_commit());
	compare(native);
	check_hits(1, false);
	unpatch(first);
	compare(native);
	check_hits(1, false);
	unpatch(second);
	CHECK(memcmp(before, code, CODE_SIZE) == 0);

	CONTEXT("%s, around", policy_name(policy));
	CHECK_EQ(patch_all(PATCH_EXEC_MODEL_PROBE_AROUND, count, policy, first), insn_count - 1);
	compare(native);
	check_hits(1, true);
	unpatch(first);
	CHECK(memcmp(before, code, CODE_SIZE) == 0);

	CONTEXT("%s, interrupted", policy_name(policy));
	patch_all(PATCH_EXEC_MODEL_PROBE, nothing, policy, first);
	setitimer(ITIMER_REAL, &often, NULL);
	for (i = 0; i < 100; i++)
		compare(native);
	setitimer(ITIMER_REAL, &never, NULL);
	unpatch(first);
	CHECK(memcmp(before, code, CODE_SIZE) == 0);
}

static void check_unwinding(int policy)
{
	static struct result result;
	patch_t patch;

	CONTEXT("%s, unwinding", policy_name(policy));
	REQUIRE_OK(make_probe((uintptr_t)code, unwind, NULL, policy, PATCH_ENABLED, &patch));
	CHECK_OK(patch_commit());
	hits[0] = 0;
	run(&result);
	CHECK_EQ(hits[0], RUNS);
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
}

static void check_refusal(int policy)
{
	patch_t patch;

	CONTEXT("%s, refused", policy_name(policy));
	CHECK_STATUS(make_probe(placed(far_refused), nothing, NULL, policy, PATCH_ENABLED, &patch), PATCH_ENOMEM);
	/* ALLOW may tell of the jump instead. */
	CHECK_MSG(policy == PATCH_TRAP_POLICY_ALLOW || strstr(harness_last_error(), "stack pointer"), "%s",
		  harness_last_error());
	CHECK_OK(patch_commit());
	CHECK(memcmp(code, far_begin, (size_t)(far_end - far_begin)) == 0);
}

int main(void)
{
	struct sigaction profile = { .sa_sigaction = on_profile, .sa_flags = SA_SIGINFO | SA_RESTART };
	struct sigaction fault = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
	static struct result native;
	patch_t patch;

	harness_start();
	insn_count = (size_t)(far_insns_end - far_insns);
	REQUIRE(insn_count <= INSNS_MAX);
	place();
	sigaction(SIGALRM, &profile, NULL);
	sigaction(SIGSEGV, &fault, NULL);
	run(&native);
	REQUIRE_OK(patch_init(NULL, 0));

	CONTEXT("FORBID");
	CHECK_STATUS(make_probe(placed(far_last), nothing, NULL, PATCH_TRAP_POLICY_FORBID, PATCH_ENABLED, &patch),
		     PATCH_ENOMEM);
	check_policy(PATCH_TRAP_POLICY_ALLOW, &native);
	check_policy(PATCH_TRAP_POLICY_FORCE, &native);
	check_unwinding(PATCH_TRAP_POLICY_FORCE);
	check_refusal(PATCH_TRAP_POLICY_ALLOW);
	check_refusal(PATCH_TRAP_POLICY_FORCE);
	harness_say("%zu instructions, interrupted in their copies %llu times\n", insn_count,
		    (unsigned long long)interrupted);
	CHECK_OK(patch_fini());
	return harness_end();
}
