/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A module that is loaded, patched, unloaded, built anew, and loaded again where it was, with other instructions each
 * time: nothing that was found out about the old one is used for the new one. What is no instruction's start is
 * refused, what is patched counts and computes what it should, whether or not patches were unmade and commits made
 * before the module went.
 *
 * rebuilt [seconds]      100 times at least
 */
#include "harness.h"

#include <dlfcn.h>

#define FUNCTIONS 8
#define FUNCTION_SIZE 64
#define LEAST 100

static uint8_t *file;
static size_t file_size, code_offset;
static char directory[64], path[96];
static uint64_t seed = 1;

static struct {
	uint8_t starts[FUNCTION_SIZE];
	unsigned int count;
	unsigned int size; /* up to its end */
	int value;
	unsigned int wanted; /* hits of a call */
} functions[FUNCTIONS];
static unsigned int hits[FUNCTIONS];

static unsigned int below(unsigned int limit)
{
	seed = seed * 6364136223846793005UL + 1442695040888963407UL;
	return (unsigned int)(seed >> 33) % limit;
}

static void GP_ONLY count_hit(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	++*(unsigned int *)context->user_data;
}

static uint8_t *code_of(unsigned int f)
{
	return file + code_offset + f * FUNCTION_SIZE;
}

/* One of these, at random; what is added to eax. */
static int write_insn(uint8_t *at, unsigned int *size)
{
	static const uint8_t nops[] = { 0x0f, 0x1f, 0x40, 0x00 }, xchg[] = { 0x66, 0x90 }, inc[] = { 0xff, 0xc0 };
	const int value = (int)below(1 << 20);

	switch (below(6)) {
	case 0:
		memcpy(at, nops, *size = sizeof(nops));
		return 0;
	case 1:
		memcpy(at, xchg, *size = sizeof(xchg));
		return 0;
	case 2:
		memcpy(at, inc, *size = sizeof(inc));
		return 1;
	case 3: /* add eax, imm8 */
		*size = 3;
		at[0] = 0x83;
		at[1] = 0xc0;
		at[2] = (uint8_t)(value & 0x7f);
		return value & 0x7f;
	case 4: /* add eax, imm32 */
		*size = 5;
		at[0] = 0x05;
		memcpy(at + 1, &value, sizeof(value));
		return value;
	default: /* lea eax, [rax + disp32] */
		*size = 6;
		at[0] = 0x8d;
		at[1] = 0x80;
		memcpy(at + 2, &value, sizeof(value));
		return value;
	}
}

static void build_function(unsigned int f)
{
	static const uint8_t xor_eax[] = { 0x31, 0xc0 };
	uint8_t *code = code_of(f);
	unsigned int at = sizeof(xor_eax), size;
	unsigned int end = at + below(FUNCTION_SIZE - 10);

	memset(code, 0x90, FUNCTION_SIZE);
	memcpy(code, xor_eax, sizeof(xor_eax));
	functions[f].starts[0] = 0;
	functions[f].count = 1;
	functions[f].value = 0;
	for (; at < end; at += size) {
		functions[f].starts[functions[f].count++] = (uint8_t)at;
		functions[f].value += write_insn(code + at, &size);
	}
	functions[f].starts[functions[f].count++] = (uint8_t)at;
	code[at] = 0xc3;
	functions[f].size = at + 1;
}

static bool is_start(unsigned int f, unsigned int offset)
{
	for (unsigned int i = 0; i < functions[f].count; i++)
		if (functions[f].starts[i] == offset)
			return true;
	return false;
}

/* By the same name, as a build does. */
static void *build(uint8_t **code)
{
	void *handle;
	FILE *out;

	for (unsigned int f = 0; f < FUNCTIONS; f++)
		build_function(f);
	unlink(path);
	out = fopen(path, "w");
	REQUIRE(out != NULL && fwrite(file, 1, file_size, out) == file_size && fclose(out) == 0);
	handle = dlopen(path, RTLD_NOW);
	REQUIRE(handle != NULL);
	*code = dlsym(handle, "module_rebuilt");
	REQUIRE(*code != NULL && memcmp(*code, file + code_offset, FUNCTIONS * FUNCTION_SIZE) == 0);
	return handle;
}

