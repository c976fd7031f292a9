/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "code/code_ranges.h"

#include "base/inject.h"

#define RANGES 8192

static struct range ranges[RANGES];
/* Release in range_publish() pairs with acquire in range_find(): a counted range is complete. */
static _Atomic size_t count;

bool range_publish(const struct range *range)
{
	size_t n = atomic_load_explicit(&count, memory_order_relaxed);

	if (n == RANGES || INJECT(INJECT_ALLOC))
		return false;
	ranges[n] = *range;
	atomic_store_explicit(&count, n + 1, memory_order_release);
	return true;
}

const struct range *range_find(uintptr_t pc)
{
	size_t n = atomic_load_explicit(&count, memory_order_acquire);

	for (size_t i = 0; i < n; ++i)
		if (pc >= ranges[i].lower && pc < ranges[i].upper)
			return &ranges[i];
	return NULL;
}

uint64_t range_count(void)
{
	return atomic_load_explicit(&count, memory_order_relaxed);
}
