/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Code that works only at its own address is refused: a restartable sequence from the instruction that registers it to
 * the one that commits, the signature in front of its abort handler, and a system call that is a cancellation point. No
 * window of a neighbour runs into them either, from the front or from behind.
 */
#include "harness.h"

extern uint8_t sequence[], sequence_registers[], sequence_start[], sequence_commit[], sequence_post[], sequence_abort[],
	sequence_end[];
extern uint8_t signature_insn[], call_point[], call_point_syscall[], call_point_end[], call_point_behind[];

__asm__(".pushsection __rseq_cs, \"aw\"\n .balign 32\n"
	"descriptor: .long 0, 0\n .quad sequence_start, sequence_post - sequence_start, sequence_abort\n .popsection\n"
	".text\n .p2align 6, 0xcc\n"
	".globl sequence\n.type sequence, @function\nsequence:\n.cfi_startproc\n"
	" nopl 0(%rax)\n nopl 0(%rax)\n nopl 0(%rax)\n nopl 0(%rax)\n" /* 4 bytes each */
	" lea descriptor(%rip), %rax\n"                                /* 7 */
	".globl sequence_registers\nsequence_registers: mov %rax, 8(%rdi)\n"
	".globl sequence_start\nsequence_start:\n"
	" mov (%rsi), %rax\n inc %rax\n"
	".globl sequence_commit\nsequence_commit: mov %rax, (%rsi)\n"
	".globl sequence_post\nsequence_post:\n"
	" ret\n"
	".globl signature_insn\nsignature_insn: .byte 0x0f, 0xb9, 0x3d\n .long 0x53053053\n"
	".globl sequence_abort\nsequence_abort: jmp sequence\n"
	".globl sequence_end\nsequence_end:\n.cfi_endproc\n.size sequence, . - sequence\n"
	".p2align 6, 0xcc\n"
	".globl call_point\n.type call_point, @function\ncall_point:\n.cfi_startproc\n"
	" mov (%rdi), %eax\n test $4, %al\n jne 1f\n mov %rdi, %r11\n mov %rsi, %rax\n mov %rdx, %rdi\n mov %rcx, "
	"%rsi\n"
	" mov %r8, %rdx\n mov %r9, %r10\n mov 8(%rsp), %r8\n mov 16(%rsp), %r9\n mov %r11, 8(%rsp)\n"
	".globl call_point_syscall\ncall_point_syscall: syscall\n"
	".globl call_point_end\ncall_point_end: ret\n"
	"1: .globl call_point_behind\ncall_point_behind: nop\n nop\n nop\n nop\n nop\n ret\n.cfi_endproc\n"
	".size call_point, . - call_point\n");

GP_ONLY static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static void check_refused(const uint8_t *address, const char *what)
{
	struct patch_error error;
	patch_t patch;

	CONTEXT("%s at %p", what, (const void *)address);
	for (int policy = PATCH_TRAP_POLICY_ALLOW; policy <= PATCH_TRAP_POLICY_FORCE; ++policy) {
		CHECK_STATUS(make_probe((uintptr_t)address, procedure, NULL, policy, PATCH_ENABLED, &patch),
			     PATCH_EPROTECTED);
		patch_last_error(&error);
		CHECK_MSG(strstr(error.message, what) != NULL, "%s", error.message);
	}
}

/* The window of a patch at `at`, if there can be one, keeps out of [sealed, behind). */
static bool check_window(const uint8_t *at, int policy, const uint8_t *sealed, const uint8_t *behind)
{
	struct patch_info info;
	patch_t patch;

	CONTEXT("window of %p, %s", (const void *)at, policy_name(policy));
	if (make_probe((uintptr_t)at, procedure, NULL, policy, PATCH_ENABLED, &patch) != PATCH_OK)
		return false;
	CHECK_OK(patch_info(patch, &info, sizeof(info)));
	CHECK_MSG(info.upper <= (uintptr_t)sealed || info.lower >= (uintptr_t)behind, "%#lx to %#lx",
		  (unsigned long)info.lower, (unsigned long)info.upper);
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
	return true;
}

/* Every instruction of [lower, upper), some of which can have a patch. */
static void check_kept_out(const uint8_t *lower, const uint8_t *upper, const uint8_t *sealed, const uint8_t *behind)
{
	unsigned int made = 0;

	for (const uint8_t *at = lower; at < upper; ++at) {
		made += check_window(at, PATCH_TRAP_POLICY_ALLOW, sealed, behind);
		made += check_window(at, PATCH_TRAP_POLICY_FORBID, sealed, behind);
	}
	CHECK(made > 0);
}

int main(void)
{
	harness_start();
	REQUIRE_OK(patch_init(NULL, 0));
	check_refused(sequence_registers, "restartable");
	check_refused(sequence_start, "restartable");
	check_refused(sequence_commit, "restartable");
	check_refused(signature_insn, "restartable");
	check_kept_out(sequence, sequence_start, sequence_registers, sequence_post);
	check_kept_out(sequence_post, signature_insn, sequence, sequence_post);
	check_kept_out(sequence_post, signature_insn, signature_insn, sequence_abort);
	check_kept_out(sequence_abort, sequence_end, sequence, sequence_abort);
	check_refused(call_point, "cancellation");
	check_refused(call_point_syscall, "cancellation");
	check_kept_out(call_point_end, call_point_behind + 6, call_point, call_point_end);
	return harness_end();
}
