/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A thread runs on a stack of its own making that has no room for a signal's frame, as those of goroutines, and has a
 * signal stack: a trap there goes to the latter, and the procedure takes what patch_make(3) says of the former.
 */
#include "targets.h"

/*
 * What the kernel saves for a handler is more: 512 bytes of FXSAVE, 576 of it for XSAVE's header and AVX, and the
 * context.
 */
#define ROOM 1536

static unsigned int hits;

GP_ONLY static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

NOINLINE static uint64_t call_on(void *top, target_function function, uint64_t a, uint64_t b)
{
	uint64_t result;

	__asm__ volatile("mov %%rsp, %%rbx\n\tmov %1, %%rsp\n\tcall *%2\n\tmov %%rbx, %%rsp"
			 : "=a"(result)
			 : "r"(top), "r"(function), "D"(a), "S"(b)
			 : "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "memory", "cc");
	return result;
}

static void on_small_stack(void *argument)
{
	static uint8_t signal_stack[1 << 16];
	stack_t other = { .ss_sp = signal_stack, .ss_size = sizeof(signal_stack) };
	struct patch_location location = location_at((uintptr_t)t_push_push);
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE, procedure, NULL);
	patch_attr attr = attr_of(*(const int *)argument, PATCH_ENABLED);
	uint8_t *stack = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	patch_t patch;

	/* Below the room there is nothing. */
	REQUIRE(stack != MAP_FAILED && mprotect(stack, 4096, PROT_NONE) == 0);
	REQUIRE(sigaltstack(&other, NULL) == 0);
	REQUIRE_OK(patch_init(NULL, 0));
	model.probe.clobber_registers = PATCH_REGS_GP_ONLY;
	REQUIRE_OK(patch_make(&location, &model, &attr, &patch, NULL));
	CHECK_OK(patch_commit());
	/* The first hook of a thread does more, once. */
	CHECK_EQ(t_push_push(1, 2), 5);
	for (unsigned int n = 1; n <= 100; n++) {
		CHECK_EQ(call_on(stack + 4096 + ROOM, t_push_push, 1, 2), 5);
		CHECK_EQ(hits, n + 1);
	}
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	for (int policy = PATCH_TRAP_POLICY_ALLOW; policy <= PATCH_TRAP_POLICY_FORCE; policy++)
		harness_isolated(policy_name(policy), on_small_stack, &policy);
	return harness_end();
}
