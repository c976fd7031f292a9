/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a thread that is interrupted in generated code has to show to the program, and where it can go on.
 *
 * Generated code has places where all registers are the program's: in front of the copy of an instruction, behind it,
 * and where a hook begins and ends. Anywhere else the thread is on its way from one such place to another: it is put
 * back to where it comes from while nothing has happened that must not happen twice, and else to where it goes.
 *
 * A block describes its code by stretches: what holds from one offset on, up to the next stretch; and by what there is
 * to say of its hooks. Offsets are from the first byte of the code, and nothing depends on where the code lies, so that
 * blocks of the same form describe their code by the same memory (code/forms.h).
 */
#ifndef LIBPATCH_ARCH_CANONICAL_H
#define LIBPATCH_ARCH_CANONICAL_H

#include "arch/hook.h"

#include <ucontext.h>

/*
 * `C` stands for the program's stack pointer, by the row; `slot` for the word on top of the stack where the stretch
 * begins; `back`: the place is so many bytes in front of the stretch; `next`: where the next stretch begins.
 */
enum arch_stretch_kind {
	ARCH_COPY,       /* back, with all registers */
	ARCH_BORROWED,   /* back, with a register from the slot */
	ARCH_GIVEN_BACK, /* next, with a register from the slot */
	ARCH_SYSCALL_MADE, /* next, with rcx as the instruction leaves it */
	ARCH_LEAVES,     /* jumps with all registers, to where they lead */
	ARCH_LED,        /* the same, with the target behind the jump of six bytes that the stretch is */
	ARCH_JMP_KEPT,   /* as ARCH_LEAVES, with the target at C - 136 */
	ARCH_CALL_KEPT,  /* the same, behind a call */
	/* Counters: rcx at C - 136, rax at C - 144, and the word below. */
	ARCH_COUNT_SAVED,  /* back */
	ARCH_COUNT_PUSHED, /* back, with rdx from the word */
	ARCH_COUNTED,      /* next */
	ARCH_COUNTED_AX,   /* next, with flags from ax, as LAHF and SETO have left them */
	ARCH_COUNTED_FLAGS, /* next, with flags from the word */
	/* System calls in the program's stead: the registers of the call and flags are in the frame. */
	ARCH_INSTEAD_SAVED, /* back */
	ARCH_INSTEAD_ASKED, /* as one of the next two, which al says */
	ARCH_INSTEAD_NOT,   /* next */
	ARCH_INSTEAD_MADE,  /* next, with rcx as the instruction leaves it */
	/* Hooks, whose number is `arg`. What they have in their frame so far: */
	ARCH_HOOK_BEGINS, /* back: nothing */
	ARCH_HOOK_FLAGS,  /* back: flags */
	ARCH_HOOK_RAX,    /* back: and rax */
	ARCH_HOOK_RCX,    /* back: and rcx */
	ARCH_HOOK_RDI,    /* back: and rdi */
	ARCH_HOOK_SAVED,  /* back: all */
	ARCH_HOOK_WORD,   /* back: the same; r8 has what is taken from the shadow's word at rdx + rax */
	ARCH_HOOK_ASKED,  /* ARCH_HOOK_RCX, unless rax says that there is no pair: then ARCH_HOOK_PASSED */
	ARCH_HOOK_PASSED, /* to the end: flags, rax and rcx; it is not called */
	ARCH_HOOK_OWES,   /* to the end: all; it was called, and its pair is to be noted or dropped */
	ARCH_HOOK_CALLED, /* to the end: all */
	ARCH_HOOK_LEAVES, /* to the end: flags and rax */
	ARCH_STRETCH_END,  /* the code ends here */
	/* Of hooks on the thread's own stack: */
	ARCH_HOOK_OWN,   /* back: rcx is `kept` of struct hook_guard; and what enum arch_own says */
	ARCH_HOOK_PUSHED /* flags are on top of the frame; else as enum arch_pushed says */
};

