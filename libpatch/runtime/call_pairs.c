/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pairs a hook at a call with the hook at its return, per thread, by the stack pointer. Runs in hooks: the thread's
 * memory only.
 */
#include "runtime/call_pairs.h"

#include "base/thread_block.h"

/* Most that a callee pops of its arguments: ret imm16. */
#define POPPED_MAX 65535

/*
 * Frames below the current stack pointer are gone, by longjmp or an exception: their calls will not return. A thread
 * that changes stacks (coroutines, a signal stack) may lose pending calls of the other stack.
 */
static void call_pairs_drop_dead(struct pending_calls *calls, uintptr_t stack_pointer)
{
	while (calls->depth > 0 && calls->pending[calls->depth - 1].stack_pointer < stack_pointer)
		--calls->depth;
}

static void call_pairs_remove(struct pending_calls *calls, unsigned int index)
{
	for (--calls->depth; index < calls->depth; ++index)
		calls->pending[index] = calls->pending[index + 1];
}

/*
 * The pair's innermost call that can have returned with this stack pointer: the same one as at the call, or a little
 * above where the callee pops arguments. Several patches on one call are pending with equal ones.
 */
static bool call_pairs_take(struct pending_calls *calls, const struct call_pair *pair, uintptr_t stack_pointer)
{
	const struct pending_call *pending = calls->pending;

	for (unsigned int i = calls->depth; i-- > 0 && pending[i].stack_pointer <= stack_pointer;) {
		if (pending[i].pair != pair->id || stack_pointer - pending[i].stack_pointer > POPPED_MAX)
			continue;
		call_pairs_drop_dead(calls, pending[i].stack_pointer);
		call_pairs_remove(calls, i);
		return true;
	}
	if (calls->forgotten == 0)
		return false;
	--calls->forgotten;
	return true;
}

static void call_pairs_run(const struct call_pair *pair, struct patch_exec_context *context, uint8_t post)
{
	context->user_data = pair->user_data;
	pair->procedure(context, post);
}

static void call_pairs_note(struct pending_calls *calls, uint64_t pair, uintptr_t stack_pointer)
{
	const struct pending_call *pending = calls->pending;

	call_pairs_drop_dead(calls, stack_pointer);
	/* Still there: executed before and never returned. */
	for (unsigned int i = calls->depth; i-- > 0 && pending[i].stack_pointer == stack_pointer;)
		if (pending[i].pair == pair)
			call_pairs_remove(calls, i);
	if (calls->depth < PENDING_CALLS)
		calls->pending[calls->depth++] = (struct pending_call){ pair, stack_pointer };
	else
		++calls->forgotten;
}

/* A thread for which there is no memory sees calls and not their returns. */
void call_pair_begin(struct patch_exec_context *context, uint8_t post)
{
	const struct call_pair *pair = context->user_data;
	struct thread_block *block = thread_block();

	if (block != NULL)
		call_pairs_note(&block->calls, pair->id, context->stack_pointer);
	call_pairs_run(pair, context, post);
}

void call_pair_end(struct patch_exec_context *context, uint8_t post)
{
	const struct call_pair *pair = context->user_data;
	struct thread_block *block = thread_block_known();

	if (block == NULL || !call_pairs_take(&block->calls, pair, context->stack_pointer))
		return;
	context->program_counter = pair->program_counter;
	call_pairs_run(pair, context, post);
}