static void read_module(void)
{
	void *handle = dlopen(harness_module(), RTLD_NOW);
	const uint8_t *code = handle != NULL ? dlsym(handle, "module_rebuilt") : NULL;
	FILE *in = fopen(harness_module(), "r");
	const uint8_t *found;

	REQUIRE(code != NULL && in != NULL && fseek(in, 0, SEEK_END) == 0);
	file_size = (size_t)ftell(in);
	file = malloc(file_size);
	rewind(in);
	REQUIRE(file != NULL && fread(file, 1, file_size, in) == file_size);
	fclose(in);
	found = memmem(file, file_size, code, FUNCTIONS * FUNCTION_SIZE);
	REQUIRE(found != NULL);
	code_offset = (size_t)(found - file);
	dlclose(handle);
}

static void patch_function(unsigned int f, const uint8_t *code, patch_t *patch)
{
	const unsigned int inside = below(functions[f].size);
	const uint8_t start = functions[f].starts[below(functions[f].count)];
	const int policy = below(2) ? PATCH_TRAP_POLICY_ALLOW : PATCH_TRAP_POLICY_FORBID;
	patch_t none;

	*patch = NULL;
	functions[f].wanted = 0;
	hits[f] = 0;
	code += f * FUNCTION_SIZE;
	if (!is_start(f, inside))
		CHECK_STATUS(make_probe((uintptr_t)code + inside, count_hit, &hits[f], policy, PATCH_ENABLED, &none),
			     PATCH_EBOUNDARY);
	if (make_probe((uintptr_t)code + start, count_hit, &hits[f], policy, PATCH_ENABLED, patch) == PATCH_OK)
		functions[f].wanted = 1;
	else
		CHECK_MSG(policy == PATCH_TRAP_POLICY_FORBID && harness_chain_has(PATCH_ENOJUMP),
			  "%s, start %u of %u: %s", policy_name(policy), start, functions[f].size,
			  harness_last_error());
}

/* Up and down in turn: what the last one found out of a function is at hand when the next one begins with it. */
static void run_round(bool down, uint8_t **where)
{
	patch_t patches[FUNCTIONS];
	uint8_t *code;
	void *handle = build(&code);
	const bool commits = below(4) != 0;
	const unsigned int leaves = below(4);

	*where = code;
	for (unsigned int i = 0; i < FUNCTIONS; i++) {
		const unsigned int f = down ? FUNCTIONS - 1 - i : i;

		patch_function(f, code, &patches[f]);
	}
	if (commits)
		REQUIRE_OK(patch_commit());
	for (unsigned int f = 0; f < FUNCTIONS; f++) {
		CHECK_EQ(call_code(code + f * FUNCTION_SIZE), functions[f].value);
		CHECK_EQ(hits[f], commits ? functions[f].wanted : 0);
	}
	for (unsigned int f = 0; f < FUNCTIONS && leaves != 0; f++)
		if (patches[f] != NULL)
			CHECK_OK(patch_unmake(patches[f]));
	if (leaves > 1)
		REQUIRE_OK(patch_commit());
	CHECK_EQ(dlclose(handle), 0);
}

int main(int argc, char **argv)
{
	const unsigned int seconds =
		argc > 1 ? (unsigned int)atoi(argv[1]) : harness_seconds("LIBPATCH_STRESS_SECONDS", 2);
	const time_t end = time(NULL) + (time_t)seconds;
	const char *root = getenv("TMPDIR");
	unsigned int rounds = 0, same = 0;
	uint8_t *last = NULL;

	harness_start_seconds(seconds + HARNESS_SECONDS);
	snprintf(directory, sizeof(directory), "%s/rebuilt-XXXXXX", root != NULL && strlen(root) < 40 ? root : "/tmp");
	REQUIRE(mkdtemp(directory) != NULL);
	snprintf(path, sizeof(path), "%s/module.so", directory);
	read_module();
	REQUIRE_OK(patch_init(NULL, 0));
	while (harness_failures == 0 && (rounds < LEAST || time(NULL) < end)) {
		uint8_t *code;

		CONTEXT("round %u", rounds);
		run_round(rounds % 2 != 0, &code);
		same += code == last;
		last = code;
		rounds++;
	}
	CHECK_OK(patch_fini());
	unlink(path);
	rmdir(directory);
	harness_say("%u modules, %u of them where the last one was\n", rounds, same);
	return harness_end();
}
