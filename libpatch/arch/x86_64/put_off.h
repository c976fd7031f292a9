/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What put_off_stubs.S and put_off.c both know: where things are.
 */
#ifndef LIBPATCH_ARCH_X86_64_PUT_OFF_H
#define LIBPATCH_ARCH_X86_64_PUT_OFF_H

/*
 * In the hook's frame, from its base: where the call would have returned to. The word is for a private copy of rbx,
 * which no hook makes, as functions keep it.
 */
#define PUT_OFF_RETURNS 32
/* `put_off` in struct hook_guard */
#define PUT_OFF_GUARD_WORD 72

/* What a stub keeps below the flags, which are below the stack pointer that it begins with. */
#define PUT_OFF_RAX 0
#define PUT_OFF_RCX 8
#define PUT_OFF_RDX 16
#define PUT_OFF_RSI 24
#define PUT_OFF_RDI 32
#define PUT_OFF_R10 40
#define PUT_OFF_R11 48
#define PUT_OFF_SAVED 56
#define PUT_OFF_TOTAL 64 /* with the flags */

#endif
