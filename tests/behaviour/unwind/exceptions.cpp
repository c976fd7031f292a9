/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * C++: an exception thrown by a procedure, and one thrown by a function that displaced code called, are caught by the
 * caller of the probed function; destructors in between run, also when a thread is cancelled there.
 */
#include "targets.h"

#include <alloca.h>
#include <pthread.h>
#include <stdexcept>

static unsigned int hits, destroyed;
static bool throw_in_procedure, throw_in_callee, cancel_in_procedure, cancel_in_callee, fault_in_procedure;

static uint64_t caller();

NOINLINE static uint64_t load(const uint64_t *from)
{
	return *from;
}

static uint64_t (*volatile call_load)(const uint64_t *) = load;

static patch_t patch_under_test;

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
	if (fault_in_procedure) {
		fault_in_procedure = false;
		try {
			call_load(nullptr);
			FAIL("nothing was thrown");
		} catch (const std::runtime_error &error) {
			CHECK(!strcmp(error.what(), "handler"));
		}
		/* This procedure runs still: passed over. */
		caller();
	}
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

NOINLINE static void hit_deeper(size_t by)
{
	volatile uint8_t *room = static_cast<volatile uint8_t *>(alloca(by));

	room[0] = 0;
	CHECK_EQ(caller(), 77);
	room[0] = 1;
}

static void *wait_for_it(void *)
{
	CHECK_OK(patch_disable(patch_under_test));
	CHECK_OK(patch_commit());
	CHECK_OK(patch_synchronize(0));
	CHECK_OK(patch_enable(patch_under_test));
	CHECK_OK(patch_commit());
	return nullptr;
}

/*
 * A procedure that was left by an exception is over: for hooks far deeper, which its frame does not overlap, and for
 * others.
 */
static void left_for_good(void *)
{
	pthread_t thread;

	REQUIRE_OK(patch_init(nullptr, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_call_callback, procedure, nullptr, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED,
			      &patch_under_test));
	CHECK_OK(patch_commit());
	for (int round = 0; round < 3; round++) {
		throw_in_procedure = true;
		expect_throw("procedure", false);
		throw_in_procedure = false;
		REQUIRE(pthread_create(&thread, nullptr, wait_for_it, nullptr) == 0);
		CHECK_EQ(pthread_join(thread, nullptr), 0);
		hits = 0;
		hit_deeper(65536);
		CHECK_EQ(hits, 1);
	}
	CHECK_OK(patch_fini());
}

static void on_fault(int)
{
	throw std::runtime_error("handler");
}

/* An exception passes generated code, and ends nothing of the procedure from which that was come to. */
static void thrown_below_a_procedure(void *)
{
	const uint64_t value = 12;
	struct sigaction action;
	patch_t inner;

	memset(&action, 0, sizeof(action));
	action.sa_handler = on_fault;
	action.sa_flags = SA_NODEFER;
	REQUIRE(sigaction(SIGSEGV, &action, nullptr) == 0);
	REQUIRE_OK(patch_init(nullptr, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_call_callback, procedure, nullptr, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED,
			      &patch_under_test));
	REQUIRE_OK(make_probe((uintptr_t)load, procedure, nullptr, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &inner));
	CHECK_OK(patch_commit());
	hits = 0;
	fault_in_procedure = true;
	CHECK_EQ(caller(), 77);
	CHECK_EQ(hits, 1);
	CHECK_EQ(call_load(&value), 12);
	CHECK_EQ(hits, 2);
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
	harness_isolated("left by an exception", left_for_good, nullptr);
	harness_isolated("thrown below a procedure", thrown_below_a_procedure, nullptr);
	return harness_end();
}
