/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A memory checker, as there are such: pointers to a buffer have a tag, so that each instruction that uses one faults.
 * From the handler it is patched by PROBE_AROUND, read and write masks 0, and executed again: the first call takes the
 * tag off, the second puts it back. Every form of memory operand, in code of this file and of libc, gives what it gives
 * without tags, executed for the first time and later, and no instruction faults once it is patched.
 */
#include "targets.h"

#include <sys/ucontext.h>

#define TAG ((uint64_t)1 << 48)
#define SIZE ((size_t)4096)
#define MAX_PATCHES 4096

static uint8_t *buffer;
static struct {
	uintptr_t address;
	patch_t patch;
} patched[MAX_PATCHES];
static unsigned int count, refused, retried;
static uintptr_t broken; /* faults although it is patched, or cannot be patched */
static char why[128];

/* ---- the checker --------------------------------------------------------------------------------------------- */

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	static __thread unsigned int taken_off;

	if (!post)
		taken_off = 0;
	for (int r = 0; r < PATCH_ARCH_GREGS_COUNT; r++) {
		patch_reg *value = &context->general_purpose_registers[r];

		if (!post && *value >> 48 == 1) {
			*value &= ~TAG;
			taken_off |= 1U << r;
		} else if (post && taken_off >> r & 1 && *value - (uintptr_t)buffer <= SIZE) {
			*value |= TAG;
		}
	}
	/* As compilers use them, in what is no function of the program's. */
	__asm__ volatile("pcmpeqd %%xmm0, %%xmm0\n	pcmpeqd %%xmm5, %%xmm5" ::: "xmm0", "xmm5");
}

static patch_status patch_at(uintptr_t address, int policy, patch_t *out)
{
	struct patch_location location = location_at(address);
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE_AROUND, procedure, NULL);
	patch_attr attr;
	patch_status status;

	model.probe.read_registers = 0;
	model.probe.clobber_registers = ((uint64_t)1 << PATCH_ARCH_GREGS_COUNT) - 1;
	patch_attr_init(&attr, sizeof(attr));
	patch_attr_set_trap_policy(&attr, policy);
	patch_attr_set_initial_state(&attr, PATCH_ENABLED);
	status = patch_make(&location, &model, &attr, out, NULL);
	patch_attr_fini(&attr);
	return status;
}

/* The program goes on without the tag, and the test fails. */
static void give_up(greg_t *registers, uintptr_t address, const char *reason)
{
	if (broken == 0) {
		broken = address;
		snprintf(why, sizeof(why), "%s", reason);
	}
	for (int r = 0; r < REG_RSP; r++)
		if ((uint64_t)registers[r] >> 48 == 1)
			registers[r] &= (greg_t)~TAG;
}

static void on_segv(int signo, siginfo_t *info, void *context)
{
	greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
	uintptr_t address = (uintptr_t)registers[REG_RIP];
	struct patch_error error;

	(void)signo;
	(void)info;
	/* In a copy of the instruction, which has no hook: on at the instruction, which will have one. */
	patch_olx_original_pc(address, &address);
	registers[REG_RIP] = (greg_t)address;
	for (unsigned int i = 0; i < count; i++)
		if (patched[i].address == address) {
			give_up(registers, address, "faults although it is patched");
			return;
		}
	if (count == MAX_PATCHES)
		_exit(2);
	if (patch_at(address, PATCH_TRAP_POLICY_FORBID, &patched[count].patch) != PATCH_OK) {
		retried++;
		if (patch_at(address, PATCH_TRAP_POLICY_ALLOW, &patched[count].patch) != PATCH_OK) {
			refused++;
			patch_last_error(&error);
			give_up(registers, address, error.message);
			return;
		}
	}
	if (patch_commit() != PATCH_OK) {
		patch_last_error(&error);
		give_up(registers, address, error.message);
		return;
	}
	patched[count++].address = address;
}

/* ---- what is checked ------------------------------------------------------------------------------------------ */

