/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The machine of the differential test: memory, code and the way in and out.
 *
 * Two arenas, one below 2 GiB, one far above. Each has native instructions in slots of 256 bytes, their copies
 * elsewhere, a window of memory with nothing around it, and exits that note which one was taken.
 */
#include "differential.h"

#include <sys/auxv.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define ARENA_SIZE 0x60000000UL
#define ARENA_LOW 0x10000000UL
#define NATIVE_AT 0x00100000UL
#define WINDOW_AT 0x30000000UL
#define CONTROL_AT 0x30010000UL
#define COPY_AT 0x40000000UL
#define EXITS_AT 0x5FFF0000UL
#define NATIVE_SLOT 256UL
#define COPY_SLOT 128UL
#define COPY_ODD 37UL /* copies are not aligned as their originals are */
#define MAX_SLOTS 200000UL

struct arena {
	uintptr_t base;
	size_t slots;
	uintptr_t exits[EXITS];
};

struct state run_state __attribute__((visibility("hidden")));
uint64_t machine_components;
size_t machine_xsave_size;
uint64_t run_host_stack __attribute__((visibility("hidden"), used));
uint64_t run_host_fs __attribute__((visibility("hidden"), used));
static const uint32_t default_mxcsr __attribute__((used)) = 0x1F80;
static struct arena arenas[2];
static bool has_fsgsbase;
static volatile sig_atomic_t running;
static volatile struct outcome fault;
extern void run_code(void) __attribute__((visibility("hidden")));
extern void run_leave(void) __attribute__((visibility("hidden")));

#define EACH_GPR(f)                                                                                                    \
	f("rax", "0") f("rcx", "8") f("rdx", "16") f("rbx", "24") f("rsp", "32") f("rbp", "40") f("rsi", "48")         \
	f("rdi", "56") f("r8", "64") f("r9", "72") f("r10", "80") f("r11", "88") f("r12", "96") f("r13", "104")        \
	f("r14", "112") f("r15", "120")
#define LOAD(name, offset) "mov run_state+" offset "(%rip), %" name "\n"
#define SAVE(name, offset) "mov %" name ", run_state+" offset "(%rip)\n"

/* The state may have AC and DF set and any stack pointer: until the host's flags are back, only aligned accesses. */
__asm__(".text\n"
	".type run_code, @function\n"
	"run_code:\n"
	"push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
	"mov %rsp, run_host_stack(%rip)\n"
	"mov run_state+144(%rip), %rax; test %rax, %rax; jz 1f\n"
	"xor %edx, %edx; xrstor64 run_state+192(%rip)\n"
	"1: mov run_state+152(%rip), %rax; test %rax, %rax; jz 1f\n"
	"rdfsbase %rcx; mov %rcx, run_host_fs(%rip); wrfsbase %rax\n"
	"1: pushq run_state+128(%rip); popfq\n"
	EACH_GPR(LOAD)
	"jmp *run_state+136(%rip)\n"
	".type run_leave, @function\n"
	"run_leave:\n"
	EACH_GPR(SAVE)
	"mov run_host_stack(%rip), %rsp\n"
	"pushfq; popq run_state+128(%rip); pushq $0x202; popfq\n"
	"mov run_state+144(%rip), %rax; test %rax, %rax; jz 1f\n"
	"xor %edx, %edx; xsave64 run_state+192(%rip); fninit; ldmxcsr default_mxcsr(%rip)\n"
	"testl $4, run_state+144(%rip); jz 1f; vzeroupper\n"
	"1: mov run_state+152(%rip), %rax; test %rax, %rax; jz 1f\n"
	"mov run_host_fs(%rip), %rax; wrfsbase %rax\n"
	"1: pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
	"ret\n");

/* Note it, and go on at the exit with everything else as it was. FS first: the program's own may be needed. */
static __attribute__((no_stack_protector)) void on_fault(int signal, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	if (!running) {
		struct sigaction action = { .sa_handler = SIG_DFL };

		sigaction(signal, &action, NULL);
		return;
	}
	if (run_state.fs != 0)
		__asm__ volatile("wrfsbase %0" : : "r"(run_host_fs));
	fault.exit = EXIT_FAULT;
	fault.signal = signal;
	fault.code = info->si_code;
	fault.address = (uintptr_t)info->si_addr;
	fault.pc = (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];
	uc->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)run_leave;
	uc->uc_mcontext.gregs[REG_EFL] &= ~0x100LL; /* TF */
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void make_writable(uintptr_t at, size_t size)
{
	if (mprotect((void *)at, size, PROT_READ | PROT_WRITE) != 0)
		die("mprotect");
}

