/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The functions of targets.S, what each has to return, and a machine to run them in: with every register known, and
 * with a trace of every instruction made by single-stepping, before libpatch is there.
 */
#ifndef TESTS_TARGETS_H
#define TESTS_TARGETS_H

#include "harness.h"

#include <Zydis/Zydis.h>
#include <sys/ucontext.h>

#define TARGET_AVX2 1u    /* needs AVX2 */
#define TARGET_AVX512 2u  /* needs AVX-512 F, BW */
#define TARGET_SYSCALL 4u /* rcx and r11 are the kernel's behind the syscall */
#define TARGET_VOID 8u    /* returns nothing */

#define DATA0 0x1122334455667788u
#define DATA1 0x99aabbccddeeff00u

#define LOW(x) ((uint32_t)(x))
#define COUNT(x) ((uint8_t)(x))

static inline unsigned int model_add(uint64_t *to, uint64_t value, unsigned int carry)
{
	unsigned __int128 sum = (unsigned __int128)*to + value + carry;

	*to = (uint64_t)sum;
	return (unsigned int)(sum >> 64);
}

static inline uint64_t model_helper_add(uint64_t a, uint64_t b)
{
	return 3 * a + b;
}

/* CF, PF, AF, ZF, SF, OF of an addition, subtraction being addition of the complement with the borrow inverted */
static inline uint64_t model_add_flags(uint64_t a, uint64_t b)
{
	uint64_t sum = a + b;

	return (sum < a ? 1u : 0u) | (__builtin_parity((unsigned int)(sum & 0xff)) ? 0u : 4u) |
	       ((a ^ b ^ sum) & 0x10) | (sum == 0 ? 0x40u : 0u) | (sum >> 63 ? 0x80u : 0u) |
	       (((a ^ sum) & (b ^ sum)) >> 63 ? 0x800u : 0u);
}

static inline uint64_t model_lahf(uint64_t a, uint64_t b)
{
	uint8_t x = (uint8_t)a, y = (uint8_t)b, difference = (uint8_t)(x - y);
	uint64_t flags = 2;

	flags |= x < y ? 1u : 0u;
	flags |= __builtin_parity(difference) ? 0u : 4u;
	flags |= (uint64_t)((x ^ y ^ difference) & 0x10);
	flags |= difference == 0 ? 0x40u : 0u;
	flags |= difference & 0x80;
	return flags << 8 | (((x ^ y) & (x ^ difference)) & 0x80 ? 1u : 0u);
}

static inline uint64_t model_setcc(uint64_t a, uint64_t b)
{
	uint32_t x = LOW(a), y = LOW(b), difference = x - y;

	return ((int32_t)x > (int32_t)y ? 1u : 0u) + (((x ^ y) & (x ^ difference)) >> 31 ? 2u : 0u) +
	       (x < y ? 4u : 0u) + (__builtin_parity(difference & 0xff) ? 0u : 8u);
}

static inline uint64_t model_adc_chain(uint64_t a, uint64_t b)
{
	unsigned int carry = model_add(&a, b, 0);

	carry = model_add(&b, 0, carry);
	carry = model_add(&b, a, carry);
	carry = model_add(&a, b, carry);
	return a - carry;
}

static inline uint64_t model_adc_loop(uint64_t a, uint64_t b)
{
	unsigned int carry = 0;
	uint64_t sum = 0;
	uint8_t n = COUNT(a);

	do
		carry = model_add(&sum, b, carry);
	while (--n);
	return sum + carry;
}

static inline uint64_t model_carry_insns(uint64_t a, uint64_t b)
{
	unsigned int carry = !(a >> 63);

	return (a << 1 | 1) + ((uint64_t)carry << 63 | b >> 1);
}

static inline uint64_t model_loopne(uint64_t a, uint64_t b)
{
	uint64_t rax = b, rcx = COUNT(a);

	do
		rax = LOW(rax + 1);
	while (--rcx && (rax & 15));
	return rax + (rcx << 8);
}

static inline uint64_t model_recurse(uint64_t a, uint64_t b)
{
	uint64_t sum = b;

	for (unsigned int k = 1; k <= COUNT(a); k++)
		sum += (a & ~(uint64_t)0xff) | k;
	return sum;
}

