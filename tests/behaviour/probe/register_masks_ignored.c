/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Register masks: what any of them names is offered; what the write or the clobber mask names takes effect on resume;
 * what neither names stays, although the procedure destroys every register and the stack the ABI leaves to it. Flags,
 * errno and the red zone survive; the procedure finds an aligned stack and DF clear.
 */
#include "targets.h"

#define WRITTEN(r) ((uint64_t)0x7700000000000000 + (uint64_t)(r))

static uint8_t *stack_top;

/* What machine_call() puts into the registers. */
static const uint64_t entry[PATCH_ARCH_GREGS_COUNT] = {
	0x0a0a0a0a0a0a0a0a, 0x0b0b0b0b0b0b0b0b, 0x0c0c0c0c0c0c0c0c, 0x0d0d0d0d0d0d0d0d, 0x6666666666666666,
	0x5555555555555555, 0x0505050505050505, 0x0808080808080808, 0x0909090909090909, 0x1010101010101010,
	0x1111111111111111, 0x1212121212121212, 0x1313131313131313, 0x1414141414141414, 0x1515151515151515
};

static struct {
	unsigned int hits;
	uint64_t registers[PATCH_ARCH_GREGS_COUNT];
	uint64_t status_register;
	uint64_t stack_pointer;
	void *extended_states;
	void *user_data;
} seen;

static GP_ONLY void inner(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	seen.hits++;
	for (int r = 0; r < PATCH_ARCH_GREGS_COUNT; r++) {
		seen.registers[r] = context->general_purpose_registers[r];
		context->general_purpose_registers[r] = WRITTEN(r);
	}
	seen.status_register = context->status_register;
	seen.stack_pointer = context->stack_pointer;
	seen.extended_states = context->extended_states;
	seen.user_data = context->user_data;
	context->status_register = 0xad5;
	errno = 4711;
}

static void try_masks(target_function function, int policy, uint64_t read, uint64_t write, uint64_t clobber,
		      size_t flags_input)
{
	struct patch_location location = location_at((uintptr_t)function);
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE, destroy_general, &seen);
	patch_attr attr = attr_of(policy, PATCH_ENABLED);
	uint64_t flags = machine_entry_flags(flags_input);
	struct machine_state state;
	patch_t patch;

	CONTEXT("%s, %s, read %#llx, write %#llx, clobber %#llx", function == t_nops ? "t_nops" : "t_long_nop",
		policy_name(policy), (unsigned long long)read, (unsigned long long)write, (unsigned long long)clobber);
	model.probe.read_registers = read;
	model.probe.write_registers = write;
	model.probe.clobber_registers = clobber;
	memset(&seen, 0, sizeof(seen));
	if (patch_make(&location, &model, &attr, &patch, NULL) != PATCH_OK) {
		FAIL("patch_make: %s", harness_last_error());
		return;
	}
	CHECK_OK(patch_commit());
	errno = 1234;
	machine_call(function, entry[PATCH_X86_64_RDI], entry[PATCH_X86_64_RSI], stack_top, &state, flags);
	CHECK_EQ(errno, 1234);
	CHECK_EQ(seen.hits, 1);
	CHECK(seen.user_data == &seen);
	CHECK_EQ(seen.stack_pointer, (uintptr_t)stack_top - 256 - 8);
	CHECK_EQ(seen.status_register & MACHINE_FLAGS, flags & MACHINE_FLAGS);
	CHECK_EQ(destroy_entry_rsp & 15, 8);
	CHECK_EQ(destroy_entry_flags & 0x400, 0);
	CHECK(destroy_entry_rsp + 8 <= (uintptr_t)stack_top - 256 - 8 - 128);
	if ((clobber & ~PATCH_REGS_GP_ONLY) == 0)
		CHECK(seen.extended_states == NULL);
	else
		CHECK(seen.extended_states != NULL && ((uintptr_t)seen.extended_states & 63) == 0);
	for (int r = 0; r < PATCH_ARCH_GREGS_COUNT; r++) {
		uint64_t bit = (uint64_t)1 << r;

		if ((read | write | clobber) & bit && seen.registers[r] != entry[r])
			FAIL("the procedure saw %s = %#llx, wanted %#llx", machine_register_name[r],
			     (unsigned long long)seen.registers[r], (unsigned long long)entry[r]);
		if (state.registers[r] != ((write | clobber) & bit ? WRITTEN(r) : entry[r]))
			FAIL("%s is %#llx behind the site, %s", machine_register_name[r],
			     (unsigned long long)state.registers[r],
			     (write | clobber) & bit ? "the procedure's write is lost" : "nobody asked for a change");
	}
	CHECK_EQ(state.flags & MACHINE_FLAGS, flags & MACHINE_FLAGS);
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
}

