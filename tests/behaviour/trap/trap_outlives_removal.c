/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A thread has taken a trap of ours, and before its handler looks at it the patch is removed. The thread executes what
 * is there now: an ordinary instruction runs on; a ud2 of the program raises its SIGILL at its address, once, and is
 * neither taken for our SIGTRAP nor executed again and again. Through int3 and, where addresses can be arranged,
 * through a trap byte of the SIGILL class.
 */
#include "targets.h"

#include "base/inject.h"

uint64_t plain(uint64_t a), dies(uint64_t a), dies_inside(uint64_t a);
uint64_t enter_plain_second(uint64_t a), enter_dies_second(uint64_t a);
extern uint8_t plain_second[], plain_end[], dies_end[], dies_second[], dies_inside_end[];

__asm__(".text\n.p2align 6, 0xcc\n"
	/* four bytes, then more: the boundary lies on the top byte of the jump's displacement */
	".globl plain\n.type plain, @function\nplain:\n.cfi_startproc\n lea 0x10(%rdi), %rax\n"
	".globl plain_second\nplain_second: add $0x1000, %rax\n ret\n.cfi_endproc\n"
	".globl plain_end\nplain_end:\n.size plain, . - plain\n"
	".globl enter_plain_second\nenter_plain_second: mov %rdi, %rax\n jmp plain_second\n"
	".p2align 6, 0xcc\n"
	".globl dies\n.type dies, @function\ndies:\n.cfi_startproc\n ud2\n lea 0x10(%rdi), %rax\n ret\n.cfi_endproc\n"
	".globl dies_end\ndies_end:\n.size dies, . - dies\n"
	".p2align 6, 0xcc\n"
	".globl dies_inside\n.type dies_inside, @function\ndies_inside:\n.cfi_startproc\n lea 0x10(%rdi), %rax\n"
	".globl dies_second\ndies_second: ud2\n add $0x1000, %rax\n ret\n.cfi_endproc\n"
	".globl dies_inside_end\ndies_inside_end:\n.size dies_inside, . - dies_inside\n"
	".globl enter_dies_second\nenter_dies_second: mov %rdi, %rax\n jmp dies_second\n");

static patch_t patch;
static bool armed;
static patch_status status_of_removal;
static unsigned int hits, traps, removals;
static struct {
	unsigned int calls;
	int signo;
	uintptr_t rip, address;
} got;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

static uintptr_t original;

/* The program's. */
static void on_own(int signo, siginfo_t *info, void *context)
{
	greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;

	got.calls++;
	got.signo = signo;
	got.rip = (uintptr_t)registers[REG_RIP];
	got.address = (uintptr_t)info->si_addr;
	/* the displaced ud2, as long as libpatch does not own SIGILL */
	if (patch_olx_original_pc(got.rip, &original) != PATCH_OK)
		original = got.rip;
	registers[REG_RIP] = (greg_t)(original + 2);
}

static int remove_at_trap(enum inject_point point)
{
	if (point != INJECT_TRAP)
		return 0;
	if (++traps > 10) {
		harness_say("the same trap comes again and again\n");
		_exit(1);
	}
	if (armed) {
		armed = false;
		removals++;
		if (patch_disable(patch) == PATCH_OK)
			status_of_removal = patch_commit();
	}
	return 0;
}

static void prepare(uintptr_t address, int policy)
{
	struct sigaction action;

	memset(&action, 0, sizeof(action));
	action.sa_sigaction = on_own;
	action.sa_flags = SA_SIGINFO;
	REQUIRE(sigaction(SIGTRAP, &action, NULL) == 0);
	REQUIRE(sigaction(SIGILL, &action, NULL) == 0);
	REQUIRE_OK(patch_init(NULL, 0));
	libpatch_inject = remove_at_trap;
	REQUIRE_OK(make_probe(address, procedure, NULL, policy, PATCH_ENABLED, &patch));
	REQUIRE_OK(patch_commit());
	status_of_removal = PATCH_BUG;
}

static void of_plain(void *argument)
{
	struct text_copy before = text_save((uintptr_t)plain, (uintptr_t)plain_end - (uintptr_t)plain);

	(void)argument;
	prepare((uintptr_t)plain, PATCH_TRAP_POLICY_FORCE);
	for (int round = 0; round < 3; round++) {
		CHECK_EQ(plain(1), 0x1011);
		CHECK_EQ(hits, 1);
		traps = hits = 0;
		armed = true;
		CHECK_EQ(plain(2), 0x1012);
		CHECK_EQ(status_of_removal, PATCH_OK);
		CHECK_EQ(removals, round + 1);
		CHECK_EQ(hits, 0);
		CHECK_EQ(traps, 1);
		CHECK_TEXT_SAME(&before);
		CHECK_OK(patch_enable(patch));
		CHECK_OK(patch_commit());
		traps = 0;
	}
	CHECK_EQ(got.calls, 0);
	CHECK_OK(patch_fini());
}

