/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The handler for SIGILL is installed when the first plan needs it, outside the library lock, through sigaction(),
 * which a host may interpose and take its time in. A commit by another thread meanwhile must not write trap bytes that
 * raise SIGILL before the handler is in place. The host's own handler stays known, however many threads install ours.
 */
#include "targets.h"

#include <dlfcn.h>
#include <pthread.h>

uint64_t window(uint64_t a), enter_boundary(uint64_t a);
extern uint8_t window_boundary[], window_end[];

/* Four bytes, then more: the boundary lies on the top byte of the jump's displacement. */
__asm__(".text\n.p2align 6, 0xcc\n"
	".globl window\n.type window, @function\nwindow:\n.cfi_startproc\n lea 0x10(%rdi), %rax\n"
	".globl window_boundary\nwindow_boundary: add $0x1000, %rax\n ret\n.cfi_endproc\n"
	".globl window_end\nwindow_end:\n.size window, . - window\n"
	".globl enter_boundary\nenter_boundary: mov %rdi, %rax\n jmp window_boundary\n");

static _Atomic unsigned int hits, host_traps, hold_ups, commits_ahead;
static bool armed, hold_query;

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

static void *commit_ahead(void *argument)
{
	(void)argument;
	commits_ahead++;
	CHECK_OK(patch_commit());
	CHECK_EQ(enter_boundary(1), 0x1001);
	CHECK_EQ(window(1), 0x1011);
	return NULL;
}

/* The host's, in front of libc's. */
__attribute__((visibility("default"))) int sigaction(int signo, const struct sigaction *action, struct sigaction *old)
{
	static int (*next)(int signo, const struct sigaction *action, struct sigaction *old);
	pthread_t thread;

	if (!next)
		*(void **)&next = dlsym(RTLD_NEXT, "sigaction");
	if (armed && signo == SIGILL && !action == hold_query && hold_ups++ == 0) {
		REQUIRE(pthread_create(&thread, NULL, commit_ahead, NULL) == 0);
		pthread_join(thread, NULL);
	}
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

static void held_up(void *argument)
{
	struct text_copy before = text_save((uintptr_t)window, (size_t)(window_end - (uint8_t *)(uintptr_t)window));
	struct sigaction action;
	patch_t patch;

	hold_query = *(const bool *)argument;
	alarm(30); /* ours taken for the host's, a ud2 is executed again and again */
	if (!crowd())
		SKIP("the addresses for int3 as top byte are not free");
	memset(&action, 0, sizeof(action));
	action.sa_sigaction = on_host_trap;
	action.sa_flags = SA_SIGINFO;
	REQUIRE(sigaction(SIGILL, &action, NULL) == 0);
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)window, procedure, NULL, PATCH_TRAP_POLICY_FORBID, PATCH_ENABLED, &patch));
	armed = true;
	CHECK_OK(patch_commit());
	armed = false;
	CHECK_EQ(commits_ahead, 1);
	/* the test is about what it says it is about */
	CHECK(*window_boundary != 0xcc);
	CHECK(*window_boundary != before.bytes[4]);
	CHECK_EQ(hits, 1);
	CHECK_EQ(window(2), 0x1012);
	CHECK_EQ(enter_boundary(2), 0x1002);
	CHECK_EQ(hits, 2);
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
	bool hold = false;

	harness_start();
	harness_isolated("held up installing ours", held_up, &hold);
	hold = true;
	harness_isolated("held up asking for the host's handler", held_up, &hold);
	return harness_end();
}
