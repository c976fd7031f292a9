/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The call of the procedure, with an aligned stack.
 */
#include "arch/x86_64/hook_parts.h"

/*
 * rdi, esi, and rcx, the record, are set. The base of the frame is a multiple of 16 where the program's stack pointer
 * is what the ABI says for a function's entry, and in functions without a frame of their own; within others there is
 * mostly one word to be put on top. arch_emit_cold_unaligned() does it where the guess is wrong.
 */
void arch_emit_procedure(struct arch_code *code, const struct arch_hook *hook, struct arch_cold_hook *cold)
{
	const uint8_t row = ARCH_ROW_CFA_FRAME;

	if (hook->own) {
		EMIT("\xFF\x11");                         /* call [rcx + procedure] */
		arch_emit_stretch(code, hook_stretch_behind(cold), cold->number);
		return;
	}
	if (hook->at_entry) {
		EMIT("\x40\xF6\xC4\x0F");                   /* test spl, 15 */
		cold->unaligned = EMIT_FORWARD("\x0F\x85"); /* jne unaligned */
		EMIT("\xFF\x11");                           /* call [rcx + procedure] */
		arch_emit_stretch(code, hook_stretch_behind(cold), cold->number);
		cold->called = (uint32_t)code->size;
		cold->at_entry = true;
		return;
	}
	EMIT("\x50");                                     /* push rax */
	arch_emit_row(code, row + 1);
	EMIT("\x40\xF6\xC4\x0F");                   /* test spl, 15 */
	cold->unaligned = EMIT_FORWARD("\x0F\x85"); /* jne unaligned */
	EMIT("\xFF\x11");                           /* call [rcx + procedure] */
	arch_emit_stretch(code, hook_stretch_behind(cold), cold->number);
	EMIT("\x58");                                     /* pop rax */
	arch_emit_row(code, row);
	cold->called = (uint32_t)code->size;
}

/*
 * One word more than arch_emit_procedure() has guessed, or less. A stack that is not even a multiple of 8 the library
 * aligns.
 */
void arch_emit_cold_unaligned(struct arch_code *code, const struct arch_cold_hook *cold)
{
	const uint8_t row = ARCH_ROW_CFA_FRAME;

	if (cold->own || cold->unaligned == 0)
		return;
	arch_emit_row(code, cold->at_entry ? row : row + 1);
	arch_emit_stretch(code, hook_stretch_in_front(cold), cold->number);
	arch_emit_landing(code, cold->unaligned);
	arch_emit_u8(code, cold->at_entry ? 0x50 : 0x58); /* push rax, pop rax */
	arch_emit_row(code, cold->at_entry ? row + 1 : row);
	EMIT("\x40\xF6\xC4\x0F" /* test spl, 15 */
	     "\x75\x04"         /* jne odd */
	     "\xFF\x11");       /* call [rcx + procedure] */
	arch_emit_stretch(code, hook_stretch_behind(cold), cold->number);
	EMIT("\xEB\x06");                               /* jmp back */
	arch_emit_stretch(code, hook_stretch_in_front(cold), cold->number);
	arch_emit_call_library(code, libpatch_call_aligned);   /* odd: */
	arch_emit_stretch(code, hook_stretch_behind(cold), cold->number);
	if (cold->at_entry) {                             /* back: */
		EMIT("\x58");                             /* pop rax */
		arch_emit_row(code, row);
	}
	EMIT("\xE9");                                     /* jmp called */
	arch_emit_back(code, cold->called);
}