static void prepare_arena(struct arena *arena, uintptr_t at)
{
	struct arch_code code;
	unsigned int i;
	void *memory = mmap((void *)at, ARENA_SIZE, PROT_NONE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (at ? MAP_FIXED_NOREPLACE : 0), -1, 0);

	if (memory == MAP_FAILED)
		die("mmap");
	arena->base = (uintptr_t)memory;
	make_writable(arena->base + NATIVE_AT, MAX_SLOTS * NATIVE_SLOT);
	make_writable(arena->base + COPY_AT, MAX_SLOTS * COPY_SLOT);
	make_writable(arena->base + WINDOW_AT, WINDOW);
	make_writable(arena->base + CONTROL_AT, 4096);
	make_writable(arena->base + EXITS_AT, 4096);
	code = (struct arch_code){ .bytes = (uint8_t *)arena->base + EXITS_AT, .capacity = 4096 };
	code.base = arena->base + EXITS_AT;
	for (i = 0; i < EXITS; i++) {
		arena->exits[i] = arch_code_here(&code);
		arch_emit_bytes(&code, "\xC7\x05", 2); /* mov dword [rip + rel32], i */
		arch_emit_rel32(&code, arena->base + CONTROL_AT, 4);
		arch_emit_u32(&code, i);
		arch_emit_bytes(&code, "\xFF\x25\0\0\0\0", 6); /* jmp [rip] */
		arch_emit_u64(&code, (uintptr_t)run_leave);
	}
	mprotect((void *)(arena->base + EXITS_AT), 4096, PROT_READ | PROT_EXEC);
}

void machine_prepare(void)
{
	static const int signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP };
	static uint8_t alternate[1 << 16];
	const stack_t stack = { .ss_sp = alternate, .ss_size = sizeof(alternate) };
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	uint32_t eax, edx;
	size_t i;

	prepare_arena(&arenas[0], ARENA_LOW);
	prepare_arena(&arenas[1], 0);
	has_fsgsbase = getauxval(AT_HWCAP2) & 2;
	if (has_fsgsbase)
		__asm__ volatile("wrgsbase %0" : : "r"(SEGMENT_BASE));
	__asm__("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
	machine_components = eax & 0xE7; /* x87, SSE, AVX, AVX-512 */
	__asm__("cpuid" : "=b"(eax) : "a"(0xD), "c"(0) : "edx");
	machine_xsave_size = eax < STATE_XSAVE ? eax : STATE_XSAVE;
	sigaltstack(&stack, NULL);
	for (i = 0; i < ARRAY_SIZE(signals); i++)
		sigaction(signals[i], &action, NULL);
}

uintptr_t machine_exit(const struct pattern *pattern, unsigned int exit)
{
	return arenas[!(pattern->flags & P_LOW)].exits[exit];
}

static void no_hole(struct arch_code *code, uintptr_t next, void *data)
{
	(void)code;
	(void)next;
	(void)data;
}

/* A displacement that leads a RIP-relative or an absolute operand into the window. */
static void patch_operand(struct pattern *pattern, const ZydisDecodedInstruction *zydis, uintptr_t native, uint64_t at)
{
	uint64_t target = pattern->window + at;
	uint32_t field;

	if (pattern->flags & (P_FS | P_GS))
		target -= SEGMENT_BASE;
	if (pattern->insn.disp_offset != 0) {
		field = (uint32_t)(target - (native + pattern->insn.length));
		memcpy(pattern->bytes + pattern->insn.disp_offset, &field, sizeof(field));
	} else if (pattern->operand_count > 0 && pattern->operands[0].base == NONE &&
		   pattern->operands[0].index == NONE && zydis->raw.disp.size >= 32) {
		memcpy(pattern->bytes + zydis->raw.disp.offset, &target, zydis->raw.disp.size / 8);
	}
}

