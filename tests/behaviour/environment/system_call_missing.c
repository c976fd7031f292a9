/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Kernels and filters that refuse one of the system calls that the library makes: before patch_init(), and later, while
 * patches are in effect. What has to work in spite of the refusal, by other means, works; else the first call that
 * fails says what is missing.
 */
#include "poor.h"

#include "seccomp.h"
#include "targets.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <ucontext.h>

static const struct {
	const char *name;
	long number;
	struct wanted before, after;
} table[] = {
#define WORKS { ALL_WORKS, "" }
#define NO(outcome, says) { outcome, says }
#define CALL(name, before, after) { #name, SYS_##name, before, after }
	CALL(arch_prctl, WORKS, WORKS),
	CALL(brk, WORKS, WORKS),
	CALL(clock_gettime, WORKS, WORKS),
	CALL(close, WORKS, WORKS),
	CALL(fcntl, WORKS, WORKS),
	CALL(fstat, WORKS, WORKS),
	CALL(futex, WORKS, WORKS),
	CALL(getdents64, NO(INIT_FAILS, "/proc/self/task"), WORKS),
	CALL(getpid, WORKS, WORKS),
	CALL(gettid, WORKS, WORKS),
	CALL(ioctl, WORKS, WORKS),
	CALL(madvise, WORKS, WORKS),
	CALL(membarrier, NO(INIT_FAILS, "membarrier"), NO(LATER_FAILS, "core synchronisation failed")),
	CALL(memfd_create, WORKS, WORKS),
	CALL(mmap, NO(INIT_FAILS, "executable memory"), WORKS),
	CALL(mprotect, WORKS, WORKS),
	CALL(mremap, WORKS, WORKS),
	CALL(munmap, WORKS, WORKS),
	CALL(nanosleep, WORKS, WORKS),
	CALL(newfstatat, WORKS, WORKS),
	CALL(open, WORKS, WORKS),
	CALL(openat, WORKS, WORKS),
	CALL(pread64, WORKS, WORKS),
	CALL(prlimit64, WORKS, WORKS),
	CALL(process_vm_readv, WORKS, WORKS),
	CALL(ptrace, WORKS, WORKS),
	CALL(pwrite64, WORKS, WORKS),
	CALL(read, NO(INIT_FAILS, "/proc/self/maps"), NO(LATER_FAILS, "/proc/self/maps")),
	CALL(rt_sigaction, NO(INIT_FAILS, "handlers for SIGTRAP"), WORKS),
	CALL(rt_sigpending, WORKS, WORKS),
	CALL(rt_sigprocmask, WORKS, WORKS),
	CALL(rt_tgsigqueueinfo, WORKS, WORKS),
	CALL(sigaltstack, WORKS, WORKS),
	CALL(stat, WORKS, WORKS),
	CALL(uname, WORKS, WORKS),
};
static const struct refused_how {
	int error;
	bool traps; /* the filter raises SIGSYS, and the program's handler says so: sandboxes with a broker */
} ways[] = { { ENOSYS, false }, { EPERM, false }, { EPERM, true } };

struct refusal {
	long number;
	int error;
	bool traps;
};

static int error_of_trap;

static void on_sigsys(int signo, siginfo_t *info, void *data)
{
	(void)signo;
	(void)info;
	((ucontext_t *)data)->uc_mcontext.gregs[REG_RAX] = -error_of_trap;
}

static void take_one(const struct refusal *refusal, long number)
{
	const struct sigaction action = { .sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO };

	if (!refusal->traps) {
		refuse(number, refusal->error);
		return;
	}
	error_of_trap = refusal->error;
	REQUIRE(sigaction(SIGSYS, &action, NULL) == 0);
	REQUIRE(filter_call(number, SECCOMP_RET_TRAP, 0) == 0);
}

static void take(const void *argument)
{
	const struct refusal *refusal = argument;

	/* The other way of asking for mappings, since Linux 6.11. */
	if (refusal->number == SYS_read)
		take_one(refusal, SYS_ioctl);
	take_one(refusal, refusal->number);
}

/* ---- a clock ----------------------------------------------------------------------------------------------------- */

static _Atomic bool inside, leave;
/* The thread that waits, which is to have no clock from its first nap on; 0: none. */
static _Atomic pid_t waiter;