static inline uint64_t model_scasb(uint64_t a, uint64_t b)
{
	for (unsigned int i = 0; i < 8; i++)
		if ((uint8_t)(a >> 8 * i) == (uint8_t)b)
			return 7 - i;
	return 0;
}

static inline uint64_t model_cmov(uint64_t a, uint64_t b)
{
	uint64_t rax = (int64_t)a < (int64_t)b ? b : a;

	return (a - b) >> 63 ? a : rax;
}

static inline uint64_t model_muldiv(uint64_t a, uint64_t b)
{
	unsigned __int128 product = (unsigned __int128)a * b;

	return __builtin_bswap64((uint64_t)product / 1000 + (uint64_t)(product >> 64));
}

static inline uint64_t model_rip_sse(uint64_t a, uint64_t b)
{
	(void)b;
	return (((DATA0 + DATA1) & 0xffffffffffffu) | (DATA0 & 0xffff) << 48) + a;
}

/* name, flags, value (of a and b) */
#define TARGETS(T) \
	T(t_push_push, 0, a + 2 * b) \
	T(t_nop_nop, 0, a + b + 1) \
	T(t_ret_after_one, 0, a + b) \
	T(t_five_singles, 0, a + b) \
	T(t_2_2_1, 0, LOW(a ^ b)) \
	T(t_3_1_1, 0, a - b) \
	T(t_4_1, 0, (a + 4) ^ b) \
	T(t_1_4, 0, (a + 8) ^ b) \
	T(t_five_bytes, 0, ((0x12345678 + a) & 0x7fffffff) ^ b) \
	T(t_loop_to_second, 0, LOW(b + COUNT(a))) \
	T(t_loop_to_first, 0, b + 3 * (uint64_t)COUNT(a)) \
	T(t_loop_to_first_short, 0, LOW(b + COUNT(a))) \
	T(t_loop_singles, 0, LOW(b + COUNT(a))) \
	T(t_loop_insn, 0, COUNT(a) * b) \
	T(t_loop_insn_self, 0, b + 0 * a) \
	T(t_loopne, 0, model_loopne(a, b)) \
	T(t_jrcxz, 0, (b & 3 ? a : 0) + b) \
	T(t_jecxz_back, 0, COUNT(a) + b) \
	T(t_call_last, 0, model_helper_add(a, b) + 1) \
	T(t_call_twice, 0, model_helper_add(LOW(a), model_helper_add(a, b))) \
	T(t_call_indirect, 0, LOW(model_helper_add(a, b))) \
	T(t_call_indirect_r11, 0, model_helper_add(a, b)) \
	T(t_call_stack_operand, 0, model_helper_add(a, b)) \
	T(t_call_redzone_operand, 0, model_helper_add(a, b)) \
	T(t_call_memory, 0, model_helper_add(a, b)) \
	T(t_call_prefixed, 0, model_helper_add(a, b) + a) \
	T(t_call_next_pop, 0, a ^ b) \
	T(t_live_across_call, 0, ((~a + b) ^ a) + b - a) \
	T(t_recurse, 0, model_recurse(a, b)) \
	T(t_redzone, 0, (a + b) ^ a) \
	T(t_redzone_short, 0, a << 32 | LOW(b)) \
	T(t_push_rsp, 0, a + 0 * b) \
	T(t_pop_rsp, 0, b + 0 * a) \
	T(t_push_memory, 0, b + 0 * a) \
	T(t_lea_frame, 0, a - b) \
	T(t_leave, 0, a + b) \
	T(t_enter, 0, a ^ b) \
	T(t_ret_imm, 0, a + b) \
	T(t_misaligned, 0, b - a) \
	T(t_push_flags, 0, model_add_flags(a, b)) \
	T(t_pop_flags, 0, 0 * b + (a & 1 ? ~(uint64_t)0xff : 1)) \
	T(t_endbr_push, 0, a + b) \
	T(t_endbr_tiny, 0, LOW(a) + 0 * b) \
	T(t_endbr_long, 0, 0x1000 + a - b) \
	T(t_patchable_entry, 0, a + 4 * b) \
	T(t_cmp_jcc, 0, a < b ? b - a : a - b) \
	T(t_jcc_near, 0, (int32_t)a > (int32_t)b ? LOW(a) : LOW(b)) \
	T(t_adc_chain, 0, model_adc_chain(a, b)) \
	T(t_adc_loop, 0, model_adc_loop(a, b)) \
	T(t_setcc, 0, model_setcc(a, b)) \
	T(t_lahf, 0, model_lahf(a, b)) \
	T(t_sahf, 0, 0 * b + ((a >> 8 & 0xd5) | 2)) \
	T(t_carry_insns, 0, model_carry_insns(a, b)) \
	T(t_bt_sbb, 0, a >> (b & 63) & 1 ? 0 : ~(uint64_t)0) \
	T(t_cmov, 0, model_cmov(a, b)) \
	T(t_direction, 0, a + b) \
	T(t_movs_backwards, 0, a ^ b) \
	T(t_rep_movsb, 0, a + a + 0 * b) \
	T(t_rep_stosq, 0, (a + a) ^ b) \
	T(t_repne_scasb, 0, model_scasb(a, b)) \
	T(t_rip_load, 0, 0 * b + ((DATA0 + a) ^ DATA1) + 0x55 - 0x11223344) \
	T(t_rip_load_short, 0, 0 * b + ((LOW(a) & ~0xffu) | ((a + DATA0) & 0xff))) \
	T(t_rip_store, 0, 0 * b + 0x1234 + 0x56 + 0x789a + a) \
	T(t_rip_lea, 0, a + 8 + 0 * b) \
	T(t_rip_cmp_imm, 0, a + 7 + 0 * b) \
	T(t_rip_imul_imm, 0, 0 * a + 0x01010101 * DATA0 - 3 * DATA1 + b) \
	T(t_rip_push, 0, (DATA0 ^ a) + 0 * b) \
	T(t_rip_sse, 0, model_rip_sse(a, b)) \
	T(t_rip_jmp, 0, a - b) \
	T(t_end1_nops, TARGET_VOID, 0 * a * b) \
	T(t_end2_nops, 0, LOW(a) + 0 * b) \
	T(t_end3_int3, 0, LOW(a) + 0 * b) \
	T(t_end4_int3, 0, a + 0 * b) \
	T(t_end1_int3, TARGET_VOID, 0 * a * b) \
	T(t_end1_direct, TARGET_VOID, 0 * a * b) \
	T(t_end2_direct, 0, LOW(a) + 0 * b) \
	T(t_end3_direct, 0, LOW(b) + 0 * a) \
	T(t_end4_direct, 0, b + 0 * a) \
	T(t_end_rep_ret, 0, a + 0 * b) \
	T(t_end_last, 0, ~b + 0 * a) \
	T(t_no_unwind, 0, b - a) \
	T(t_jmp_short, 0, a + b) \
	T(t_jmp_short_first, 0, a + b) \
	T(t_jmp_near, 0, a - b) \
	T(t_tail_jmp, 0, model_helper_add(a + 1, b)) \
	T(t_tail_jmp_indirect, 0, model_helper_add(a - 1, b)) \
	T(t_tail_jcc, 0, b & 1 ? model_helper_add(a, b) : a) \
	T(t_notrack_jmp, 0, b + 0 * a) \
	T(t_switch, 0, (b & 3) == 0 ? a + 1 : (b & 3) == 2 ? a - 1 : a) \
	T(t_computed_jump, 0, a + (1 ^ ((8 - (b & 7)) & 1))) \
	T(t_inner_entry, 0, a + b) \
	T(t_outside_entry, 0, a + b) \
	T(t_lock_skip, 0, a + b) \
	T(t_lock_skip_near, 0, a + 1 + 0 * b) \
	T(t_locked, 0, a + b) \
	T(t_line_five, 0, 0x7654321 + a + 0 * b) \
	T(t_line_window, 0, b - a) \
	T(t_line_two, 0, LOW(a ^ b)) \
	T(t_page_window, 0, ~(a + b)) \
	T(t_prefixes, 0, 0x1122334455667788 + a + 0 * b) \
	T(t_pause_nops, 0, a + b) \
	T(t_muldiv, 0, model_muldiv(a, b)) \
	T(t_syscall, TARGET_SYSCALL, getuid() + a + 0 * b) \
	T(t_xmm, 0, (a + b) ^ a) \
	T(t_x87, 0, (uint64_t)((int64_t)(int32_t)a + (int32_t)b)) \
	T(t_ymm, TARGET_AVX2, (a + b) ^ 0x2222222222222222u) \
	T(t_zmm, TARGET_AVX512, 0 * b + a + 0x0f0f0f0f0f0f0f0fu + 0xa5)

