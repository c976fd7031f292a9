/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What generated code, own_stack_ask.S and own_stack.c know of each other: where things are.
 */
#ifndef LIBPATCH_ARCH_X86_64_OWN_STACK_H
#define LIBPATCH_ARCH_X86_64_OWN_STACK_H

/* struct own_stack */
#define OWN_FREE 0
#define OWN_SELF 8
#define OWN_ADOPTED 16
#define OWN_RAX 24
#define OWN_RDX 32
#define OWN_FLAGS 40
#define OWN_LANDING 48
#define OWN_BASE 56
#define OWN_RDI 64
#define OWN_RSI 72
#define OWN_R11 80
#define OWN_SIGNALS 88
#define OWN_SIGNALS_FLAGS 96

/* struct hook_guard */
#define GUARD_WORD_OWN 80

/*
 * A hook's landing, from its first byte: there is no stack; the frame is to be at rcx; the hook begins anew. In the
 * last two, `kept` of struct hook_guard is rcx, everything else is the program's.
 */
#define OWN_LANDING_NONE 0
#define OWN_LANDING_GO 30
#define OWN_LANDING_AGAIN 35

#ifndef __ASSEMBLER__
#include "arch/x86_64/hook_call.h"

/*
 * Jumped to by a hook that did not find the thread's own stack free: rcx is what `own` in struct hook_guard was, and
 * that is the landing; `kept` is rcx, and everything else is the program's. arch/own_stack.h says what it does.
 */
arch_call_fn libpatch_own_stack;
#endif

#endif