static bool naps(pid_t tid)
{
	char path[64], text[16] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", tid);
	file = fopen(path, "r");
	if (file == NULL)
		SKIP("%s cannot be read", path);
	(void)!fgets(text, sizeof(text), file);
	fclose(file);
	return atoi(text) == SYS_nanosleep;
}

static void stay(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	inside = true;
	while (!leave) {
		if (waiter != 0 && naps(waiter)) {
			REQUIRE(filter_call(SYS_clock_gettime, SECCOMP_RET_ERRNO | EPERM,
					    SECCOMP_FILTER_FLAG_TSYNC) == 0);
			waiter = 0;
		}
		sched_yield();
	}
}

static void *go_inside(void *data)
{
	const struct target *target = data;

	target->function(5, 7);
	return NULL;
}

/* A wait that has an end ends: without a clock, and where the clock goes while it waits. */
static void no_clock(void *goes)
{
	const struct target *target = target_named("t_push_push");
	pthread_t thread;
	patch_t patch;

	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe(target_start(target), stay, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
	REQUIRE_OK(patch_commit());
	REQUIRE(pthread_create(&thread, NULL, go_inside, (void *)target) == 0);
	while (!inside)
		sched_yield();
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
	if (goes != NULL)
		waiter = gettid();
	else
		refuse(SYS_clock_gettime, EPERM);
	do
		CHECK_STATUS(patch_synchronize(5000000), PATCH_EBUSY);
	while (waiter != 0);
	leave = true;
	pthread_join(thread, NULL);
	CHECK_OK(patch_synchronize(-1));
	CHECK_OK(patch_fini());
}

/* The runtime of -fsanitize=undefined, when that is what this was built with. */
extern void sanitizer_runtime(void) __asm__("__ubsan_handle_builtin_unreachable") __attribute__((weak));

/*
 * It blocks signals by system calls that cannot be mediated, their numbers being out of sight: threads have to be
 * looked at.
 */
static struct wanted wanted_after(long number, struct wanted without_runtime)
{
	if (number == SYS_getdents64 && sanitizer_runtime != NULL)
		return (struct wanted)NO(LATER_FAILS, "/proc/self/task");
	return without_runtime;
}

/* What looking at the kernel's mask takes. */
static bool is_of_raise(long number)
{
	return number == SYS_rt_sigprocmask || number == SYS_getpid || number == SYS_gettid;
}

/* glibc before 2.34 aborts in the first call of the dynamic linker that fails. */
static void ask_linker_without_futex(void *unused)
{
	(void)unused;
	refuse(SYS_futex, EPERM);
	(void)dlopen("no-such-library.so", RTLD_LAZY | RTLD_NOLOAD);
	_exit(0);
}

int main(void)
{
	bool libc_needs_futex;
	char what[128];

	harness_start();
	require_filters();
	libc_needs_futex = harness_child(ask_linker_without_futex, NULL) != 0;
	for (size_t c = 0; c < sizeof(table) / sizeof(table[0]); c++)
		for (size_t e = 0; e < sizeof(ways) / sizeof(ways[0]); e++) {
			const bool traps = ways[e].traps;
			struct refusal refusal = { table[c].number, ways[e].error, traps };
			struct surroundings taken = { .take = take,
						      .argument = &refusal,
						      .before = table[c].before,
						      .after = wanted_after(table[c].number, table[c].after),
						      .masks = !is_of_raise(table[c].number) };

			snprintf(what, sizeof(what), "%s refused%s before patch_init: %s", table[c].name,
				 traps ? " by SIGSYS" : "", strerror(refusal.error));
			if (table[c].number == SYS_futex && libc_needs_futex)
				harness_skip_part(what, "libc aborts where it is refused");
			else
				harness_isolated(what, poor_before, &taken);
			snprintf(what, sizeof(what), "%s refused%s when enabled: %s", table[c].name,
				 traps ? " by SIGSYS" : "", strerror(refusal.error));
			harness_isolated(what, poor_after, &taken);
		}
	harness_isolated("a wait without a clock", no_clock, NULL);
	harness_isolated("a wait that loses its clock", no_clock, &waiter);
	return harness_end();
}
