/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Windows that leave the mapping of their code: instructions at its end, with all kinds of memory behind. What is
 * behind is no code, is not written to, and not jumped into. Only where it is mapped as the code is may a window go on.
 */
#include "harness.h"

#define PAGE ((size_t)4096)

static unsigned int hits;

static void GP_ONLY count_hit(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

static const struct {
	const char *name;
	int protection; /* -1: nothing is mapped */
} kinds[] = {
	{ "nothing", -1 },
	{ "nothing that can be read", PROT_NONE },
	{ "data", PROT_READ | PROT_WRITE },
	{ "constants", PROT_READ },
	{ "writable code", PROT_READ | PROT_WRITE | PROT_EXEC },
	{ "code", PROT_READ | PROT_EXEC },
};

/* mov eax, 42; ret: the page's last bytes. */
static const uint8_t body[] = { 0xb8, 42, 0, 0, 0, 0xc3 };

static uint8_t *make_code(uint8_t **page, int protection)
{
	static const uint8_t behind[16] = { 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90 };
	/* Of a file, so that mappings of code are two. */
	int file = memfd_create("code", MFD_CLOEXEC);
	uint8_t *pages = mmap(NULL, 3 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t *end = pages + PAGE;

	REQUIRE(file >= 0 && pages != MAP_FAILED && ftruncate(file, (off_t)PAGE) == 0);
	REQUIRE(pwrite(file, body, sizeof(body), (off_t)(PAGE - sizeof(body))) == sizeof(body));
	REQUIRE(mmap(pages, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, file, 0) == pages);
	close(file);
	REQUIRE(mprotect(end, PAGE, PROT_READ | PROT_WRITE) == 0);
	memcpy(end, behind, sizeof(behind));
	if (protection < 0)
		REQUIRE(munmap(end, PAGE) == 0);
	else
		REQUIRE(mprotect(end, PAGE, protection) == 0);
	*page = end;
	return end - sizeof(body);
}

static void check_behind(const uint8_t *page, int protection)
{
	static const uint8_t behind[16] = { 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90 };

	if (protection == PROT_NONE)
		REQUIRE(mprotect((void *)(uintptr_t)page, PAGE, PROT_READ) == 0);
	if (protection >= 0)
		CHECK(memcmp(page, behind, sizeof(behind)) == 0);
}

static void check_site(size_t kind, size_t offset, int policy)
{
	const int protection = kinds[kind].protection;
	const bool jumps = offset == 0 || protection == (PROT_READ | PROT_EXEC);
	uint8_t *page, *code = make_code(&page, protection);
	patch_t patch = NULL;
	patch_status status;

	CONTEXT("%s behind, offset %zu, policy %s", kinds[kind].name, offset, policy_name(policy));
	hits = 0;
	status = make_probe((uintptr_t)code + offset, count_hit, NULL, policy, PATCH_ENABLED, &patch);
	if (policy == PATCH_TRAP_POLICY_FORBID && !jumps) {
		CHECK_EQ(status, PATCH_ENOJUMP);
		return;
	}
	CHECK_EQ(status, PATCH_OK);
	CHECK_OK(patch_commit());
	CHECK_EQ(code[offset] == 0xe9, jumps);
	if (offset == 0 || !jumps)
		check_behind(page, protection);
	CHECK_EQ(call_code(code), 42);
	CHECK_EQ(hits, 1);
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
	check_behind(page, protection);
}

int main(void)
{
	harness_start();
	REQUIRE_OK(patch_init(NULL, 0));
	for (size_t kind = 0; kind < sizeof(kinds) / sizeof(kinds[0]); kind++)
		for (size_t offset = 0; offset < sizeof(body); offset += 5)
			for (int policy = PATCH_TRAP_POLICY_ALLOW; policy <= PATCH_TRAP_POLICY_FORBID; policy++)
				check_site(kind, offset, policy);
	CHECK_OK(patch_fini());
	return harness_end();
}