typedef uint64_t (*target_function)(uint64_t a, uint64_t b);

struct target {
	const char *name;
	target_function function;
	const uint8_t *end;
	target_function model;
	unsigned int flags;
};

#ifdef __cplusplus
extern "C" {
#endif
#define T(name, flags, value) \
	uint64_t name(uint64_t a, uint64_t b); \
	extern const uint8_t name##_end[];
TARGETS(T)
#undef T
uint64_t helper_add(uint64_t a, uint64_t b);
/* without a model */
uint64_t t_nops(uint64_t a, uint64_t b);
uint64_t t_long_nop(uint64_t a, uint64_t b);
uint64_t t_load(const uint64_t *word);
uint64_t t_call_callback(void (*callback)(void *), void *argument);
extern const uint8_t t_call_callback_end[];
extern const uint8_t t_load_site[], t_load_end[], t_nops_end[], t_long_nop_end[];
/* procedures that destroy what a procedure may destroy, and call destroy_inner on the way */
extern void (*destroy_inner)(struct patch_exec_context *, uint8_t);
extern uint64_t destroy_entry_rsp, destroy_entry_flags;
void destroy_general(struct patch_exec_context *, uint8_t);
void destroy_sse(struct patch_exec_context *, uint8_t);
void destroy_avx(struct patch_exec_context *, uint8_t);
void destroy_avx512(struct patch_exec_context *, uint8_t);
#ifdef __cplusplus
}
#endif

