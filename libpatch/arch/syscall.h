/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * System calls of the program that the library makes in its stead.
 */
#ifndef LIBPATCH_ARCH_SYSCALL_H
#define LIBPATCH_ARCH_SYSCALL_H

#include "arch/emit.h"
#include "base/compiler.h"

#include <ucontext.h>

/* The program's registers at a system call, result in rax. RCX and R11 are the kernel's. */
struct arch_call {
	long rax;
	long rdi;
	long rsi;
	long rdx;
	long r10;
	long r8;
	long r9;
	long rbx;
	long rbp;
	long r12;
	long r13;
	long r14;
	long r15;
	uintptr_t front; /* generated code that begins the call anew, with these registers */
	uintptr_t next;  /* the program's instruction behind the call */
};

/* True: the call was made, and call->rax is its result. Runs with the program's extended state, and leaves it alone. */
typedef bool arch_syscall_hook_fn(struct arch_call *call);

/* A system call's copy behind a call of the function, which may make it instead. */
void arch_emit_syscall_hook(struct arch_code *code, arch_syscall_hook_fn *function, const uint8_t *bytes,
		       const struct arch_insn *insn, uintptr_t address, const struct arch_map *map);

/* The registers that the program has before the call that the function was given, or behind it. */
void arch_call_registers(const struct arch_call *call, bool made, greg_t *registers);

uintptr_t arch_call_stack_pointer(const struct arch_call *call);

/* Make a call of the kernel's: the first seven words of *call count. Then *made is true, and *result is there. */
void arch_call_kernel(const struct arch_call *call, long *result, bool *made);
/* An interrupted thread's pc: is it between the kernel's call and *made? The result is in rax then. */
bool arch_call_is_made(uintptr_t pc);

#endif
