/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * runtime/call_pairs.h: which return is told of which call. Contexts are made up; each test is a process of its own, so
 * that it begins without pending calls.
 */
#include "runtime/call_pairs.h"

#include <criterion/criterion.h>

struct log {
	unsigned int calls, returns;
	uintptr_t last_pc;
};

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	struct log *log = context->user_data;

	if (post)
		log->returns++;
	else
		log->calls++;
	log->last_pc = context->program_counter;
}

#define CALL_AT 0x1000
#define BEHIND 0x1005
#define STACK 0x7ffe00000000ul

static struct log logs[3];
static const struct call_pair pairs[] = {
	{ .id = 1, .procedure = procedure, .user_data = &logs[0], .program_counter = BEHIND },
	{ .id = 2, .procedure = procedure, .user_data = &logs[1], .program_counter = BEHIND },
	{ .id = 3, .procedure = procedure, .user_data = &logs[2], .program_counter = 0x2005 },
};

static void call(size_t n, uintptr_t stack_pointer)
{
	struct patch_exec_context context = { .program_counter = CALL_AT,
					      .stack_pointer = stack_pointer,
					      .user_data = (void *)&pairs[n] };

	call_pair_begin(&context, 0);
}

static void reach_return(size_t n, uintptr_t stack_pointer)
{
	struct patch_exec_context context = { .program_counter = 0x9999,
					      .stack_pointer = stack_pointer,
					      .user_data = (void *)&pairs[n] };

	call_pair_end(&context, 1);
}

static void expect(size_t n, unsigned int calls, unsigned int returns)
{
	cr_expect_eq(logs[n].calls, calls, "pair %zu: %u calls, wanted %u", n, logs[n].calls, calls);
	cr_expect_eq(logs[n].returns, returns, "pair %zu: %u returns, wanted %u", n, logs[n].returns, returns);
}

Test(call_pairs, call_and_return)
{
	call(0, STACK);
	expect(0, 1, 0);
	cr_expect_eq(logs[0].last_pc, CALL_AT);
	reach_return(0, STACK);
	expect(0, 1, 1);
	cr_expect_eq(logs[0].last_pc, BEHIND);
}

Test(call_pairs, return_address_reached_another_way)
{
	reach_return(0, STACK);
	expect(0, 0, 0);
	call(0, STACK);
	reach_return(0, STACK);
	reach_return(0, STACK);
	expect(0, 1, 1);
}

/* A jump to the return address from a frame further down is none of the call's. */
Test(call_pairs, return_address_reached_below)
{
	call(0, STACK);
	reach_return(0, STACK - 64);
	expect(0, 1, 0);
	reach_return(0, STACK);
	expect(0, 1, 1);
}

Test(call_pairs, callee_pops_its_arguments)
{
	call(0, STACK);
	reach_return(0, STACK + 24);
	expect(0, 1, 1);
	/* more than ret can take */
	call(0, STACK);
	reach_return(0, STACK + 65536);
	expect(0, 2, 1);
}

Test(call_pairs, several_patches_on_one_call)
{
	call(0, STACK);
	call(1, STACK);
	reach_return(0, STACK);
	reach_return(1, STACK);
	expect(0, 1, 1);
	expect(1, 1, 1);
}

Test(call_pairs, recursion)
{
	for (unsigned int depth = 0; depth < 20; depth++)
		call(0, STACK - 64 * depth);
	for (unsigned int depth = 20; depth-- > 0;)
		reach_return(0, STACK - 64 * depth);
	expect(0, 20, 20);
	reach_return(0, STACK);
	expect(0, 20, 20);
}

/* longjmp() or an exception leaves the inner calls: when the outer one returns, they are forgotten. */
Test(call_pairs, frames_that_are_gone)
{
	call(0, STACK);
	call(2, STACK - 64);
	call(2, STACK - 128);
	reach_return(0, STACK);
	expect(0, 1, 1);
	reach_return(2, STACK - 64);
	reach_return(2, STACK - 128);
	expect(2, 2, 0);
}

/* The call is executed again with the same stack pointer, because it did not return the first time. */
Test(call_pairs, called_again_instead_of_returning)
{
	call(0, STACK);
	call(0, STACK);
	reach_return(0, STACK);
	expect(0, 2, 1);
	reach_return(0, STACK);
	expect(0, 2, 1);
}

/* More calls than can be remembered: each return is told all the same. */
Test(call_pairs, deeper_than_there_is_room)
{
	const unsigned int calls = 100;

	for (unsigned int depth = 0; depth < calls; depth++)
		call(0, STACK - 16 * depth);
	for (unsigned int depth = calls; depth-- > 0;)
		reach_return(0, STACK - 16 * depth);
	expect(0, calls, calls);
	reach_return(0, STACK);
	expect(0, calls, calls);
}
