/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parts of a hook's code, about as a hit executes them; hook_emit.c puts them together. Those that
 * leave something to cold code have a second function for that (arch_emit_cold_...), which hook_cold.c calls.
 */
#ifndef LIBPATCH_ARCH_X86_64_HOOK_PARTS_H
#define LIBPATCH_ARCH_X86_64_HOOK_PARTS_H

#include "arch/x86_64/hook_code.h"

/*
 * hook_kept.c: code that was emitted before. arch_emit_kept(): false: it has to be emitted, and then to be kept, if
 * cold->kept is set. arch_begin_keeping() is in front of what is emitted, the other ones are behind it.
 */
bool arch_emit_kept(struct arch_code *code, const struct arch_hook *hook, struct arch_cold_hook *cold);
bool arch_emit_kept_cold(struct arch_code *code, const struct arch_cold_hook *cold);
void arch_begin_keeping(struct arch_code *code, const struct arch_cold_hook *cold);
void arch_keep(struct arch_code *code, const struct arch_cold_hook *cold);
void arch_keep_cold(struct arch_code *code, const struct arch_cold_hook *cold, size_t begins);

/* hook_count.c: all of a hook that counts. */
void arch_emit_count(struct arch_code *code, const struct arch_hook *hook);

/* hook_frame.c: the frame, with RFLAGS in it. */
void arch_emit_enter(struct arch_code *code, const struct arch_hook *hook, struct arch_cold_hook *cold);
/* RFLAGS as they were, rax, the stack. */
void arch_emit_leave(struct arch_code *code, struct arch_cold_hook *cold);
void arch_emit_cold_direction(struct arch_code *code, const struct arch_cold_hook *cold);

/* hook_own.c: the frame on the thread's own stack. */
void arch_emit_take_stack(struct arch_code *code, struct arch_cold_hook *cold);
void arch_emit_cold_busy(struct arch_code *code, const struct arch_cold_hook *cold);
/* The frame is given back. */
void arch_emit_give_stack(struct arch_code *code);

/* hook_errno.c: saved, and put back. Use rax. */
void arch_emit_save_errno(struct arch_code *code);
void arch_emit_restore_errno(struct arch_code *code, struct arch_cold_hook *cold);
void arch_emit_cold_errno(struct arch_code *code, const struct arch_cold_hook *cold);

/* hook_pair.c: the record that the first hook has noted, into rcx. It stays noted until the procedure has returned. */
void arch_emit_load_pair(struct arch_code *code, const struct arch_hook *hook, struct arch_cold_hook *cold);
/* Behind the first call: note the pair, above those that are there. Uses rax and rcx. */
void arch_emit_note_pair(struct arch_code *code, const struct arch_hook *hook, struct arch_cold_hook *cold);
/* Behind the second call: the top pair is complete. rax is 0; uses rcx. */
void arch_emit_drop_pair(struct arch_code *code, const struct arch_cold_hook *cold);
/* There is no second call. All registers are the program's but rax. */
void arch_emit_forget_pair(struct arch_code *code, uintptr_t slot);
/* What of it belongs in front of the cold code of `closed`, and that of hooks without pairs. */
void arch_emit_cold_pair(struct arch_code *code, const struct arch_cold_hook *cold);

/* hook_context.c: rcx holds the record, before and after, rdi points to the context afterwards, RFLAGS are in rax. */
void arch_emit_context(struct arch_code *code, const struct arch_hook *hook, uint64_t offered,
		       const struct arch_cold_hook *cold);
/* Does the context say where the way out leads? */
bool arch_hook_leads(const struct arch_hook *hook);

/*
 * hook_shadow.c: the word of an entry or an exit. rcx holds the record, rdi points to the context: both stay. Uses rax,
 * rdx, rsi, and r8, which has what is taken from the word until the call.
 */
void arch_emit_shadow(struct arch_code *code, const struct arch_hook *hook, struct arch_cold_hook *cold);
/* At an exit that is closed. rcx is 0 afterwards. */
void arch_emit_pass_exit(struct arch_code *code, const struct arch_cold_hook *cold);
void arch_emit_cold_shadow(struct arch_code *code, const struct arch_cold_hook *cold);

/* hook_procedure.c: the call. rdi, esi, and rcx, the record, are set. */
void arch_emit_procedure(struct arch_code *code, const struct arch_hook *hook, struct arch_cold_hook *cold);
void arch_emit_cold_unaligned(struct arch_code *code, const struct arch_cold_hook *cold);

/* hook_moved.c: where the thread goes on, and with what stack. All registers are the program's but rax. */
void arch_emit_look_whether_moved(struct arch_code *code, struct arch_cold_hook *cold);
void arch_emit_cold_moved(struct arch_code *code, const struct arch_cold_hook *cold);

#endif