#define T(name, flags, value) \
	static inline uint64_t model_##name(uint64_t a, uint64_t b) \
	{ \
		return (uint64_t)(value); \
	}
TARGETS(T)
#undef T

#define T(name, flags, value) { #name, name, name##_end, model_##name, flags },
static const struct target targets[] = { TARGETS(T) };
#undef T

#define TARGET_COUNT (sizeof(targets) / sizeof(targets[0]))

static const uint64_t target_inputs[][2] = {
	{ 1, 0 },
	{ 5, 7 },
	{ 0x123456789abcde03, 0xfedcba987654320f },
	{ 0xffffffffffffff11, 1 },
	{ 0x8000000000000008, 0x7fffffffffffff12 },
	{ 0x00000000ffffff02, 0xffffffff00000004 },
};

#define TARGET_INPUTS (sizeof(target_inputs) / sizeof(target_inputs[0]))

static inline bool target_runs_here(const struct target *target)
{
	if (target->flags & TARGET_AVX2 && !__builtin_cpu_supports("avx2"))
		return false;
	if (target->flags & TARGET_AVX512 && !__builtin_cpu_supports("avx512bw"))
		return false;
	return true;
}

static inline uintptr_t target_start(const struct target *target)
{
	return (uintptr_t)target->function;
}

static inline size_t target_size(const struct target *target)
{
	return (size_t)((uintptr_t)target->end - target_start(target));
}

static inline const struct target *target_named(const char *name)
{
	for (size_t i = 0; i < TARGET_COUNT; i++)
		if (!strcmp(targets[i].name, name))
			return &targets[i];
	harness_say("no target %s\n", name);
	abort();
}

/* ---- instructions ------------------------------------------------------------------------------------------------ */

#define TARGET_MAX_INSTRUCTIONS 32

struct instructions {
	unsigned int count;
	uintptr_t address[TARGET_MAX_INSTRUCTIONS];
	uint8_t length[TARGET_MAX_INSTRUCTIONS];
};

/* Every instruction in [at, end) but the int3 that fill holes. Before anything is patched. */
static inline struct instructions code_decode(uintptr_t at, uintptr_t end)
{
	struct instructions list;
	ZydisDecoder decoder;

	memset(&list, 0, sizeof(list));
	ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	while (at < end) {
		ZydisDecodedInstruction instruction;

		if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, NULL, (const void *)at,
								end - at, &instruction))) {
			harness_say("%#zx does not decode\n", (size_t)at);
			abort();
		}
		if (*(const uint8_t *)at != 0xcc) {
			if (list.count == TARGET_MAX_INSTRUCTIONS)
				abort();
			list.address[list.count] = at;
			list.length[list.count++] = instruction.length;
		}
		at += instruction.length;
	}
	return list;
}

