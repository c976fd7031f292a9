/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The instruction of a system call that the library makes for itself, in assembly: as OWN_SYSCALL of base/syscall.h. */
#ifndef LIBPATCH_ARCH_X86_64_OWN_SYSCALL_H
#define LIBPATCH_ARCH_X86_64_OWN_SYSCALL_H

	.macro OWN_SYSCALL
	syscall
771:
	.pushsection libpatch_syscalls, "a"
	.balign 4
	.long 771b - 2 - .
	.popsection
	.endm

#endif
