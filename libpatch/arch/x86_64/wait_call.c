/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A system call in which a thread waits for signals, with no gap between the last look at what has arrived and the
 * call: a signal handler sees by the pc of the thread that it interrupts whether the call is still to be made. Hence
 * assembly.
 */
#include "arch/syscall.h"

#include "base/syscall.h"

/* Where the call has been made, or is not to be. */
extern const char arch_wait_made[] __attribute__((visibility("hidden")));

_Static_assert(ARCH_WAIT_ARRIVED == -512, "arch_wait_call()");
_Static_assert(offsetof(struct arch_call, rdi) == 8 && offsetof(struct arch_call, r9) == 48, "arch_wait_call()");

__asm__(".text\n"
	".globl arch_wait_call\n"
	".hidden arch_wait_call\n"
	".type arch_wait_call, @function\n"
	"arch_wait_call:\n"
	"	.cfi_startproc\n"
	"	mov $-512, %rax\n" /* ARCH_WAIT_ARRIVED */
	"	cmpb $0, (%rsi)\n"
	"	jne arch_wait_made\n"
	"	mov (%rdi), %rax\n"
	"	mov 16(%rdi), %rsi\n"
	"	mov 24(%rdi), %rdx\n"
	"	mov 32(%rdi), %r10\n"
	"	mov 40(%rdi), %r8\n"
	"	mov 48(%rdi), %r9\n"
	"	mov 8(%rdi), %rdi\n"
	"	" OWN_SYSCALL
	".globl arch_wait_made\n"
	".hidden arch_wait_made\n"
	"arch_wait_made:\n"
	"	ret\n"
	"	.cfi_endproc\n"
	".size arch_wait_call, . - arch_wait_call\n");

bool arch_is_about_to_wait(uintptr_t pc)
{
	return pc >= (uintptr_t)&arch_wait_call && pc < (uintptr_t)arch_wait_made;
}