static inline struct instructions target_decode(const struct target *target)
{
	return code_decode(target_start(target), (uintptr_t)target->end);
}

static inline bool target_has_endbr(uintptr_t at)
{
	static const uint8_t endbr64[] = { 0xf3, 0x0f, 0x1e, 0xfa };

	return !memcmp((const void *)at, endbr64, sizeof(endbr64));
}

static inline bool target_is_call(uintptr_t at)
{
	const uint8_t *code = (const uint8_t *)at;

	while (*code == 0x66 || *code == 0x3e || (*code & 0xf0) == 0x40)
		code++;
	return *code == 0xe8 || (*code == 0xff && (code[1] >> 3 & 7) == 2);
}

/* ---- the machine ------------------------------------------------------------------------------------------------- */

#define MACHINE_STACK_SIZE 0x40000 /* as machine_call() in targets.S has it */
#define MACHINE_FLAGS 0xcd5u       /* CF PF AF ZF SF DF OF */
#define MACHINE_MAX_STEPS 512

struct machine_state {
	uint64_t registers[PATCH_ARCH_GREGS_COUNT]; /* PATCH_X86_64_RAX … */
	uint64_t flags;
	uint64_t rsp;
	uint8_t xmm[16][16];
};

struct machine_step {
	uint64_t rip;
	uint64_t registers[PATCH_ARCH_GREGS_COUNT];
	uint64_t flags;
	uint64_t rsp;
};

/* What one call of one target with one input does: the steps inside it, and the state behind it. */
struct machine_trace {
	unsigned int count;
	struct machine_step step[MACHINE_MAX_STEPS];
	struct machine_state final;
};

struct machine {
	uint8_t *stack_top;
	struct machine_trace (*trace)[TARGET_INPUTS]; /* by target, by input */
};

#ifdef __cplusplus
extern "C"
#endif
void machine_call(target_function function, uint64_t a, uint64_t b, void *stack_top, struct machine_state *state,
		  uint64_t flags);

