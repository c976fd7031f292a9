/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Trap bytes may raise SIGILL. The handler for it is in place before the first of them, and a host that interposes
 * sigaction() is not asked: it may take its time, or call code that is patched. Its own handler stays known.
 */
#include "targets.h"

#include <dlfcn.h>

uint64_t window(uint64_t a), enter_boundary(uint64_t a);
extern uint8_t window_boundary[], window_end[];

/* Four bytes, then more: the boundary lies on the top byte of the jump's displacement. */
__asm__(".text\n.p2align 6, 0xcc\n"
	".globl window\n.type window, @function\nwindow:\n.cfi_startproc\n lea 0x10(%rdi), %rax\n"
	".globl window_boundary\nwindow_boundary: add $0x1000, %rax\n ret\n.cfi_endproc\n"
	".globl window_end\nwindow_end:\n.size window, . - window\n"
	".globl enter_boundary\nenter_boundary: mov %rdi, %rax\n jmp window_boundary\n");

static _Atomic unsigned int hits, host_traps, asked;
static bool armed;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

static void on_host_trap(int signo, siginfo_t *info, void *context)
{
	(void)signo;
	(void)info;
	((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2; /* ud2 */
	if (++host_traps > 10)
		_exit(1);
}

/* The host's, in front of libc's. */
__attribute__((visibility("default"))) int sigaction(int signo, const struct sigaction *action, struct sigaction *old)
{
	static int (*next)(int signo, const struct sigaction *action, struct sigaction *old);

	if (!next)
		*(void **)&next = dlsym(RTLD_NEXT, "sigaction");
	asked += armed;
	return next(signo, action, old);
}

/* Take what displacements with int3 as their top byte lead to: trap bytes of the SIGILL class are left. */
static bool crowd(void)
{
	uintptr_t lower = ((uintptr_t)window & ~0xfffUL) - 0x34000000 - 0x100000;
	size_t size = 0x1000000 + 0x200000;

	return mmap((void *)lower, size, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_NORESERVE, -1, 0) == (void *)lower;
}

static void in_place(void *argument)
{
	struct text_copy before = text_save((uintptr_t)window, (size_t)(window_end - (uint8_t *)(uintptr_t)window));
	struct sigaction action;
	patch_t patch;

	(void)argument;
	alarm(30); /* ours taken for the host's, a ud2 is executed again and again */
	if (!crowd())
		SKIP("the addresses for int3 as top byte are not free");
	memset(&action, 0, sizeof(action));
	action.sa_sigaction = on_host_trap;
	action.sa_flags = SA_SIGINFO;
	REQUIRE(sigaction(SIGILL, &action, NULL) == 0);
	armed = true;
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)window, procedure, NULL, PATCH_TRAP_POLICY_FORBID, PATCH_ENABLED, &patch));
	CHECK_OK(patch_commit());
	armed = false;
	CHECK_EQ(asked, 0);
	/* the test is about what it says it is about */
	CHECK(*window_boundary != 0xcc);
	CHECK(*window_boundary != before.bytes[4]);
	CHECK_EQ(window(2), 0x1012);
	CHECK_EQ(enter_boundary(2), 0x1002);
	CHECK_EQ(hits, 1);
	CHECK_EQ(host_traps, 0);
	__asm__ volatile("ud2");
	CHECK_EQ(host_traps, 1);
	CHECK_OK(patch_fini());
	CHECK_TEXT_SAME(&before);
	__asm__ volatile("ud2");
	CHECK_EQ(host_traps, 2);
}

int main(void)
{
	harness_start();
	harness_isolated("in place", in_place, NULL);
	return harness_end();
}
