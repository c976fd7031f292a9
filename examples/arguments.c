/* SPDX-License-Identifier: MIT */
/*
 * Arguments and results: look at a function's arguments, change one, and answer in its place. At its entry they are
 * where the calling convention puts them: integers in RDI, RSI, ..., floating point numbers in xmm0, xmm1, ...; the
 * return address is at the stack pointer. A result is in RAX or xmm0.
 */
#include <stdio.h>
#include <string.h>

#include <libpatch/patch.h>

__attribute__((noinline)) double scale(long by, double x)
{
	__asm__ volatile("" ::: "memory");
	return (double)by * x;
}

static void on_scale(struct patch_exec_context *context, uint8_t post)
{
	patch_reg *by = &context->general_purpose_registers[PATCH_X86_64_RDI];
	struct patch_x86_64_legacy *sse;
	double x;

	(void)post;
	if (patch_x86_sse_state(context->extended_states, &sse))
		return;
	memcpy(&x, sse->xmm0[0], sizeof(x));
	printf("scale(%ld, %g)\n", (long)*by, x);
	if (*by == 0) {
		/* The result, and back to the caller: the function is not executed. */
		x = -1;
		memcpy(sse->xmm0[0], &x, sizeof(x));
		memcpy(&context->program_counter, (void *)context->stack_pointer, sizeof(context->program_counter));
		context->stack_pointer += sizeof(context->program_counter);
	} else if (*by > 10) {
		*by = 10;
	}
}

int main(void)
{
	struct patch_location where = {.type = PATCH_LOCATION_ADDRESS, .address = (uintptr_t)scale};
	struct patch_exec_model what = {.type = PATCH_EXEC_MODEL_PROBE};
	double (*volatile call)(long, double) = scale;
	double results[3];
	patch_t patch;

	/* All registers are offered, and taken back from the context. */
	what.probe.clobber_registers = PATCH_REGS_ALL;
	what.probe.procedure = on_scale;
	if (patch_init(NULL, 0) || patch_make(&where, &what, NULL, &patch, NULL) || patch_enable(patch) ||
	    patch_commit()) {
		struct patch_error error;

		patch_last_error(&error);
		fprintf(stderr, "%s: %s %s\n", error.origin, error.message, error.irritant);
		return 1;
	}
	results[0] = call(2, 1.5);
	results[1] = call(1000, 1.5);
	results[2] = call(0, 1.5);
	printf("%g, %g, %g\n", results[0], results[1], results[2]);
	return results[0] != 3 || results[1] != 15 || results[2] != -1;
}
