/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Somebody else changed the bytes between patch_make() and patch_commit(), or under an installed patch: that patch
 * fails with PATCH_ECHANGED in the chain, the foreign bytes stay, the rest of the batch takes effect. Noticed also
 * where the commit has nothing to write. Original bytes that somebody else put back count as removed, also single ones.
 * Where other code has come to, and a patch is unmade, it is over, and the new code can be patched.
 * A breakpoint that was there before patch_make() is not taken for an instruction of the program.
 */
#include "targets.h"

#include <fcntl.h>

#define FUNCTIONS 4

static unsigned int hits[FUNCTIONS];

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	++*(unsigned int *)context->user_data;
}

/* mov $n, %eax; nop x 3; ret */
static uint8_t *make_code(void)
{
	uint8_t *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	REQUIRE(code != MAP_FAILED);
	memset(code, 0xcc, 4096);
	for (int n = 0; n < FUNCTIONS; n++) {
		uint8_t body[] = { 0xb8, (uint8_t)n, 0, 0, 0, 0x90, 0x90, 0x90, 0xc3 };

		memcpy(code + 64 * n, body, sizeof(body));
	}
	REQUIRE(mprotect(code, 4096, PROT_READ | PROT_EXEC) == 0);
	return code;
}

static void write_text(void *address, const void *bytes, size_t size)
{
	int fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);

	if (fd < 0 || pwrite(fd, bytes, size, (off_t)(uintptr_t)address) != (ssize_t)size)
		SKIP("/proc/self/mem is not writable here");
	close(fd);
}

static uint32_t call(uint8_t *code, int n)
{
	return (uint32_t)call_code(code + 64 * n);
}

/* offset: which byte of the second function is changed; what: to what */
static void changed_before_commit(int offset, uint8_t what, int policy)
{
	uint8_t *code = make_code();
	uint8_t foreign[16];
	patch_t patch[FUNCTIONS];

	CONTEXT("byte %d changed to %02x before the commit, %s", offset, what, policy_name(policy));
	memset(hits, 0, sizeof(hits));
	for (int n = 0; n < FUNCTIONS; n++)
		REQUIRE_OK(make_probe((uintptr_t)code + 64 * n, procedure, &hits[n], policy, PATCH_ENABLED, &patch[n]));
	write_text(code + 64 + offset, &what, 1);
	memcpy(foreign, code + 64, sizeof(foreign));
	CHECK_STATUS(patch_commit(), PATCH_EFAIL);
	CHECK(harness_chain_has(PATCH_ECHANGED));
	CHECK(!memcmp(foreign, code + 64, sizeof(foreign)));
	for (int n = 0; n < FUNCTIONS; n++) {
		struct patch_info info;

		CHECK_OK(patch_info(patch[n], &info, sizeof(info)));
		CHECK_EQ(info.state, n == 1 ? PATCH_DISABLED : PATCH_ENABLED);
		if (n != 1) {
			CHECK_EQ(call(code, n), n);
			CHECK_EQ(hits[n], 1);
		}
	}
	/* put right, the queued change goes through with the next commit */
	{
		uint8_t body[] = { 0xb8, 1, 0, 0, 0, 0x90, 0x90, 0x90, 0xc3 };

		write_text(code + 64, body, sizeof(body));
	}
	CHECK_OK(patch_commit());
	CHECK_EQ(call(code, 1), 1);
	CHECK_EQ(hits[1], 1);
	for (int n = 0; n < FUNCTIONS; n++)
		CHECK_OK(patch_unmake(patch[n]));
	CHECK_OK(patch_commit());
	for (int n = 0; n < FUNCTIONS; n++) {
		CHECK_EQ(code[64 * n], 0xb8);
		CHECK_EQ(call(code, n), n);
	}
}

