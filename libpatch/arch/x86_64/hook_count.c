/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Hooks that count, where no procedure is called.
 */
#include "arch/cpu.h"
#include "arch/x86_64/hook_parts.h"

static void emit_count_stretch(struct arch_code *code, uint8_t kind, size_t begin)
{
	arch_emit_stretch(code, kind, (uint8_t)(code->size - begin));
}

/*
 * Without a call, a guard or a frame: what is needed of registers is pushed below the red zone. No instruction changes
 * flags but an atomic increment, around which they are kept in ax. A slot that is 0 is a closed hook.
 */
void arch_emit_count(struct arch_code *code, const struct arch_hook *hook)
{
	const uint8_t row = ARCH_HOOK_RED_ZONE / 8;
	const size_t begin = code->size;
	size_t closed;

	arch_emit_row(code, 0);
	arch_emit_stretch(code, ARCH_COPY, 0);
	EMIT("\x48\x8D\x64\x24\x80"); /* lea rsp, [rsp - 128] */
	arch_emit_row(code, row);
	EMIT("\x51");                 /* push rcx */
	arch_emit_row(code, row + 1);
	EMIT("\x50");                 /* push rax */
	arch_emit_row(code, row + 2);
	emit_count_stretch(code, ARCH_COUNT_SAVED, begin);
	arch_emit_load_slot(code, hook);
	EMIT("\xE3\x00");             /* jrcxz closed */
	closed = code->size;
	/* First: whoever is put back to the beginning stamps once more, and does not count twice. */
	if (hook->stamp) {
		EMIT("\x52");             /* push rdx */
		arch_emit_row(code, row + 3);
		emit_count_stretch(code, ARCH_COUNT_PUSHED, begin);
		EMIT("\x50");             /* push rax */
		arch_emit_row(code, row + 4);
		/* Put together in memory: a shift would change flags. */
		EMIT("\x0F\x31"         /* rdtsc */
		     "\x89\x04\x24"     /* mov [rsp], eax */
		     "\x89\x54\x24\x04" /* mov [rsp + 4], edx */
		     "\x58");           /* pop rax */
		arch_emit_row(code, row + 3);
		if (hook->action == ARCH_COUNT_THREAD)
			EMIT("\x64");   /* fs: */
		EMIT("\x48\x89\x41\x08" /* mov [rcx + 8], rax */
		     "\x5A");           /* pop rdx */
		arch_emit_row(code, row + 2);
		emit_count_stretch(code, ARCH_COUNT_SAVED, begin);
	}
	if (hook->action != ARCH_COUNT_ATOMIC) {
		const char *prefix = hook->action == ARCH_COUNT_THREAD ? "\x64" : "\x3E"; /* fs:, ds: */

		arch_emit_bytes(code, prefix, 1);
		EMIT("\x48\x8B\x01");     /* mov rax, [rcx] */
		EMIT("\x48\x8D\x40\x01"); /* lea rax, [rax + 1] */
		arch_emit_bytes(code, prefix, 1);
		EMIT("\x48\x89\x01");     /* mov [rcx], rax */
		arch_emit_stretch(code, ARCH_COUNTED, 0);
	} else if (arch_has_sahf()) {
		EMIT("\x9F"               /* lahf */
		     "\x0F\x90\xC0"       /* seto al */
		     "\xF0\x48\xFF\x01"); /* lock inc qword [rcx] */
		arch_emit_stretch(code, ARCH_COUNTED_AX, 0);
		EMIT("\x04\x7F" /* add al, 127 */
		     "\x9E");   /* sahf */
		arch_emit_stretch(code, ARCH_COUNTED, 0);
	} else {
		EMIT("\x9C");             /* pushfq */
		arch_emit_row(code, row + 3);
		EMIT("\xF0\x48\xFF\x01"); /* lock inc qword [rcx] */
		arch_emit_stretch(code, ARCH_COUNTED_FLAGS, 0);
		EMIT("\x9D");            /* popfq */
		arch_emit_row(code, row + 2);
		arch_emit_stretch(code, ARCH_COUNTED, 0);
	}
	if (code->bytes != NULL && closed <= code->capacity)
		code->bytes[closed - 1] = (uint8_t)(code->size - closed);
	EMIT("\x58");                 /* pop rax */
	arch_emit_row(code, row + 1);
	EMIT("\x59");                 /* pop rcx */
	arch_emit_row(code, row);
	arch_emit_lea(code, RSP, ARCH_HOOK_RED_ZONE);
	arch_emit_row(code, 0);
}
