/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Code that works only where it is: restartable sequences, found by their descriptors in a module's data, and
 * cancellation points, found by their bytes. What may be patched before and behind them, and that they may not.
 */
#include "bytes.h"

#include "base/compiler.h"
#include "plan/pinned.h"

#include <criterion/criterion.h>
#include <elf.h>
#include <string.h>

struct rseq_descriptor {
	uint32_t version;
	uint32_t flags;
	uint64_t start;
	uint64_t length;
	uint64_t abort;
};

/* A module: a page of code, and descriptors. */
static struct {
	uint8_t code[PAGE_SIZE];
	struct rseq_descriptor descriptors[4];
} image __attribute__((aligned(PAGE_SIZE)));

#define CODE ((uintptr_t)image.code)
#define START (CODE + 0x200)
#define LENGTH 0x20
#define ABORT (CODE + 0x300)
#define SIGNATURE 0x53053053
#define SIGNATURE_INSN 7
#define BETWEEN (CODE + 0x280) /* the sequence and its abort handler */

static const uint8_t cancellable[] = { 0x4D, 0x89, 0xCA, 0x4C, 0x8B, 0x44, 0x24, 0x08, 0x4C, 0x8B,
				       0x4C, 0x24, 0x10, 0x4C, 0x89, 0x5C, 0x24, 0x08, 0x0F, 0x05 };
#define CANCELLABLE_BEFORE 40

static Elf64_Phdr headers[1];

static struct module module_of_image(void)
{
	headers[0] = (Elf64_Phdr){
		.p_type = PT_LOAD,
		.p_flags = PF_R,
		.p_vaddr = (uintptr_t)image.descriptors,
		.p_filesz = sizeof(image.descriptors),
	};
	memset(image.code, 0x90, sizeof(image.code));
	return (struct module){
		.lower = CODE,
		.upper = CODE + sizeof(image),
		.identity = &image,
		.headers = headers,
		.header_count = 1,
	};
}

static void add_sequence(struct rseq_descriptor descriptor, uint32_t signature)
{
	memcpy((uint8_t *)ABORT - sizeof(signature), &signature, sizeof(signature));
	image.descriptors[1] = descriptor;
}

static const struct rseq_descriptor good = { .start = 0 };

static struct rseq_descriptor sequence(void)
{
	struct rseq_descriptor descriptor = good;

	descriptor.start = START;
	descriptor.length = LENGTH;
	descriptor.abort = ABORT;
	return descriptor;
}

static void expect_bounds(const struct module *module, uintptr_t address, uintptr_t floor, uintptr_t ceiling)
{
	struct pinned pinned;
	const char *why = pinned_examine(module, address, CODE, CODE + sizeof(image.code), false, &pinned);

	cr_assert_null(why, "+%#lx: %s", address - CODE, why);
	cr_expect_eq(pinned.floor, floor, "+%#lx: floor +%#lx", address - CODE, pinned.floor - CODE);
	cr_expect_eq(pinned.ceiling, ceiling, "+%#lx: ceiling +%#lx", address - CODE, pinned.ceiling - CODE);
}

static void expect_refused(const struct module *module, uintptr_t address)
{
	struct pinned pinned;

	cr_expect_not_null(pinned_examine(module, address, CODE, CODE + sizeof(image.code), false, &pinned), "+%#lx",
			   address - CODE);
}

Test(pinned, nothing)
{
	struct module module = module_of_image();

	expect_bounds(&module, START, 0, UINTPTR_MAX);
}

/* With the instruction in front, and the signature of the abort handler. */
Test(pinned, sequence)
{
	struct module module = module_of_image();

	add_sequence(sequence(), SIGNATURE);
	expect_bounds(&module, START - INSN_MAX - 1, 0, START - INSN_MAX);
	expect_refused(&module, START - INSN_MAX);
	expect_refused(&module, START);
	expect_refused(&module, START + LENGTH - 1);
	expect_bounds(&module, START + LENGTH, START + LENGTH, ABORT - SIGNATURE_INSN);
	expect_bounds(&module, BETWEEN, START + LENGTH, ABORT - SIGNATURE_INSN);
	expect_refused(&module, ABORT - SIGNATURE_INSN);
	expect_bounds(&module, ABORT, ABORT, UINTPTR_MAX);
}

Test(pinned, sequence_without_signature)
{
	struct module module = module_of_image();

	add_sequence(sequence(), SIGNATURE + 1);
	expect_bounds(&module, START, 0, UINTPTR_MAX);
}

/* Data that looks nearly like a descriptor. */
Test(pinned, other_data)
{
	struct rseq_descriptor wrong[] = { sequence(), sequence(), sequence(), sequence(), sequence() };
	struct module module = module_of_image();

	wrong[0].version = 1;
	wrong[1].flags = 8;
	wrong[2].length = 0;
	wrong[3].start = CODE - 1;
	wrong[4].abort = START + 1;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); ++i) {
		/* Another module: the last one is remembered. */
		module.identity = &wrong[i];
		add_sequence(wrong[i], SIGNATURE);
		expect_bounds(&module, START + 2, 0, UINTPTR_MAX);
	}
}

/* Writable or not, but not of the code. */
Test(pinned, descriptor_in_code_segment)
{
	struct module module = module_of_image();

	headers[0].p_flags = PF_R | PF_X;
	add_sequence(sequence(), SIGNATURE);
	expect_bounds(&module, START, 0, UINTPTR_MAX);
}

Test(pinned, cancellation_point)
{
	struct module module = module_of_image();
	uintptr_t lower = START - CANCELLABLE_BEFORE, upper = START + sizeof(cancellable);

	memcpy((uint8_t *)START, cancellable, sizeof(cancellable));
	expect_bounds(&module, lower - 1, 0, lower);
	expect_refused(&module, lower);
	expect_refused(&module, START);
	expect_refused(&module, upper - 1);
	expect_bounds(&module, upper, upper, UINTPTR_MAX);
	/* Far away: no window gets there. */
	expect_bounds(&module, CODE + 0x800, 0, UINTPTR_MAX);
}

/* In the next function a window may begin behind it; what is in front of the function does not count. */
Test(pinned, cancellation_point_of_another_function)
{
	struct module module = module_of_image();
	struct pinned pinned;

	memcpy((uint8_t *)START, cancellable, sizeof(cancellable));
	cr_expect_null(pinned_examine(&module, BETWEEN, BETWEEN, BETWEEN + 0x40, false, &pinned));
	cr_expect_eq(pinned.floor, 0);
}

Test(pinned, last_byte_differs)
{
	struct module module = module_of_image();

	memcpy((uint8_t *)START, cancellable, sizeof(cancellable));
	((uint8_t *)START)[sizeof(cancellable) - 1] = 0x0B;
	expect_bounds(&module, START, 0, UINTPTR_MAX);
}
