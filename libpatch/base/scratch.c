/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The scratch memory of the holder of the library lock: one array, taken from like a stack. It never grows: what does
 * not fit is a bug, and is refused before it does damage.
 */
#include "base/scratch.h"

#include "base/bug.h"
#include "base/thread_safety.h"

#include <string.h>

#define LINE 64UL

static uint8_t memory[SCRATCH_SIZE] __attribute__((aligned(LINE))) GUARDED_BY(library_lock);
static size_t used GUARDED_BY(library_lock);

/* In the build for tests, a block holds what it should not be relied on to hold, before it is taken and after. */
static void scratch_poison(void *block, size_t size)
{
#ifdef LIBPATCH_INJECT
	memset(block, 0xA5, size);
#else
	(void)block;
	(void)size;
#endif
}

void *scratch_take(size_t size)
{
	uint8_t *block = memory + used;

	LOCK_ASSERT_HELD();
	BUG_ON_RETURN(size > SCRATCH_SIZE - used, NULL);
	used += ALIGN_UP(size, LINE);
	scratch_poison(block, size);
	return block;
}

void scratch_give(void *block, size_t size)
{
	size_t rounded = ALIGN_UP(size, LINE);

	if (block == NULL)
		return;
	BUG_ON_RETURN(rounded > used || (uint8_t *)block != memory + (used - rounded));
	used -= rounded;
	scratch_poison(block, size);
}

void scratch_end(void)
{
	(void)BUG_ON(used != 0);
	used = 0;
}
