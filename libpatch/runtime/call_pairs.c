/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pairs a hook at a call with the hook at its return, per thread, by the stack pointer. Runs in hooks: thread-local
 * memory only.
 */
#include "runtime/call_pairs.h"

/* Calls through patched call instructions that have not returned yet, per thread; the deepest ones. */
#define PENDING 32

static TLS_INITIAL_EXEC struct {
	uint64_t pair; /* its id: the pair itself may be gone */
	uintptr_t stack_pointer;
} pending[PENDING];
static TLS_INITIAL_EXEC unsigned int depth;
/* Calls that found no room: their returns are told by the pair alone. */
static TLS_INITIAL_EXEC unsigned int forgotten;

/* Most that a callee pops of its arguments: ret imm16. */
#define POPPED_MAX 65535

/*
 * Frames below the current stack pointer are gone, by longjmp or an exception: their calls will not return. A thread
 * that changes stacks (coroutines, a signal stack) may lose pending calls of the other stack.
 */
static void call_pairs_drop_dead(uintptr_t stack_pointer)
{
	while (depth > 0 && pending[depth - 1].stack_pointer < stack_pointer)
		--depth;
}

static void call_pairs_remove(unsigned int index)
{
	for (--depth; index < depth; ++index)
		pending[index] = pending[index + 1];
}

/*
 * The pair's innermost call that can have returned with this stack pointer: the same one as at the call, or a little
 * above where the callee pops arguments. Several patches on one call are pending with equal ones.
 */
static bool call_pairs_take(const struct call_pair *pair, uintptr_t stack_pointer)
{
	for (unsigned int i = depth; i-- > 0 && pending[i].stack_pointer <= stack_pointer;) {
		if (pending[i].pair != pair->id || stack_pointer - pending[i].stack_pointer > POPPED_MAX)
			continue;
		call_pairs_drop_dead(pending[i].stack_pointer);
		call_pairs_remove(i);
		return true;
	}
	return false;
}

static void call_pairs_run(const struct call_pair *pair, struct patch_exec_context *context, uint8_t post)
{
	context->user_data = pair->user_data;
	pair->procedure(context, post);
}

void call_pair_begin(struct patch_exec_context *context, uint8_t post)
{
	const struct call_pair *pair = context->user_data;
	uintptr_t stack_pointer = context->stack_pointer;

	call_pairs_drop_dead(stack_pointer);
	/* Still there: executed before and never returned. */
	for (unsigned int i = depth; i-- > 0 && pending[i].stack_pointer == stack_pointer;)
		if (pending[i].pair == pair->id)
			call_pairs_remove(i);
	if (depth < PENDING) {
		pending[depth].pair = pair->id;
		pending[depth].stack_pointer = stack_pointer;
		++depth;
	} else {
		++forgotten;
	}
	call_pairs_run(pair, context, post);
}

void call_pair_end(struct patch_exec_context *context, uint8_t post)
{
	const struct call_pair *pair = context->user_data;

	if (!call_pairs_take(pair, context->stack_pointer)) {
		if (forgotten == 0)
			return;
		--forgotten;
	}
	context->program_counter = pair->program_counter;
	call_pairs_run(pair, context, post);
}
