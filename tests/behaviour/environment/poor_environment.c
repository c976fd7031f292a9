/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Systems that hide /proc or let it not be written, that let no memory become executable, that have no memory, mappings
 * or descriptors left: before patch_init(), and later, while patches are in effect. What can be done by other means is;
 * else the first call that fails says what is missing, and does what it was asked for when that is there again.
 */
#include "poor.h"

#include "seccomp.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>

/* ---- /proc ------------------------------------------------------------------------------------------------------- */

/* Mounts of our own, by whatever means are allowed. */
static bool leave_mounts(void)
{
	return (unshare(CLONE_NEWNS) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0) &&
	       mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

static void hide_proc(const void *unused)
{
	(void)unused;
	REQUIRE(mount("none", "/proc", "tmpfs", 0, NULL) == 0);
}

static void show_proc(void)
{
	REQUIRE(umount2("/proc", MNT_DETACH) == 0);
}

static void protect_proc(const void *unused)
{
	(void)unused;
	REQUIRE(mount(NULL, "/proc", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) == 0);
	REQUIRE(open("/proc/self/mem", O_RDWR) < 0 && errno == EROFS);
}

/* ---- executable memory ------------------------------------------------------------------------------------------- */

#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif

static void refuse_gain(const void *unused)
{
	(void)unused;
	REQUIRE(prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) == 0);
}

static void refuse_gain_and_files(const void *unused)
{
	refuse_gain(unused);
	refuse(SYS_memfd_create, EPERM);
}

static void refuse_gain_and_protect_proc(const void *unused)
{
	refuse_gain(unused);
	protect_proc(unused);
}

