/* SPDX-License-Identifier: MIT */
/* Patch a function of this very program, watch it being called, take the patch away again. */
#include <stdio.h>

#include <libpatch/patch.h>

__attribute__((noinline)) int add(int a, int b)
{
	return a + b;
}

static void on_add(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	printf("%s add(%d, %d)\n", (const char *)context->user_data,
	       (int)context->general_purpose_registers[PATCH_X86_64_RDI],
	       (int)context->general_purpose_registers[PATCH_X86_64_RSI]);
}

int main(void)
{
	struct patch_location where = {.type = PATCH_LOCATION_ADDRESS, .address = (uintptr_t)add};
	struct patch_exec_model what = {.type = PATCH_EXEC_MODEL_PROBE};
	int (*volatile call)(int, int) = add;
	patch_t patch;

	what.probe.read_registers = 1 << PATCH_X86_64_RDI | 1 << PATCH_X86_64_RSI;
	what.probe.user_data = "probe:";
	what.probe.procedure = on_add;
	if (patch_init(NULL, 0) || patch_make(&where, &what, NULL, &patch, NULL) || patch_enable(patch) ||
	    patch_commit()) {
		struct patch_error error;

		patch_last_error(&error);
		fprintf(stderr, "%s: %s %s\n", error.origin, error.message, error.irritant);
		return 1;
	}
	printf("patched: %d\n", call(2, 3));
	patch_disable(patch);
	patch_commit();
	printf("unpatched: %d\n", call(20, 30));
	return 0;
}
