/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The program's errno, which no procedure changes.
 */
#include "arch/x86_64/hook_parts.h"

#include <errno.h>

static int32_t errno_offset;

int32_t arch_errno_offset(void)
{
	return errno_offset;
}

/* Early: __errno_location() must not be called under the library lock, when it may be patched (I9). */
__attribute__((constructor(101))) static void locate_errno(void)
{
	errno_offset = hook_tls_offset(&errno);
}

/* Where generated code finds it. */
static int32_t hook_errno(void)
{
	return errno_offset != 0 ? errno_offset : hook_tls_offset(&errno);
}

void arch_emit_save_errno(struct arch_code *code)
{
	EMIT_FIELD("\x64\x8B\x04\x25", hook_errno()); /* mov eax, fs:[errno] */
	EMIT("\x89\x44\x24\x10");                     /* mov [rsp + ARCH_HOOK_FRAME_ERRNO], eax */
}

void arch_emit_restore_errno(struct arch_code *code, struct arch_cold_hook *cold)
{
	EMIT("\x8B\x44\x24\x10");                     /* mov eax, [rsp + ARCH_HOOK_FRAME_ERRNO] */
	/* A store would make the next hook wait for this one. */
	EMIT_FIELD("\x64\x3B\x04\x25", hook_errno());   /* cmp eax, fs:[errno] */
	cold->errno_changed = EMIT_FORWARD("\x0F\x85"); /* jne errno_changed */
	cold->errno_kept = (uint32_t)code->size;
}

void arch_emit_cold_errno(struct arch_code *code, const struct arch_cold_hook *cold)
{
	arch_emit_row(code, hook_row(cold->own));
	arch_emit_stretch(code, hook_stretch_behind(cold), cold->number);
	arch_emit_landing(code, cold->errno_changed);
	EMIT_FIELD("\x64\x89\x04\x25", hook_errno()); /* mov fs:[errno], eax */
	EMIT("\xE9");                                 /* jmp errno_kept */
	arch_emit_back(code, cold->errno_kept);
}
