/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An int3 that the program has in its file was changed by nobody: at the site, behind an endbr64, and within the bytes
 * of a jump. One that was written to memory was, where the file has something else, and where there is no file. None of
 * them is written over.
 */
#include "harness.h"

#include <fcntl.h>

/* Each in 16 bytes of its own. */
__asm__(".text\n.balign 16\nint3_functions:\n"
	".cfi_startproc\nint3\nret\n.balign 16, 0x90\n.cfi_endproc\n"
	".cfi_startproc\nendbr64\nint3\nret\n.balign 16, 0x90\n.cfi_endproc\n"
	".cfi_startproc\nmov %edi, %eax\nint3\nnop\nnop\nret\n.balign 16, 0x90\n.cfi_endproc\n"
	".cfi_startproc\nmov $1, %eax\nret\n.balign 16, 0x90\n.cfi_endproc\n");
extern uint8_t int3_functions[];

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static void write_text(void *address, uint8_t byte)
{
	int fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);

	if (fd < 0 || pwrite(fd, &byte, 1, (off_t)(uintptr_t)address) != 1)
		SKIP("/proc/self/mem is not writable here");
	close(fd);
}

static void check_refused(const uint8_t *code, patch_status expected)
{
	uint8_t before[16];
	patch_t patch;

	memcpy(before, code, sizeof(before));
	CHECK_STATUS(make_probe((uintptr_t)code, procedure, NULL, PATCH_TRAP_POLICY_FORBID, PATCH_ENABLED, &patch),
		     expected);
	CHECK(harness_chain_has(expected));
	CHECK_OK(patch_commit());
	CHECK(memcmp(before, code, sizeof(before)) == 0);
}

/* `own`: what an int3 that was there from the start is called. */
static void check_all(uint8_t *code, patch_status own)
{
	for (int i = 0; i < 3; i++) {
		CONTEXT("function %d, own: %d", i, own);
		check_refused(code + 16 * i, own);
	}
	write_text(code + 48, 0xCC);
	CONTEXT("written to memory");
	check_refused(code + 48, PATCH_ECHANGED);
	write_text(code + 48, 0xB8);
}

int main(void)
{
	uint8_t *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	patch_t patch;

	harness_start();
	REQUIRE(code != MAP_FAILED);
	memcpy(code, int3_functions, 64);
	REQUIRE(mprotect(code, 4096, PROT_READ | PROT_EXEC) == 0);
	REQUIRE_OK(patch_init(NULL, 0));
	check_all(int3_functions, PATCH_ERELOCATE);
	check_all(code, PATCH_ECHANGED);
	/* Put back, it is code as any other. */
	CHECK_OK(make_probe((uintptr_t)int3_functions + 48, procedure, NULL, PATCH_TRAP_POLICY_FORBID, PATCH_ENABLED,
			    &patch));
	CHECK_OK(patch_fini());
	return harness_end();
}