/* Branches lead to an exit: rel32 at once, rel8 by a jump within the slot. */
static void patch_branch(struct pattern *pattern, uintptr_t native, uint64_t random)
{
	const uintptr_t after = native + pattern->insn.length, target = machine_exit(pattern, 1 + random % (EXITS - 1));
	struct arch_code code;
	uint32_t field;
	int8_t distance;

	if (pattern->insn.rel_size == 4) {
		field = (uint32_t)(target - after);
		memcpy(pattern->bytes + pattern->insn.rel_offset, &field, sizeof(field));
	} else if (pattern->insn.rel_size == 1) {
		distance = (int8_t)(random >> 8 & 1 ? 5 + (int)((random >> 9) % 100) : -24 - (int)((random >> 9) % 80));
		pattern->bytes[pattern->insn.rel_offset] = (uint8_t)distance;
		code = (struct arch_code){ .capacity = ARCH_JMP_SIZE, .base = after + (uintptr_t)distance };
		code.bytes = (uint8_t *)code.base;
		arch_emit_jmp(&code, target);
	}
}

bool machine_build(struct corpus *corpus, struct pattern *pattern, uint64_t seed)
{
	struct arena *arena = &arenas[!(pattern->flags & P_LOW)];
	const uint64_t random = random_next(&seed);
	ZydisDecodedInstruction zydis;
	struct arch_code code;
	ZydisDecoder decoder;
	uintptr_t native;

	if (arena->slots >= MAX_SLOTS)
		return false;
	if (pattern->flags & (P_FS | P_GS) && !has_fsgsbase) {
		corpus_skip(corpus, "FS or GS operand without FSGSBASE");
		return false;
	}
	native = arena->base + NATIVE_AT + arena->slots * NATIVE_SLOT + 112;
	pattern->window = arena->base + WINDOW_AT;
	ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	ZydisDecoderDecodeInstruction(&decoder, NULL, pattern->bytes, pattern->insn.length, &zydis);
	patch_operand(pattern, &zydis, native, 512 + (random >> 20) % 1024 / 64 * 64);
	patch_branch(pattern, native, random);
	if (!arch_decode(pattern->bytes, pattern->insn.length, native, &pattern->insn) ||
	    pattern->insn.flags & ARCH_F_REFUSED) {
		corpus_skip(corpus, pattern->insn.why ? pattern->insn.why : "no longer decodes");
		return false;
	}
	pattern->native = native;
	code = (struct arch_code){ .bytes = (uint8_t *)native, .capacity = 64, .base = native };
	arch_emit_bytes(&code, pattern->bytes, pattern->insn.length);
	arch_emit_jmp(&code, arena->exits[0]);

	pattern->copy = arena->base + COPY_AT + arena->slots * COPY_SLOT + COPY_ODD;
	code = (struct arch_code){ .bytes = (uint8_t *)pattern->copy, .capacity = COPY_SLOT - COPY_ODD };
	code.base = pattern->copy;
	code.rows = pattern->rows;
	code.row_capacity = ARRAY_SIZE(pattern->rows);
	if (pattern->flags & P_AROUND)
		arch_relocate_around(&code, pattern->bytes, &pattern->insn, native, NULL, no_hole, NULL);
	else
		arch_relocate(&code, pattern->bytes, &pattern->insn, native, NULL);
	pattern->copy_end = arch_code_here(&code);
	arch_emit_jmp(&code, arena->exits[0]);
	pattern->row_count = (uint8_t)code.row_count;
	if (code.out_of_range || code.size > code.capacity || code.row_count > code.row_capacity) {
		corpus_skip(corpus, "copy does not fit or reach");
		return false;
	}
	arena->slots++;
	return true;
}

void machine_built(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(arenas); i++) {
		mprotect((void *)(arenas[i].base + NATIVE_AT), MAX_SLOTS * NATIVE_SLOT, PROT_READ | PROT_EXEC);
		mprotect((void *)(arenas[i].base + COPY_AT), MAX_SLOTS * COPY_SLOT, PROT_READ | PROT_EXEC);
	}
}

struct outcome machine_run(const struct pattern *pattern, uintptr_t code)
{
	volatile uint32_t *taken = (volatile uint32_t *)(arenas[!(pattern->flags & P_LOW)].base + CONTROL_AT);
	struct outcome outcome = { 0 };

	*taken = EXIT_FAULT;
	fault.exit = 0;
	run_state.code = code;
	run_state.fs = pattern->flags & P_FS ? SEGMENT_BASE : 0;
	running = 1;
	run_code();
	running = 0;
	if (fault.exit == EXIT_FAULT)
		outcome = *(struct outcome *)(uintptr_t)&fault;
	else
		outcome.exit = *taken;
	return outcome;
}
