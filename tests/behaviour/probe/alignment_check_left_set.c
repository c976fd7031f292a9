/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A program may have AC set, and DF: procedures run with both clear, as C code expects, and the program has them back
 * as they were. Each combination, with the models that call procedures, at a function's entry and within it, by jump
 * and by trap, with extended state saved and without.
 */
#include "harness.h"

#define AC 0x40000UL
#define DF 0x400UL

/* Saves the flags that the displaced instruction ran with; the second instruction is within the function. */
__asm__(".text\n.balign 16\n.type flag_function, @function\nflag_function:\n.cfi_startproc\n"
	"mov $3, %eax\nlea 4(%rax), %eax\npushfq\n.cfi_adjust_cfa_offset 8\npop %rdx\n.cfi_adjust_cfa_offset -8\nret\n"
	".cfi_endproc\n.size flag_function, . - flag_function\n");
extern uint8_t flag_function[];

static volatile unsigned int hits;
static volatile uint64_t seen, shown;
static char data[16] __attribute__((aligned(16)));

static GP_ONLY void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	/* Faults with AC set. */
	hits += 1 + *(volatile int *)(data + 1);
	seen |= __builtin_ia32_readeflags_u64();
	shown = context->status_register;
}

/* Calls the function with these flags set; returns those that it ran with, and *after, those that it left. */
static GP_ONLY uint64_t call_with(uint64_t flags, uint64_t *after)
{
	uint64_t inside;
	uint32_t result;

	__asm__ volatile("lea -128(%%rsp), %%rsp\n\t"
			 "pushfq\n\t"
			 "or %[flags], (%%rsp)\n\t"
			 "popfq\n\t"
			 "call flag_function\n\t"
			 "pushfq\n\t"
			 "mov (%%rsp), %%rcx\n\t"
			 "andq $~0x40400, (%%rsp)\n\t"
			 "popfq\n\t"
			 "lea 128(%%rsp), %%rsp"
			 : "=&a"(result), "=&d"(inside), "=&c"(*after)
			 : [flags] "r"(flags)
			 : "rsi", "rdi", "r8", "r9", "r10", "r11", "cc", "memory");
	CHECK_EQ(result, 7);
	return inside;
}

static void check(uintptr_t at, int type, int policy, uint64_t clobbers)
{
	struct patch_location location = location_at(at);
	struct patch_exec_model model = model_of(type, procedure, NULL);
	patch_attr attr = attr_of(policy, PATCH_ENABLED);
	patch_t patch;

	model.probe.clobber_registers = clobbers;
	REQUIRE_OK(patch_make(&location, &model, &attr, &patch, NULL));
	REQUIRE_OK(patch_commit());
	for (uint64_t i = 0; i < 4; i++) {
		uint64_t flags = (i & 1 ? AC : 0) | (i & 2 ? DF : 0), inside, after;

		CONTEXT("%#lx, model %d, %s, clobbers %#lx, flags %#lx", (unsigned long)(at - (uintptr_t)flag_function),
			type, policy_name(policy), (unsigned long)clobbers, (unsigned long)flags);
		hits = 0;
		seen = 0;
		inside = call_with(flags, &after);
		CHECK_EQ(hits, type == PATCH_EXEC_MODEL_PROBE ? 1 : 2);
		CHECK_EQ(seen & (AC | DF), 0);
		CHECK_EQ(shown & (AC | DF), flags);
		CHECK_EQ(inside & (AC | DF), flags);
		CHECK_EQ(after & (AC | DF), flags);
	}
	REQUIRE_OK(patch_unmake(patch));
	REQUIRE_OK(patch_commit());
}

int main(void)
{
	static const int types[] = { PATCH_EXEC_MODEL_PROBE, PATCH_EXEC_MODEL_PROBE_AROUND,
				     PATCH_EXEC_MODEL_PROBE_RETURN };
	static const uint64_t clobbers[] = { PATCH_REGS_NO_STATE, PATCH_REGS_ALL, 0 };

	harness_start();
	REQUIRE_OK(patch_init(NULL, 0));
	for (int type = 0; type < 3; type++)
		for (int within = 0; within < (types[type] == PATCH_EXEC_MODEL_PROBE_RETURN ? 1 : 2); within++)
			for (int i = 0; i < 3; i++) {
				check((uintptr_t)flag_function + 5 * within, types[type], PATCH_TRAP_POLICY_ALLOW,
				      clobbers[i]);
				if (types[type] != PATCH_EXEC_MODEL_PROBE_RETURN)
					check((uintptr_t)flag_function + 5 * within, types[type],
					      PATCH_TRAP_POLICY_FORCE, clobbers[i]);
			}
	CHECK_OK(patch_fini());
	return harness_end();
}