static inline uint8_t *machine_stack(void)
{
	uint8_t *memory = (uint8_t *)mmap(NULL, 2 * MACHINE_STACK_SIZE, PROT_READ | PROT_WRITE,
					  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uintptr_t aligned;

	REQUIRE(memory != (uint8_t *)MAP_FAILED);
	aligned = ((uintptr_t)memory + MACHINE_STACK_SIZE - 1) & ~(uintptr_t)(MACHINE_STACK_SIZE - 1);
	return (uint8_t *)aligned + MACHINE_STACK_SIZE;
}

/* Flags at the entry of a target: something else for each input, never DF, never TF. */
static inline uint64_t machine_entry_flags(size_t input)
{
	static const uint64_t flags[] = { 0x202, 0x203, 0x2c2, 0xa12, 0x2d7, 0x246 };

	return flags[input % (sizeof(flags) / sizeof(flags[0]))];
}

static struct {
	struct machine_trace *trace;
	uintptr_t lower, upper, last;
	unsigned int overflows;
} machine_stepper;

static inline GP_ONLY bool machine_is_string(uintptr_t rip)
{
	const uint8_t *code = (const uint8_t *)rip;

	return (code[0] == 0xf2 || code[0] == 0xf3) &&
	       ((code[1] >= 0xa4 && code[1] <= 0xaf) || (code[1] == 0x48 && code[2] >= 0xa4 && code[2] <= 0xaf));
}

static inline GP_ONLY bool machine_is_syscall(uintptr_t rip)
{
	return ((const uint8_t *)rip)[0] == 0x0f && ((const uint8_t *)rip)[1] == 0x05;
}

static inline GP_ONLY void machine_record_step(struct machine_step *step, uintptr_t rip, const greg_t *registers)
{
	static const int index[PATCH_ARCH_GREGS_COUNT] = { REG_RAX, REG_RBX, REG_RCX, REG_RDX, REG_RSI,
							    REG_RDI, REG_RBP, REG_R8,  REG_R9,  REG_R10,
							    REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };

	step->rip = rip;
	for (int i = 0; i < PATCH_ARCH_GREGS_COUNT; i++)
		step->registers[i] = (uint64_t)registers[index[i]];
	step->flags = (uint64_t)registers[REG_EFL] & MACHINE_FLAGS;
	step->rsp = (uint64_t)registers[REG_RSP];
}

static GP_ONLY MAYBE_UNUSED void machine_on_step(int signo, siginfo_t *info, void *context)
{
	const greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
	uintptr_t rip = (uintptr_t)registers[REG_RIP];
	struct machine_trace *trace = machine_stepper.trace;
	bool skipped;

	(void)signo;
	(void)info;
	if (rip < machine_stepper.lower || rip >= machine_stepper.upper) {
		machine_stepper.last = rip;
		return;
	}
	if (rip == machine_stepper.last && machine_is_string(rip))
		return;
	machine_stepper.last = rip;
	if (trace->count == MACHINE_MAX_STEPS) {
		machine_stepper.overflows++;
		return;
	}
	/* The processor does not stop between a syscall and the next instruction: the nop that is there. */
	skipped = trace->count > 0 && machine_is_syscall(trace->step[trace->count - 1].rip) &&
		  rip == trace->step[trace->count - 1].rip + 3;
	machine_record_step(&trace->step[trace->count++], rip - (skipped ? 1 : 0), registers);
	if (skipped && trace->count < MACHINE_MAX_STEPS)
		machine_record_step(&trace->step[trace->count++], rip, registers);
}

static inline void machine_record(void *argument)
{
	struct machine *machine = (struct machine *)argument;
	struct sigaction action;

	memset(&action, 0, sizeof(action));
	action.sa_sigaction = machine_on_step;
	action.sa_flags = SA_SIGINFO;
	REQUIRE(sigaction(SIGTRAP, &action, NULL) == 0);
	for (size_t t = 0; t < TARGET_COUNT; t++) {
		if (!target_runs_here(&targets[t]))
			continue;
		for (size_t i = 0; i < TARGET_INPUTS; i++) {
			struct machine_trace *trace = &machine->trace[t][i];

			machine_stepper.trace = trace;
			machine_stepper.lower = target_start(&targets[t]);
			machine_stepper.upper = (uintptr_t)targets[t].end;
			machine_stepper.last = 0;
			machine_call(targets[t].function, target_inputs[i][0], target_inputs[i][1], machine->stack_top,
				     &trace->final, machine_entry_flags(i) | 0x100);
		}
	}
	CHECK_EQ(machine_stepper.overflows, 0);
}

/* Before patch_init(): single-step every target with every input, in a child. */
static inline void machine_prepare(struct machine *machine)
{
	size_t size = TARGET_COUNT * sizeof(*machine->trace);

	machine->stack_top = machine_stack();
	machine->trace = (struct machine_trace(*)[TARGET_INPUTS])mmap(NULL, size, PROT_READ | PROT_WRITE,
								      MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	REQUIRE((void *)machine->trace != MAP_FAILED);
	harness_isolated("single-stepping the targets", machine_record, machine);
	for (size_t t = 0; t < TARGET_COUNT; t++) {
		const struct target *target = &targets[t];

		if (!target_runs_here(target))
			continue;
		for (size_t i = 0; i < TARGET_INPUTS; i++) {
			const struct machine_trace *trace = &machine->trace[t][i];

			CONTEXT("%s, input %zu, not patched", target->name, i);
			CHECK(trace->count > 0);
			if (!(target->flags & TARGET_VOID))
				CHECK_EQ(trace->final.registers[PATCH_X86_64_RAX],
					 target->model(target_inputs[i][0], target_inputs[i][1]));
		}
	}
	CONTEXT("%s", "");
	if (harness_failures)
		exit(harness_end());
}

static inline unsigned int machine_count(const struct machine_trace *trace, uintptr_t rip)
{
	unsigned int count = 0;

	for (unsigned int i = 0; i < trace->count; i++)
		count += trace->step[i].rip == rip;
	return count;
}

static const char *const machine_register_name[PATCH_ARCH_GREGS_COUNT] = {
	"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"
};

/* May this register differ from the trace? The kernel puts rip and rflags in rcx and r11. */
static inline GP_ONLY bool machine_is_loose(const struct target *target, int number)
{
	return target->flags & TARGET_SYSCALL && (number == PATCH_X86_64_RCX || number == PATCH_X86_64_R11);
}

/* Run a target; everything behind it has to be as it was single-stepped. */
static inline void machine_run(const struct machine *machine, size_t t, size_t i)
{
	const struct target *target = &targets[t];
	const struct machine_state *expected = &machine->trace[t][i].final;
	struct machine_state state;

	memset(&state, 0xee, sizeof(state));
	machine_call(target->function, target_inputs[i][0], target_inputs[i][1], machine->stack_top, &state,
		     machine_entry_flags(i));
	if (!(target->flags & TARGET_VOID)) {
		uint64_t value = target->model(target_inputs[i][0], target_inputs[i][1]);

		if (state.registers[PATCH_X86_64_RAX] != value)
			FAIL("%s(%#llx, %#llx) returned %#llx, wanted %#llx", target->name,
			     (unsigned long long)target_inputs[i][0], (unsigned long long)target_inputs[i][1],
			     (unsigned long long)state.registers[PATCH_X86_64_RAX], (unsigned long long)value);
	}
	for (int r = 0; r < PATCH_ARCH_GREGS_COUNT; r++)
		if (state.registers[r] != expected->registers[r])
			FAIL("%s, input %zu: %s is %#llx at return, wanted %#llx", target->name, i,
			     machine_register_name[r], (unsigned long long)state.registers[r],
			     (unsigned long long)expected->registers[r]);
	if (state.rsp != expected->rsp)
		FAIL("%s, input %zu: rsp is %#llx at return, wanted %#llx", target->name, i,
		     (unsigned long long)state.rsp, (unsigned long long)expected->rsp);
	if ((state.flags ^ expected->flags) & MACHINE_FLAGS)
		FAIL("%s, input %zu: flags are %#llx at return, wanted %#llx", target->name, i,
		     (unsigned long long)(state.flags & MACHINE_FLAGS),
		     (unsigned long long)(expected->flags & MACHINE_FLAGS));
	for (int x = 0; x < 16; x++)
		if (memcmp(state.xmm[x], expected->xmm[x], 16))
			FAIL("%s, input %zu: xmm%d differs at return", target->name, i, x);
}

/* ---- recording procedures ---------------------------------------------------------------------------------------- */

/* One for each patch; user_data of recorder(). Written by procedures only, without extended state. */
struct recorder {
	const struct target *target;
	const struct machine_trace *trace; /* of the call that runs, or NULL */
	uintptr_t address;                 /* as located */
	uintptr_t hook;                    /* where the hook sits: behind an endbr64 */
	unsigned int hits;                 /* this call */
	unsigned int posts;
	unsigned int cursor;               /* first step of the trace not yet matched */
	unsigned int matched;              /* the step of the last hit */
	bool is_call;                      /* an instruction that calls: its next step is not the one after it */
	bool leaves;                       /* an endbr64, which is not displaced: the hook is behind it */
	const char *problem;               /* the first thing that was wrong */
	int problem_register;
	uint64_t seen, wanted;
};

static inline GP_ONLY void recorder_problem(struct recorder *recorder, const char *what, int number, uint64_t seen,
					    uint64_t wanted)
{
	if (recorder->problem)
		return;
	recorder->problem = what;
	recorder->problem_register = number;
	recorder->seen = seen;
	recorder->wanted = wanted;
}

static inline GP_ONLY void recorder_compare(struct recorder *recorder, const struct patch_exec_context *context,
					    const struct machine_step *step)
{
	for (int r = 0; r < PATCH_ARCH_GREGS_COUNT; r++)
		if (context->general_purpose_registers[r] != step->registers[r] &&
		    !machine_is_loose(recorder->target, r))
			recorder_problem(recorder, "register", r, context->general_purpose_registers[r],
					 step->registers[r]);
	if (context->stack_pointer != step->rsp)
		recorder_problem(recorder, "stack_pointer", -1, context->stack_pointer, step->rsp);
	if ((context->status_register & MACHINE_FLAGS) != step->flags)
		recorder_problem(recorder, "status_register", -1, context->status_register & MACHINE_FLAGS, step->flags);
}

static MAYBE_UNUSED GP_ONLY void recorder_procedure(struct patch_exec_context *context, uint8_t post)
{
	struct recorder *recorder = (struct recorder *)context->user_data;
	const struct machine_trace *trace = recorder->trace;
	unsigned int at;

	if (!post) {
		recorder->hits++;
		if (context->program_counter != recorder->address)
			recorder_problem(recorder, "program_counter", -1, context->program_counter, recorder->address);
		if (!trace)
			return;
		for (at = recorder->cursor; at < trace->count && trace->step[at].rip != recorder->hook; at++)
			;
		if (at == trace->count) {
			recorder_problem(recorder, "a hit too many", -1, recorder->hits, 0);
			return;
		}
		recorder->matched = at;
		recorder->cursor = at + 1;
		recorder_compare(recorder, context, &trace->step[at]);
		return;
	}
	recorder->posts++;
	if (context->program_counter < (uintptr_t)recorder->target->function ||
	    context->program_counter >= (uintptr_t)recorder->target->end)
		recorder_problem(recorder, "program_counter after the instruction", -1, context->program_counter,
				 recorder->address);
	if (!trace || recorder->is_call || recorder->matched + 1 >= trace->count)
		return;
	/* The next step of the trace may be behind a callee; without one it is the next instruction. */
	if (recorder->leaves || trace->step[recorder->matched + 1].rip == recorder->address)
		return;
	if (context->program_counter != trace->step[recorder->matched + 1].rip)
		recorder_problem(recorder, "program_counter after the instruction", -1, context->program_counter,
				 trace->step[recorder->matched + 1].rip);
	recorder_compare(recorder, context, &trace->step[recorder->matched + 1]);
}

static inline void recorder_reset(struct recorder *recorder, const struct machine_trace *trace)
{
	recorder->trace = trace;
	recorder->hits = 0;
	recorder->posts = 0;
	recorder->cursor = 0;
	recorder->matched = 0;
	recorder->problem = NULL;
}

static inline void recorder_init(struct recorder *recorder, const struct target *target, uintptr_t address)
{
	memset(recorder, 0, sizeof(*recorder));
	recorder->target = target;
	recorder->address = address;
	recorder->leaves = target_has_endbr(address);
	recorder->hook = address + (recorder->leaves ? 4 : 0);
	recorder->is_call = target_is_call(address);
}

/* After a call: were the hits those of the trace? */
static inline void recorder_check(const struct recorder *recorder, size_t input)
{
	unsigned int wanted = machine_count(recorder->trace, recorder->hook);

	if (recorder->problem)
		FAIL("%s+%#zx, input %zu: %s %s is %#llx, wanted %#llx", recorder->target->name,
		     (size_t)(recorder->address - target_start(recorder->target)), input, recorder->problem,
		     recorder->problem_register >= 0 ? machine_register_name[recorder->problem_register] : "",
		     (unsigned long long)recorder->seen, (unsigned long long)recorder->wanted);
	if (recorder->hits != wanted)
		FAIL("%s+%#zx, input %zu: %u hits, wanted %u", recorder->target->name,
		     (size_t)(recorder->address - target_start(recorder->target)), input, recorder->hits, wanted);
}

/* ---- text -------------------------------------------------------------------------------------------------------- */

/* The bytes of a target and of what stands around it, to compare with later. */
struct text_copy {
	uintptr_t start;
	size_t size;
	uint8_t bytes[1024];
};

static inline struct text_copy text_save(uintptr_t start, size_t size)
{
	struct text_copy copy;

	REQUIRE(size <= sizeof(copy.bytes));
	copy.start = start;
	copy.size = size;
	memcpy(copy.bytes, (const void *)start, size);
	return copy;
}

static inline bool text_is_same(const struct text_copy *copy)
{
	return !memcmp((const void *)copy->start, copy->bytes, copy->size);
}

static inline struct text_copy text_of_target(const struct target *target)
{
	return text_save(target_start(target) - 16, target_size(target) + 32);
}

#define CHECK_TEXT_SAME(copy) \
	do { \
		const struct text_copy *copy_ = (copy); \
		if (!text_is_same(copy_)) \
			for (size_t byte_ = 0; byte_ < copy_->size; byte_++) \
				if (((const uint8_t *)copy_->start)[byte_] != copy_->bytes[byte_]) { \
					FAIL("byte at %#llx is %02x, was %02x", \
					     (unsigned long long)(copy_->start + byte_), \
					     ((const uint8_t *)copy_->start)[byte_], copy_->bytes[byte_]); \
					break; \
				} \
	} while (0)

#endif
