/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * System calls that carry a mask, made in each way in which programs make them: by libc's syscall(), by an instruction
 * of the program's own whose number comes out of memory, by another libc in another namespace, by a module; those that
 * are loaded later, too. Each thread lives on at a probe that needs a trap, and reads back what it set; a handler that
 * a wait lets run begins with the wait's mask.
 */
#include "targets.h"

#include <dlfcn.h>
#include <link.h>
#include <sys/auxv.h>
#include <poll.h>
#include <sys/epoll.h>

#define SET_SIZE 8

static unsigned int hits;

GP_ONLY static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

/* ---- ways to make a call ---------------------------------------------------------------------------------------- */

typedef long call_fn(long number, long a, long b, long c, long d, long e, long f);

/* The number is known to nobody who only reads the code; a jump's length is some instructions in front. */
long call_by_register(long number, long a, long b, long c, long d, long e, long f);
__asm__(".text\n.p2align 4\n.globl call_by_register\n.type call_by_register, @function\ncall_by_register:\n"
	"	.cfi_startproc\n	mov %rdi, %rax\n	mov %rsi, %rdi\n	mov %rdx, %rsi\n"
	"	mov %rcx, %rdx\n"
	"	mov %r8, %r10\n	mov %r9, %r8\n	mov 8(%rsp), %r9\n	xor %r11d, %r11d\n	syscall\n	ret\n"
	"	.cfi_endproc\n.size call_by_register, . - call_by_register\n");

static long (*libc_syscall)(long, ...) = syscall;

static long call_by_libc(long number, long a, long b, long c, long d, long e, long f)
{
	long result = libc_syscall(number, a, b, c, d, e, f);

	return result == -1 ? -errno : result;
}

static call_fn *call;

/* ---- what is seen ------------------------------------------------------------------------------------------------ */

static volatile uint64_t mask_in_handler;

static uint64_t now_blocked(void)
{
	uint64_t now = 0;

	CHECK_EQ(call(SYS_rt_sigprocmask, SIG_BLOCK, 0, (long)&now, SET_SIZE, 0, 0), 0);
	return now;
}

static void on_signal(int signo)
{
	(void)signo;
	mask_in_handler = now_blocked();
}

static void check_hit(uint64_t blocked)
{
	const unsigned int before = hits;

	CHECK_EQ(t_push_push(1, 2), 5);
	CHECK_EQ(hits, before + 1);
	CHECK_EQ(now_blocked(), blocked);
}

#define BIT(signo) ((uint64_t)1 << ((signo)-1))
/* The kernel says so. */
#define ALL (~(BIT(SIGKILL) | BIT(SIGSTOP)))

static void set_mask(uint64_t mask)
{
	CHECK_EQ(call(SYS_rt_sigprocmask, SIG_SETMASK, (long)&mask, 0, SET_SIZE, 0, 0), 0);
	check_hit(mask & ALL);
}

/* ---- waits ------------------------------------------------------------------------------------------------------- */

static long wait_ppoll(uint64_t *mask, struct timespec *time)
{
	return call(SYS_ppoll, 0, 0, (long)time, (long)mask, SET_SIZE, 0);
}

static long wait_pselect(uint64_t *mask, struct timespec *time)
{
	struct {
		uint64_t *mask;
		size_t size;
	} sixth = { mask, SET_SIZE };

	return call(SYS_pselect6, 0, 0, 0, 0, (long)time, (long)&sixth);
}

static int epoll;

static long wait_epoll(uint64_t *mask, struct timespec *time)
{
	struct epoll_event event;

	return call(SYS_epoll_pwait, epoll, (long)&event, 1, time != NULL ? 1 : -1, (long)mask, SET_SIZE);
}

static long wait_suspend(uint64_t *mask, struct timespec *time)
{
	return time != NULL ? 0 : call(SYS_rt_sigsuspend, (long)mask, SET_SIZE, 0, 0, 0, 0);
}

#define GETEVENTS 1
#define EXT_ARG 8

static int ring = -1;

static long wait_ring(uint64_t *mask, struct timespec *time)
{
	return call(SYS_io_uring_enter, ring, 0, time == NULL, GETEVENTS, (long)mask, SET_SIZE);
}

