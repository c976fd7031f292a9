/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A procedure switches to another stack, above or below its own, as a coroutine or a handler on an alternate stack
 * does, and calls the probed function there: it is passed over as on its own stack. Behind it, probes work again on
 * either stack.
 */
#include "targets.h"

static uint8_t *stacks[2];
static unsigned int calls, depth, deepest, wrong;
static int home;
static bool by_signal, leave_stack;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	struct machine_state state;

	(void)context;
	(void)post;
	calls++;
	if (++depth > deepest)
		deepest = depth;
	if (depth == 1 && leave_stack) {
		if (by_signal) {
			/* Others are put off until the procedure has returned. */
			raise(SIGABRT);
		} else {
			machine_call(t_push_push, 5, 7, stacks[!home], &state, 0x202);
			wrong += state.registers[PATCH_X86_64_RAX] != 19;
		}
	}
	depth--;
}

static void on_abort(int signo)
{
	(void)signo;
	wrong += t_push_push(5, 7) != 19;
}

int main(void)
{
	struct machine_state state;
	struct sigaction action;
	uint8_t *memory;
	patch_t patch;
	stack_t stack;

	harness_start();
	memory = machine_stack();
	stacks[0] = memory;
	stacks[1] = machine_stack();
	if (stacks[0] > stacks[1]) {
		stacks[0] = stacks[1];
		stacks[1] = memory;
	}
	memset(&action, 0, sizeof(action));
	action.sa_handler = on_abort;
	action.sa_flags = SA_ONSTACK;
	REQUIRE(sigaction(SIGABRT, &action, NULL) == 0);
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
	CHECK_OK(patch_commit());
	for (int round = 0; round < 8; round++) {
		home = round & 1;
		by_signal = round & 2;
		CONTEXT("%s, from the %s stack", by_signal ? "a handler on an alternate stack" : "a stack switch",
			home ? "upper" : "lower");
		/* the handler's stack is the other one */
		memset(&stack, 0, sizeof(stack));
		stack.ss_sp = stacks[!home] - MACHINE_STACK_SIZE;
		stack.ss_size = MACHINE_STACK_SIZE;
		REQUIRE(sigaltstack(&stack, NULL) == 0);
		calls = deepest = 0;
		leave_stack = true;
		machine_call(t_push_push, 5, 7, stacks[home], &state, 0x202);
		CHECK_EQ(state.registers[PATCH_X86_64_RAX], 19);
		CHECK_EQ(deepest, 1);
		CHECK_EQ(calls, 1);
		leave_stack = false;
		calls = 0;
		machine_call(t_push_push, 5, 7, stacks[!home], &state, 0x202);
		CHECK_EQ(calls, 1);
		CHECK_EQ(t_push_push(5, 7), 19);
		CHECK_EQ(calls, 2);
	}
	CHECK_EQ(wrong, 0);
	CHECK_OK(patch_fini());
	return harness_end();
}
