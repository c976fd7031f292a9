/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * System calls of the program that the library makes in its stead.
 */
#ifndef LIBPATCH_ARCH_SYSCALL_H
#define LIBPATCH_ARCH_SYSCALL_H

#include "arch/emit.h"
#include "base/compiler.h"

/* Registers of a system call; result in rax. */
struct arch_call {
	long rax;
	long rdi;
	long rsi;
	long rdx;
	long r10;
	long r8;
	long r9;
};

/* True: the call was made, and call->rax is its result. Runs with the program's extended state, and leaves it alone. */
typedef bool arch_syscall_hook_fn(struct arch_call *call);

/* A system call's copy behind a call of the function, which may make it instead. */
void arch_emit_syscall_hook(struct arch_code *code, arch_syscall_hook_fn *function, const uint8_t *bytes,
		       const struct arch_insn *insn, uintptr_t address, const struct arch_map *map);

/*
 * Make a call in which the thread waits for signals, and return its result: unless *arrived is set by then, by a
 * handler, which returns ARCH_WAIT_ARRIVED. A handler that finds arch_is_about_to_wait() may instead leave its signal
 * pending: the call finds it.
 */
#define ARCH_WAIT_ARRIVED -512 /* ERESTARTSYS, which no system call returns to programs */
long arch_wait_call(const struct arch_call *call, const uint8_t *arrived);
/* Is the pc of an interrupted thread in arch_wait_call(), and is the system call not made yet? */
bool arch_is_about_to_wait(uintptr_t pc);

#endif
