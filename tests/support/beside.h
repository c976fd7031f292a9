/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Originals and their relocated copies, run beside each other from the same random state (registers, flags, vector
 * registers, stack, data) in read-execute memory; everything that they leave is compared. Deterministic: the states
 * come from a counter.
 */
#ifndef LIBPATCH_TESTS_BESIDE_H
#define LIBPATCH_TESTS_BESIDE_H

#include "base/compiler.h"
#include "run_code.h"

/* Where things are, from beside_base on. */
#define ORIGINAL_AT 0x100UL
#define COPY_AT (BESIDE_RESERVED - 0x2000 + 0x340)
/* One reservation; everything in it is within reach of everything else. */
#define BESIDE_RESERVED (1UL << 30)

/* Programs linked at a fixed address are below 2 GiB, all others far above: two ways to leave a return address. */
#define LOW_BASE 0x10000000UL

enum exit { EXIT_NONE, EXIT_FALL, EXIT_TAKEN };

enum setup {
	POINTERS = 1 << 0, /* registers, stack and data hold the address of the taken exit */
	BASES = 1 << 1,    /* RBX, RBP and R12 point into the data */
	INDEXES = 1 << 2,  /* RCX and R9 are small */
	AROUND = 1 << 3,   /* by arch_relocate_around() */
	V3 = 1 << 4,       /* needs x86-64-v3, -v4 */
	V4 = 1 << 5,
	BELOW = 1 << 6,    /* the copy may use 16 bytes below the red zone */
	WRITTEN = 1 << 7,  /* AROUND, as if what is in the hole changed registers */
	KEPT = 1 << 8      /* AROUND, a call: the hole is told where it returns to; 8 bytes below that may be used */
};

struct form {
	const char *text;
	uint8_t bytes[16]; /* the displacement of RIP-relative operands and of rel32 branches is filled in */
	size_t size;
	unsigned int setup;
};

/* What a run starts from or leaves. */
struct world {
	struct state state;
	uint8_t data[PAGE_SIZE];
	uint8_t stack[PAGE_SIZE];
};

extern uintptr_t beside_base;
extern uintptr_t beside_exits[3];    /* by enum exit */
extern bool beside_far;              /* copies are made that could lie anywhere */
extern bool beside_has_v3;
extern unsigned int beside_forms_run; /* by beside_check() */

/* Memory at `at`, 0: anywhere. First of all. */
void beside_prepare(uintptr_t at);
/* Of the page around it. */
void beside_protect(uintptr_t address, int protection);
/* Original and copy of a form, in place. False: there is no far copy. */
bool beside_build(const struct form *form);
/* A new random state that suits the setup. */
void beside_start(struct world *world, unsigned int setup);
/* Run `code`; the world is then what it leaves. */
void beside_run(struct world *world, uintptr_t code);
/* Run what was built from `start` on, and compare; returns the way the original took. */
enum exit beside_compare(const struct form *form, const struct world *start);
/* All of it, from a few states; nothing where the processor or a far copy does not allow it. */
void beside_check(const struct form *form);

#endif
