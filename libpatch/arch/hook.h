/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Hooks: code that calls a probe procedure, or counts, and keeps everything of the program's but what the masks allow
 * to change. upcalls.h has what that code needs of the layers above.
 *
 * Of the frame of a running hook, other threads read the record: hook_frame.h has its offset from the frame's base,
 * which is the guard, ARCH_HOOK_FRAME_RECORD, and the frame's size together with the red zone, ARCH_HOOK_FRAME_TOTAL.
 */
#ifndef LIBPATCH_ARCH_HOOK_H
#define LIBPATCH_ARCH_HOOK_H

#include "arch/emit.h"
#include "arch/x86_64/hook_frame.h"
#include "base/compiler.h"

#include <libpatch/patch.h>

struct patch_exec_context;

/* What a hook calls. But for `pair` immutable while any thread may use it (patch/quiesce.h). */
struct hook_record {
	void (*procedure)(struct patch_exec_context *context, uint8_t post);
	void *user_data;
	uint64_t pair; /* atomic: what the hook at a function's entry notes, and those at its exits look for */
};
/* In the upper half of `pair` of an exit's record: its procedure is called whatever is found, and finds out. */
#define HOOK_PAIR_ANY UINT32_MAX

enum arch_action {
	ARCH_CALL_PROCEDURE,
	ARCH_COUNT,
	ARCH_COUNT_ATOMIC,
	ARCH_COUNT_THREAD,
	ARCH_DIVERT /* control goes to the address in the slot, which is not 0 */
};

/*
 * The two hooks of PROBE_AROUND share a slot. The first one notes its record in the thread's pairs (arch/upcalls.h)
 * once the procedure has returned; the second calls the procedure of the record that the first has noted for the slot,
 * whatever the slot holds by then, and is passed over when there is none.
 */
enum arch_pair {
	ARCH_PAIR_NONE,
	ARCH_PAIR_FIRST,
	ARCH_PAIR_SECOND,
	/* The stack pointer of before is not known; or it is a call of the kernel, and a child may share the pairs. */
	ARCH_PAIR_SECOND_ANYWHERE
};

/* Of functions: what a hook does with the word that stands for the stack pointer (runtime/shadow.h). */
enum arch_shadow {
	ARCH_SHADOW_NONE,
	ARCH_SHADOW_ENTRY, /* the record's `pair` is stored in it, and then the procedure is called */
	/*
	 * It is 0 from then on, and the procedure is called, if it was the record's `pair` or up to 2^32 - 1 more. Of
	 * an indirect jump, if that leaves [lower, upper).
	 */
	ARCH_SHADOW_EXIT
};

/* One call of a probe procedure, or what is done instead. */
struct arch_hook {
	uint64_t read;    /* registers that the procedure sees beside the next ones, PATCH_REGS_* */
	uint64_t write;   /* registers that take what the procedure has stored beside the next ones */
	uint64_t clobber; /* registers that the procedure may change, and what is said of extended state */
	uintptr_t program_counter; /* what the context reports */
	/*
	 * Address of the hook's slot: 8 bytes, aligned, near the code unless the code is far. The slot holds the
	 * address of a struct hook_record, or 0, and then the hook is passed over.
	 */
	uintptr_t slot;
	uint8_t post; /* what the procedure is told as its second argument */
	/*
	 * To count, nothing is called, and a counter is increased: the slot holds the counter's address, or, for
	 * ARCH_COUNT_THREAD, its distance from the thread pointer. ARCH_DIVERT is one jump.
	 */
	uint8_t action; /* enum arch_action */
	bool stamp;     /* the word behind the counter receives the time stamp counter */
	bool own;       /* the frame and the procedure are on the thread's own stack (arch/own_stack.h) */
	/* The stack pointer is most likely 8 off a multiple of 16, as it is at a function's entry and at its return. */
	bool at_entry;
	/* The x87 registers are empty by the calling convention: a function begins here. */
	bool x87_empty;
	uint8_t pair;   /* enum arch_pair */
	int32_t change; /* of ARCH_PAIR_SECOND: what the instruction has added to the stack pointer */
	uint8_t shadow; /* enum arch_shadow */
	/*
	 * NULL, or the way out of an instruction that the hook is on. The context then reports the stack pointer behind
	 * it; and where its address is held, that, if it is in [lower, upper), else program_counter.
	 */
	const struct arch_exit *exit;
	uintptr_t lower;
	uintptr_t upper;
};

void arch_emit_hook(struct arch_code *code, const struct arch_hook *hook);

/* The registers that the hook may change: bit i for register number i. */
uint16_t arch_hook_writes(const struct arch_hook *hook);
/* Bits of general purpose registers in masks. */
#define ARCH_GENERAL (((uint64_t)1 << PATCH_ARCH_GREGS_COUNT) - 1)
/* The clobber mask of a hook that does for procedures with either. That of a mask and itself is its plainest form. */
uint64_t arch_join_clobber(uint64_t a, uint64_t b);
/* Is a procedure with this clobber mask offered extended state? */
static inline bool arch_offers_state(uint64_t clobber)
{
	return (clobber & ~(ARCH_GENERAL | PATCH_REGS_NO_STATE)) != 0;
}