static long wait_ring_ext(uint64_t *mask, struct timespec *time)
{
	struct {
		uint64_t *mask;
		uint32_t size, unused;
		struct timespec *time;
	} argument = { mask, SET_SIZE, 0, time };
	long result;

	result = call(SYS_io_uring_enter, ring, 0, 1, GETEVENTS | EXT_ARG, (long)&argument, sizeof(argument));
	return result == -ETIME ? 0 : result;
}

static void check_waits(void)
{
	static long (*const waits[])(uint64_t *, struct timespec *) = { wait_ppoll, wait_pselect, wait_epoll,
									wait_suspend, wait_ring, wait_ring_ext };
	uint64_t all = ~UINT64_C(0), none = 0, some = BIT(SIGTRAP) | BIT(SIGUSR2);

	for (size_t i = 0; i < sizeof(waits) / sizeof(waits[0]); i++) {
		struct timespec soon = { 0, 1000000 };

		if (ring < 0 && i >= 4)
			continue;
		CONTEXT("wait %zu", i);

		set_mask(0);
		CHECK_EQ(waits[i](&all, &soon), 0);
		check_hit(0);
		set_mask(all);
		CHECK_EQ(waits[i](&all, &soon), 0);
		check_hit(ALL);
		raise(SIGUSR1);
		CHECK_EQ(waits[i](&none, NULL), -EINTR);
		CHECK_EQ(mask_in_handler, BIT(SIGUSR1));
		check_hit(ALL);
		raise(SIGUSR1);
		CHECK_EQ(waits[i](&some, NULL), -EINTR);
		CHECK_EQ(mask_in_handler, BIT(SIGUSR1) | some);
		check_hit(ALL);
	}
	set_mask(0);
}

static void check_sigtimedwait(void)
{
	uint64_t set = BIT(SIGTRAP) | BIT(SIGUSR1);
	struct timespec soon = { 0, 1000000 };

	set_mask(set);
	CHECK_EQ(call(SYS_rt_sigtimedwait, (long)&set, 0, (long)&soon, SET_SIZE, 0, 0), -EAGAIN);
	raise(SIGTRAP);
	CHECK_EQ(call(SYS_rt_sigtimedwait, (long)&set, 0, 0, SET_SIZE, 0, 0), SIGTRAP);
	raise(SIGUSR1);
	CHECK_EQ(call(SYS_rt_sigtimedwait, (long)&set, 0, 0, SET_SIZE, 0, 0), SIGUSR1);
	check_hit(set);
	set_mask(0);
}

static void check_fork(void)
{
	long child;
	int status = -1;

	set_mask(~UINT64_C(0));
	child = call(SYS_fork, 0, 0, 0, 0, 0, 0);
	if (child == 0) {
		check_hit(ALL);
		_exit(harness_failures != 0);
	}
	REQUIRE(waitpid((pid_t)child, &status, 0) == child);
	CHECK_EQ(status, 0);
	set_mask(0);
}

static void check_exec(void)
{
	static const char nothing[] = "/no/such/program";
	char *const arguments[] = { NULL };

	set_mask(~UINT64_C(0));
	CHECK_EQ(call(SYS_execve, (long)nothing, (long)arguments, (long)arguments, 0, 0, 0), -ENOENT);
	check_hit(ALL);
	set_mask(0);
}

static void in_each_call(void *argument)
{
	uint8_t parameters[120] = { 0 };
	patch_t patch;

	call = argument;
	signal(SIGUSR1, on_signal);
	epoll = epoll_create1(0);
	ring = (int)syscall(SYS_io_uring_setup, 4, parameters);
	if (ring < 0)
		harness_say("io_uring_setup: %s; its waits are left out\n", strerror(errno));
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	REQUIRE_OK(patch_commit());
	set_mask(~UINT64_C(0));
	set_mask(0);
	check_waits();
	check_sigtimedwait();
	check_fork();
	check_exec();
	CHECK_OK(patch_fini());
}

static uint64_t mediated(void)
{
	struct patch_statistics statistics;

	CHECK_OK(patch_statistics(&statistics, sizeof(statistics)));
	return statistics.mediated;
}

static void *load_another(void)
{
	void *other = dlmopen(LM_ID_NEWLM, "libc.so.6", RTLD_NOW);

	if (other == NULL)
		harness_skip("no second libc: %s", dlerror());
	return other;
}