/* rdi: the buffer; rsi: 512 bytes behind it; ecx: 3. What is in rax, and in the buffer, counts. */
#define FORM(name, code) \
	uint64_t g_##name(uint8_t *at, uint8_t *second, uint64_t unused, uint64_t three); \
	__asm__(".text\n.p2align 5\n.type g_" #name ", @function\ng_" #name ":\n.cfi_startproc\n" \
		"	push %rbx\n.cfi_adjust_cfa_offset 8\n.cfi_offset %rbx, -16\n" \
		"	xor %eax, %eax\n	mov $7, %edx\n	lea 64(%rdi), %rbx\n" \
		code "\n	pop %rbx\n.cfi_adjust_cfa_offset -8\n	ret\n" \
		".cfi_endproc\n.size g_" #name ", . - g_" #name "\n.p2align 5, 0xcc\n");
#define FORMS(F) \
	F(load, "mov 8(%rdi), %rax") \
	F(load_over_base, "mov 16(%rdi), %rdi\n	mov %rdi, %rax") \
	F(load_short, "mov (%rbx), %al") \
	F(load_index, "mov 8(%rdi,%rcx,4), %eax") \
	F(load_as_index, "mov 24(%rcx,%rdi), %rax") \
	F(load_extended, "movsbl 5(%rdi), %eax\n	movzwl (%rbx,%rcx,2), %r8d\n	add %r8, %rax") \
	F(store, "mov %rcx, 8(%rdi)\n	movb $5, 17(%rsi)\n	movl $0x12345678, 32(%rdi,%rcx,8)") \
	F(update, "add %rdx, (%rdi)\n	adc $9, %eax\n	sub (%rsi), %rax\n	incl 4(%rsi)") \
	F(flags, "cmp %edx, (%rdi)\n	setb %al\n	lahf\n	testb $0x40, (%rsi)\n	setz %al") \
	F(multiply, "imul $77, 8(%rdi), %rax\n	imul (%rsi), %rax") \
	F(divide, "mov $1000, %eax\n	xor %edx, %edx\n	movl $9, (%rdi)\n" \
		"	divl (%rdi)\n	add %rdx, %rax") \
	F(shift, "shlq $3, (%rdi)\n	sar %cl, %rax\n	shldq %cl, %rdx, 8(%rdi)\n	bts %ecx, 16(%rdi)") \
	F(exchange, "xchg %rdx, (%rdi)\n	mov %rdx, %rax") \
	F(locked, "lock xadd %rdx, (%rdi)\n	lock cmpxchg %rcx, 8(%rdi)\n	lock incl (%rsi)\n" \
		"	add %rdx, %rax") \
	F(compare_16, "mov (%rdi), %rax\n	mov 8(%rdi), %rdx\n	push %rbx\n	mov $5, %ebx\n" \
		      "	lock cmpxchg16b (%rdi)\n	pop %rbx") \
	F(push, "push 8(%rdi)\n	pop %rax\n	push %rcx\n	pop 40(%rsi)") \
	F(move_up, "mov $100, %ecx\n	rep movsb\n	mov (%rdi), %rax") \
	F(move_down, "mov $10, %ecx\n	add $80, %rsi\n	add $80, %rdi\n	std\n	rep movsq\n" \
		"	cld\n	mov (%rdi), %rax") \
	F(fill, "mov $0x55, %eax\n	mov $70, %ecx\n	rep stosb\n	mov (%rdi), %al") \
	F(scan, "movb $0x99, 60(%rdi)\n	mov $0x99, %eax\n	mov $99, %ecx\n	repne scasb\n	mov %rcx, %rax") \
	F(compare, "mov $99, %ecx\n	repe cmpsb\n	mov %rcx, %rax") \
	F(one_string, "lodsq\n	movsl\n	stosb\n	add %al, (%rdi)") \
	F(table_look_up, "mov $44, %eax\n	xlat") \
	F(conditional, "test %ecx, %ecx\n	cmovnz (%rdi), %rax\n	setnz 8(%rsi)") \
	F(x87, "fldl 8(%rdi)\n	fildl (%rsi)\n	faddl 16(%rdi)\n	fistpll 24(%rdi)\n	fstpt 32(%rdi)\n" \
	       "	fnstcw 50(%rdi)") \
	F(sse, "movups (%rdi), %xmm0\n	paddd 16(%rbx), %xmm0\n	movups %xmm0, 32(%rsi)\n" \
		"	movq (%rsi), %xmm1\n" \
	       "	movq %xmm1, %rax\n	cvtsi2sdl (%rdi), %xmm2\n" \
		"	movsd %xmm2, 8(%rdi)\n	movmskps %xmm0, %ecx\n" \
	       "	add %rcx, %rax") \
	F(masked_store, "pcmpeqd %xmm1, %xmm1\n	movups (%rsi), %xmm0\n	maskmovdqu %xmm1, %xmm0") \
	F(control, "stmxcsr 4(%rdi)\n	ldmxcsr 4(%rdi)\n	clflush (%rdi)\n	prefetcht0 (%rsi)") \
	F(call_through, "lea g_callee(%rip), %rdx\n	mov %rdx, 8(%rdi)\n	call *8(%rdi)\n" \
		"	call *-16(%rdi,%rcx,8)") \
	F(jump_through, "lea 1f(%rip), %rdx\n	mov %rdx, 8(%rdi)\n	jmp *8(%rdi)\n	ud2\n1:	mov $9, %eax") \
	F(jump_index, "lea 1f(%rip), %rdx\n	mov %rdx, 24(%rdi)\n	jmp *(%rdi,%rcx,8)\n	ud2\n1:	mov $9, %eax")
#define VECTOR_FORMS(F) \
	F(avx, "vmovups (%rdi), %ymm0\n	vaddps 32(%rsi), %ymm0, %ymm1\n	vmovups %ymm1, (%rdi)\n" \
	       "	vbroadcastss (%rsi), %ymm2\n	vmovups %ymm2, 64(%rdi)\n" \
		"	vpcmpeqd %ymm3, %ymm3, %ymm3\n" \
	       "	vmaskmovps %ymm2, %ymm3, 128(%rdi)\n	vzeroupper") \
	F(gather, "vpcmpeqd %ymm3, %ymm3, %ymm3\n	vpxor %xmm1, %xmm1, %xmm1\n" \
		  "	vpgatherdd %ymm3, 8(%rdi,%ymm1,4), %ymm0\n	vmovups %ymm0, (%rsi)\n	vzeroupper")
#define WIDE_FORMS(F) \
	F(avx512, "vmovups (%rdi), %zmm17\n	kxnorw %k1, %k1, %k1\n	vaddps 64(%rsi), %zmm17, %zmm18\n" \
		  "	vmovups %zmm18, (%rdi){%k1}\n	vpcmpeqd (%rdi), %zmm18, %k2\n" \
		"	kmovw %k2, %eax\n	vzeroupper")

__asm__(".text\n.p2align 5\n.type g_callee, @function\ng_callee:\n.cfi_startproc\n"
	"	add $3, %rax\n	add (%rdi), %rax\n"
	"	ret\n.cfi_endproc\n.size g_callee, . - g_callee\n.p2align 5, 0xcc\n");
FORMS(FORM)
VECTOR_FORMS(FORM)
WIDE_FORMS(FORM)

static int by_value(const void *a, const void *b)
{
	return *(const unsigned char *)a - *(const unsigned char *)b;
}

#define OF_LIBC(name, expression) \
	static uint64_t g_##name(uint8_t *at, uint8_t *second, uint64_t unused, uint64_t three) \
	{ \
		char *a = (char *)at, *b = (char *)second; \
\
		(void)unused, (void)three, (void)b; \
		return (uint64_t)(expression); \
	}
#define LIBC(F) \
	F(memcpy, memcpy(a, b, 300) == a) \
	F(memcpy_short, memcpy(a, b, 13) == a) \
	F(memmove, memmove(a + 3, a, 200) == a + 3) \
	F(memset, memset(a, 7, 333) == a) \
	F(memcmp, memcmp(a, b, 400)) \
	F(memchr, (char *)memchr(a, 'x', 500) - a) \
	F(strlen, strlen(strcpy(a, "some text, which is longer than a vector register and ends here"))) \
	F(strcmp, strcmp(strcpy(a, "some text"), strcpy(b, "some texture"))) \
	F(strchr, strchr(strcpy(a, "some text that has a z in it, and more"), 'z') - a) \
	F(strstr, strstr(strcpy(a, "a needle in a haystack of needles"), strcpy(b, "stack")) - a) \
	F(strtol, strtol(strcpy(a, " -12345"), NULL, 10)) \
	F(strtod, strtod(strcpy(a, "1.5e3"), NULL)) \
	F(qsort, (qsort(a, 200, 1, by_value), a[100])) \
	F(bsearch, (qsort(a, 64, 1, by_value), bsearch(a + 20, a, 64, 1, by_value) != NULL))
LIBC(OF_LIBC)

#define ENTRY(name, unused) { #name, g_##name },
static const struct {
	const char *name;
	uint64_t (*function)(uint8_t *at, uint8_t *second, uint64_t unused, uint64_t three);
} cases[] = { FORMS(ENTRY) LIBC(ENTRY) VECTOR_FORMS(ENTRY) WIDE_FORMS(ENTRY) };
#define CASES (sizeof(cases) / sizeof(*cases))

static size_t case_count(void)
{
	size_t wide = 1, vector = 2;

	return __builtin_cpu_supports("avx512bw") ? CASES :
	       __builtin_cpu_supports("avx2")	  ? CASES - wide :
						    CASES - wide - vector;
}

static void refill(void)
{
	for (size_t i = 0; i < SIZE; i++)
		buffer[i] = (uint8_t)(i * 13 + i / 256);
	buffer[77] = 'x';
}

static void try_case(size_t n)
{
	static uint8_t expected[SIZE];
	uint8_t *tagged = (uint8_t *)((uintptr_t)buffer | TAG);
	uint64_t result;

	CONTEXT("%s", cases[n].name);
	refill();
	result = cases[n].function(buffer, buffer + 512, 0, 3);
	memcpy(expected, buffer, SIZE);
	for (unsigned int round = 0; round < 3; round++) {
		uint64_t got;

		refill();
		broken = 0;
		got = cases[n].function(tagged, tagged + 512, 0, 3);
		CHECK_EQ(got, result);
		CHECK_MSG(broken == 0, "%#lx %s", (unsigned long)broken, why);
		CHECK(memcmp(buffer, expected, SIZE) == 0);
	}
	/* The same without tags. */
	refill();
	CHECK_EQ(cases[n].function(buffer, buffer + 512, 0, 3), result);
	CHECK(memcmp(buffer, expected, SIZE) == 0);
}

int main(void)
{
	static uint8_t stack[1 << 17];
	const stack_t alternate = { .ss_sp = stack, .ss_size = sizeof(stack) };
	struct sigaction action = { .sa_sigaction = on_segv, .sa_flags = SA_SIGINFO | SA_ONSTACK };

	harness_start();
	buffer = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(buffer != MAP_FAILED);
	REQUIRE_OK(patch_init(NULL, 0));
	sigaltstack(&alternate, NULL);
	sigaction(SIGSEGV, &action, NULL);
	/* By the stack segment: rbp and rsp as bases. */
	sigaction(SIGBUS, &action, NULL);
	for (size_t n = 0; n < case_count(); n++)
		try_case(n);
	CONTEXT("at the end");
	CHECK(count > CASES);
	CHECK_EQ(refused, 0);
	harness_say("%u instructions, %u without a jump\n", count, retried);
	CHECK_OK(patch_fini());
	return harness_end();
}
