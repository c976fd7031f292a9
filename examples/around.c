/* SPDX-License-Identifier: MIT */
/* Before and after one instruction in the middle of a function: what the multiplication makes of a register. */
#include <stdio.h>

#include <libpatch/patch.h>

/* The instruction gets a name, as a disassembler would give its address. */
extern const char multiplication[];

__attribute__((noinline)) static long cube(long n)
{
	long result = n;

	__asm__("imul %1, %0\n"
		"	.globl multiplication\n"
		"multiplication: imul %1, %0"
		: "+a"(result)
		: "D"(n));
	return result;
}

static long before, after;

static void around_multiplication(struct patch_exec_context *context, uint8_t post)
{
	long rax = (long)context->general_purpose_registers[PATCH_X86_64_RAX];

	if (post)
		after = rax;
	else
		before = rax;
}

int main(void)
{
	struct patch_location where = {.type = PATCH_LOCATION_ADDRESS, .address = (uintptr_t)multiplication};
	struct patch_exec_model what = {.type = PATCH_EXEC_MODEL_PROBE_AROUND};
	long (*volatile call)(long) = cube;
	patch_t patch;
	long result;

	what.probe.read_registers = 1 << PATCH_X86_64_RAX;
	what.probe.procedure = around_multiplication;
	if (patch_init(NULL, 0) || patch_make(&where, &what, NULL, &patch, NULL) || patch_enable(patch) ||
	    patch_commit()) {
		struct patch_error error;

		patch_last_error(&error);
		fprintf(stderr, "%s: %s %s\n", error.origin, error.message, error.irritant);
		return 1;
	}
	result = call(7);
	printf("cube(7) is %ld: rax was %ld before the multiplication, %ld after it\n", result, before, after);
	return result == 343 && before == 49 && after == 343 ? 0 : 1;
}
