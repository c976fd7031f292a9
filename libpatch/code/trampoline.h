/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From a window of instructions and the hooks on them to generated code, laid out in an arena and staged for writing.
 * Live text is not touched.
 *
 * Entry i of a trampoline stands for instruction i of the window: its hooks, its displaced copy, and what follows. The
 * window's jump leads to entry 0, directly or through a pad; a trap at a boundary goes to that boundary's entry.
 */
#ifndef LIBPATCH_CODE_TRAMPOLINE_H
#define LIBPATCH_CODE_TRAMPOLINE_H

#include "arch/hook.h"
#include "arch/trap_bytes.h"
#include "base/compiler.h"
#include "base/thread_safety.h"
#include "code/arena.h"
#include "code/window.h"

#include <libpatch/patch.h>

enum hook_when {
	HOOK_BEFORE,
	HOOK_AROUND,   /* before the instruction as HOOK_BEFORE, and on every way out of it: by one slot */
	HOOK_RETURNED, /* before an instruction, ahead of HOOK_BEFORE: what a call returned to */
	HOOK_SYSCALL   /* at a system call: its record has an arch_syscall_hook_fn, which goes into the code */
};

/* Whose hooks they are: a patch. */
struct hook_owner {
	struct built_hook *hooks; /* of any trampoline */
};

/*
 * A hook as wanted. On ways out of the function HOOK_AROUND reports `code.program_counter`, the located address. What
 * is called is not part of the code, but in the hook's slot: another patch can take over a hook that is free.
 */
struct hook {
	uintptr_t address; /* of the instruction */
	enum hook_when when;
	uintptr_t lower; /* of the function, for HOOK_AROUND; upper 0: unknown */
	uintptr_t upper; /* less than 4 GiB away */
	struct arch_hook code; /* without a slot */
	/* what the slot holds while the patch is enabled: a struct hook_record, or where a counter is */
	const void *record;
	struct hook_owner *owner;
};

/* The same as built: what tells it from others, in few bytes, as there is one per patch at least. */
struct built_hook {
	struct hook_owner *owner; /* NULL while it is free */
	struct built_hook *next;  /* of the owner's */
	uintptr_t slot;
	uint64_t read;
	uint64_t write;
	uint64_t clobber;
	uint32_t before; /* lower and upper, from the instruction */
	uint32_t behind;
	int16_t program_counter; /* from the window's start */
	uint8_t at;              /* offset of the instruction */
	uint8_t when;
	uint8_t post;
	uint8_t action;
	bool stamp;
};

struct trampoline {
	struct trampoline *next; /* the owner's list */
	struct arena_block block;
	uintptr_t start; /* the window that it was built for */
	uint16_t hook_count;
	uint8_t length;
	uint8_t strategy;
	uint8_t count;
	/* at the window's start, to entry 0 or to the window's pad; punned bytes included */
	uint8_t jump[ARCH_JMP_SIZE];
	bool reachable; /* some thread may have been led here: not to be reused for anything else (I7) */
	struct built_hook hooks[]; /* what it was built from; then the entries, offsets from the block */
};

/*
 * Build for `hooks`, in order of call at one place (behind an instruction: in reverse). PATCH_OK; PATCH_ENOMEM: no
 * memory near enough, *message says which. A window that needs a pad and has none gets one: window->pad, for the caller
 * to keep.
 */
patch_status trampoline_build(struct window *window, const struct hook *hooks, size_t count, struct trampoline **out,
			      const char **message) REQUIRES(library_lock);

/* Was there ever a jump with a trap byte of the SIGILL class on a boundary? */
bool trampoline_any_sigill(void) REQUIRES(library_lock);

/* What the window's pad holds when it leads to this trampoline. */
void trampoline_pad_bytes(const struct trampoline *trampoline, uintptr_t pad, uint8_t bytes[ARCH_JMP_SIZE]);

/* Was it built for the window? */
bool trampoline_is_for(const struct trampoline *trampoline, const struct window *window);
/* One of its hooks, as it was wanted, with its slot. */
struct hook trampoline_hook(const struct trampoline *trampoline, size_t index);
/* Would the hooks be the same code, but for their slots? */
bool trampoline_alike(const struct hook *a, const struct hook *b);
/* Are they called at the same instants, so that their order matters? */
bool trampoline_same_place(const struct hook *a, const struct hook *b);

/*
 * Can it do this? map[i] then is the index of its hook for hooks[i]. Hooks that were built for more than this stay
 * closed; one that is another patch's, unless `ignore` says so of the patch, is in the way, and one that is a wanted
 * hook's own patch's already is the one for it.
 */
bool trampoline_fits(const struct trampoline *trampoline, const struct window *window, const struct hook *hooks,
		     size_t count, bool (*ignore)(const struct hook_owner *owner), uint16_t *map);

/* The hook is free from now on: its slot is 0. */
void trampoline_free_hook(struct built_hook *hook) REQUIRES(library_lock);

/* Free one that was never reachable. */
void trampoline_free(struct trampoline *trampoline) REQUIRES(library_lock);

static inline uintptr_t trampoline_entry(const struct trampoline *trampoline, unsigned int index)
{
	return trampoline->block.address + ((const uint16_t *)&trampoline->hooks[trampoline->hook_count])[index];
}

#endif
