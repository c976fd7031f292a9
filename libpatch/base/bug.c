/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What becomes of a check that failed: an error in production, the end of the process in tests.
 */
#include "base/bug.h"

#include "base/error.h"
#ifdef LIBPATCH_INJECT
#include "base/syscall.h"

bool libpatch_bugs_are_fatal = true;

static void bug_print(const char *text)
{
	size_t length = 0;

	while (text[length] != '\0')
		++length;
	raw_syscall(SYS_write, 2, text, length);
}

static void bug_end(const char *where, const char *condition)
{
	if (!libpatch_bugs_are_fatal)
		return;
	libpatch_inject = NULL;
	bug_print("libpatch: bug at ");
	bug_print(where);
	bug_print(": ");
	bug_print(condition);
	bug_print("\n");
	__builtin_trap();
}
#else
static void bug_end(const char *where, const char *condition)
{
	(void)where;
	(void)condition;
}
#endif

bool bug_found(const char *where, const char *condition)
{
	bug_end(where, condition);
	error_raise(PATCH_BUG, where, "the library found itself inconsistent, which is a bug of the library",
		    condition);
	return true;
}
