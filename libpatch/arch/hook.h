/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Hooks: code that calls a probe procedure, or counts, and keeps everything of the program's but what the masks allow to change.
 * upcalls.h has what that code needs of the layers above.
 *
 * Of the frame of a running hook, other threads read the record: hook_frame.h has its offset from the frame's base, which is the
 * guard, ARCH_HOOK_FRAME_RECORD, and the frame's size together with the red zone, ARCH_HOOK_FRAME_TOTAL.
 */
#ifndef LIBPATCH_ARCH_HOOK_H
#define LIBPATCH_ARCH_HOOK_H

#include "arch/emit.h"
#include "arch/x86_64/hook_frame.h"
#include "base/compiler.h"

struct patch_exec_context;

/* What a hook calls. Immutable while any thread may use it (patch/quiesce.h). */
struct hook_record {
	void (*procedure)(struct patch_exec_context *context, uint8_t post);
	void *user_data;
};

enum arch_action {
	ARCH_CALL_PROCEDURE,
	ARCH_COUNT,
	ARCH_COUNT_ATOMIC,
	ARCH_COUNT_THREAD
};

/* One call of a probe procedure, or what is done instead. */
struct arch_hook {
	uint64_t read;
	uint64_t write;
	uint64_t clobber;
	uintptr_t program_counter; /* what the context reports */
	/*
	 * Address of the hook's slot, 8 bytes, aligned, near the code unless that is far. It holds the address of a struct
	 * hook_record, or 0: the hook is passed over.
	 */
	uintptr_t slot;
	uint8_t post;
	/*
	 * Not PROCEDURE: nothing is called, a counter is increased. The slot holds its address, or, for THREAD, its distance from
	 * the thread pointer. `stamp`: the word behind it receives the time stamp counter.
	 */
	uint8_t action; /* enum arch_action */
	bool stamp;
	/* Is the stack pointer most likely what it is at a function's entry, and at its return: 8 off a multiple of 16? */
	bool at_entry;
	/*
	 * For an indirect jump or a return about to be executed: its bytes and decoding. The context then reports where it
	 * leads, if that is in [lower, upper), else program_counter; and the stack pointer that it leaves. NULL: none.
	 */
	const uint8_t *leaves_bytes;
	const struct arch_insn *leaves;
	uintptr_t lower;
	uintptr_t upper;
};

void arch_emit_hook(struct arch_code *code, const struct arch_hook *hook);

/* What hooks seldom execute, for arch_emit_cold(). Offsets in the code; fields by their ends, 0: none. */
struct arch_cold_hook {
	uint32_t guarded;
	uint32_t fresh;
	uint32_t closed;
	uint32_t backwards;
	uint32_t forwards;
	uint32_t unaligned;
	uint32_t called;
	uint32_t direction;
	uint32_t passed_over;
	uint32_t done;
	uint8_t original;
	bool at_entry;
};

struct arch_cold_call {
	uintptr_t function;
	uint32_t field;
};

/* More hooks than have room in a block. Begins with the counts 0. */
#define ARCH_COLD_MAX 256
struct arch_cold {
	size_t hook_count;
	size_t call_count;
	struct arch_cold_hook hooks[ARCH_COLD_MAX];
	struct arch_cold_call calls[3 * ARCH_COLD_MAX];
};

/* Behind the last instruction. */
void arch_emit_cold(struct arch_code *code);

#endif