/* Each combination of the flags that instructions change by themselves, and DF. */
static void try_all_flags(target_function function, int policy)
{
	static const unsigned int bits[] = { 0, 2, 4, 6, 7, 10, 11 };
	struct patch_location location = location_at((uintptr_t)function);
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE, destroy_general, &seen);
	patch_attr attr = attr_of(policy, PATCH_ENABLED);
	struct machine_state state;
	patch_t patch;

	model.probe.clobber_registers = PATCH_REGS_NO_STATE;
	REQUIRE_OK(patch_make(&location, &model, &attr, &patch, NULL));
	CHECK_OK(patch_commit());
	for (unsigned int i = 0; i < 128; i++) {
		uint64_t flags = 0x202;

		for (unsigned int b = 0; b < 7; b++)
			flags |= (uint64_t)(i >> b & 1) << bits[b];
		CONTEXT("%s, flags %#llx", policy_name(policy), (unsigned long long)flags);
		machine_call(function, 1, 2, stack_top, &state, flags);
		CHECK_EQ(seen.status_register & MACHINE_FLAGS, flags & MACHINE_FLAGS);
		CHECK_EQ(destroy_entry_flags & 0x400, 0);
		CHECK_EQ(state.flags & MACHINE_FLAGS, flags & MACHINE_FLAGS);
		CHECK_EQ(state.registers[PATCH_X86_64_RAX], entry[PATCH_X86_64_RAX]);
	}
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
}

/* Two patches at one address, each with a write mask of its own. */
static void try_two(target_function function)
{
	struct patch_location location = location_at((uintptr_t)function);
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE, destroy_general, &seen);
	patch_attr attr = attr_of(PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED);
	struct machine_state state;
	patch_t first, second;

	CONTEXT("two patches with different masks");
	model.probe.read_registers = 0;
	model.probe.clobber_registers = PATCH_REGS_NO_STATE;
	model.probe.write_registers = (uint64_t)1 << PATCH_X86_64_R9;
	REQUIRE_OK(patch_make(&location, &model, &attr, &first, NULL));
	model.probe.write_registers = (uint64_t)1 << PATCH_X86_64_RBX;
	REQUIRE_OK(patch_make(&location, &model, &attr, &second, NULL));
	CHECK_OK(patch_commit());
	seen.hits = 0;
	machine_call(function, 1, 2, stack_top, &state, 0x202);
	CHECK_EQ(seen.hits, 2);
	CHECK_EQ(state.registers[PATCH_X86_64_R9], WRITTEN(PATCH_X86_64_R9));
	CHECK_EQ(state.registers[PATCH_X86_64_RBX], WRITTEN(PATCH_X86_64_RBX));
	CHECK_EQ(state.registers[PATCH_X86_64_RAX], entry[PATCH_X86_64_RAX]);
	CHECK_EQ(state.registers[PATCH_X86_64_R8], entry[PATCH_X86_64_R8]);
	CHECK_OK(patch_unmake(first));
	CHECK_OK(patch_commit());
	machine_call(function, 1, 2, stack_top, &state, 0x202);
	CHECK_EQ(state.registers[PATCH_X86_64_R9], entry[PATCH_X86_64_R9]);
	CHECK_EQ(state.registers[PATCH_X86_64_RBX], WRITTEN(PATCH_X86_64_RBX));
	CHECK_OK(patch_unmake(second));
	CHECK_OK(patch_commit());
}

int main(void)
{
	static const target_function functions[] = { t_nops, t_long_nop };

	harness_start();
	stack_top = machine_stack();
	destroy_inner = inner;
	REQUIRE_OK(patch_init(NULL, 0));
	for (unsigned int f = 0; f < 2; f++)
		for (int policy = PATCH_TRAP_POLICY_ALLOW; policy <= PATCH_TRAP_POLICY_FORCE; policy++) {
			uint64_t all = PATCH_REGS_ALL, general = PATCH_REGS_GP_ONLY, none = PATCH_REGS_NO_STATE;

			for (int r = 0; r < PATCH_ARCH_GREGS_COUNT; r++) {
				uint64_t bit = (uint64_t)1 << r;

				try_masks(functions[f], policy, bit, 0, none, (unsigned int)r);
				try_masks(functions[f], policy, 0, bit, none, (unsigned int)r);
				try_masks(functions[f], policy, 0, bit, 0, (unsigned int)r);
				try_masks(functions[f], policy, 0, 0, bit, (unsigned int)r);
				try_masks(functions[f], policy, bit, 0, general & ~bit, (unsigned int)r);
				try_masks(functions[f], policy, general & ~bit, general & ~bit, none, (unsigned int)r);
				try_masks(functions[f], policy, bit, bit, all, (unsigned int)r);
			}
			for (size_t flags = 0; flags < TARGET_INPUTS; flags++) {
				try_masks(functions[f], policy, 0, 0, 0, flags);
				try_masks(functions[f], policy, 0, 0, general, flags);
				try_masks(functions[f], policy, 0, 0, none, flags);
				try_masks(functions[f], policy, all, 0, all, flags);
				try_masks(functions[f], policy, all, all, all, flags);
				try_masks(functions[f], policy, general, general, general, flags);
			}
		}
	for (int policy = PATCH_TRAP_POLICY_ALLOW; policy <= PATCH_TRAP_POLICY_FORCE; policy++)
		try_all_flags(t_nops, policy);
	try_two(t_nops);
	try_two(t_long_nop);
	CHECK_OK(patch_fini());
	return harness_end();
}
