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

/* All 0 at first. */
struct thread_block {
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

/* Mapped for blocks. */
size_t thread_block_bytes(void);

#endif
