/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A procedure writes program_counter or stack_pointer: the thread goes on there and with that, whatever the masks say,
 * at jumps and traps, before an instruction and after it, with all other registers and the flags as they were. What is
 * left out is left out: the instruction, the calls behind the one that moved.
 */
#include "targets.h"

extern uint64_t m_entry(uint64_t, uint64_t), m_other(uint64_t, uint64_t), m_skip(uint64_t, uint64_t);
extern uint64_t m_stack(uint64_t, uint64_t), m_call(uint64_t, uint64_t), m_jump(uint64_t, uint64_t);
extern const uint8_t m_skip_site[], m_skip_next[], m_skip_end[], m_stack_site[], m_ret_site[], m_landing[];
extern const uint8_t m_jump_site[], m_jump_target[], m_call_site[], m_landing_back[];
extern uint64_t m_saved, m_seen;

/* None of them changes flags, or a register but rax and rdx. */
__asm__(".text\n"
	".p2align 4\n"
	"m_entry: .cfi_startproc\n"
	"	.byte 0x0f, 0x1f, 0x44, 0, 0\n"
	"	mov $1, %eax\n"
	"	ret\n"
	"	.cfi_endproc\n"
	".p2align 4\n"
	"m_other: .cfi_startproc\n"
	"	mov $2, %eax\n"
	"	ret\n"
	"	.cfi_endproc\n"
	".p2align 4\n"
	"m_skip: .cfi_startproc\n"
	"	mov $0x10, %eax\n"
	"m_skip_site:\n"
	"	mov $0x20, %eax\n"
	"m_skip_next:\n"
	"	lea 1(%rax), %eax\n"
	"m_skip_end:\n"
	"	ret\n"
	"	.cfi_endproc\n"
	".p2align 4\n"
	"m_stack: .cfi_startproc\n"
	"	mov %rsp, m_saved(%rip)\n"
	"m_stack_site:\n"
	"	.byte 0x0f, 0x1f, 0x44, 0, 0\n"
	"	mov %rsp, m_seen(%rip)\n"
	"	mov m_saved(%rip), %rsp\n"
	"	mov $4, %eax\n"
	"	ret\n"
	"	.cfi_endproc\n"
	".p2align 4\n"
	"m_call: .cfi_startproc\n"
	"	mov %rsp, m_saved(%rip)\n"
	"	mov $5, %eax\n"
	"m_call_site:\n"
	"	call m_ret\n"
	"m_landing_back:\n"
	"	mov %rsp, m_seen(%rip)\n"
	"	mov m_saved(%rip), %rsp\n"
	"	ret\n"
	"	.cfi_endproc\n"
	".p2align 4\n"
	"m_ret: .cfi_startproc\n"
	"	nop\n"
	"m_ret_site:\n"
	"	ret\n"
	"	.cfi_endproc\n"
	"	int3; int3; int3; int3; int3\n"
	".p2align 4\n"
	"m_landing: .cfi_startproc\n"
	"	mov $6, %eax\n"
	"	jmp m_landing_back\n"
	"	.cfi_endproc\n"
	".p2align 4\n"
	"m_jump: .cfi_startproc\n"
	"	lea m_jump_target(%rip), %rdx\n"
	"m_jump_site:\n"
	"	jmp *%rdx\n"
	"	nop; nop; nop; nop\n"
	"m_jump_target:\n"
	"	mov $7, %eax\n"
	"	ret\n"
	"	mov $8, %eax\n"
	"	ret\n"
	"	.cfi_endproc\n"
	".bss\n"
	".p2align 3\n"
	".globl m_saved, m_seen\n"
	"m_saved: .zero 8\n"
	"m_seen: .zero 8\n"
	".text\n");

static uint8_t *stack_top;
static unsigned int hits[2];

/* What the procedure does, in the call whose number is `post`; 0: leaves it. */
static struct {
	uint8_t post;
	uintptr_t program_counter;
	int64_t stack; /* added */
	bool returns;
} move;

static GP_ONLY void procedure(struct patch_exec_context *context, uint8_t post)
{
	hits[post]++;
	if (post != move.post)
		return;
	if (move.returns) {
		context->program_counter = *(uintptr_t *)context->stack_pointer;
		context->stack_pointer += 8;
	}
	if (move.program_counter != 0)
		context->program_counter = move.program_counter;
	context->stack_pointer += (uint64_t)move.stack;
}

static unsigned int later_hits;

static GP_ONLY void later(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	later_hits++;
}

struct variant {
	int policy;
	int model;
	uint64_t clobber;
};

