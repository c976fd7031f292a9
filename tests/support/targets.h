/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The functions of targets.S, what each has to return, and a machine to run them in: with every register known, and
 * with a trace of every instruction made by single-stepping, before libpatch is there.
 */
#ifndef TESTS_TARGETS_H
#define TESTS_TARGETS_H

#include "harness.h"

#define TARGET_AVX2 1u    /* needs AVX2 */
#define TARGET_AVX512 2u  /* needs AVX-512 F, BW */
#define TARGET_SYSCALL 4u /* rcx and r11 are the kernel's behind the syscall */
#define TARGET_VOID 8u    /* returns nothing */

/* name, flags, value (of a and b, in words of target_models.c) */
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
#define TARGET_ONE(name, flags, value) +1
#define TARGET_COUNT ((size_t)(0 TARGETS(TARGET_ONE)))
#define TARGET_INPUTS ((size_t)6)

extern const struct target targets[TARGET_COUNT];
/* What every target is called with: a and b. */
extern const uint64_t target_inputs[TARGET_INPUTS][2];

bool target_runs_here(const struct target *target);
uintptr_t target_start(const struct target *target);
size_t target_size(const struct target *target);
const struct target *target_named(const char *name);

/* ---- instructions ------------------------------------------------------------------------------------------------ */

#define TARGET_MAX_INSTRUCTIONS 32

struct instructions {
	unsigned int count;
	uintptr_t address[TARGET_MAX_INSTRUCTIONS];
	uint8_t length[TARGET_MAX_INSTRUCTIONS];
};

/* Every instruction in [at, end) but the int3 that fill holes. Before anything is patched. */
struct instructions code_decode(uintptr_t at, uintptr_t end);
struct instructions target_decode(const struct target *target);
bool target_has_endbr(uintptr_t at);
bool target_is_call(uintptr_t at);

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

void machine_call(target_function function, uint64_t a, uint64_t b, void *stack_top, struct machine_state *state,
		  uint64_t flags);

uint8_t *machine_stack(void);

/* Flags at the entry of a target: something else for each input, never DF, never TF. */
uint64_t machine_entry_flags(size_t input);
/* Before patch_init(): single-step every target with every input, in a child. */
void machine_prepare(struct machine *machine);
unsigned int machine_count(const struct machine_trace *trace, uintptr_t rip);
extern const char *const machine_register_name[PATCH_ARCH_GREGS_COUNT];

/* Run a target; everything behind it has to be as it was single-stepped. */
void machine_run(const struct machine *machine, size_t t, size_t i);

/* ---- recording procedures ---------------------------------------------------------------------------------------- */

/* One for each patch; user_data of recorder_procedure(). Written by procedures only, without extended state. */
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

/* The procedure of a patch whose user_data is a recorder. */
void recorder_procedure(struct patch_exec_context *context, uint8_t post);
void recorder_reset(struct recorder *recorder, const struct machine_trace *trace);
void recorder_init(struct recorder *recorder, const struct target *target, uintptr_t address);

/* After a call: were the hits those of the trace? */
void recorder_check(const struct recorder *recorder, size_t input);

/* ---- text -------------------------------------------------------------------------------------------------------- */

/* The bytes of a target and of what stands around it, to compare with later. */
struct text_copy {
	uintptr_t start;
	size_t size;
	uint8_t bytes[1024];
};

struct text_copy text_save(uintptr_t start, size_t size);
bool text_is_same(const struct text_copy *copy);
struct text_copy text_of_target(const struct target *target);

/* Fails, as in `file` and `line`, with the first byte that differs. */
void text_check_same(const struct text_copy *copy, const char *file, int line);
#define CHECK_TEXT_SAME(copy) text_check_same(copy, __FILE__, __LINE__)

#ifdef __cplusplus
}
#endif

#endif
