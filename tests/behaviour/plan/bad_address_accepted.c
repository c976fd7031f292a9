/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Addresses that cannot be patched: unmapped, not executable, the middle of an instruction of a function with known
 * extents, bytes that do not decode, a foreign int3, a mapping that is shared. Each has its own status and words;
 * nothing is left behind.
 */
#include "targets.h"

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static void check_error(patch_status expected)
{
	static patch_status said;
	struct patch_error error;

	memset(&error, 0, sizeof(error));
	CHECK_STATUS(patch_last_error(&error), expected);
	CHECK_EQ(error.code, expected);
	CHECK(error.origin && error.irritant && error.message);
	if (!error.origin || !error.irritant || !error.message)
		return;
	CHECK(error.origin[0] && error.message[0]);
	if (said != expected)
		harness_say("%s: %s: %s\n", error.origin, error.irritant, error.message);
	said = expected;
}

static void refuse(uintptr_t address, patch_status expected)
{
	patch_t patch = NULL;

	for (int policy = PATCH_TRAP_POLICY_ALLOW; policy <= PATCH_TRAP_POLICY_FORCE; policy++) {
		patch_status status;

		CONTEXT("address %#llx, %s", (unsigned long long)address, policy_name(policy));
		status = make_probe(address, procedure, NULL, policy, PATCH_ENABLED, &patch);
		if (status != expected)
			FAIL("returned %d (%s), wanted %s; %s", (int)status, patch_status_string(status),
			     patch_status_string(expected), harness_last_error());
		else
			check_error(expected);
		CHECK_OK(patch_commit());
	}
}

/*
 * Code that other processes have, too: anonymous memory, a file; they would execute what is written there (hazard 24).
 */
static void check_shared(void)
{
	int file = memfd_create("code", MFD_CLOEXEC);

	REQUIRE(file >= 0 && ftruncate(file, 4096) == 0);
	for (int anonymous = 0; anonymous < 2; anonymous++) {
		uint8_t *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | (anonymous ? MAP_ANONYMOUS : 0),
				     anonymous ? -1 : file, 0);

		REQUIRE(code != MAP_FAILED);
		memset(code, 0x90, 4095);
		code[4095] = 0xc3;
		/* with or without write permission */
		REQUIRE(mprotect(code, 4096, PROT_READ | PROT_EXEC) == 0);
		refuse((uintptr_t)code + 64, PATCH_ENOTSUP);
		REQUIRE(mprotect(code, 4096, PROT_READ | PROT_WRITE | PROT_EXEC) == 0);
		refuse((uintptr_t)code + 128, PATCH_ENOTSUP);
		for (int byte = 0; byte < 4095; byte++)
			CHECK_EQ(code[byte], 0x90);
		REQUIRE(munmap(code, 4096) == 0);
	}
	close(file);
}

int main(void)
{
	const struct target *target;
	struct instructions list;
	struct patch_statistics statistics;
	uint8_t *page, *code;
	unsigned int inner = 0;

	harness_start();
	REQUIRE_OK(patch_init(NULL, 0));

	/* unmapped: null, a hole, above user space, the last byte of the address space */
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(page != MAP_FAILED);
	/* mapped, not executable */
	memset(page, 0x90, 4096);
	refuse((uintptr_t)page, PATCH_EFAULT);
	refuse((uintptr_t)&target_inputs, PATCH_EFAULT);
	REQUIRE(munmap(page, 4096) == 0);
	refuse((uintptr_t)page, PATCH_EFAULT);
	refuse(8, PATCH_EFAULT);
	refuse((uintptr_t)0xffff800000000000, PATCH_EFAULT);
	refuse(~(uintptr_t)0, PATCH_EFAULT);
	refuse((uintptr_t)1 << 47, PATCH_EFAULT);

	/* every byte inside every instruction of some targets that are not first bytes */
	static const char *const names[] = { "t_five_bytes", "t_rip_load", "t_xmm", "t_call_last", "t_endbr_long" };

	for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++) {
		struct text_copy before;

		target = target_named(names[n]);
		before = text_of_target(target);
		list = target_decode(target);
		for (unsigned int i = 0; i < list.count; i++)
			for (unsigned int byte = 1; byte < list.length[i]; byte++, inner++)
				refuse(list.address[i] + byte, PATCH_EBOUNDARY);
		CHECK_TEXT_SAME(&before);
	}
	CHECK(inner > 20);

	/* code of the program's own, without unwind information */
	code = mmap(NULL, 2 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(code != MAP_FAILED);
	REQUIRE(mprotect(code + 4096, 4096, PROT_NONE) == 0);
	memset(code, 0x90, 4096);
	code[64] = 0x06; /* not an instruction in 64-bit mode */
	code[128] = 0xcc;
	code[4095] = 0x48; /* cut off where nothing can be read any more */
	code[256] = 0xc3;
	REQUIRE(mprotect(code, 4096, PROT_READ | PROT_EXEC) == 0);
	refuse((uintptr_t)code + 64, PATCH_EDISASM);
	refuse((uintptr_t)code + 4095, PATCH_EDISASM);
	refuse((uintptr_t)code + 128, PATCH_ECHANGED);

	check_shared();

	/* and all of that did no harm */
	memset(&statistics, 0, sizeof(statistics));
	CONTEXT("after the refusals");
	CHECK_OK(patch_statistics(&statistics, sizeof(statistics)));
	CHECK_EQ(statistics.patches, 0);
	CHECK_EQ(statistics.regions, 0);
	target = target_named("t_five_bytes");
	CHECK_EQ(target->function(5, 7), target->model(5, 7));
	CHECK_OK(patch_fini());
	return harness_end();
}