/* A debugger's breakpoint over an installed jump: removing fails for this one, and its bytes stay. */
static void changed_under_patch(void)
{
	uint8_t *code = make_code();
	uint8_t original[16], installed[16], what;
	patch_t patch[FUNCTIONS];

	CONTEXT("a byte changed under an installed patch");
	memset(hits, 0, sizeof(hits));
	memcpy(original, code + 64, sizeof(original));
	for (int n = 0; n < FUNCTIONS; n++)
		REQUIRE_OK(make_probe((uintptr_t)code + 64 * n, procedure, &hits[n], PATCH_TRAP_POLICY_ALLOW,
				      PATCH_ENABLED, &patch[n]));
	REQUIRE_OK(patch_commit());
	memcpy(installed, code + 64, sizeof(installed));
	what = (uint8_t)(installed[2] + 1);
	/* A byte of the original would not be a change: it is what a commit that was cut short leaves. */
	if (what == original[2])
		what++;
	write_text(code + 66, &what, 1);
	for (int n = 0; n < FUNCTIONS; n++)
		CHECK_OK(patch_disable(patch[n]));
	CHECK_STATUS(patch_commit(), PATCH_EFAIL);
	CHECK(harness_chain_has(PATCH_ECHANGED));
	CHECK_EQ(code[66], what);
	for (int n = 0; n < FUNCTIONS; n++)
		if (n != 1) {
			CHECK_EQ(call(code, n), n);
			CHECK_EQ(hits[n], 0);
		}
	write_text(code + 66, &installed[2], 1);
	CHECK_OK(patch_commit());
	CHECK(!memcmp(original, code + 64, sizeof(original)));
	CHECK_EQ(call(code, 1), 1);
	CHECK_EQ(hits[1], 0);
	for (int n = 0; n < FUNCTIONS; n++)
		CHECK_OK(patch_unmake(patch[n]));
	CHECK_OK(patch_commit());
}

/* The jump is there, with another's byte in it: it is not over, although nobody has its handle any more. */
static void changed_and_unmade(void)
{
	uint8_t *code = make_code();
	uint8_t original[16], installed[16], what;
	patch_t patch;

	CONTEXT("a byte changed, then unmade");
	memcpy(original, code, sizeof(original));
	REQUIRE_OK(make_probe((uintptr_t)code, procedure, &hits[0], PATCH_TRAP_POLICY_FORBID, PATCH_ENABLED, &patch));
	REQUIRE_OK(patch_commit());
	memcpy(installed, code, sizeof(installed));
	what = (uint8_t)(installed[2] ^ 0x55);
	if (what == original[2])
		what++;
	write_text(code + 2, &what, 1);
	CHECK_OK(patch_unmake(patch));
	CHECK_STATUS(patch_commit(), PATCH_EFAIL);
	CHECK(harness_chain_has(PATCH_ECHANGED));
	write_text(code + 2, &installed[2], 1);
	CHECK_OK(patch_commit());
	CHECK(!memcmp(original, code, sizeof(original)));
}

static void check_state(patch_t patch, int state)
{
	struct patch_info info;

	CHECK_OK(patch_info(patch, &info, sizeof(info)));
	CHECK_EQ(info.state, state);
}

/* The text is thought to be as wanted already: a commit that only compares. */
static void changed_and_nothing_to_write(int policy)
{
	uint8_t *code = make_code();
	uint8_t installed[16], what;
	patch_t patch;

	CONTEXT("changed, nothing to write, %s", policy_name(policy));
	memset(hits, 0, sizeof(hits));
	REQUIRE_OK(make_probe((uintptr_t)code, procedure, &hits[0], policy, PATCH_ENABLED, &patch));
	REQUIRE_OK(patch_commit());
	memcpy(installed, code, sizeof(installed));
	what = 0x90;
	write_text(code, &what, 1);
	for (int round = 0; round < 3; round++) {
		CHECK_OK(patch_enable(patch));
		CHECK_STATUS(patch_commit(), PATCH_EFAIL);
		CHECK(harness_chain_has(PATCH_ECHANGED));
		CHECK_EQ(*code, what);
	}
	write_text(code, installed, 1);
	CHECK_OK(patch_commit());
	CHECK(!memcmp(installed, code, sizeof(installed)));
	CHECK_EQ(call(code, 0), 0);
	CHECK_EQ(hits[0], 1);
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
	CHECK_EQ(*code, 0xb8);
}

/* then: what is asked for after somebody else put the original bytes back */
enum then { THEN_ENABLE, THEN_DISABLE, THEN_UNMAKE, THENS };

