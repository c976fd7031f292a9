/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* base/bug.h: a check that fails becomes an error that names its place; in the build for tests it is fatal. */
#include "base/bug.h"
#include "base/error.h"
#include "base/ptr_vec.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static int checked_line;

static int checked(int count)
{
	checked_line = __LINE__ + 1;
	BUG_ON_RETURN(count > 3, -1);
	return count;
}

static void checked_void(int count, bool *went_on)
{
	BUG_ON_RETURN(count > 3);
	*went_on = true;
}

/* Without folders, which it has where the compiler has no __FILE_NAME__. */
static const char *file_of(const char *origin)
{
	const char *slash = strrchr(origin, '/');

	return slash != NULL ? slash + 1 : origin;
}

Test(bug, is_an_error_with_file_and_line)
{
	struct patch_error error;
	char where[64];

	libpatch_bugs_are_fatal = false;
	error_begin();
	cr_expect_eq(checked(3), 3);
	cr_expect_eq(error_last(&error), PATCH_OK);

	cr_expect_eq(checked(4), -1);
	cr_expect_eq(error_last(&error), PATCH_BUG);
	snprintf(where, sizeof(where), "test_bug.c:%d", checked_line);
	cr_expect_str_eq(file_of(error.origin), where);
	cr_expect_str_eq(error.irritant, "count > 3");
	cr_expect_str_eq(error.message, "the library found itself inconsistent, which is a bug of the library");
}

Test(bug, in_a_function_without_a_value)
{
	bool went_on = false;

	libpatch_bugs_are_fatal = false;
	checked_void(4, &went_on);
	cr_expect_not(went_on);
	checked_void(3, &went_on);
	cr_expect(went_on);
}

Test(bug, is_fatal_in_tests, .signal = SIGILL)
{
	checked(4);
}

/* A vector without room: nothing is written behind its end, and the item is not queued. */
Test(bug, vector_without_room)
{
	struct patch_error error;
	struct ptr_vec vec = { 0 };
	uint32_t place = 0;

	libpatch_bugs_are_fatal = false;
	error_begin();
	ptr_vec_add(&vec, &vec, &place);
	cr_expect_eq(place, 0);
	cr_expect_eq(vec.count, 0);
	cr_expect_eq(error_last(&error), PATCH_BUG);
	cr_expect_eq(strncmp(file_of(error.origin), "ptr_vec.h:", 10), 0);

	cr_assert(ptr_vec_reserve(&vec, 1));
	ptr_vec_add(&vec, &vec, &place);
	cr_expect_eq(place, 1);
	ptr_vec_add(&vec, &vec, &place);
	cr_expect_eq(vec.count, 1);
}
