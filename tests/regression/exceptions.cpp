/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * C++: an exception thrown by a procedure, and one thrown by a function that displaced code called, are caught by the
 * caller of the probed function; destructors in between run, also when a thread is cancelled there.
 */
#include "targets.h"

#include <pthread.h>
#include <stdexcept>

static unsigned int hits, destroyed;
static bool throw_in_procedure, throw_in_callee, cancel_in_procedure, cancel_in_callee;

struct guard {
	~guard()
	{
		destroyed++;
	}
};

static void procedure(struct patch_exec_context *, uint8_t)
{
	guard here;

	hits++;
	if (throw_in_procedure)
		throw std::runtime_error("procedure");
	if (cancel_in_procedure) {
		pthread_cancel(pthread_self());
		pthread_testcancel();
	}
}

static void callback(void *)
{
	guard here;

	if (throw_in_callee)
		throw std::runtime_error("callee");
	if (cancel_in_callee) {
		pthread_cancel(pthread_self());
		pthread_testcancel();
	}
}

static NOINLINE uint64_t caller()
{
	guard here;

	return t_call_callback(callback, nullptr);
}

static void expect_throw(const char *what, bool with_procedure)
{
	destroyed = 0;
	try {
		caller();
		FAIL("nothing was thrown");
	} catch (const std::runtime_error &error) {
		CHECK(!strcmp(error.what(), what));
	}
	/* the guards of caller(), and of the procedure or the callback or both */
	CHECK_EQ(destroyed, with_procedure ? 3 : 2);
}

static void *cancelled_thread(void *)
{
	caller();
	return nullptr;
}

static void expect_cancel(unsigned int guards)
{
	pthread_t thread;
	void *value = nullptr;

	destroyed = 0;
	REQUIRE(pthread_create(&thread, nullptr, cancelled_thread, nullptr) == 0);
	CHECK_EQ(pthread_join(thread, &value), 0);
	CHECK(value == PTHREAD_CANCELED);
	CHECK_EQ(destroyed, guards);
}

static void at_each_instruction(void *argument)
{
	int policy = *(const int *)argument;
	struct instructions list = code_decode((uintptr_t)t_call_callback, (uintptr_t)t_call_callback_end);
	uintptr_t behind_call = 0;
	patch_t patch;

	for (unsigned int n = 0; n + 1 < list.count; n++)
		if (target_is_call(list.address[n]))
			behind_call = list.address[n + 1];
	REQUIRE_OK(patch_init(nullptr, 0));
	for (unsigned int n = 0; n < list.count; n++) {
		bool met_before_call = list.address[n] < behind_call;

		CONTEXT("t_call_callback+%#zx, %s", (size_t)(list.address[n] - list.address[0]), policy_name(policy));
		REQUIRE_OK(make_probe(list.address[n], procedure, nullptr, policy, PATCH_ENABLED, &patch));
		CHECK_OK(patch_commit());
		for (int round = 0; round < 3; round++) {
			throw_in_procedure = true;
			expect_throw("procedure", !met_before_call);
			throw_in_procedure = false;
			throw_in_callee = true;
			expect_throw("callee", met_before_call);
			throw_in_callee = false;
			cancel_in_procedure = true;
			expect_cancel(met_before_call ? 2 : 3);
			cancel_in_procedure = false;
			cancel_in_callee = true;
			expect_cancel(met_before_call ? 3 : 2);
			cancel_in_callee = false;
			/* probes work as before */
			hits = destroyed = 0;
			CHECK_EQ(caller(), 77);
			CHECK_EQ(hits, 1);
			CHECK_EQ(destroyed, 3);
		}
		CHECK_OK(patch_unmake(patch));
		CHECK_OK(patch_commit());
	}
	CHECK_OK(patch_fini());
}

int main()
{
	harness_start();
	throw_in_callee = true;
	expect_throw("callee", false);
	throw_in_callee = false;
	cancel_in_callee = true;
	expect_cancel(2);
	cancel_in_callee = false;
	for (int policy = PATCH_TRAP_POLICY_ALLOW; policy <= PATCH_TRAP_POLICY_FORCE; policy += 2)
		harness_isolated(policy_name(policy), at_each_instruction, &policy);
	return harness_end();
}