static patch_t make_at(uintptr_t address, const struct variant *variant,
		       void (*called)(struct patch_exec_context *, uint8_t))
{
	struct patch_location location = location_at(address);
	struct patch_exec_model model = model_of(variant->model, called, NULL);
	patch_attr attr = attr_of(variant->policy, PATCH_ENABLED);
	patch_t patch = NULL;

	model.probe.read_registers = 0;
	model.probe.clobber_registers = variant->clobber;
	REQUIRE_OK(patch_make(&location, &model, &attr, &patch, NULL));
	return patch;
}

/* Everything that the function does not change is what it was. Returns rax. */
static uint64_t call(target_function function)
{
	static const unsigned int kept[] = { PATCH_X86_64_RBX, PATCH_X86_64_RCX, PATCH_X86_64_RSI, PATCH_X86_64_RDI,
					     PATCH_X86_64_RBP, PATCH_X86_64_R8,	 PATCH_X86_64_R9,  PATCH_X86_64_R10,
					     PATCH_X86_64_R11, PATCH_X86_64_R12, PATCH_X86_64_R13, PATCH_X86_64_R14,
					     PATCH_X86_64_R15 };
	static struct machine_state plain, state;
	uint64_t flags = 0xad7; /* all arithmetic flags; not DF */

	machine_call(m_other, 11, 22, stack_top, &plain, flags);
	hits[0] = hits[1] = later_hits = 0;
	m_seen = 0;
	machine_call(function, 11, 22, stack_top, &state, flags);
	for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
		CHECK_EQ(state.registers[kept[i]], plain.registers[kept[i]]);
	CHECK_EQ(state.flags & MACHINE_FLAGS, plain.flags & MACHINE_FLAGS);
	return state.registers[PATCH_X86_64_RAX];
}

static void drop(patch_t patch)
{
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
}

static void try_before(const struct variant *variant)
{
	bool around = variant->model == PATCH_EXEC_MODEL_PROBE_AROUND;
	patch_t patch, other;

	patch = make_at((uintptr_t)m_entry, variant, procedure);
	CHECK_OK(patch_commit());
	move = (typeof(move)){ .post = 2 };
	CHECK_EQ(call(m_entry), 1);
	CHECK_EQ(hits[1], around);
	move = (typeof(move)){ .program_counter = (uintptr_t)m_other };
	CHECK_EQ(call(m_entry), 2);
	CHECK_EQ(hits[0], 1);
	CHECK_EQ(hits[1], 0);
	move = (typeof(move)){ .returns = true };
	CHECK_EQ(call(m_entry) == 1, false);
	drop(patch);

	patch = make_at((uintptr_t)m_skip_site, variant, procedure);
	other = make_at((uintptr_t)m_skip_site, variant, later);
	CHECK_OK(patch_commit());
	move = (typeof(move)){ .program_counter = (uintptr_t)m_skip_next };
	CHECK_EQ(call(m_skip), 0x11);
	CHECK_EQ(later_hits, 0);
	move = (typeof(move)){ .program_counter = (uintptr_t)m_skip_site };
	CHECK_EQ(call(m_skip), 0x21);
	CHECK_EQ(later_hits, 1 + around);
	drop(patch);
	drop(other);
}

static void try_stack(const struct variant *variant)
{
	/* Into the hook's frame, around it, far from it. */
	static const int64_t by[] = { 8, -8, 16, -128, -136, -256, -300, -440, -448, -600, -1000, 0x1000, -0x4000 };
	patch_t patch = make_at((uintptr_t)m_stack_site, variant, procedure);

	CHECK_OK(patch_commit());
	for (uint8_t post = 0; post <= (variant->model == PATCH_EXEC_MODEL_PROBE_AROUND); post++)
		for (size_t i = 0; i < sizeof(by) / sizeof(by[0]); i++) {
			CONTEXT("%s, model %d, clobber %#llx, call %u, stack pointer %+lld",
				policy_name(variant->policy), variant->model, (unsigned long long)variant->clobber,
				post, (long long)by[i]);
			move = (typeof(move)){ .post = post, .stack = by[i] };
			stack_top -= 0x2000;
			CHECK_EQ(call(m_stack), 4);
			stack_top += 0x2000;
			CHECK_EQ(m_seen, m_saved + (uint64_t)by[i]);
			CHECK_EQ(hits[post], 1);
		}
	drop(patch);
}

