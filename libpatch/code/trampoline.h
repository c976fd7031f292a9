/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From a window of instructions and the hooks on them to generated code, laid out in an arena and staged for writing.
 * Live text is not touched.
 *
 * Entry i of a trampoline stands for instruction i of the window: its hooks, its displaced copy, and what follows. The
 * window's jump leads to entry 0, directly or through a pad, and through a stub where the code is out of reach; a trap
 * at a boundary goes to that boundary's entry.
 */
#ifndef LIBPATCH_CODE_TRAMPOLINE_H
#define LIBPATCH_CODE_TRAMPOLINE_H

#include "arch/hook.h"
#include "arch/syscall.h"
#include "arch/trap_bytes.h"
#include "base/compiler.h"
#include "base/thread_safety.h"
#include "code/arena.h"
#include "code/window.h"

#include <libpatch/patch.h>
#include <limits.h>

struct attachment;
struct hook_list;
struct place;

enum hook_when {
	HOOK_BEFORE = 1,
	HOOK_AROUND = 2 | HOOK_BEFORE, /* and on every way out of the instruction: by one slot */
	HOOK_ENTRY = 4 | HOOK_BEFORE,  /* and it notes that a function was entered (runtime/shadow.h) */
	HOOK_RETURNED = 8,             /* ahead of HOOK_BEFORE: what a call returned to */
	/* If the function's entry was noted: where the instruction leaves it, and where control falls out of it. */
	HOOK_EXIT = 16,
	HOOK_FALL = 32,
	HOOK_SYSCALL = 64, /* at a system call: its record has an arch_syscall_hook_fn, which goes into the code */
	/* None. The instruction is displaced because it branches to where the text would trap (lead.h). */
	HOOK_LEAD = 128
};

/* What procedures called there are told as their second argument. */
static inline uint8_t hook_is_post(unsigned int when)
{
	return (when & (HOOK_RETURNED | HOOK_EXIT | HOOK_FALL)) != 0;
}

/* May what is to be called at `wanted` be called by a hook there? */
static inline bool hook_includes(unsigned int when, unsigned int wanted)
{
	return (when & wanted) == wanted;
}

/*
 * A hook as wanted: for a place, and for all patches that want to be called there; or for one that counts or diverts
 * there. On ways out of the function HOOK_AROUND reports `code.program_counter`, the located address. What is called is
 * not part of the code, but in the hook's slot.
 */
struct hook {
	uintptr_t address; /* of the instruction */
	uint8_t when; /* enum hook_when; or several that are HOOK_BEFORE, too */
	uintptr_t lower; /* of the function, for HOOK_AROUND; upper 0: unknown */
	uintptr_t upper; /* less than 4 GiB away */
	struct arch_hook code; /* without a slot; of the masks, all that its patches have */
	arch_syscall_hook_fn *instead; /* of HOOK_SYSCALL */
};

/* The same as built, in few bytes, as there is one per patch at least. Who uses it is up to patch/place.h. */
struct built_hook {
	struct place *place;     /* NULL: nobody uses it */
	struct built_hook *next; /* of the place's */
	union {
		struct attachment *only; /* that uses it */
		struct hook_list *list;
	};
	uintptr_t slot;
	union {
		struct {
			uint64_t read;
			uint64_t write;
			uint64_t clobber;
		};
		/*
		 * Of ARCH_DIVERT: the address of what follows the place's jump, which the slot holds when nothing
		 * diverts; and another jump, to where a second slot says, for a patch's `original`.
		 */
		struct {
			uintptr_t behind;
			uintptr_t original;
			uintptr_t original_slot;
		};
	};
	int16_t program_counter; /* from the window's start */
	uint8_t at;              /* offset of the instruction */
	uint8_t when; /* as in struct hook */
	uint8_t action;
	bool stamp : 1;
	bool own : 1; /* as in struct arch_hook */
	bool shared; /* `list` says who uses it */
	bool lent;   /* `original` is a patch's */
};

struct trampoline {
	struct trampoline *next; /* the owner's list */
	uintptr_t start; /* the window that it was built for */
	struct arena_block block;
	uint16_t hook_count;
	uint8_t length;
	uint8_t strategy;
	uint8_t count;
	uint8_t lead_count; /* of the window, whether its code can use them or not */
	/* at the window's start, to entry 0 or to the window's pad; punned bytes included */
	uint8_t jump[ARCH_JMP_SIZE];
	bool reachable : 1; /* some thread may have been led here: not to be reused for anything else (I7) */
	bool far : 1;       /* its code may be out of reach of the site: the stub is not */
	/* As they were built; then its leads, the stub if it is far, and the entries, offsets from the block. */
	struct built_hook hooks[];
};

/*
 * Build for `hooks`, in order of execution at equal addresses. PATCH_OK, or PATCH_ENOMEM: no memory near enough,
 * *message says which. A window that needs a pad and has none gets one: window->pad, for the caller to keep.
 */
patch_status trampoline_build(struct window *window, const struct hook *hooks, size_t count, struct trampoline **out,
			      const char **message) REQUIRES(library_lock);

/* What the window's pad holds when it leads to this trampoline. */
void trampoline_pad_bytes(const struct trampoline *trampoline, uintptr_t pad, uint8_t bytes[ARCH_JMP_SIZE]);

/* Was it built for the window? */
bool trampoline_is_for(const struct trampoline *trampoline, const struct window *window);
/* One of its hooks, as it was wanted, with its slot, but without the function's extent. */
struct hook trampoline_hook(const struct trampoline *trampoline, size_t index);
/* Can one hook stand for both, whatever their masks? */
bool trampoline_same_kind(const struct hook *a, const struct hook *b);

/*
 * Can it do what these hooks are wanted for? TRAMPOLINE_UNFIT: no; else by how much it does more than that: each
 * register that it saves or offers without need counts, and a hook that nobody wants counts more than all registers.
 */
#define TRAMPOLINE_UNFIT UINT_MAX
unsigned int trampoline_excess(const struct trampoline *trampoline, const struct hook *hooks, size_t count);

/* Free one that was never reachable, or whose code is gone. Nobody uses its hooks. */
void trampoline_free(struct trampoline *trampoline) REQUIRES(library_lock);

static inline struct lead **trampoline_leads(const struct trampoline *trampoline)
{
	return (struct lead **)(uintptr_t)&trampoline->hooks[trampoline->hook_count];
}

/* Of a far one: a jump to entry 0. A trap needs none: its size is 0. */
static inline struct arena_block *trampoline_stub(const struct trampoline *trampoline)
{
	return (struct arena_block *)(trampoline_leads(trampoline) + trampoline->lead_count);
}

static inline uint16_t *trampoline_entries(const struct trampoline *trampoline)
{
	return (uint16_t *)(trampoline_stub(trampoline) + trampoline->far);
}

static inline uintptr_t trampoline_entry(const struct trampoline *trampoline, unsigned int index)
{
	return trampoline->block.address + trampoline_entries(trampoline)[index];
}

/* Where a jump goes that is to lead to entry 0. */
uintptr_t trampoline_front(const struct trampoline *trampoline);

#endif
