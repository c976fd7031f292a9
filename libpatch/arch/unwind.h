/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Unwinding through generated code.
 */
#ifndef LIBPATCH_ARCH_UNWIND_H
#define LIBPATCH_ARCH_UNWIND_H

#include "base/compiler.h"

/* Of ELF objects for this architecture. */
#define ARCH_ELF_MACHINE 62 /* EM_X86_64 */
/* Of the names of libunwind's functions. */
#define ARCH_LIBUNWIND_PREFIX "_ULx86_64_"

/* Code of an arena, with the tables of code/arena.h, or a zone of pads, whose `granules` are 0. */
struct arch_unwind_code {
	uintptr_t lower;
	uintptr_t upper;
	uintptr_t granules;
};

enum arch_unwind_reader {
	ARCH_UNWIND_LIBGCC, /* which tells frames apart by their CFA */
	ARCH_UNWIND_OTHERS
};

struct arch_unwind_size {
	size_t all;
	size_t fde; /* the offset of the FDE */
};

/*
 * Unwind description of `code` (.eh_frame: a CIE and an FDE, terminated). Returns its size; writes at most `capacity`
 * bytes.
 */
struct arch_unwind_size arch_unwind_describe(uint8_t *out, size_t capacity, const struct arch_unwind_code *code,
					     enum arch_unwind_reader reader);

/*
 * What gdb looks for by name in each module: a list of ELF objects in memory, and a function that it has a breakpoint
 * on (gdb's manual, "JIT Compilation Interface").
 */
struct arch_debugger_entry {
	struct arch_debugger_entry *next;
	struct arch_debugger_entry *previous;
	const void *object;
	uint64_t size;
};

struct arch_debugger_list {
	uint32_t version;
	uint32_t action; /* 0: nothing; 1: `relevant` was added */
	struct arch_debugger_entry *relevant;
	struct arch_debugger_entry *first;
};

extern struct arch_debugger_list libpatch_debugger_list;
/* Where a debugger stops the process, and reads the list. */
void libpatch_debugger_stop(void);

#endif
