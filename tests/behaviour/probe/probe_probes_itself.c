/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A procedure calls the function it probes, and others that are probed: they run unprobed and return the right result;
 * nothing recurses. Behind the procedure, and after a longjmp out of one, probes work as before: at once where the
 * stack is as deep as then, or so little deeper that no procedure can be running there; deeper from the first one on.
 */
#include "targets.h"

#include <setjmp.h>

static unsigned int calls, depth, deepest, wrong;
static const struct target *self, *other;
static jmp_buf out_of_procedure;
static bool jump_out;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	calls++;
	if (++depth > deepest)
		deepest = depth;
	if (depth > 8)
		_exit(1);
	if (self->function(5, 7) != self->model(5, 7))
		wrong++;
	if (other->function(6, 9) != other->model(6, 9))
		wrong++;
	depth--;
	if (jump_out)
		longjmp(out_of_procedure, 1);
}

static void nest(void *argument)
{
	struct instructions list;
	unsigned int before;
	patch_t patch;

	self = argument;
	other = target_named(strcmp(self->name, "t_recurse") ? "t_recurse" : "t_call_last");
	REQUIRE_OK(patch_init(NULL, 0));
	for (int which = 0; which < 2; which++) {
		list = target_decode(which ? other : self);
		for (unsigned int n = 0; n < list.count; n++)
			if (make_probe(list.address[n], procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED,
				       &patch) != PATCH_OK)
				FAIL("make: %s", harness_last_error());
	}
	CHECK_OK(patch_commit());
	CHECK_EQ(self->function(5, 7), self->model(5, 7));
	CHECK(calls > 0);
	CHECK_EQ(deepest, 1);
	CHECK_EQ(wrong, 0);
	before = calls;
	CHECK_EQ(self->function(5, 7), self->model(5, 7));
	CHECK_EQ(calls, 2 * before);
	for (volatile int round = 0; round < 3; round++) {
		depth = 0;
		jump_out = true;
		if (setjmp(out_of_procedure) == 0) {
			self->function(5, 7);
			FAIL("no procedure jumped out");
		}
		jump_out = false;
		depth = 0;
		calls = 0;
		CHECK_EQ(self->function(5, 7), self->model(5, 7));
		CHECK_EQ(calls, before);
		CHECK_EQ(deepest, 1);
	}
	CHECK_OK(patch_fini());
	CHECK_EQ(self->function(5, 7), self->model(5, 7));
}

static void count_and_jump(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	calls++;
	if (jump_out)
		longjmp(out_of_procedure, 1);
}

/* With `bytes` more of the stack in use, and overwritten: a frame left there is gone. */
static NOINLINE uint64_t call_deeper(size_t bytes)
{
	volatile uint8_t *room = __builtin_alloca(bytes);

	memset((void *)room, 0xa5, bytes);
	return self->function(5, 7) + room[bytes / 2] - 0xa5;
}

static NOINLINE void leave_procedure_at(size_t bytes)
{
	jump_out = true;
	if (setjmp(out_of_procedure) == 0) {
		call_deeper(bytes);
		FAIL("no procedure jumped out");
	}
	jump_out = false;
}

/* Out of a procedure that was this deep, then probes at every depth. */
static void jump_out_then_deeper(void *argument)
{
	static const size_t depths[] = { 16, 64, 256, 448, 1024, 4096, 65536 };
	/* less than what a running procedure and its call have between them: leave_procedure_at() takes some, too */
	static const size_t little[] = { 96, 160, 240, 320 };
	const size_t count = sizeof(depths) / sizeof(depths[0]);
	patch_t patch;

	self = argument;
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(
		make_probe(target_start(self), count_and_jump, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
	CHECK_OK(patch_commit());
	for (volatile size_t left = 0; left < count; left++) {
		for (volatile size_t first = 0; first <= left; first++) {
			CONTEXT("%s, left at depth %zu, first at %zu", self->name, depths[left], depths[first]);
			leave_procedure_at(depths[left]);
			calls = 0;
			CHECK_EQ(call_deeper(depths[first]), self->model(5, 7));
			CHECK_EQ(calls, 1);
			for (size_t n = 0; n < count; n++)
				CHECK_EQ(call_deeper(depths[n]), self->model(5, 7));
			CHECK_EQ(calls, 1 + count);
		}
		for (volatile size_t n = 0; n < sizeof(little) / sizeof(little[0]); n++) {
			CONTEXT("%s, left at depth %zu, then %zu deeper", self->name, depths[left], little[n]);
			leave_procedure_at(depths[left]);
			calls = 0;
			CHECK_EQ(call_deeper(depths[left] + little[n]), self->model(5, 7));
			CHECK_EQ(calls, 1);
		}
		/* the other way round some may be passed over, but none for ever, and no result is wrong */
		leave_procedure_at(depths[left]);
		for (size_t n = count; n-- > 0;)
			CHECK_EQ(call_deeper(depths[n]), self->model(5, 7));
		calls = 0;
		for (size_t n = 0; n < count; n++)
			CHECK_EQ(call_deeper(depths[n]), self->model(5, 7));
		CHECK_EQ(calls, count);
	}
	CHECK_OK(patch_fini());
}

int main(void)
{
	static const char *const deeper[] = { "t_push_push", "t_end4_direct", "t_five_bytes" };
	static const char *const names[] = { "t_push_push", "t_loop_to_second", "t_call_last", "t_recurse",
					     "t_call_twice", "t_end_last", "t_switch", "t_redzone" };

	harness_start();
	for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++)
		harness_isolated(names[n], nest, (void *)target_named(names[n]));
	for (size_t n = 0; n < sizeof(deeper) / sizeof(deeper[0]); n++)
		harness_isolated(deeper[n], jump_out_then_deeper, (void *)target_named(deeper[n]));
	return harness_end();
}