/* What service managers did before there was PR_SET_MDWE: by arguments. */
static void filter_gain(const void *unused)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mprotect, 3, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 0, 4),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_WRITE, 1, 2),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_EXEC, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
	};
	struct sock_fprog program = { sizeof(filter) / sizeof(filter[0]), filter };
	void *page;

	(void)unused;
	REQUIRE(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
	REQUIRE(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
	REQUIRE(mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(page != MAP_FAILED && mprotect(page, 4096, PROT_READ | PROT_EXEC) != 0);
	REQUIRE(munmap(page, 4096) == 0);
}

/* ---- limits ------------------------------------------------------------------------------------------------------ */

static void limit(int resource, rlim_t soft)
{
	struct rlimit now;

	REQUIRE(getrlimit(resource, &now) == 0);
	now.rlim_cur = soft < now.rlim_max ? soft : now.rlim_max;
	REQUIRE(setrlimit(resource, &now) == 0);
}

static void limit_descriptors(const void *unused)
{
	(void)unused;
	limit(RLIMIT_NOFILE, 0);
}

static void allow_descriptors(void)
{
	limit(RLIMIT_NOFILE, 1024);
}

static void limit_memory(const void *unused)
{
	(void)unused;
	limit(RLIMIT_AS, 4096);
}

static void allow_memory(void)
{
	limit(RLIMIT_AS, RLIM_INFINITY);
}

static char *filler;
static size_t filled;

/* One page in two: neighbours with other protections do not become one mapping. Until there can be no other. */
static void use_up_mappings(const void *unused)
{
	(void)unused;
	filled = (size_t)1 << 20;
	filler = mmap(NULL, filled * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	REQUIRE(filler != MAP_FAILED);
	for (size_t n = 1; n < filled; n += 2)
		if (mprotect(filler + n * 4096, 4096, PROT_READ) != 0)
			break;
	while (mmap(NULL, 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
		;
	REQUIRE(errno == ENOMEM);
}

static void use_up_mappings_and_refuse(const void *unused)
{
	refuse(SYS_ptrace, EPERM);
	use_up_mappings(unused);
}

static void give_mappings_back(void)
{
	REQUIRE(munmap(filler, filled * 4096) == 0);
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static void refuse_reading(const void *unused)
{
	(void)unused;
	refuse(SYS_process_vm_readv, EPERM);
	refuse(SYS_pread64, EPERM);
}

/* ---- all of them ------------------------------------------------------------------------------------------------- */

static bool anything(void)
{
	return true;
}

static bool has_gain(void)
{
	return prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) == 0;
}

static bool has_both(void)
{
	return leave_mounts() && has_gain();
}

static bool has_filters(void)
{
	return try_refuse(SYS_fchownat, EPERM) == 0;
}

static bool has_gain_and_filters(void)
{
	return has_gain() && has_filters();
}

#define WORKS { ALL_WORKS, "" }
#define NO(outcome, says) { outcome, says }

static const struct {
	struct surroundings taken;
	bool (*can)(void);
} table[] = {
	{ { "no /proc", hide_proc, show_proc, NULL, NO(INIT_FAILS, "/proc/self/maps"),
	    NO(LATER_FAILS, "/proc/self/maps"), true },
	  leave_mounts },
	{ { "/proc read-only", protect_proc, NULL, NULL, WORKS, WORKS, true }, leave_mounts },
	{ { "PR_SET_MDWE", refuse_gain, NULL, NULL, WORKS, WORKS, true }, has_gain },
	{ { "PR_SET_MDWE, /proc read-only", refuse_gain_and_protect_proc, NULL, NULL, WORKS, WORKS, true }, has_both },
	{ { "PR_SET_MDWE, memfd_create refused", refuse_gain_and_files, NULL, NULL, WORKS, WORKS, true },
	  has_gain_and_filters },
	{ { "execute permission filtered", filter_gain, NULL, NULL, WORKS, WORKS, true }, has_filters },
	{ { "no descriptors", limit_descriptors, allow_descriptors, NULL, NO(INIT_FAILS, "/proc/self/maps"),
	    NO(LATER_FAILS, "/proc/self/maps"), true },
	  anything },
	{ { "no memory", limit_memory, allow_memory, NULL, NO(INIT_FAILS, "executable memory"), WORKS, true },
	  anything },
	{ { "no mappings", use_up_mappings, give_mappings_back, NULL, NO(INIT_FAILS, "executable memory"), WORKS,
	    true },
	  anything },
	/* Pages cannot be exchanged, nor threads stopped. */
	{ { "no mappings, no ptrace()", use_up_mappings_and_refuse, give_mappings_back, NULL,
	    NO(INIT_FAILS, "executable memory"), NO(LATER_FAILS, "patch_fini"), true },
	  has_filters },
	{ { "memory cannot be read", refuse_reading, NULL, NULL, NO(INIT_FAILS, "process_vm_readv"),
	    NO(LATER_FAILS, "the kernel refuses process_vm_readv"), true },
	  has_filters },
};

/* ---- who blocks SIGTRAP when nobody can look any more ----------------------------------------------------------- */

static volatile int stage;

static void *block(void *unused)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTRAP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	stage = 1;
	while (stage != 2)
		sched_yield();
	poor_call_all();
	stage = 3;
	while (stage != 4)
		sched_yield();
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	stage = 5;
	return unused;
}

static void blocking_unseen(void *unused)
{
	pthread_t thread;

	(void)unused;
	leave_mounts();
	poor_begin();
	/* It cannot be adopted. */
	refuse(SYS_ptrace, EPERM);
	REQUIRE(pthread_create(&thread, NULL, block, NULL) == 0);
	while (stage != 1)
		sched_yield();
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE(poor_make_all(PATCH_ENABLED));
	hide_proc(NULL);
	CHECK_STATUS(patch_commit(), PATCH_ESYS);
	CHECK(strstr(harness_last_error(), "/proc/self/task"));
	stage = 2;
	while (stage != 3)
		sched_yield();
	show_proc();
	CHECK_STATUS(patch_commit(), PATCH_EBLOCKED);
	stage = 4;
	pthread_join(thread, NULL);
	CHECK_OK(patch_commit());
	poor_check_hits(true);
	CHECK(poor_finish());
}

static void ask(void *argument)
{
	_exit((*(bool (**)(void))argument)() ? 0 : 1);
}

/* In mounts of its own, if it needs them. */
static void run_before(void *argument)
{
	leave_mounts();
	poor_before(argument);
}

static void run_after(void *argument)
{
	leave_mounts();
	poor_after(argument);
}

int main(void)
{
	char what[128];

	harness_start();
	for (size_t n = 0; n < sizeof(table) / sizeof(table[0]); n++) {
		struct surroundings taken = table[n].taken;
		bool (*can)(void) = table[n].can;

		if (harness_child(ask, &can) != 0) {
			harness_skip_part(taken.name, "not to be had here");
			continue;
		}
		snprintf(what, sizeof(what), "%s, before patch_init", taken.name);
		harness_isolated(what, run_before, &taken);
		snprintf(what, sizeof(what), "%s, when enabled", taken.name);
		harness_isolated(what, run_after, &taken);
	}
	if (harness_child(ask, &(bool (*)(void)){ leave_mounts }) == 0)
		harness_isolated("a thread blocks SIGTRAP, no /proc", blocking_unseen, NULL);
	else
		harness_skip_part("a thread blocks SIGTRAP, no /proc", "no mounts of its own");
	return harness_end();
}
