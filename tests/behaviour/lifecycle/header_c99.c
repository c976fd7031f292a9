/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* <libpatch/patch.h> first and alone, and the layout that programs compiled elsewhere rely on. */
#include <libpatch/patch.h>

#include <libpatch/tools.h>

#define ASSERT(name, condition) typedef char assert_##name[(condition) ? 1 : -1]

ASSERT(status, sizeof(patch_status) == sizeof(int));
ASSERT(ok, PATCH_OK == 0);
ASSERT(bug, PATCH_BUG < 0);
ASSERT(handle, sizeof(patch_t) == 8);
ASSERT(attr, sizeof(patch_attr) == 16);
ASSERT(reg, sizeof(patch_reg) == 8);
ASSERT(option_type, offsetof(struct patch_option, type) == 0);
ASSERT(option_wxe, offsetof(struct patch_option, enable_wxe) == 8);
ASSERT(option_value, PATCH_OPT_ENABLE_WXE == 3);
ASSERT(location_type, offsetof(struct patch_location, type) == 0);
ASSERT(location_direction, offsetof(struct patch_location, direction) == 4);
ASSERT(location_algorithm, offsetof(struct patch_location, algorithm) == 8);
ASSERT(location_address, offsetof(struct patch_location, address) == 16);
ASSERT(location_range, offsetof(struct patch_location, range) == 16);
ASSERT(location_upper, offsetof(struct patch_location, range.upper) == 24);
ASSERT(location_size, sizeof(struct patch_location) <= 0x30);
ASSERT(location_values, PATCH_LOCATION_ADDRESS == 0 && PATCH_LOCATION_RANGE == 1 && PATCH_LOCATION_FORWARD == 0 &&
			PATCH_LOCATION_BACKWARD == 1 && PATCH_LOCATION_FIRST == 0);
ASSERT(model_size, sizeof(struct patch_exec_model) == 0x38);
ASSERT(model_probe, offsetof(struct patch_exec_model, probe) == 8);
ASSERT(model_read, offsetof(struct patch_exec_model, probe.read_registers) == 8);
ASSERT(model_write, offsetof(struct patch_exec_model, probe.write_registers) == 16);
ASSERT(model_clobber, offsetof(struct patch_exec_model, probe.clobber_registers) == 24);
ASSERT(model_user_data, offsetof(struct patch_exec_model, probe.user_data) == 32);
ASSERT(model_procedure, offsetof(struct patch_exec_model, probe.procedure) == 48);
ASSERT(model_values, PATCH_EXEC_MODEL_PROBE == 0 && PATCH_EXEC_MODEL_PROBE_AROUND == 1 &&
		     PATCH_EXEC_MODEL_PROBE_RETURN == 2);
ASSERT(policies, PATCH_TRAP_POLICY_ALLOW == 0 && PATCH_TRAP_POLICY_FORBID == 1 && PATCH_TRAP_POLICY_FORCE == 2);
ASSERT(abi, PATCH_ABI_OS == 0);
ASSERT(error_code, offsetof(struct patch_error, code) == 0);
ASSERT(error_origin, offsetof(struct patch_error, origin) == 8);
ASSERT(error_irritant, offsetof(struct patch_error, irritant) == 16);
ASSERT(error_message, offsetof(struct patch_error, message) == 24);
ASSERT(error_next, offsetof(struct patch_error, next) == 32);
ASSERT(context_pc, offsetof(struct patch_exec_context, program_counter) == 0);
ASSERT(context_sp, offsetof(struct patch_exec_context, stack_pointer) == 8);
ASSERT(context_registers, offsetof(struct patch_exec_context, general_purpose_registers) == 0x10);
ASSERT(context_user_data, offsetof(struct patch_exec_context, user_data) == 0x88);
ASSERT(context_extended, offsetof(struct patch_exec_context, extended_states) == 0x90);
ASSERT(context_status, offsetof(struct patch_exec_context, status_register) > 0x90);
ASSERT(registers, PATCH_ARCH_GREGS_COUNT == 15 && PATCH_X86_64_RAX == 0 && PATCH_X86_64_RBX == 1 &&
		  PATCH_X86_64_RCX == 2 && PATCH_X86_64_RDX == 3 && PATCH_X86_64_RSI == 4 && PATCH_X86_64_RDI == 5 &&
		  PATCH_X86_64_RBP == 6 && PATCH_X86_64_R8 == 7 && PATCH_X86_64_R15 == 14);
ASSERT(regs_all, PATCH_REGS_ALL == 0xffffffffffffffffu);
ASSERT(legacy_size, sizeof(struct patch_x86_64_legacy) == 512);
ASSERT(legacy_xmm, offsetof(struct patch_x86_64_legacy, xmm0) == 0xa0);
ASSERT(header_bv, offsetof(struct patch_x86_64_xsave_header, xstate_bv) == 0);
ASSERT(components, PATCH_X86_64_SSE_STATE == 1 && PATCH_X86_64_AVX_STATE == 2 &&
		   PATCH_X86_64_AVX512_OPMASK_STATE == 5 &&
		   PATCH_X86_64_AVX512_ZMM_HI256_STATE == 6 && PATCH_X86_64_AVX512_HI16_ZMM_STATE == 7);

/* It links, too: each function exists in the library. */
static const void *const functions[] = {
	(const void *)patch_init,
	(const void *)patch_fini,
	(const void *)patch_attr_init,
	(const void *)patch_attr_fini,
	(const void *)patch_attr_set_trap_policy,
	(const void *)patch_attr_set_abi,
	(const void *)patch_attr_set_initial_state,
	(const void *)patch_make,
	(const void *)patch_unmake,
	(const void *)patch_enable,
	(const void *)patch_disable,
	(const void *)patch_commit,
	(const void *)patch_last_error,
	(const void *)patch_status_string,
	(const void *)patch_olx_original_pc,
	(const void *)patch_info,
	(const void *)patch_statistics,
	(const void *)patch_x86_64_state_component,
	(const void *)libpatch_on_trap,
};

int main(void)
{
	unsigned int i;

	for (i = 0; i < sizeof(functions) / sizeof(functions[0]); i++)
		if (!functions[i])
			return 1;
	return 0;
}
