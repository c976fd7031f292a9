/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A backtrace from a procedure shows the callers of the probed function, and one from a function called by a displaced
 * call shows the function that called it, as without patches; at each instruction, through jump and trap, with and
 * without extended state kept.
 */
#include "targets.h"

#include <unwind.h>

#define FRAMES 64

static uintptr_t frames[FRAMES]; /* start of the function of each frame */
static unsigned int frame_count, hits, missing_self, missing_caller;
static uintptr_t wanted_self;

static _Unwind_Reason_Code on_frame(struct _Unwind_Context *context, void *argument)
{
	int before = 0;
	uintptr_t ip = (uintptr_t)_Unwind_GetIPInfo(context, &before);

	(void)argument;
	if (frame_count < FRAMES && ip)
		/* which looks one byte before the address it gets, as is right for a return address */
		frames[frame_count++] = (uintptr_t)_Unwind_FindEnclosingFunction((void *)(ip + (before ? 1 : 0)));
	return _URC_NO_REASON;
}

static bool has(uintptr_t function)
{
	for (unsigned int n = 0; n < frame_count; n++)
		if (frames[n] == function)
			return true;
	return false;
}

static uint64_t caller(const struct target *target, uint64_t a, uint64_t b);

static void look(void)
{
	frame_count = 0;
	_Unwind_Backtrace(on_frame, NULL);
	hits++;
	missing_self += !has(wanted_self);
	missing_caller += !has((uintptr_t)caller);
}

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	look();
}

static NOINLINE uint64_t caller(const struct target *target, uint64_t a, uint64_t b)
{
	uint64_t value = target->function(a, b);

	__asm__ volatile("" : "+r"(value));
	return value;
}

static void callback(void *argument)
{
	(void)argument;
	look();
}

static NOINLINE uint64_t callback_caller(void)
{
	uint64_t value = t_call_callback(callback, NULL);

	__asm__ volatile("" : "+r"(value));
	return value;
}

static void reset(void)
{
	hits = missing_self = missing_caller = 0;
}

/* Targets have nothing in vector registers, which unwinders may use. */
static void from_procedures(const struct target *target, int policy, uint64_t clobber)
{
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE, procedure, NULL);
	patch_attr attr = attr_of(policy, PATCH_ENABLED);
	struct instructions list = target_decode(target);
	patch_t patch;

	model.probe.clobber_registers = clobber;
	for (unsigned int n = 0; n < list.count; n++) {
		struct patch_location location = location_at(list.address[n]);

		CONTEXT("%s+%#zx, %s, clobber %#llx", target->name, (size_t)(list.address[n] - list.address[0]),
			policy_name(policy), (unsigned long long)clobber);
		reset();
		wanted_self = target_start(target);
		if (patch_make(&location, &model, &attr, &patch, NULL) != PATCH_OK) {
			FAIL("make: %s", harness_last_error());
			continue;
		}
		CHECK_OK(patch_commit());
		CHECK_EQ(caller(target, 5, 7), target->model(5, 7));
		CHECK(hits > 0);
		CHECK_EQ(missing_caller, 0);
		CHECK_EQ(missing_self, 0);
		CHECK_OK(patch_unmake(patch));
		CHECK_OK(patch_commit());
	}
}

/* The helper is probed and every instruction of its caller is displaced. */
static void from_callee(const struct target *target, int policy)
{
	struct instructions list = target_decode(target);
	patch_t patches[TARGET_MAX_INSTRUCTIONS + 1];

	for (unsigned int n = 0; n < list.count; n++) {
		CONTEXT("%s+%#zx displaced, %s, helper probed", target->name,
			(size_t)(list.address[n] - list.address[0]), policy_name(policy));
		reset();
		wanted_self = target_start(target);
		REQUIRE_OK(make_probe((uintptr_t)helper_add, procedure, NULL, policy, PATCH_ENABLED, &patches[0]));
		REQUIRE_OK(make_probe(list.address[n], procedure, NULL, policy, PATCH_ENABLED, &patches[1]));
		CHECK_OK(patch_commit());
		CHECK_EQ(caller(target, 5, 7), target->model(5, 7));
		CHECK(hits > 1);
		CHECK_EQ(missing_caller, 0);
		CHECK_EQ(missing_self, 0);
		CHECK_OK(patch_unmake(patches[0]));
		CHECK_OK(patch_unmake(patches[1]));
		CHECK_OK(patch_commit());
	}
}

static void at_each_instruction(void *argument)
{
	static const char *const with_frames[] = { "t_push_push", "t_call_twice", "t_recurse", "t_call_next_pop",
						   "t_end4_direct", "t_endbr_long" };
	static const char *const with_calls[] = { "t_call_last", "t_call_twice", "t_call_indirect", "t_call_memory",
						  "t_call_stack_operand" };
	struct instructions list = code_decode((uintptr_t)t_call_callback, (uintptr_t)t_call_callback_end);
	int policy = *(const int *)argument;

	REQUIRE_OK(patch_init(NULL, 0));
	for (size_t n = 0; n < sizeof(with_frames) / sizeof(with_frames[0]); n++) {
		from_procedures(target_named(with_frames[n]), policy, PATCH_REGS_ALL);
		from_procedures(target_named(with_frames[n]), policy, PATCH_REGS_GP_ONLY);
	}
	for (size_t n = 0; n < sizeof(with_calls) / sizeof(with_calls[0]); n++)
		from_callee(target_named(with_calls[n]), policy);
	for (unsigned int n = 0; n < list.count; n++) {
		static struct recorder recorder;
		static const struct target none;
		patch_t patch;

		CONTEXT("t_call_callback+%#zx, %s", (size_t)(list.address[n] - list.address[0]), policy_name(policy));
		recorder_init(&recorder, &none, list.address[n]);
		REQUIRE_OK(make_probe(list.address[n], recorder_procedure, &recorder, policy, PATCH_ENABLED, &patch));
		CHECK_OK(patch_commit());
		reset();
		wanted_self = (uintptr_t)t_call_callback;
		CHECK_EQ(callback_caller(), 77);
		CHECK_EQ(hits, 1);
		CHECK_EQ(recorder.hits, 1);
		CHECK_EQ(missing_self, 0);
		CHECK(has((uintptr_t)callback_caller));
		CHECK_OK(patch_unmake(patch));
		CHECK_OK(patch_commit());
	}
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	/* without patches, so that a failure below is ours */
	wanted_self = (uintptr_t)t_call_callback;
	if (callback_caller() != 77 || hits != 1 || !has((uintptr_t)callback_caller) || missing_self)
		SKIP("no backtrace here, not even without patches");
	for (int policy = PATCH_TRAP_POLICY_ALLOW; policy <= PATCH_TRAP_POLICY_FORCE; policy += 2)
		harness_isolated(policy_name(policy), at_each_instruction, &policy);
	return harness_end();
}
