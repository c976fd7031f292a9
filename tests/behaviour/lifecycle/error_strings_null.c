/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * patch_last_error(): strings are never NULL, the error is the thread's own, neither a success nor reading clears it.
 */
#include "targets.h"

#include <pthread.h>

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static void expect_none(void)
{
	struct patch_error error;

	memset(&error, 0xff, sizeof(error));
	CHECK_STATUS(patch_last_error(&error), PATCH_OK);
	CHECK_EQ(error.code, 0);
	CHECK(error.next == NULL);
	CHECK(error.origin && !error.origin[0]);
	CHECK(error.irritant && !error.irritant[0]);
	CHECK(error.message && !error.message[0]);
}

static void expect(patch_status status)
{
	struct patch_error error;

	for (int round = 0; round < 2; round++) {
		memset(&error, 0xff, sizeof(error));
		CHECK_EQ(patch_last_error(&error), status);
		CHECK_EQ(error.code, status);
		CHECK(error.origin && error.origin[0]);
		CHECK(error.irritant != NULL);
		CHECK(error.message && error.message[0]);
	}
}

static patch_status fail_at(uintptr_t address)
{
	patch_t patch;
	struct patch_location location = location_at(address);
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE, procedure, NULL);

	return patch_make(&location, &model, NULL, &patch, NULL);
}

static pthread_barrier_t barrier;

static void *second_thread(void *argument)
{
	CONTEXT("another thread");
	expect_none();
	CHECK_EQ(fail_at(8), PATCH_EFAULT);
	expect(PATCH_EFAULT);
	pthread_barrier_wait(&barrier); /* now the first fails otherwise */
	pthread_barrier_wait(&barrier);
	expect(PATCH_EFAULT);
	return argument;
}

static void *many(void *argument)
{
	unsigned int *wrong = argument;

	for (unsigned int n = 0; n < 2000; n++) {
		struct patch_error error;

		if (fail_at(n % 2 ? 8 : (uintptr_t)t_five_bytes + 1) != (n % 2 ? PATCH_EFAULT : PATCH_EBOUNDARY) ||
		    patch_last_error(&error) != (n % 2 ? PATCH_EFAULT : PATCH_EBOUNDARY) || !error.message[0] ||
		    !error.origin[0])
			__atomic_fetch_add(wrong, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

int main(void)
{
	pthread_t threads[4];
	unsigned int wrong = 0;

	harness_start();
	CONTEXT("before patch_init()");
	expect_none();
	CHECK_EQ(patch_commit(), PATCH_EINIT);
	expect(PATCH_EINIT);
	CHECK_EQ(patch_init(NULL, 0), PATCH_OK);
	expect(PATCH_EINIT);
	CONTEXT("first thread");
	CHECK_EQ(patch_enable(NULL), PATCH_ENEXIST);
	expect(PATCH_ENEXIST);
	pthread_barrier_init(&barrier, NULL, 2);
	REQUIRE(pthread_create(&threads[0], NULL, second_thread, NULL) == 0);
	pthread_barrier_wait(&barrier);
	expect(PATCH_ENEXIST);
	CHECK_EQ(fail_at((uintptr_t)t_five_bytes + 1), PATCH_EBOUNDARY);
	pthread_barrier_wait(&barrier);
	pthread_join(threads[0], NULL);
	expect(PATCH_EBOUNDARY);
	CHECK_EQ(patch_commit(), PATCH_OK);
	expect(PATCH_EBOUNDARY);
	CONTEXT("many threads");
	for (int n = 0; n < 4; n++)
		REQUIRE(pthread_create(&threads[n], NULL, many, &wrong) == 0);
	for (int n = 0; n < 4; n++)
		pthread_join(threads[n], NULL);
	CHECK_EQ(wrong, 0);
	for (int status = -5; status < 40; status++)
		CHECK(patch_status_string((patch_status)status) && patch_status_string((patch_status)status)[0]);
	for (int a = PATCH_BUG; a <= PATCH_EBUSY; a++)
		for (int b = PATCH_BUG; b < a; b++)
			CHECK(strcmp(patch_status_string((patch_status)a), patch_status_string((patch_status)b)));
	CHECK_EQ(patch_fini(), PATCH_OK);
	CHECK_EQ(patch_commit(), PATCH_EFINI);
	expect(PATCH_EFINI);
	return harness_end();
}
