/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A load faults inside displaced code: the program's SIGSEGV handler is shown the original instruction, repairs the
 * register and returns. Wherever in the window the load is. patch_olx_original_pc() gets from generated code to the
 * original instruction; addresses near generated code where there is none are refused, without a fault.
 */
#include "targets.h"

static uint64_t word = 0x4711;
static unsigned int hits, faults;
static uintptr_t fault_rip;

static GP_ONLY void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

static void on_segv(int signo, siginfo_t *info, void *context)
{
	greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;

	(void)signo;
	(void)info;
	if (++faults > 1)
		_exit(1);
	fault_rip = (uintptr_t)registers[REG_RIP];
	registers[REG_RDI] = (greg_t)(uintptr_t)&word;
}

static void fault_at(void *argument)
{
	int policy = *(const int *)argument;
	struct instructions list = code_decode((uintptr_t)t_load, (uintptr_t)t_load_end);
	struct sigaction action;
	uintptr_t pc;
	patch_t patch;

	REQUIRE_OK(patch_init(NULL, 0));
	memset(&action, 0, sizeof(action));
	action.sa_sigaction = on_segv;
	action.sa_flags = SA_SIGINFO;
	REQUIRE(sigaction(SIGSEGV, &action, NULL) == 0);
	for (unsigned int n = 0; n < list.count; n++) {
		struct patch_info info;

		CONTEXT("t_load+%#zx, %s", (size_t)(list.address[n] - list.address[0]), policy_name(policy));
		REQUIRE_OK(make_probe(list.address[n], procedure, NULL, policy, PATCH_ENABLED, &patch));
		CHECK_OK(patch_commit());
		hits = faults = 0;
		CHECK_EQ(t_load((const uint64_t *)8), word);
		CHECK_EQ(faults, 1);
		CHECK_EQ(hits, 1);
		CHECK_EQ(fault_rip, (uintptr_t)t_load_site);
		/* any address of a trampoline stands for one of its instructions */
		CHECK_OK(patch_info(patch, &info, sizeof(info)));
		pc = 0;
		CHECK_OK(patch_olx_original_pc(info.trampoline, &pc));
		CHECK(pc >= info.lower && pc < info.upper);
		CHECK_OK(patch_unmake(patch));
		CHECK_OK(patch_commit());
	}
	CHECK_STATUS(patch_olx_original_pc((uintptr_t)t_load_site, &pc), PATCH_ENEXIST);
	CHECK_STATUS(patch_olx_original_pc((uintptr_t)&word, &pc), PATCH_ENEXIST);
	CHECK_OK(patch_fini());
}

/* Every address from well before the code to well behind it: what no code was put at yet stands for nothing. */
static void every_address(void *argument)
{
	const uintptr_t around = 0x60000;
	struct patch_info info;
	patch_t patch;

	(void)argument;
	REQUIRE_OK(patch_init(NULL, 0));
	for (int made = 0; made < 2; made++) {
		REQUIRE_OK(make_probe((uintptr_t)(made ? t_five_bytes : t_push_push), procedure, NULL,
				      PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
		CHECK_OK(patch_info(patch, &info, sizeof(info)));
		/* the code is written by the commit */
		for (int committed = 0; committed < 2; committed++) {
			unsigned int code = 0;

			for (uintptr_t at = info.trampoline - around; at < info.trampoline + around; at++) {
				uintptr_t pc = 0;

				if (patch_olx_original_pc(at, &pc) != PATCH_OK)
					continue;
				code++;
				if ((pc < (uintptr_t)t_push_push || pc >= (uintptr_t)t_push_push + 64) &&
				    (pc < (uintptr_t)t_five_bytes || pc >= (uintptr_t)t_five_bytes + 64)) {
					FAIL("%#zx, %zd behind the entry, stands for %#zx", (size_t)at,
					     (ssize_t)(at - info.trampoline), (size_t)pc);
					return;
				}
			}
			CONTEXT("%s, %s", made ? "t_five_bytes" : "t_push_push",
				committed ? "committed" : "not committed");
			CHECK(!committed || code > 0);
			CHECK_OK(patch_commit());
		}
	}
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	harness_isolated("addresses without code", every_address, NULL);
	for (int policy = PATCH_TRAP_POLICY_ALLOW; policy <= PATCH_TRAP_POLICY_FORCE; policy += 2)
		harness_isolated(policy_name(policy), fault_at, &policy);
	return harness_end();
}
