/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Marks of functions that jump to their own entry. In hooks: no libc, no lock, general registers only.
 */
#include "runtime/entry_again.h"

#include "runtime/shadow.h"

#include <stdatomic.h>

static uint64_t *entry_again_mark(const struct patch_exec_context *context)
{
	return shadow_word((uintptr_t)context->stack_pointer - sizeof(uint64_t));
}

static uint64_t entry_again_id(const struct call_pair *pair)
{
	return atomic_load_explicit((const _Atomic uint64_t *)&pair->id, memory_order_relaxed);
}

void entry_again_leave(struct patch_exec_context *context, uint8_t post)
{
	const struct call_pair *pair = context->user_data;
	uint64_t *mark = entry_again_mark(context);

	(void)post;
	if (mark != NULL)
		*mark = entry_again_id(pair);
}

void entry_again_enter(struct patch_exec_context *context, uint8_t post)
{
	const struct call_pair *pair = context->user_data;
	uint64_t *mark = entry_again_mark(context);

	if (mark != NULL && *mark == entry_again_id(pair)) {
		*mark = 0;
		return;
	}
	context->user_data = pair->user_data;
	pair->procedure(context, post);
}
