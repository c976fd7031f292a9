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
 * Unwind description of blocks of an arena as they are now, for a reader that has the code and this in a file, and
 * cannot look anything up: an FDE for each block, with a rule for each of its rows, and .eh_frame_hdr behind it. In the
 * file, .eh_frame begins behind the code, at the next multiple of 8. Begin, add blocks, end.
 */
#define ARCH_UNWIND_FILE_BLOCKS 2048
struct arch_unwind_file {
	size_t size;   /* of what is in `bytes` */
	size_t header; /* of that, .eh_frame_hdr */
	size_t count;
	struct arch_unwind_file_block {
		uintptr_t block;
		size_t fde;
	} blocks[ARCH_UNWIND_FILE_BLOCKS];
	uint8_t bytes[384 << 10];
};
void arch_unwind_file_begin(struct arch_unwind_file *file);
/* In ascending order. False: there is no room, and nothing was added. */
bool arch_unwind_file_add(struct arch_unwind_file *file, uintptr_t block, size_t size);
/* The blocks are in [lower, upper). */
void arch_unwind_file_end(struct arch_unwind_file *file, uintptr_t lower, uintptr_t upper);

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
