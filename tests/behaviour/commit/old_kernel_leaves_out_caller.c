/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Kernels before 5.10 serialise every core but that of the thread that asks for it: the library does that one itself,
 * on them and where it cannot tell, after every membarrier(); and patches work there. On later ones it costs nothing.
 */
#include "targets.h"

#include "seccomp.h"
#include "sys/membarrier.h"

#include <sys/utsname.h>

static const struct release {
	const char *name; /* NULL: uname() is refused */
	bool serialises;
} releases[] = {
	{ "4.19.0-27-amd64", true }, { "5.9.16", true },          { "5.10.0-33-amd64", true }, { "5.11.0", false },
	{ "5.15.0-91-generic", false }, { "6.1.0-18-amd64", false }, { "10.0", false },        { "next", true },
	{ "5", true },               { NULL, true },
};

static const char *pretended;
static volatile unsigned int steps, serialised;
static unsigned int hits;

/* Answers uname(). */
static void on_sigsys(int signo, siginfo_t *info, void *data)
{
	ucontext_t *context = data;
	struct utsname *name = (struct utsname *)context->uc_mcontext.gregs[REG_RDI];

	(void)signo;
	(void)info;
	if (!pretended) {
		context->uc_mcontext.gregs[REG_RAX] = -EPERM;
		return;
	}
	memset(name, 0, sizeof(*name));
	memcpy(name->release, pretended, strlen(pretended) + 1);
	context->uc_mcontext.gregs[REG_RAX] = 0;
}

static void pretend(const char *name)
{
	struct sigaction action = { .sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO };

	pretended = name;
	REQUIRE(sigaction(SIGSYS, &action, NULL) == 0);
	REQUIRE(filter_call(SYS_uname, SECCOMP_RET_TRAP, 0) == 0);
}

/* Single steps: is the next instruction cpuid? */
static void on_step(int signo, siginfo_t *info, void *data)
{
	const ucontext_t *context = data;
	const uint8_t *at = (const uint8_t *)context->uc_mcontext.gregs[REG_RIP];

	(void)signo;
	(void)info;
	steps++;
	serialised += at[0] == 0x0f && at[1] == 0xa2;
}

static NOINLINE void set_trap_flag(bool on)
{
	if (on)
		__asm__ volatile("lea -128(%%rsp), %%rsp\n\tpushf\n\torl $0x100, (%%rsp)\n\tpopf\n\tlea 128(%%rsp), "
				 "%%rsp"
				 :
				 :
				 : "memory", "cc");
	else
		__asm__ volatile("lea -128(%%rsp), %%rsp\n\tpushf\n\tandl $~0x100, (%%rsp)\n\tpopf\n\tlea 128(%%rsp), "
				 "%%rsp"
				 :
				 :
				 : "memory", "cc");
}

static void count_serialisations(void *argument)
{
	const struct release *release = argument;
	struct sigaction action = { .sa_sigaction = on_step, .sa_flags = SA_SIGINFO };
	struct sigaction before;

	pretend(release->name);
	REQUIRE(core_sync_register() == 0);
	REQUIRE(sigaction(SIGTRAP, &action, &before) == 0);
	for (unsigned int n = 0; n < 3; n++) {
		int result;

		steps = 0;
		serialised = 0;
		set_trap_flag(true);
		result = core_sync();
		set_trap_flag(false);
		CHECK_EQ(result, 0);
		CHECK(steps > 5);
		CHECK_EQ(serialised, release->serialises ? 1 : 0);
	}
	REQUIRE(sigaction(SIGTRAP, &before, NULL) == 0);
}

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

static void job(void *argument)
{
	const struct release *release = argument;
	struct text_copy before = text_of_target(target_named("t_push_push"));
	patch_t patch;

	pretend(release->name);
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(
		make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_DISABLED, &patch));
	for (unsigned int n = 0; n < 100; n++) {
		CHECK_OK(patch_enable(patch));
		CHECK_OK(patch_commit());
		CHECK_EQ(t_push_push(1, 2), 5);
		CHECK_EQ(hits, n + 1);
		CHECK_OK(patch_disable(patch));
		CHECK_OK(patch_commit());
		CHECK_EQ(t_push_push(1, 2), 5);
		CHECK_EQ(hits, n + 1);
		CHECK_TEXT_SAME(&before);
	}
	CHECK_OK(patch_fini());
}

int main(void)
{
	char what[64];

	harness_start();
	require_filters();
	for (size_t n = 0; n < sizeof(releases) / sizeof(releases[0]); n++) {
		snprintf(what, sizeof(what), "Linux %s", releases[n].name ? releases[n].name : "without uname()");
		harness_isolated(what, count_serialisations, (void *)&releases[n]);
		harness_isolated(what, job, (void *)&releases[n]);
	}
	return harness_end();
}