static void try_after(const struct variant *variant)
{
	patch_t patch;

	patch = make_at((uintptr_t)m_skip_site, variant, procedure);
	CHECK_OK(patch_commit());
	move = (typeof(move)){ .post = 1, .program_counter = (uintptr_t)m_skip_end };
	CHECK_EQ(call(m_skip), 0x20);
	drop(patch);

	patch = make_at((uintptr_t)m_ret_site, variant, procedure);
	CHECK_OK(patch_commit());
	move = (typeof(move)){ .post = 1, .program_counter = (uintptr_t)m_landing };
	CHECK_EQ(call(m_call), 6);
	CHECK_EQ(m_seen, m_saved);
	move = (typeof(move)){ .post = 1, .stack = 16 };
	CHECK_EQ(call(m_call), 5);
	CHECK_EQ(m_seen, m_saved + 16);
	drop(patch);

	patch = make_at((uintptr_t)m_jump_site, variant, procedure);
	CHECK_OK(patch_commit());
	move = (typeof(move)){ .post = 2 };
	CHECK_EQ(call(m_jump), 7);
	move = (typeof(move)){ .post = 1, .program_counter = (uintptr_t)m_jump_target + 6 };
	CHECK_EQ(call(m_jump), 8);
	drop(patch);
}

/* At a call: instead of it; behind it, before the callee's first instruction; where it has returned. */
static void try_call(const struct variant *variant)
{
	static const int64_t by[] = { 16, -16, -600 };
	bool around = variant->model == PATCH_EXEC_MODEL_PROBE_AROUND;
	bool returns = variant->model == PATCH_EXEC_MODEL_PROBE_CALL;
	patch_t patch = make_at((uintptr_t)m_call_site, variant, procedure);

	CHECK_OK(patch_commit());
	move = (typeof(move)){ .post = 2 };
	CHECK_EQ(call(m_call), 5);
	CHECK_EQ(hits[1], around || returns);
	/* Where a return would lead, as if it had: there is a second call of PROBE_CALL. */
	move = (typeof(move)){ .program_counter = (uintptr_t)m_landing };
	CHECK_EQ(call(m_call), 6);
	CHECK_EQ(m_seen, m_saved);
	CHECK_EQ(hits[0], 1);
	CHECK_EQ(hits[1], returns);
	move = (typeof(move)){ .program_counter = (uintptr_t)m_landing_back };
	CHECK_EQ(call(m_call), 5);
	CHECK_EQ(m_seen, m_saved);
	CHECK_EQ(hits[1], returns);
	if (around || returns) {
		move = (typeof(move)){ .post = 1, .program_counter = (uintptr_t)m_landing };
		CHECK_EQ(call(m_call), 6);
		CHECK_EQ(m_seen, around ? m_saved - 8 : m_saved);
		CHECK_EQ(hits[1], 1);
	}
	for (size_t i = 0; i < sizeof(by) / sizeof(by[0]); i++)
		/* Behind a call the return address is at the stack pointer. */
		for (uint8_t post = 0; post <= returns; post++) {
			move = (typeof(move)){ .post = post, .stack = by[i] };
			stack_top -= 0x2000;
			CHECK_EQ(call(m_call), 5);
			stack_top += 0x2000;
			CHECK_EQ(m_seen, m_saved + (uint64_t)by[i]);
			CHECK_EQ(hits[post], 1);
		}
	drop(patch);
}

int main(void)
{
	static const uint64_t clobbers[] = { 0, PATCH_REGS_NO_STATE, PATCH_REGS_GP_ONLY, PATCH_REGS_SSE,
					     PATCH_REGS_ALL };
	static const int models[] = { PATCH_EXEC_MODEL_PROBE, PATCH_EXEC_MODEL_PROBE_AROUND,
				      PATCH_EXEC_MODEL_PROBE_CALL };

	harness_start();
	stack_top = machine_stack();
	REQUIRE_OK(patch_init(NULL, 0));
	for (int policy = PATCH_TRAP_POLICY_ALLOW; policy <= PATCH_TRAP_POLICY_FORCE; policy += 2)
		for (size_t m = 0; m < sizeof(models) / sizeof(models[0]); m++)
			for (size_t c = 0; c < sizeof(clobbers) / sizeof(clobbers[0]); c++) {
				struct variant variant = { policy, models[m], clobbers[c] };

				CONTEXT("%s, model %d, clobber %#llx", policy_name(policy), models[m],
					(unsigned long long)clobbers[c]);
				try_call(&variant);
				if (models[m] == PATCH_EXEC_MODEL_PROBE_CALL)
					continue;
				try_before(&variant);
				try_stack(&variant);
				CONTEXT("%s, model %d, clobber %#llx", policy_name(policy), models[m],
					(unsigned long long)clobbers[c]);
				if (models[m] == PATCH_EXEC_MODEL_PROBE_AROUND)
					try_after(&variant);
			}
	CHECK_OK(patch_fini());
	return harness_end();
}
