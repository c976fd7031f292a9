/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a thread keeps that only few threads need: outside static thread-local storage, of which libc has little for
 * libraries that are loaded late. A block is the thread's until it ends; what a thread that is gone has left is taken
 * over by another one that needs a block.
 *
 * Async-signal-safe, and wherever a hook may be: no libc, no lock. The first blocks are static, others the kernel's.
 */
#ifndef LIBPATCH_BASE_THREAD_BLOCK_H
#define LIBPATCH_BASE_THREAD_BLOCK_H

#include "base/compiler.h"

#include <libpatch/patch.h>

/* The errors that are kept of one call: the first ones, because they are the causes. */
#define ERROR_CHAIN 4
#define ERROR_IRRITANT_SIZE 64

struct error_record {
	struct patch_error error;
	char irritant[ERROR_IRRITANT_SIZE];
};

/* A call through a patched call instruction that has not returned yet. */
struct pending_call {
	uint64_t pair; /* its id: the pair itself may be gone */
	uintptr_t stack_pointer;
};
/* The deepest ones are kept. */
#define PENDING_CALLS 32

/* The first call of a PROBE_AROUND was made, and the second is owed. All 0: none. */
struct hook_pair {
	/* The execution: its place, which is the address of the slot of both hooks, and stack_pointer, added up. */
	uintptr_t execution;
	uintptr_t record;        /* that the first hook has called */
	uintptr_t stack_pointer; /* of the program at the instruction, as the first call has left it */
	uint64_t called;         /* of a list's record: which of its entries were called (patch/hook_list.h) */
};
#define HOOK_PAIRS 8

/* What the handler of an overflow is shown, and what there is. */
#define OVERFLOW_REGISTERS 18
struct overflow_note {
	uintptr_t guard; /* of the hook that calls a procedure; 0: it does not call one yet */
	int64_t shown[OVERFLOW_REGISTERS];
	int64_t interrupted[OVERFLOW_REGISTERS];
	unsigned int index; /* of the action */
	bool refused;       /* it was shown, and comes again */
	bool again;         /* it has come again */
};

/* Of a thread that steps by its own: the last instruction that it was shown, and where its code began; 0: not seen. */
struct step_note {
	uintptr_t shown;
	uintptr_t begun;
	uintptr_t pc; /* of the last step but those of what is called */
};

/* All 0 at first. */
struct thread_block {
	struct hook_pair pairs[HOOK_PAIRS]; /* runtime/hook_pairs.h; the first one is always 0 */
	struct overflow_note overflow;      /* trap/overflow.c */
	struct step_note step;              /* trap/step.c */
	struct { /* base/error.c */
		struct error_record chain[ERROR_CHAIN];
		unsigned int length;
		bool earlier; /* the chain is an earlier call's */
	} errors;
	struct pending_calls { /* runtime/call_pairs.c */
		struct pending_call pending[PENDING_CALLS];
		unsigned int depth;
		unsigned int forgotten; /* calls that found no room: their returns are told by the pair alone */
	} calls;
};

/* The calling thread's; NULL when it has none yet. */
struct thread_block *thread_block_known(void);
/* The same, or a new one; NULL when the kernel has no memory for it. */
struct thread_block *thread_block(void);

/* What is told by thread_block_known(); for whoever reads it of another thread, too. Once it is set it stays. */
extern TLS_INITIAL_EXEC struct thread_block *_Atomic libpatch_thread_block;

/* Mapped for blocks. */
size_t thread_block_bytes(void);

#endif
