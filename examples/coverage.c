/* SPDX-License-Identifier: MIT */
/*
 * One-shot coverage: a probe on each instruction of a function, which disables itself when it is met. A commit takes
 * what was met out of the code, so that what runs often costs nothing from then on.
 */
#include <stdio.h>
#include <string.h>

#include <libpatch/patch.h>

#define LARGEST 1024

/* A section of its own has a beginning and an end with names. */
#define COVERED __attribute__((noinline, section("covered")))
extern const char __start_covered[], __stop_covered[];

static struct {
	patch_t patch;
	int met;
} sites[LARGEST]; /* by offset */

static void meet(struct patch_exec_context *context, uint8_t post)
{
	size_t offset = context->program_counter - (patch_reg)__start_covered;

	(void)post;
	sites[offset].met = 1;
	patch_disable(sites[offset].patch);
}

/* A number, decimal or behind 0x; -1: it is none. */
COVERED long parse(const char *text)
{
	const char *const digits = "0123456789abcdef", *digit;
	int base = text[0] == '0' && text[1] == 'x' ? 16 : 10;
	long value = 0;

	for (text += base == 16 ? 2 : 0; *text != '\0'; ++text) {
		digit = strchr(digits, *text);
		if (digit == NULL || digit - digits >= base)
			return -1;
		value = value * base + (digit - digits);
	}
	return value;
}

static int report(const char *text, size_t size)
{
	long (*volatile call)(const char *) = parse;
	long value = call(text);
	int met = 0, all = 0;

	patch_commit(); /* all that was disabled meanwhile leaves the code */
	for (size_t i = 0; i < size; ++i) {
		all += sites[i].patch != NULL;
		met += sites[i].met;
	}
	printf("behind parse(\"%s\"), which is %ld: %d of %d instructions\n", text, value, met, all);
	return met;
}

int main(void)
{
	struct patch_location where = {.type = PATCH_LOCATION_ADDRESS};
	struct patch_exec_model what = {.type = PATCH_EXEC_MODEL_PROBE, .probe.procedure = meet};
	size_t size = (size_t)(__stop_covered - __start_covered);
	int met[3], refused = patch_init(NULL, 0) || size > LARGEST;

	for (size_t i = 0; i < size && !refused; ++i) {
		where.address = (uintptr_t)__start_covered + i;
		/* Refused inside instructions. */
		if (patch_make(&where, &what, NULL, &sites[i].patch, NULL) == PATCH_OK)
			patch_enable(sites[i].patch);
	}
	refused |= patch_commit() != PATCH_OK;
	met[0] = report("123", size);
	met[1] = report("123", size);
	met[2] = report("0x1f", size);
	return refused || met[0] == 0 || met[1] != met[0] || met[2] <= met[1];
}