/* Its own functions, and its system calls. */
static void call_another(void *other)
{
	int (*other_sigprocmask)(int, const sigset_t *, sigset_t *);
	int (*other_ppoll)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
	sigset_t all, now;

	other_sigprocmask = (int (*)(int, const sigset_t *, sigset_t *))(uintptr_t)dlsym(other, "sigprocmask");
	other_ppoll = (int (*)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *))(uintptr_t)dlsym(
		other, "ppoll");
	call = call_by_register;
	hits = 0;
	sigfillset(&all);
	CHECK_EQ(other_sigprocmask(SIG_SETMASK, &all, NULL), 0);
	CHECK_EQ(t_push_push(1, 2), 5);
	CHECK_EQ(other_sigprocmask(SIG_BLOCK, NULL, &now), 0);
	CHECK(sigismember(&now, SIGTRAP) && sigismember(&now, SIGUSR1));
	CHECK_EQ(other_ppoll(NULL, 0, &(struct timespec){ 0, 1000000 }, &all), 0);
	CHECK_EQ(t_push_push(1, 2), 5);
	CHECK_EQ(hits, 2);
	sigemptyset(&all);
	CHECK_EQ(other_sigprocmask(SIG_SETMASK, &all, NULL), 0);
}

/* Which is there before, comes later, and goes. */
static void in_another_namespace(void *argument)
{
	void *first = load_another();
	uint64_t before, with_second;
	patch_t patch;

	(void)argument;
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	REQUIRE_OK(patch_commit());
	call_another(first);
	before = mediated();
	for (unsigned int i = 0; i < 3; i++) {
		void *second = load_another();

		CONTEXT("comes later, %u", i);
		with_second = mediated();
		CHECK(with_second > before);
		call_another(second);
		CHECK(dlclose(second) == 0);
		CHECK_EQ(mediated(), before);
	}
	CHECK(dlclose(first) == 0);
	CHECK(mediated() < before);
	CHECK_OK(patch_fini());
}

/* Not of libc's. */
static void by_later_module(void *path)
{
	long (*set)(int, const uint64_t *, uint64_t *, size_t);
	uint64_t all = ~UINT64_C(0), none = 0, now, before;
	void *module;
	patch_t patch;

	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	REQUIRE_OK(patch_commit());
	before = mediated();
	module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	REQUIRE(module != NULL);
	*(void **)&set = dlsym(module, "module_sigprocmask");
	CHECK_EQ(mediated(), before + 1);
	CHECK_EQ(set(SIG_SETMASK, &all, NULL, SET_SIZE), 0);
	CHECK_EQ(t_push_push(1, 2), 5);
	CHECK_EQ(set(SIG_SETMASK, &none, &now, SET_SIZE), 0);
	CHECK(now & 1UL << (SIGTRAP - 1));
	CHECK_EQ(hits, 1);
	CHECK(dlclose(module) == 0);
	CHECK_EQ(mediated(), before);
	CHECK_OK(patch_fini());
}

/* The program's interpreter. */
static const char *linker(void)
{
	const Elf64_Phdr *headers = (const Elf64_Phdr *)getauxval(AT_PHDR);
	uintptr_t bias = 0;
	const char *path = NULL;

	for (size_t i = 0; i < getauxval(AT_PHNUM); i++)
		if (headers[i].p_type == PT_PHDR)
			bias = (uintptr_t)headers - headers[i].p_vaddr;
	for (size_t i = 0; i < getauxval(AT_PHNUM); i++)
		if (headers[i].p_type == PT_INTERP)
			path = (const char *)(bias + headers[i].p_vaddr);
	return path;
}

/* The kernel does not know of the dynamic linker then. */
static void check_started_by_hand(const char *self)
{
	int status = 0;
	pid_t pid;

	REQUIRE(linker() != NULL);
	pid = fork();
	if (pid == 0) {
		execl(linker(), linker(), self, "by-hand", NULL);
		_exit(127);
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	/* It has said what it skips. */
	CHECK(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 77));
}

int main(int argc, char **argv)
{
	harness_start();
	if (argc == 1)
		check_started_by_hand(argv[0]);
	harness_isolated("syscall()", in_each_call, (void *)(uintptr_t)call_by_libc);
	harness_isolated("number in a register", in_each_call, (void *)(uintptr_t)call_by_register);
	harness_isolated("another libc", in_another_namespace, NULL);
	harness_isolated("a module that comes later", by_later_module, (void *)(uintptr_t)harness_module());
	return harness_end();
}
