/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The stack frame of a running hook, from its base (the lowest address, the stack pointer that the nesting guard holds):
 *
 *   +0    RFLAGS of the program
 *   +8    the record that the hook uses; 0 until it is loaded. Read by other threads (threads.h)
 *   +16   errno
 *   +24   private copies of general purpose registers, by index
 *   +144  struct patch_exec_context
 *   +304  the program's red zone, 128 bytes (System V AMD64 psABI, 3.2.2)
 *   +432  the program's stack pointer
 *
 * During the call of a procedure the stack pointer is lower, aligned to 64: it points to the base's address, or, with
 * extended state, to the XSAVE image, with the base's address ARCH_HOOK_IMAGE_SIZE above it.
 */
#ifndef LIBPATCH_ARCH_X86_64_FRAME_H
#define LIBPATCH_ARCH_X86_64_FRAME_H

#define ARCH_HOOK_FRAME_FLAGS 0
#define ARCH_HOOK_FRAME_RECORD 8
#define ARCH_HOOK_FRAME_ERRNO 16
#define ARCH_HOOK_FRAME_REGISTERS 24
#define ARCH_HOOK_FRAME_CONTEXT 144
#define ARCH_HOOK_FRAME_SIZE 304
#define ARCH_HOOK_RED_ZONE 128
/* Distance from the base to the program's stack pointer. */
#define ARCH_HOOK_FRAME_TOTAL (ARCH_HOOK_FRAME_SIZE + ARCH_HOOK_RED_ZONE)

/* Room for the XSAVE image: x87 to AVX-512, standard format, 2432 to 2688 bytes by processor. */
#define ARCH_HOOK_IMAGE_SIZE 2816

/* Values of arch_row.cfa in hooks. */
#define ARCH_ROW_CFA_FRAME (ARCH_HOOK_FRAME_TOTAL / 8)
/* The stack pointer points to the base's address. */
#define ARCH_ROW_CFA_CALL (ARCH_ROW_DEREF | ARCH_ROW_CFA_FRAME)
/* The base's address is ARCH_HOOK_IMAGE_SIZE above the stack pointer. */
#define ARCH_ROW_CFA_CALL_EXTENDED 0xff

#endif