static void restored_by_others(int policy, enum then then)
{
	uint8_t *code = make_code();
	uint8_t original[16];
	patch_t patch;

	CONTEXT("original bytes put back, %s, then %d", policy_name(policy), then);
	memset(hits, 0, sizeof(hits));
	memcpy(original, code, sizeof(original));
	REQUIRE_OK(make_probe((uintptr_t)code, procedure, &hits[0], policy, PATCH_ENABLED, &patch));
	REQUIRE_OK(patch_commit());
	write_text(code, original, sizeof(original));
	switch (then) {
	case THEN_ENABLE:
		/* in effect again, not only said to be */
		CHECK_OK(patch_enable(patch));
		CHECK_OK(patch_commit());
		check_state(patch, PATCH_ENABLED);
		CHECK(memcmp(original, code, sizeof(original)));
		CHECK_EQ(call(code, 0), 0);
		CHECK_EQ(hits[0], 1);
		CHECK_OK(patch_unmake(patch));
		break;
	case THEN_DISABLE:
		CHECK_OK(patch_disable(patch));
		CHECK_OK(patch_commit());
		check_state(patch, PATCH_DISABLED);
		CHECK(!memcmp(original, code, sizeof(original)));
		/* and back */
		CHECK_OK(patch_enable(patch));
		CHECK_OK(patch_commit());
		CHECK_EQ(call(code, 0), 0);
		CHECK_EQ(hits[0], 1);
		CHECK_OK(patch_unmake(patch));
		break;
	default:
		CHECK_OK(patch_unmake(patch));
		break;
	}
	CHECK_OK(patch_commit());
	CHECK_OK(patch_commit());
	CHECK(!memcmp(original, code, sizeof(original)));
	hits[0] = 0;
	CHECK_EQ(call(code, 0), 0);
	CHECK_EQ(hits[0], 0);
}

/*
 * Of an installed jump over several instructions, or one, any bytes are put back: no matter which, the next commit does
 * what is asked for, and nothing else can be lost.
 */
static void restored_in_part(const uint8_t *body, size_t size, size_t end, enum then then)
{
	for (unsigned int mask = 1; mask < 1U << end; mask++) {
		uint8_t *code = make_code();
		patch_t patch;

		CONTEXT("bytes %#x put back of %zu, then %d", mask, end, then);
		write_text(code, body, size);
		hits[0] = 0;
		REQUIRE_OK(make_probe((uintptr_t)code, procedure, &hits[0], PATCH_TRAP_POLICY_FORBID, PATCH_ENABLED,
				      &patch));
		REQUIRE_OK(patch_commit());
		CHECK_EQ(call(code, 0), 7);
		CHECK_EQ(hits[0], 1);
		for (unsigned int at = 0; at < end; at++)
			if (mask >> at & 1)
				write_text(code + at, body + at, 1);
		if (then == THEN_ENABLE) {
			CHECK_OK(patch_enable(patch));
			CHECK_OK(patch_commit());
			CHECK_EQ(call(code, 0), 7);
			CHECK_EQ(hits[0], 2);
		} else if (then == THEN_DISABLE) {
			CHECK_OK(patch_disable(patch));
			CHECK_OK(patch_commit());
			CHECK(memcmp(body, code, size) == 0);
		}
		CHECK_OK(patch_unmake(patch));
		CHECK_OK(patch_commit());
		CHECK(memcmp(body, code, size) == 0);
		CHECK_EQ(call(code, 0), 7);
		REQUIRE(munmap(code, 4096) == 0);
	}
}

