/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Patches by kind, through the public interface. */
#ifndef BENCHMARK_PATCH_H
#define BENCHMARK_PATCH_H

#include <libpatch/patch.h>

enum bench_kind {
	KIND_GPR,     /* an empty procedure that may use general purpose registers; nothing is offered */
	KIND_ALL_GPR, /* the same; all of them are offered and may be written */
	KIND_DEFAULT, /* all masks 0: the procedure may use anything; nothing is offered */
	KIND_SSE,     /* the procedure may destroy and sees xmm registers */
	KIND_AVX,     /* ... and ymm registers */
	KIND_ALL,     /* PATCH_REGS_ALL in every mask */
	KIND_AROUND,
	KIND_OWN_STACK, /* as KIND_GPR, on the thread's own stack */
	KIND_RETURN,
	KIND_COUNT_PLAIN,
	KIND_COUNT_ATOMIC,
	KIND_COUNT_THREAD
};

/* NULL, or why this version of the library has none of that kind. */
const char *bench_kind_missing(enum bench_kind kind);

/* patch_init(), once. */
bool bench_init(void);
bool bench_make(uintptr_t address, enum bench_kind kind, int policy, int state, patch_t *out);

/* In words; valid until the next call by any thread. */
const char *bench_last_error(void);

#endif
