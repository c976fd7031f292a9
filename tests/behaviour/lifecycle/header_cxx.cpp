/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* <libpatch/patch.h> first and alone, from C++: it compiles, links as C, and can be used. */
#include <libpatch/patch.h>

#include <libpatch/tools.h>

static void procedure(struct patch_exec_context *, uint8_t)
{
}

int main()
{
	struct patch_location location = {};
	struct patch_exec_model model = {};
	struct patch_error error = {};
	struct patch_info info = {};
	patch_attr attr;
	patch_t patch = nullptr;

	location.type = PATCH_LOCATION_ADDRESS;
	location.address = 8;
	model.type = PATCH_EXEC_MODEL_PROBE;
	model.probe.read_registers = PATCH_REGS_ALL;
	model.probe.procedure = procedure;
	if (patch_attr_init(&attr, sizeof(attr)) != PATCH_OK)
		return 1;
	if (patch_attr_set_trap_policy(&attr, PATCH_TRAP_POLICY_FORCE) != PATCH_OK)
		return 1;
	if (patch_make(&location, &model, &attr, &patch, nullptr) != PATCH_EINIT)
		return 1;
	if (patch_last_error(&error) != PATCH_EINIT || patch_info(patch, &info, sizeof(info)) != PATCH_EINIT)
		return 1;
	if (patch_status_string(error.code) == nullptr || patch_status_string(PATCH_OK) == nullptr)
		return 1;
	void (*volatile handler)(int, siginfo_t *, void *) = libpatch_on_trap;

	return handler ? 0 : 1;
}