/*
 * What arch_emit_hook() leaves to arch_emit_cold(), which writes the code that a hit seldom executes. Offsets in the
 * code. A branch to cold code is named by the end of its rel32 field, 0: there is none; a place to which cold code
 * returns is named by its offset.
 */
struct arch_cold_hook {
	uint32_t guarded;     /* branch: the guard was not 0 */
	uint32_t fresh;       /* return: the hook may run after all */
	uint32_t closed;      /* branch: the slot was 0 */
	uint32_t unpaired;    /* branch: the last pair noted is not this one's */
	uint32_t look;        /* return: it may be now */
	uint32_t crowded;     /* branch: there are pairs already when one is to be noted */
	uint32_t room;        /* return: there is room */
	uint32_t shadowed;    /* branch: the word is on another page than the last one */
	uint32_t shadow;      /* return: it is on the last one now */
	uint32_t shadowless;  /* return: there is no word */
	uint32_t inside;      /* branch: the jump stays in the function */
	uint32_t mispaired;   /* branch: the word is not what it should be */
	uint32_t paired;      /* return: it is, or that is looked at later */
	uint32_t uncalled;    /* return: the procedure is not called */
	uint32_t backwards;   /* branch: the direction flag was set before the call */
	uint32_t forwards;    /* return: it is clear now */
	union {
		uint32_t unaligned; /* branch: the stack was not aligned as was guessed */
		uint32_t busy;      /* with `own`: branch: the thread's own stack is not free */
	};
	union {
		uint32_t called;    /* return: the procedure was called */
		uint32_t free;      /* with `own`: return: the frame's base is in rcx */
	};
	uint32_t errno_changed; /* branch: the procedure has changed errno */
	uint32_t errno_kept;  /* return: it is as it was */
	uint32_t direction;   /* branch: the program had the direction flag set, and it must be set again */
	uint32_t moved;       /* branch: the procedure has changed program_counter */
	uint32_t moved_stack; /* branch: it has changed stack_pointer */
	uint32_t passed_over; /* return: the hook did not run */
	uint32_t done;        /* return: registers and stack are the program's again */
	uint32_t begins;      /* the hook's first byte */
	uint16_t written;     /* registers that are loaded from the context, by index */
	uint8_t number;       /* of the hook in the block */
	uint8_t original;     /* for the rows of the cold code */
	uint8_t pushed;       /* the same */
	uint8_t pair;         /* as in struct arch_hook */
	bool at_entry;        /* the same */
	bool on_way;          /* there is an exit */
	bool own;             /* the same */
	bool leads;           /* what program_counter was is in the frame, */
	uintptr_t program_counter; /* or here */
	int32_t above;        /* as in struct arch_exit */
	uint8_t held;         /* the same */
	uint8_t kept;         /* of hook_kept.c: the number of its kind; 0: its code is not kept */
	bool copied;          /* its code is a copy of what is kept */
	uintptr_t slot;       /* the same */
	uint32_t place;       /* of ARCH_PAIR_FIRST: the instruction that takes the slot's address to note the pair */
};

/* A call of a function of the library, through a constant that arch_emit_cold() writes. */
struct arch_cold_call {
	uintptr_t function;
	uint32_t field; /* the end of the disp32 of the call */
};

/* Fields of 32 bits in a hook's code, by the offset of their end, which depend on where the code is. */
struct arch_field {
	uint16_t end;
	uint8_t kind; /* enum arch_field_kind */
};
enum arch_field_kind {
	ARCH_FIELD_SLOT,         /* the distance of the slot */
	ARCH_FIELD_REPORTED,     /* of the program counter that the context reports */
	ARCH_FIELD_REPORTED_LOW, /* that itself, if it is of 32 bits */
	ARCH_FIELD_LANDING,      /* in the hook: the distance of its cold code */
	ARCH_FIELD_BACK          /* in its cold code: of the hook */
};
struct arch_kept_fields {
	size_t count; /* that there were, though there may be no room for all */
	struct arch_field list[64];
};

/* There is room for more hooks than a block of code can have. Counts and `keeping` are 0 at the beginning. */
#define ARCH_COLD_MAX 256
struct arch_cold {
	size_t hook_count;
	size_t call_count;
	struct arch_cold_hook hooks[ARCH_COLD_MAX];
	struct arch_cold_call calls[6 * ARCH_COLD_MAX];
	struct arch_kept_fields *keeping; /* NULL: nobody wants to know */
};

/* Write the cold code of all hooks, behind the last instruction of the block. */
void arch_emit_cold(struct arch_code *code);

#endif
