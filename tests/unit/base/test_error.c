/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* base/error.h: the chain of a thread's errors, in the order in which they were raised, and what is written into them.
 */
#include "base/error.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

static struct patch_error last(void)
{
	struct patch_error error;

	cr_assert_eq(error_last(&error), (patch_status)error.code);
	return error;
}

Test(error, none)
{
	struct patch_error error = { .code = PATCH_BUG };

	error_begin();
	cr_expect_eq(error_last(&error), PATCH_OK);
	cr_expect_eq(error.code, PATCH_OK);
	cr_expect_str_empty(error.origin);
	cr_expect_str_empty(error.message);
	cr_expect_str_empty(error.irritant);
	cr_expect_null(error.next);
}

Test(error, says_what_was_raised)
{
	struct patch_error error;

	error_begin();
	cr_expect_eq(error_raise(PATCH_EPROTECTED, "where", "what", "whose"), PATCH_EPROTECTED);
	error = last();
	cr_expect_eq(error.code, PATCH_EPROTECTED);
	cr_expect_str_eq(error.origin, "where");
	cr_expect_str_eq(error.message, "what");
	cr_expect_str_eq(error.irritant, "whose");
	cr_expect_null(error.next);
}

Test(error, no_irritant_is_an_empty_one)
{
	error_begin();
	error_raise(PATCH_ENOMEM, "where", "what", NULL);
	cr_expect_str_empty(last().irritant);
}

Test(error, addresses)
{
	static const struct {
		uintptr_t address;
		const char *text;
	} rows[] = { { 0, "0x0" }, { 9, "0x9" }, { 0xabcdef, "0xabcdef" }, { UINTPTR_MAX, "0xffffffffffffffff" } };

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		error_begin();
		cr_expect_eq(error_raise_at(PATCH_EBOUNDARY, "where", "what", rows[i].address), PATCH_EBOUNDARY);
		cr_expect_str_eq(last().irritant, rows[i].text);
	}
}

Test(error, numbers_of_the_kernel_with_either_sign)
{
	error_begin();
	cr_expect_eq(error_raise_sys(PATCH_ESYS, "mmap", "what", ENOMEM), PATCH_ESYS);
	cr_expect_str_eq(last().irritant, "errno 12 (ENOMEM)");
	error_begin();
	error_raise_sys(PATCH_ESYS, "mmap", "what", -133);
	cr_expect_str_eq(last().irritant, "errno 133");
}

/* What is raised by a later call takes the place of all that there is; a call that raises nothing leaves it. */
Test(error, lasts_until_another_one)
{
	struct patch_error error;

	error_begin();
	error_raise(PATCH_ENOMEM, "first", "what", NULL);
	error_raise(PATCH_ESYS, "second", "what", NULL);
	error_begin();
	cr_expect_eq(error_count(), 0);
	error_truncate(0);
	error = last();
	cr_expect_str_eq(error.origin, "first");
	cr_assert_not_null(error.next);
	error_begin();
	error_raise(PATCH_EFAIL, "third", "what", NULL);
	cr_expect_eq(error_count(), 1);
	error = last();
	cr_expect_str_eq(error.origin, "third");
	cr_expect_null(error.next);
}

/* The name may be gone by the time that it is read. */
Test(error, names)
{
	char name[] = "a name of more than sixty-four characters: longer than most that programs have";

	error_begin();
	cr_expect_eq(error_raise_name(PATCH_ENEXIST, "where", "what", name), PATCH_ENEXIST);
	memset(name, '-', sizeof(name) - 1);
	cr_expect_str_eq(last().irritant, "a name of more than sixty-four characters: longer than most tha");
}

/* As many as are kept, in order; those behind them are left out. */
Test(error, first_ones_are_kept)
{
	struct patch_error error;
	const struct patch_error *next;
	uintptr_t n;

	error_begin();
	for (n = 0; n < ERROR_CHAIN + 3; n++)
		cr_expect_eq(error_raise_at(PATCH_EFAIL, "where", "what", n), PATCH_EFAIL);
	cr_expect_eq(error_count(), ERROR_CHAIN);
	error = last();
	n = 0;
	for (next = &error; next != NULL; next = next->next, n++) {
		const char text[] = { '0', 'x', (char)('0' + n), '\0' };

		cr_expect_str_eq(next->irritant, text);
	}
	cr_expect_eq(n, ERROR_CHAIN);
}

Test(error, truncated)
{
	struct patch_error error;

	error_begin();
	error_raise(PATCH_ENOMEM, "first", "what", NULL);
	error_raise(PATCH_ESYS, "second", "what", NULL);
	error_raise(PATCH_EFAIL, "third", "what", NULL);
	error_truncate(5);
	cr_expect_eq(error_count(), 3);
	error_truncate(2);
	cr_expect_eq(error_count(), 2);
	error = last();
	cr_assert_not_null(error.next);
	cr_expect_str_eq(error.next->origin, "second");
	cr_expect_null(error.next->next);
	error_truncate(0);
	cr_expect_eq(error_last(&error), PATCH_OK);
}

/* Code of the host that runs meanwhile has errors of its own. */
Test(error, saved_and_restored)
{
	struct error_chain saved;
	struct patch_error error;

	error_begin();
	error_raise_at(PATCH_EPROTECTED, "first", "what", 0x1234);
	error_raise(PATCH_EFAIL, "second", "what", "literal");
	error_save(&saved);
	error_begin();
	for (int i = 0; i < ERROR_CHAIN; i++)
		error_raise_sys(PATCH_ESYS, "other", "else", 1);
	error_restore(&saved);
	cr_expect_eq(error_count(), 2);
	error = last();
	cr_expect_eq(error.code, PATCH_EPROTECTED);
	cr_expect_str_eq(error.irritant, "0x1234");
	cr_assert_not_null(error.next);
	cr_expect_str_eq(error.next->irritant, "literal");
	cr_expect_null(error.next->next);
	error_begin();
	error_save(&saved);
	error_raise(PATCH_EFAIL, "other", "what", NULL);
	error_restore(&saved);
	cr_expect_eq(error_count(), 0);
	cr_expect_eq(last().code, PATCH_EPROTECTED);
}

static void *raise_another(void *unused)
{
	struct patch_error error;

	cr_expect_eq(error_last(&error), PATCH_OK);
	error_raise(PATCH_ENOMEM, "other thread", "what", NULL);
	return unused;
}

Test(error, threads_have_their_own)
{
	pthread_t thread;

	error_begin();
	error_raise(PATCH_ESYS, "this thread", "what", NULL);
	cr_assert_eq(pthread_create(&thread, NULL, raise_another, NULL), 0);
	pthread_join(thread, NULL);
	cr_expect_eq(error_count(), 1);
	cr_expect_str_eq(last().origin, "this thread");
}