/* Take what displacements with int3 as their top byte lead to: trap bytes of the SIGILL class are left. */
static bool crowd(void)
{
	uintptr_t lower = ((uintptr_t)plain & ~0xfffUL) - 0x34000000 - 0x100000;

	if (mmap((void *)lower, 0x1200000, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | MAP_NORESERVE,
		 -1, 0) == (void *)lower)
		return true;
	harness_say("not tried, the addresses for int3 as top byte are not free\n");
	return false;
}

/* The trap byte is the top byte of a displacement, of the SIGILL class. */
static void of_boundary(void *argument)
{
	struct text_copy before = text_save((uintptr_t)plain, (uintptr_t)plain_end - (uintptr_t)plain);

	(void)argument;
	if (!crowd())
		return;
	prepare((uintptr_t)plain, PATCH_TRAP_POLICY_FORBID);
	CHECK(*plain_second != 0xcc);
	CHECK_EQ(enter_plain_second(1), 0x1001);
	CHECK_EQ(traps, 1);
	armed = true;
	CHECK_EQ(enter_plain_second(2), 0x1002);
	CHECK_EQ(status_of_removal, PATCH_OK);
	CHECK_EQ(removals, 1);
	CHECK_EQ(traps, 2);
	CHECK_TEXT_SAME(&before);
	CHECK_EQ(got.calls, 0);
	CHECK_OK(patch_fini());
}

static void check_own(unsigned int calls, uintptr_t address)
{
	CHECK_EQ(got.calls, calls);
	CHECK_EQ(got.signo, SIGILL);
	CHECK_EQ(got.rip, address);
	CHECK_EQ(got.address, address);
}

/* A ud2 behind another instruction, under a trap byte of the class that it is itself of. */
static void of_ud2_on_boundary(void *argument)
{
	struct text_copy before =
		text_save((uintptr_t)dies_inside, (uintptr_t)dies_inside_end - (uintptr_t)dies_inside);

	(void)argument;
	if (!crowd())
		return;
	prepare((uintptr_t)dies_inside, PATCH_TRAP_POLICY_FORBID);
	CHECK(*dies_second != 0xcc && *dies_second != 0x0f);
	CHECK_EQ(dies_inside(1), 0x1011);
	CHECK_EQ(hits, 1);
	CHECK_EQ(got.calls, 1);
	CHECK_EQ(got.rip, (uintptr_t)dies_second);
	memset(&got, 0, sizeof(got));
	traps = 0;
	armed = true;
	CHECK_EQ(enter_dies_second(2), 0x1002);
	CHECK_EQ(status_of_removal, PATCH_OK);
	check_own(1, (uintptr_t)dies_second);
	CHECK_TEXT_SAME(&before);
	traps = 0;
	CHECK_EQ(dies_inside(3), 0x1013);
	check_own(2, (uintptr_t)dies_second);
	CHECK_OK(patch_fini());
}

/* owned: by another patch, libpatch's handler is the one that SIGILL goes to. */
static void of_ud2(void *argument)
{
	struct text_copy before = text_save((uintptr_t)dies, (uintptr_t)dies_end - (uintptr_t)dies);
	bool owned = *(const bool *)argument;
	patch_t other;

	if (owned && !crowd())
		return;
	prepare((uintptr_t)dies, PATCH_TRAP_POLICY_FORCE);
	if (owned) {
		REQUIRE_OK(
			make_probe((uintptr_t)plain, procedure, NULL, PATCH_TRAP_POLICY_FORBID, PATCH_ENABLED, &other));
		REQUIRE_OK(patch_commit());
	}
	for (int round = 0; round < 3; round++) {
		memset(&got, 0, sizeof(got));
		CHECK_EQ(dies(1), 0x11);
		CHECK_EQ(got.calls, 1);
		CHECK_EQ(got.signo, SIGILL);
		CHECK_EQ(original, (uintptr_t)dies);
		CHECK_EQ(hits, 1);

		memset(&got, 0, sizeof(got));
		traps = hits = 0;
		armed = true;
		CHECK_EQ(dies(2), 0x12);
		CHECK_EQ(status_of_removal, PATCH_OK);
		CHECK_EQ(removals, round + 1);
		CHECK_EQ(hits, 0);
		check_own(1, (uintptr_t)dies);
		CHECK_TEXT_SAME(&before);
		/* long after the removal */
		CHECK_EQ(dies(3), 0x13);
		check_own(2, (uintptr_t)dies);
		CHECK_OK(patch_enable(patch));
		CHECK_OK(patch_commit());
		traps = 0;
	}
	CHECK_OK(patch_fini());
}

int main(void)
{
	bool owned = true, not_owned = false;

	harness_start();
	harness_isolated("int3, ordinary instruction", of_plain, NULL);
	harness_isolated("boundary, SIGILL", of_boundary, NULL);
	harness_isolated("int3, ud2 of the program", of_ud2, &not_owned);
	harness_isolated("int3, ud2 of the program, SIGILL ours, too", of_ud2, &owned);
	harness_isolated("boundary, ud2 of the program", of_ud2_on_boundary, NULL);
	return harness_end();
}
