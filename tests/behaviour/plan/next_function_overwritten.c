/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A jump that needs bytes of the next function, which branches into the middle of the instruction there: these bytes
 * stay, and FORBID is refused.
 */
#include "harness.h"

/* What a jump would be that ends in the bytes of `next` leads where no memory is left; next(1) begins a byte later. */
int small(int), next(int);
__asm__(".text\n"
	".balign 64\n"
	".type small, @function\n"
	"small: .cfi_startproc\n xor %eax, %eax\n ret\n .cfi_endproc\n .size small, . - small\n"
	".type next, @function\n"
	"next: .cfi_startproc\n"
	" .byte 0xb8, 0x00, 0xc0, 0x90, 0x90\n" /* mov $0x9090c000, %eax; or add %al, %al; nop; nop */
	" cmp $1, %edi\n je 1f\n ret\n1: mov $2, %edi\n mov $3, %eax\n jmp next + 1\n .cfi_endproc\n"
	".size next, . - next\n");

static unsigned int hits;

static void GP_ONLY count_hit(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

int main(void)
{
	const uintptr_t page = ((uintptr_t)small + 5 + 0xb80000) & ~(uintptr_t)4095;
	uint8_t original[5];
	patch_t patch = NULL;

	harness_start();
	memcpy(original, (const void *)(uintptr_t)next, sizeof(original));
	if (mmap((void *)page, 0x11000, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != (void *)page)
		SKIP("something is mapped behind the program");
	REQUIRE_OK(patch_init(NULL, 0));
	CHECK_EQ(next(1), 6);
	/* The first reason: the jump that changes nothing of the next function has no memory. */
	CHECK_STATUS(make_probe((uintptr_t)small, count_hit, NULL, PATCH_TRAP_POLICY_FORBID, PATCH_ENABLED, &patch),
		     PATCH_ENOMEM);
	REQUIRE_OK(make_probe((uintptr_t)small, count_hit, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
	REQUIRE_OK(patch_commit());
	CHECK(memcmp(original, (const void *)(uintptr_t)next, sizeof(original)) == 0);
	CHECK_EQ(next(1), 6);
	CHECK_EQ(small(1), 0);
	CHECK_EQ(hits, 1);
	CHECK_OK(patch_fini());
	return harness_end();
}
