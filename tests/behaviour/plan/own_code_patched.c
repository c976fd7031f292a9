/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Patching libpatch or Zydis is refused with PATCH_EPROTECTED, whatever the policy. So is the code that signal
 * handlers return through: a trap there would be met on the way out of its own handler, for ever. No window from in
 * front takes it in.
 */
#include "targets.h"

#include <dlfcn.h>
#include <libpatch/tools.h>
#include <sys/syscall.h>

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static void refuse(const char *name, uintptr_t address)
{
	patch_t patch = NULL;

	for (int policy = PATCH_TRAP_POLICY_ALLOW; policy <= PATCH_TRAP_POLICY_FORCE; policy++) {
		CONTEXT("%s, %s", name, policy_name(policy));
		CHECK_STATUS(make_probe(address, procedure, NULL, policy, PATCH_ENABLED, &patch), PATCH_EPROTECTED);
		CHECK_OK(patch_commit());
	}
}

static void on_signal(int signo)
{
	(void)signo;
}

/* mov rax, 15; syscall */
#define RESTORER_SYSCALL 7
/* From where a window of a jump could run into it. */
#define IN_FRONT 16

static uintptr_t restorer(void)
{
	struct {
		void *handler;
		unsigned long flags;
		void *restorer;
		uint64_t mask;
	} action = { 0 };

	/* The one that libc has for all handlers. */
	REQUIRE(signal(SIGUSR1, on_signal) != SIG_ERR);
	REQUIRE(syscall(SYS_rt_sigaction, SIGUSR1, NULL, &action, sizeof(action.mask)) == 0);
	return (uintptr_t)action.restorer;
}

static void refuse_restorer(void)
{
	uintptr_t address = restorer();
	unsigned int made = 0;

	REQUIRE(address != 0);
	refuse("restorer", address);
	refuse("restorer's system call", address + RESTORER_SYSCALL);
	/*
	 * Whatever there is in front, padding as a rule: of a trap only the first byte changes, a jump ends in front of
	 * it.
	 */
	for (uintptr_t back = 1; back <= IN_FRONT; back++) {
		for (int policy = PATCH_TRAP_POLICY_ALLOW; policy <= PATCH_TRAP_POLICY_FORBID; policy++) {
			struct patch_info info;
			patch_t patch;

			CONTEXT("%lu in front of the restorer, %s", (unsigned long)back, policy_name(policy));
			if (make_probe(address - back, procedure, NULL, policy, PATCH_DISABLED, &patch) != PATCH_OK)
				continue;
			made++;
			CHECK_OK(patch_info(patch, &info, sizeof(info)));
			CHECK(info.strategy == PATCH_STRATEGY_TRAP || info.upper <= address);
			CHECK_OK(patch_unmake(patch));
			CHECK_OK(patch_commit());
		}
	}
	CONTEXT("in front of the restorer");
	CHECK(made > 0);
}

int main(void)
{
	static const char *const symbols[] = { "patch_commit", "patch_make", "libpatch_on_trap", "patch_last_error",
					       "ZydisDecoderDecodeFull" };
	unsigned int found = 0;
	int status;

	harness_start();
	REQUIRE_OK(patch_init(NULL, 0));
	for (size_t n = 0; n < sizeof(symbols) / sizeof(symbols[0]); n++) {
		void *address = dlsym(RTLD_DEFAULT, symbols[n]);

		if (!address)
			continue;
		found++;
		refuse(symbols[n], (uintptr_t)address);
	}
	CHECK(found >= 4);
	refuse_restorer();
	status = PATCH_OK;
	CHECK_EQ(status, patch_commit());
	CHECK_OK(patch_fini());
	return harness_end();
}