/* Of these two kinds, where others have a register's number. */
enum arch_own {
	ARCH_OWN_IS,   /* `own` is what it was */
	ARCH_OWN_RCX,  /* it is to be rcx */
	ARCH_OWN_NONE  /* it is to be libpatch_own_none */
};
enum arch_pushed {
	ARCH_PUSHED_OWN,    /* ARCH_HOOK_OWN */
	ARCH_PUSHED_SAVED,  /* ARCH_HOOK_SAVED */
	ARCH_PUSHED_LEAVES  /* ARCH_HOOK_LEAVES */
};

/* Of a hook, for its stretches. */
struct arch_hook_map {
	int32_t program_counter; /* that the context reports, from the region's start */
	int32_t above;    /* as in struct arch_exit */
	uint16_t begins;  /* offsets in the code */
	uint16_t ends;
	uint16_t place;   /* of ARCH_PAIR_FIRST: the instruction that takes the slot's address */
	uint16_t written; /* registers of the context that the hook loads, by index */
	uint8_t held;     /* as in struct arch_exit */
	uint8_t pushed;   /* as in struct arch_code */
	uint8_t pair;     /* enum arch_pair */
	bool leads;       /* the address reported is in the frame */
	bool on_way;      /* out of the instruction, which is in front of the hook */
	bool own;         /* as in struct arch_hook */
	uint8_t unused[2];
};

/* Of a hook whose code is emitted. */
void arch_hook_describe(const struct arch_cold_hook *cold, uintptr_t region, struct arch_hook_map *map);

/* A block of generated code: its map. */
struct arch_code_map {
	uintptr_t block;  /* offsets of rows are from here */
	uintptr_t code;   /* the other offsets, from the code's first byte */
	uintptr_t region; /* the original instructions */
	const struct arch_row *rows; /* both ascending, from the first byte of the code on */
	const struct arch_stretch *stretches; /* the last one is ARCH_STRETCH_END */
	const struct arch_hook_map *hooks;
};

#define ARCH_RSP 4
/* By their number in unwind tables, the number in the encoding. */
extern const uint8_t arch_dwarf_registers[16];
struct arch_registers {
	uint64_t general[16]; /* by their number in the encoding; ARCH_RSP: the stack pointer */
	uint64_t flags;
	uintptr_t pc;
};

/* From and to what a signal's frame has, or other registers in that order. */
void arch_registers_from(const greg_t *frame, struct arch_registers *registers);
void arch_registers_to(const struct arch_registers *registers, greg_t *frame);

/* A write to the thread's memory that is left to do. */
struct arch_write {
	uintptr_t address;
	uint64_t value;
	uint8_t size; /* 4 or 8 */
};
#define ARCH_WRITES_MAX 8

struct arch_canonical {
	struct arch_registers shown; /* `pc` is an address of the program's */
	/*
	 * Where the thread goes on if it is to go on as shown, with registers as they are then; but the stack pointer
	 * is `below` bytes less.
	 */
	uintptr_t pc;
	uintptr_t below;
	/* To be done at once: part of what the program sees. */
	size_t write_count;
	struct arch_write writes[ARCH_WRITES_MAX];
};

/* Read the thread's memory. False: it cannot be read. */
typedef bool arch_read_fn(void *data, uintptr_t address, void *out, size_t size);

/*
 * For a thread with these registers, whose pc is in the block, and which has this thread pointer. False: the pc is
 * nowhere where a thread can be, or memory that the code has written cannot be read.
 */
bool arch_canonical(const struct arch_code_map *map, const struct arch_registers *interrupted,
		    uintptr_t thread_pointer, arch_read_fn *read, void *data, struct arch_canonical *out);

/*
 * A thread that goes on at this place of the block: has what is to be called for the instruction been called in part,
 * or is a second call owed?
 */
bool arch_canonical_has_begun(const struct arch_code_map *map, uintptr_t pc);

#endif
