/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The ranges of generated code, for pc_map.c: the handler of a trap asks here whether a program counter is in code of
 * the library. Unwinders are told of each range. An entry, once counted, is never changed or taken away, and
 * code_ranges_find() takes no lock (I9).
 */
#include "code/code_ranges.h"

#include "base/inject.h"
#include "code/unwinders.h"

#include <stdatomic.h>

static struct code_range ranges[CODE_RANGES_MAX];
/* Release in code_ranges_publish() pairs with acquire in code_ranges_find(): a counted range is complete. */
static _Atomic size_t count;

bool code_ranges_publish(const struct code_range *range)
{
	size_t n = atomic_load_explicit(&count, memory_order_relaxed);

	if (n == CODE_RANGES_MAX || INJECT(INJECT_ALLOC) || !unwinders_describe(range))
		return false;
	ranges[n] = *range;
	atomic_store_explicit(&count, n + 1, memory_order_release);
	return true;
}

const struct code_range *code_ranges_find(uintptr_t pc)
{
	size_t n = atomic_load_explicit(&count, memory_order_acquire);

	for (size_t i = 0; i < n; ++i)
		if (pc >= ranges[i].lower && pc < ranges[i].upper)
			return &ranges[i];
	return NULL;
}

uint64_t code_ranges_count(void)
{
	return atomic_load_explicit(&count, memory_order_relaxed);
}

const struct code_range *code_ranges_at(size_t index)
{
	return &ranges[index];
}
