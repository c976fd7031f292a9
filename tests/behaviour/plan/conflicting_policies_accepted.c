/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * FORBID and FORCE at two instructions, or at one, whose bytes one jump would need: in its window, or among those that
 * a punned jump consists of, of its function or of the next one. Whatever is accepted is as its policy says; else it is
 * a conflict, and the first patch works on. ALLOW conflicts with neither, also where no jump can take in the other one.
 */
#include "harness.h"

/*
 * Windows of several instructions; a jump that ends in the next function; one that ends in a loop's head; one over such
 * a head, as no jump leads into the padding. To a head that many branches lead to they are not led.
 */
int of_several(int), small(int), next(int), counted(int), met(int);
extern const uint8_t policies_begin[], policies_end[];
__asm__(".lcomm policies_words, 512\n"
	".text\n"
	".skip 65536, 0x90\n"
	"nothing: ret\n"
	".balign 64\n"
	"policies_begin:\n"
	".type of_several, @function\n"
	"of_several: .cfi_startproc\n xor %eax, %eax\n mov %edi, %eax\n add $1, %eax\n ret\n .cfi_endproc\n"
	".size of_several, . - of_several\n"
	".type small, @function\n"
	"small: .cfi_startproc\n lea 1(%rdi), %eax\n ret\n .cfi_endproc\n .size small, . - small\n"
	".type next, @function\n"
	"next: .cfi_startproc\n sub $8, %rsp\n .cfi_adjust_cfa_offset 8\n add $8, %rsp\n .cfi_adjust_cfa_offset -8\n"
	" lea 1(%rdi), %eax\n ret\n .cfi_endproc\n .size next, . - next\n"
	".type counted, @function\n"
	"counted: .cfi_startproc\n mov %edi, %eax\n"
	"1: sub $0xffffffffffffffff, %rax\n xor %ecx, %ecx\n jnz 1b\n .rept 8\n jg 1b\n .endr\n ret\n .cfi_endproc\n"
	".size counted, . - counted\n"
	".type met, @function\n"
	"met: .cfi_startproc\n push %rbx\n .cfi_adjust_cfa_offset 8\n lea policies_words+256(%rip), %rbx\n"
	" xor %ecx, %ecx\n lea nothing(%rip), %rdx\n .byte 0xeb, 0\n call *%rdx\n mov %rbx, %rax\n"
	"1: add %al, (%rax)\n inc %ecx\n cmp $3, %ecx\n .rept 40\n jb 1b\n .endr\n"
	" lea 1(%rdi), %eax\n pop %rbx\n .cfi_adjust_cfa_offset -8\n ret\n .cfi_endproc\n .size met, . - met\n"
	"policies_end:\n"
	".skip 65536, 0x90\n");

static int (*const functions[])(int) = { of_several, small, next, counted, met };

static volatile unsigned int hits[2];

static void GP_ONLY count_hit(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	++*(volatile unsigned int *)context->user_data;
}

static patch_status make(const uint8_t *site, unsigned int index, int policy, patch_t *patch)
{
	return make_probe((uintptr_t)site, count_hit, (void *)&hits[index], policy, PATCH_ENABLED, patch);
}

static void check_calls(const patch_t patches[2])
{
	hits[0] = hits[1] = 0;
	for (unsigned int i = 0; i < sizeof(functions) / sizeof(functions[0]); i++)
		CHECK_EQ(functions[i](5), 6);
	CHECK_EQ(hits[0] != 0, patches[0] != NULL);
	CHECK_EQ(hits[1] != 0, patches[1] != NULL);
}

static void check_policy(patch_t patch, int policy, const uint8_t *site)
{
	struct patch_info info;

	REQUIRE_OK(patch_info(patch, &info, sizeof(info)));
	if (policy != PATCH_TRAP_POLICY_ALLOW)
		CHECK_EQ(info.strategy == PATCH_STRATEGY_TRAP, policy == PATCH_TRAP_POLICY_FORCE);
	if (policy == PATCH_TRAP_POLICY_FORCE)
		CHECK_EQ(*site, 0xcc);
}

static void unmake(patch_t *patch)
{
	if (*patch != NULL)
		CHECK_OK(patch_unmake(*patch));
	*patch = NULL;
	CHECK_OK(patch_commit());
}

static unsigned int conflicts, agreements;

static void check_pair(const uint8_t *first, const uint8_t *second, const int policies[2])
{
	patch_t patches[2] = { NULL, NULL };
	patch_status status;

	CONTEXT("%s at %td, then %s at %td", policy_name(policies[0]), first - policies_begin,
		policy_name(policies[1]), second - policies_begin);
	if (make(first, 0, policies[0], &patches[0]) != PATCH_OK)
		return;
	REQUIRE_OK(patch_commit());
	status = make(second, 1, policies[1], &patches[1]);
	if (status == PATCH_OK)
		agreements++;
	else if (status == PATCH_ECONF && policies[1] != PATCH_TRAP_POLICY_ALLOW)
		conflicts++;
	else
		FAIL("status %d: %s", status, harness_last_error());
	if (status != PATCH_OK)
		patches[1] = NULL;
	REQUIRE_OK(patch_commit());
	check_calls(patches);
	check_policy(patches[0], policies[0], first);
	if (patches[1] != NULL)
		check_policy(patches[1], policies[1], second);
	unmake(&patches[0]);
	check_calls(patches);
	if (patches[1] != NULL)
		check_policy(patches[1], policies[1], second);
	unmake(&patches[1]);
	check_calls(patches);
}

/* Instructions on which a patch can be made with either policy. */
static size_t find_sites(const uint8_t *sites[])
{
	size_t count = 0;

	for (const uint8_t *at = policies_begin; at < policies_end; at++) {
		patch_t patches[2] = { NULL, NULL };

		if (make(at, 0, PATCH_TRAP_POLICY_FORCE, &patches[0]) == PATCH_OK) {
			unmake(&patches[0]);
			if (make(at, 0, PATCH_TRAP_POLICY_FORBID, &patches[0]) == PATCH_OK)
				sites[count++] = at;
			unmake(&patches[0]);
		}
	}
	return count;
}

int main(void)
{
	static const int policies[][2] = { { PATCH_TRAP_POLICY_FORBID, PATCH_TRAP_POLICY_FORCE },
					   { PATCH_TRAP_POLICY_FORCE, PATCH_TRAP_POLICY_FORBID },
					   { PATCH_TRAP_POLICY_FORBID, PATCH_TRAP_POLICY_ALLOW },
					   { PATCH_TRAP_POLICY_FORCE, PATCH_TRAP_POLICY_ALLOW } };
	const uint8_t *sites[256];
	uint8_t original[sizeof(sites) / sizeof(sites[0])];
	const size_t size = (size_t)(policies_end - policies_begin);
	size_t count;

	harness_start();
	REQUIRE(size <= sizeof(original));
	memcpy(original, policies_begin, size);
	REQUIRE_OK(patch_init(NULL, 0));
	count = find_sites(sites);
	for (size_t i = 0; i < count; i++)
		for (size_t j = 0; j < count; j++)
			for (size_t k = 0; k < sizeof(policies) / sizeof(policies[0]); k++)
				check_pair(sites[i], sites[j], policies[k]);
	CHECK(memcmp(original, policies_begin, size) == 0);
	CHECK(conflicts > 10 && agreements > 10);
	CHECK_OK(patch_fini());
	return harness_end();
}
