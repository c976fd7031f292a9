/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A system call whose place is known by name: a handler tells by the pc that it interrupts whether the call was made.
 * Hence assembly.
 */
#include "arch/syscall.h"

#include "base/syscall.h"

extern const char arch_call_made[] __attribute__((visibility("hidden")));
extern const char arch_call_stored[] __attribute__((visibility("hidden")));

_Static_assert(offsetof(struct arch_call, rdi) == 8 && offsetof(struct arch_call, r9) == 48, "arch_call_kernel()");

__asm__(".text\n"
	".globl arch_call_kernel\n"
	".hidden arch_call_kernel\n"
	".type arch_call_kernel, @function\n"
	"arch_call_kernel:\n"
	"	.cfi_startproc\n"
	"	push %rbx\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	.cfi_offset %rbx, -16\n"
	"	push %r12\n"
	"	.cfi_adjust_cfa_offset 8\n"
	"	.cfi_offset %r12, -24\n"
	"	mov %rsi, %rbx\n"
	"	mov %rdx, %r12\n"
	"	mov (%rdi), %rax\n"
	"	mov 16(%rdi), %rsi\n"
	"	mov 24(%rdi), %rdx\n"
	"	mov 32(%rdi), %r10\n"
	"	mov 40(%rdi), %r8\n"
	"	mov 48(%rdi), %r9\n"
	"	mov 8(%rdi), %rdi\n"
	"	" OWN_SYSCALL
	".globl arch_call_made\n"
	".hidden arch_call_made\n"
	"arch_call_made:\n"
	"	mov %rax, (%rbx)\n"
	"	movb $1, (%r12)\n"
	".globl arch_call_stored\n"
	".hidden arch_call_stored\n"
	"arch_call_stored:\n"
	"	pop %r12\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	.cfi_restore %r12\n"
	"	pop %rbx\n"
	"	.cfi_adjust_cfa_offset -8\n"
	"	.cfi_restore %rbx\n"
	"	ret\n"
	"	.cfi_endproc\n"
	".size arch_call_kernel, . - arch_call_kernel\n");

bool arch_call_is_made(uintptr_t pc)
{
	return pc >= (uintptr_t)arch_call_made && pc < (uintptr_t)arch_call_stored;
}
