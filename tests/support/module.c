/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A module that comes and goes: a function to be patched, a procedure, functions whose code in the file a test
 * replaces, and a system call.
 */
#include <libpatch/patch.h>

int module_function(int a);
void module_procedure(struct patch_exec_context *context, uint8_t post);

__attribute__((noinline)) int module_function(int a)
{
	__asm__ volatile("" : "+r"(a));
	return a + 1;
}

/* Calls the function that user_data is. */
void module_procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	((void (*)(void))context->user_data)();
}

/* Eight of 64 bytes. */
__asm__(".text\n"
	".balign 64\n"
	".globl module_rebuilt\n"
	".type module_rebuilt, @function\n"
	"module_rebuilt:\n"
	".rept 8\n"
	".cfi_startproc\n"
	".fill 63, 1, 0x90\n"
	"ret\n"
	".cfi_endproc\n"
	".endr\n");

/* A system call of its own: rt_sigprocmask. */
__asm__(".balign 64\n"
	".globl module_sigprocmask\n"
	".type module_sigprocmask, @function\n"
	"module_sigprocmask:\n"
	".cfi_startproc\n"
	"mov %rcx, %r10\n"
	"mov $14, %eax\n"
	"syscall\n"
	"ret\n"
	".cfi_endproc\n");
