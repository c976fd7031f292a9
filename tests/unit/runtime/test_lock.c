/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* runtime/lock.h, in the build for tests: what needs the library lock finds out that it is not held. */
#include "base/heap.h"
#include "base/scratch.h"
#include "runtime/lock.h"

#include <criterion/criterion.h>
#include <signal.h>

static void with_lock(void (*function)(void))
{
	struct lock_scope scope;

	cr_assert(lock_acquire(&scope));
	function();
	lock_release(&scope);
}

static void use_heap(void)
{
	heap_free(heap_alloc(8), 8);
}

static void leave_scratch(void)
{
	cr_assert_not_null(scratch_take(8));
}

Test(lock, is_not_asked_for_before_it_is_ever_taken)
{
	use_heap();
}

Test(lock, is_held_where_it_is_asserted)
{
	with_lock(use_heap);
}

Test(lock, is_asserted, .signal = SIGILL)
{
	with_lock(use_heap);
	use_heap();
}

Test(lock, is_not_released_with_scratch_memory_taken, .signal = SIGILL)
{
	with_lock(leave_scratch);
}
