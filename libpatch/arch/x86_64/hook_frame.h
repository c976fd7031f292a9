/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The stack frame of a running hook, from its base (the lowest address, the stack pointer that the nesting guard
 * holds):
 *
 *   +0    RFLAGS of the program
 *   +8    the record that the hook uses; 0 until it is loaded. Read by other threads (runtime/hook_threads.h)
 *   +16   errno
 *   +20   where in a list of patches the hook is, if the record is a list's (patch/hook_list.h); else anything
 *   +24   copies of general purpose registers that the procedure may not write, by index; the others are kept in the
 *         context only
 *   +144  struct patch_exec_context
 *   +304  the program counter that the context reports, where that is known at run time only
 *   +312  the program's red zone, 128 bytes (System V AMD64 psABI, 3.2.2)
 *   +440  the program's stack pointer
 *
 * The base is a multiple of 16 at a function's entry, where the stack pointer is 8 off one.
 *
 * That of a hook on the thread's own stack (arch/own_stack.h) differs in this:
 *
 *   +0    the program's stack pointer
 *   +312  RFLAGS of the program
 *   +320  the base, from when the hook has left the stack until it is taken again; else 0
 *
 * Its base is a multiple of 16. Flags are below any stack pointer: that tells the two apart.
 */
#ifndef LIBPATCH_ARCH_X86_64_HOOK_FRAME_H
#define LIBPATCH_ARCH_X86_64_HOOK_FRAME_H

#define ARCH_HOOK_FRAME_FLAGS 0
#define ARCH_HOOK_FRAME_RECORD 8
#define ARCH_HOOK_FRAME_ERRNO 16
#define ARCH_HOOK_FRAME_CURRENT 20
#define ARCH_HOOK_FRAME_REGISTERS 24
#define ARCH_HOOK_FRAME_CONTEXT 144
#define ARCH_HOOK_FRAME_REPORTED 304
#define ARCH_HOOK_FRAME_SIZE 312
#define ARCH_HOOK_RED_ZONE 128
/* Distance from the base to the program's stack pointer. */
#define ARCH_HOOK_FRAME_TOTAL (ARCH_HOOK_FRAME_SIZE + ARCH_HOOK_RED_ZONE)

/* On the thread's own stack. */
#define ARCH_OWN_FRAME_STACK_POINTER 0
#define ARCH_OWN_FRAME_FLAGS 312
#define ARCH_OWN_FRAME_FREE 320
#define ARCH_OWN_FRAME_SIZE 336
/* Above all flags of RFLAGS. */
#define ARCH_FLAGS_END 0x400000

/*
 * Images of extended state that procedures are offered have this in bytes 464 to 467, and in bytes 468 to 471 the
 * components that there is room for: hook_call.S writes it, arch_xsave_component() reads it.
 */
#define CALL_MARK 0x6c706374

/* Value of arch_row.cfa in hooks. */
#define ARCH_ROW_CFA_FRAME (ARCH_HOOK_FRAME_TOTAL / 8)

#ifndef __ASSEMBLER__
#include <stdint.h>

/* The program's stack pointer where the hook with its frame at `base` begins. */
static inline uintptr_t arch_hook_stack_pointer(uintptr_t base)
{
	uintptr_t first = *(const volatile uintptr_t *)base;

	return first >= ARCH_FLAGS_END ? first : base + ARCH_HOOK_FRAME_TOTAL;
}
#endif

#endif
