/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A procedure calls the function it probes, and others that are probed: they run unprobed and return the right
 * result; nothing recurses. Behind the procedure, and after a longjmp out of one, probes work as before.
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

int main(void)
{
	static const char *const names[] = { "t_push_push", "t_loop_to_second", "t_call_last", "t_recurse",
					     "t_call_twice", "t_end_last", "t_switch", "t_redzone" };

	harness_start();
	for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++)
		harness_isolated(names[n], nest, (void *)target_named(names[n]));
	return harness_end();
}
