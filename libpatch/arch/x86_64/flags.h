/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * RFLAGS (AMD APM vol. 1, 3.1.4), and which of them generated code keeps for the program.
 *
 * TF is not one of them. PUSHFQ reads it as set while a debugger steps, and behind a POPFQ that was stepped over the
 * kernel takes it for the program's, whatever was popped (arch/x86/kernel/step.c): it stays when
 * the debugger lets go, and the program dies of SIGTRAP. So flags are put back by SAHF. For DF and AC there is POPFQ
 * only, and a program that is stepped through with one of these set is left to its debugger.
 */
#ifndef LIBPATCH_ARCH_X86_64_FLAGS_H
#define LIBPATCH_ARCH_X86_64_FLAGS_H

#include <stdint.h>

#define FLAGS_STATUS 0x8D5 /* CF PF AF ZF SF OF */
#define FLAG_DF 0x400
#define FLAG_OF 0x800
#define FLAG_AC 0x40000
/* The other ones are as the program had them, or as a procedure has set them on purpose. */
#define FLAGS_KEPT (FLAGS_STATUS | FLAG_DF | FLAG_AC)

static inline uint64_t flags_put_back(uint64_t now, uint64_t kept)
{
	return (now & ~(uint64_t)FLAGS_KEPT) | (kept & FLAGS_KEPT);
}

#endif