/* A breakpoint is there before the patch is made, in what a jump would cover: at an instruction behind the site. */
static void breakpoint_behind(void)
{
	/* xor; add $7, %eax; nop x 2; ret */
	static const uint8_t body[] = { 0x31, 0xc0, 0x83, 0xc0, 0x07, 0x90, 0x90, 0xc3 };
	uint8_t *code = make_code();
	uint8_t what = 0xcc;
	patch_t patch = NULL;

	CONTEXT("a breakpoint behind the site");
	hits[0] = 0;
	write_text(code, body, sizeof(body));
	write_text(code + 2, &what, 1);
	CHECK_STATUS(make_probe((uintptr_t)code, procedure, &hits[0], PATCH_TRAP_POLICY_FORBID, PATCH_ENABLED, &patch),
		     PATCH_ECHANGED);
	/* As a trap it has no need of that instruction. */
	REQUIRE_OK(make_probe((uintptr_t)code, procedure, &hits[0], PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
	CHECK_OK(patch_commit());
	CHECK_EQ(code[2], 0xcc);
	write_text(code + 2, &body[2], 1);
	CHECK_EQ(call(code, 0), 7);
	CHECK_EQ(hits[0], 1);
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
	CHECK(memcmp(body, code, sizeof(body)) == 0);
}

int ends(int), begins(int);
__asm__(".text\n"
	".balign 64\n"
	".type ends, @function\n"
	"ends: .cfi_startproc\n lea 1(%rdi), %eax\n ret\n .cfi_endproc\n .size ends, . - ends\n"
	".type begins, @function\n"
	"begins: .cfi_startproc\n lea 0x10(%rdi), %eax\n ret\n .cfi_endproc\n .size begins, . - begins\n");

/* The same where the jump would need the first byte of the next function, which no padding is in front of. */
static void breakpoint_at_next_function(void)
{
	uint8_t *const code = (uint8_t *)(uintptr_t)begins;
	const uint8_t before = *code;
	const uint8_t what = 0xcc;
	patch_t patch = NULL;

	CONTEXT("a breakpoint where the next function begins");
	hits[0] = 0;
	write_text(code, &what, 1);
	CHECK_STATUS(make_probe((uintptr_t)ends, procedure, &hits[0], PATCH_TRAP_POLICY_FORBID, PATCH_ENABLED, &patch),
		     PATCH_ECHANGED);
	REQUIRE_OK(make_probe((uintptr_t)ends, procedure, &hits[0], PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
	CHECK_OK(patch_commit());
	CHECK_EQ(*code, 0xcc);
	write_text(code, &before, 1);
	CHECK_EQ(ends(5), 6);
	CHECK_EQ(begins(5), 0x15);
	CHECK_EQ(hits[0], 1);
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
}

/* What other code may begin with, where the one with the patch was. */
static const struct other {
	const char *name;
	uint8_t bytes[10];
} others[] = {
	{ "other instructions", { 0x31, 0xc0, 0x90, 0x90, 0x90, 0x90, 0xc3 } },
	{ "the same instruction with another operand", { 0xb8, 0, 0, 0x55, 0x55, 0x31, 0xc0, 0xc3 } },
	{ "boundaries elsewhere", { 0x48, 0x31, 0xc0, 0x48, 0x89, 0xff, 0x66, 0x90, 0xc3 } },
	{ "a breakpoint first", { 0xcc, 0x90, 0x31, 0xc0, 0x66, 0x90, 0x90, 0xc3 } },
};
#define OTHERS (sizeof(others) / sizeof(others[0]))

static void replace(uint8_t *code, const struct other *other, bool mapped)
{
	if (mapped)
		REQUIRE(mmap(code, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
			code);
	else
		REQUIRE(mprotect(code, 4096, PROT_READ | PROT_WRITE) == 0);
	memcpy(code, other->bytes, sizeof(other->bytes));
	REQUIRE(mprotect(code, 4096, PROT_READ | PROT_EXEC) == 0);
}

/* The patch on the old code ends as it is unmade, though the library never heard that the code went. */
static void unmade_behind_other_code(const struct other *other, bool mapped, int policy)
{
	struct patch_statistics statistics;
	uint8_t *code = make_code();
	uint8_t before[16];
	patch_t patch, next;

	CONTEXT("%s, %s, %s", other->name, mapped ? "mapped" : "written over", policy_name(policy));
	memset(hits, 0, sizeof(hits));
	REQUIRE_OK(make_probe((uintptr_t)code, procedure, &hits[0], policy, PATCH_ENABLED, &patch));
	REQUIRE_OK(patch_commit());
	CHECK_EQ(call(code, 0), 0);
	CHECK_EQ(hits[0], 1);
	replace(code, other, mapped);
	memcpy(before, code, sizeof(before));
	/* Who still wants it is told. */
	CHECK_OK(patch_enable(patch));
	CHECK_STATUS(patch_commit(), PATCH_EFAIL);
	CHECK(harness_chain_has(PATCH_ECHANGED));
	CHECK_STATUS(make_probe((uintptr_t)code + 3, procedure, &hits[1], policy, PATCH_ENABLED, &next),
		     PATCH_ECHANGED);
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
	CHECK_OK(patch_synchronize(0));
	CHECK(memcmp(before, code, sizeof(before)) == 0);
	REQUIRE_OK(patch_statistics(&statistics, sizeof(statistics)));
	CHECK_EQ(statistics.patches, 0);
	CHECK_EQ(statistics.regions_installed, 0);
	if (other->bytes[0] == 0xcc)
		return;
	/* The new code is code like any. */
	CHECK_EQ(call(code, 0), 0);
	REQUIRE_OK(make_probe((uintptr_t)code, procedure, &hits[1], policy, PATCH_ENABLED, &next));
	CHECK_OK(patch_commit());
	CHECK_EQ(call(code, 0), 0);
	CHECK_EQ(hits[0], 1);
	CHECK_EQ(hits[1], 1);
	CHECK_OK(patch_unmake(next));
	CHECK_OK(patch_commit());
	CHECK(memcmp(before, code, sizeof(before)) == 0);
}

/* patch_fini() leaves other code as it is, and has nothing to complain of. */
static void replaced_before_fini(void *argument)
{
	const struct other *other = argument;
	uint8_t *code, *second;
	patch_t patch, beside;

	REQUIRE_OK(patch_init(NULL, 0));
	code = make_code();
	second = make_code();
	REQUIRE_OK(make_probe((uintptr_t)code, procedure, &hits[0], PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
	REQUIRE_OK(
		make_probe((uintptr_t)second, procedure, &hits[1], PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &beside));
	REQUIRE_OK(patch_commit());
	replace(code, other, true);
	CHECK_OK(patch_fini());
	CHECK(memcmp(code, other->bytes, sizeof(other->bytes)) == 0);
	CHECK_EQ(call(second, 0), 0);
	CHECK_EQ(hits[1], 0);
}

/* fini says so, restores the rest, and leaves the foreign byte. */
static void changed_before_fini(void *argument)
{
	uint8_t *code;
	uint8_t what = 0xcc;
	patch_t patch[FUNCTIONS];

	(void)argument;
	REQUIRE_OK(patch_init(NULL, 0));
	code = make_code();
	for (int n = 0; n < FUNCTIONS; n++)
		REQUIRE_OK(make_probe((uintptr_t)code + 64 * n, procedure, &hits[n], PATCH_TRAP_POLICY_ALLOW,
				      PATCH_ENABLED, &patch[n]));
	REQUIRE_OK(patch_commit());
	write_text(code + 64, &what, 1);
	CHECK_STATUS(patch_fini(), PATCH_EFAIL);
	CHECK_EQ(code[64], 0xcc);
	for (int n = 0; n < FUNCTIONS; n++)
		if (n != 1) {
			CHECK_EQ(code[64 * n], 0xb8);
			CHECK_EQ(call(code, n), n);
		}
}

int main(void)
{
	static const int offsets[] = { 0, 1, 4 };

	harness_start();
	harness_isolated("changed before patch_fini()", changed_before_fini, NULL);
	for (size_t o = 0; o < OTHERS; o++)
		harness_isolated("replaced by other code", replaced_before_fini, (void *)&others[o]);
	REQUIRE_OK(patch_init(NULL, 0));
	for (int o = 0; o < 3; o++)
		changed_before_commit(offsets[o], offsets[o] ? 0x11 : 0xb9, PATCH_TRAP_POLICY_ALLOW);
	changed_before_commit(0, 0xcc, PATCH_TRAP_POLICY_ALLOW);
	changed_before_commit(0, 0xcc, PATCH_TRAP_POLICY_FORCE);
	changed_under_patch();
	changed_and_unmade();
	for (int policy = PATCH_TRAP_POLICY_ALLOW; policy <= PATCH_TRAP_POLICY_FORCE; policy++) {
		changed_and_nothing_to_write(policy);
		for (enum then then = 0; then < THENS; then++)
			restored_by_others(policy, then);
	}
	for (enum then then = 0; then < THENS; then++) {
		static const uint8_t one[] = { 0xb8, 7, 0, 0, 0, 0xc3 };
		static const uint8_t three[] = { 0x31, 0xc0, 0x90, 0x83, 0xc0, 0x07, 0xc3 };

		restored_in_part(one, sizeof(one), 5, then);
		restored_in_part(three, sizeof(three), 5, then);
	}
	for (size_t o = 0; o < OTHERS; o++)
		for (int policy = PATCH_TRAP_POLICY_ALLOW; policy <= PATCH_TRAP_POLICY_FORCE; policy++) {
			/* Its breakpoint cannot be told from ours. */
			if (policy == PATCH_TRAP_POLICY_FORCE && others[o].bytes[0] == 0xcc)
				continue;
			unmade_behind_other_code(&others[o], true, policy);
			unmade_behind_other_code(&others[o], false, policy);
		}
	breakpoint_behind();
	breakpoint_at_next_function();
	CHECK_OK(patch_fini());
	return harness_end();
}
