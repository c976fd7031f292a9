/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Text that is sealed (mseal(2)) beside other threads: its pages cannot be exchanged, and a trap byte on libc's system
 * calls would kill who blocks SIGTRAP by one. They change while all other threads have stopped, from patch_init() on,
 * and are restored so; until they can be, commits put no trap byte into the text, and say why.
 */
#include "targets.h"

#include "seccomp.h"

#include <link.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/stat.h>

#ifndef SYS_mseal
#define SYS_mseal 462
#endif

static unsigned int hits;

GP_ONLY static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	__atomic_fetch_add(&hits, 1, __ATOMIC_RELAXED);
}

/* ---- sealing ----------------------------------------------------------------------------------------------------- */

/* Where libc's text is, and what it was. */
static const uint8_t *text;
static uint8_t *original;
static size_t size;

static int seal_module(struct dl_phdr_info *info, size_t unused, void *error)
{
	(void)unused;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
		uintptr_t lower = (info->dlpi_addr + segment->p_vaddr) & ~(uintptr_t)4095;
		uintptr_t upper = (info->dlpi_addr + segment->p_vaddr + segment->p_memsz + 4095) & ~(uintptr_t)4095;

		/* The kernel's own page is no program's. */
		if (segment->p_type != PT_LOAD || !(segment->p_flags & PF_X) || strstr(info->dlpi_name, "vdso"))
			continue;
		if (syscall(SYS_mseal, lower, upper - lower, 0) != 0)
			*(int *)error = errno;
		if ((uintptr_t)abort - lower < upper - lower) {
			text = (const uint8_t *)lower;
			size = upper - lower;
		}
	}
	return 0;
}

static void seal(void)
{
	int error = 0;

	dl_iterate_phdr(seal_module, &error);
	REQUIRE(error == 0 && text != NULL);
}

static void seal_and_remember(void)
{
	seal();
	original = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(original != MAP_FAILED);
	memcpy(original, text, size);
}

/* ---- a thread that blocks all signals, and meets the trap byte --------------------------------------------------- */

static sem_t ready, go_on, done;
static pid_t other;

/* What the kernel has. */
static bool blocks_in_kernel(pid_t tid, int signo)
{
	char name[64], line[256];
	uint64_t mask = 0;
	FILE *file;

	snprintf(name, sizeof(name), "/proc/self/task/%d/status", tid);
	file = fopen(name, "r");
	REQUIRE(file != NULL);
	while (fgets(line, sizeof(line), file))
		if (strncmp(line, "SigBlk:", 7) == 0)
			mask = strtoull(line + 7, NULL, 16);
	fclose(file);
	return mask >> (signo - 1) & 1;
}

static void *block_and_call(void *unused)
{
	sigset_t all, now;

	sigfillset(&all);
	__atomic_store_n(&other, (pid_t)syscall(SYS_gettid), __ATOMIC_RELAXED);
	sem_post(&ready);
	sem_wait(&go_on);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	sem_post(&ready);
	sem_wait(&go_on);
	t_push_push(1, 2);
	pthread_sigmask(SIG_SETMASK, NULL, &now);
	CHECK(sigismember(&now, SIGTRAP));
	sem_post(&done);
	return unused;
}

static pthread_t start(void *(*run)(void *))
{
	pthread_t thread;

	sem_init(&ready, 0, 0);
	sem_init(&go_on, 0, 0);
	sem_init(&done, 0, 0);
	REQUIRE(pthread_create(&thread, NULL, run, NULL) == 0);
	sem_wait(&ready);
	return thread;
}

static patch_status make_and_commit(void)
{
	patch_t patch;

	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	return patch_commit();
}

/* Nothing of what the thread blocks gets to the kernel, in front of the first commit already. */
static void mediated(void *late)
{
	pthread_t thread;

	if (late == NULL)
		seal_and_remember();
	thread = start(block_and_call);
	REQUIRE_OK(patch_init(NULL, 0));
	if (late != NULL)
		seal();
	sem_post(&go_on);
	sem_wait(&ready);
	CHECK(!blocks_in_kernel(other, SIGTRAP));
	CHECK(blocks_in_kernel(other, SIGUSR1));
	CHECK_OK(make_and_commit());
	sem_post(&go_on);
	sem_wait(&done);
	CHECK_EQ(hits, 1);
	pthread_join(thread, NULL);
	CHECK_OK(patch_fini());
}

/* Another thread runs all the time. */
static volatile bool over;

static void *run_on(void *unused)
{
	sem_post(&ready);
	while (!over)
		t_push_push(1, 2);
	return unused;
}

static void restored(void *late)
{
	pthread_t thread;

	if (late == NULL)
		seal_and_remember();
	thread = start(run_on);
	REQUIRE_OK(patch_init(NULL, 0));
	if (late != NULL)
		seal();
	else
		CHECK(memcmp(text, original, size) != 0);
	CHECK_OK(make_and_commit());
	CHECK_OK(patch_fini());
	if (late == NULL)
		CHECK(memcmp(text, original, size) == 0);
	over = true;
	pthread_join(thread, NULL);
}

/* ---- threads that must not be stopped ---------------------------------------------------------------------------- */

/* One that was joined may be there for a moment still. */
static bool is_counted(void)
{
	struct stat status;

	return stat("/proc/self/task", &status) == 0 && status.st_nlink > 3;
}

static void refused_until_alone(pthread_t thread, const struct patch_option *options)
{
	struct text_copy before = text_of_target(target_named("t_push_push"));

	REQUIRE_OK(patch_init(options, options != NULL));
	CHECK_STATUS(make_and_commit(), PATCH_EBLOCKED);
	CHECK_MSG(strstr(harness_last_error(), "mseal"), "%s", harness_last_error());
	CHECK_TEXT_SAME(&before);
	CHECK_STATUS(patch_commit(), PATCH_EBLOCKED);
	CHECK(memcmp(text, original, size) == 0);
	over = true;
	pthread_join(thread, NULL);
	while (is_counted())
		sched_yield();
	CHECK_EQ(hits, 0);
	CHECK_OK(patch_commit());
	CHECK_EQ(t_push_push(1, 2), 5);
	CHECK_EQ(hits, 1);
	CHECK_OK(patch_fini());
	CHECK(memcmp(text, original, size) == 0);
}

static void refused_by_option(void *unused)
{
	const struct patch_option option = { .type = PATCH_OPT_ADOPT_THREADS, .adopt_threads = false };

	(void)unused;
	seal_and_remember();
	refused_until_alone(start(run_on), &option);
}

static void refused_by_filter(void *unused)
{
	(void)unused;
	require_filters();
	seal_and_remember();
	refuse(SYS_ptrace, EPERM);
	refused_until_alone(start(run_on), NULL);
}

static void refused_and_gone(void *unused)
{
	const struct patch_option option = { .type = PATCH_OPT_ADOPT_THREADS, .adopt_threads = false };
	pthread_t thread;

	(void)unused;
	seal_and_remember();
	thread = start(run_on);
	REQUIRE_OK(patch_init(&option, 1));
	CHECK_OK(patch_fini());
	CHECK(memcmp(text, original, size) == 0);
	over = true;
	pthread_join(thread, NULL);
}

/* A child of vfork() executes the same text, and is no thread: its parent does not stop. It is tried again. */
static int to_child[2], to_parent[2];

static void *wait_for_child(void *unused)
{
	char byte = 0;
	pid_t child;
	int status;

	child = vfork();
	if (child == 0) {
		if (write(to_parent[1], &byte, 1) != 1 || read(to_child[0], &byte, 1) != 1)
			_exit(1);
		_exit(0);
	}
	REQUIRE(child > 0 && waitpid(child, &status, 0) == child && status == 0);
	sem_post(&ready);
	sem_wait(&go_on);
	t_push_push(1, 2);
	return unused;
}

static void tried_again(void *unused)
{
	pthread_t thread;
	char byte = 0;

	(void)unused;
	REQUIRE(pipe(to_child) == 0 && pipe(to_parent) == 0);
	seal_and_remember();
	sem_init(&ready, 0, 0);
	sem_init(&go_on, 0, 0);
	REQUIRE(pthread_create(&thread, NULL, wait_for_child, NULL) == 0);
	REQUIRE(read(to_parent[0], &byte, 1) == 1);
	REQUIRE_OK(patch_init(NULL, 0));
	CHECK_STATUS(make_and_commit(), PATCH_EBLOCKED);
	CHECK(memcmp(text, original, size) == 0);
	REQUIRE(write(to_child[1], &byte, 1) == 1);
	sem_wait(&ready);
	CHECK_OK(patch_commit());
	CHECK(memcmp(text, original, size) != 0);
	sem_post(&go_on);
	pthread_join(thread, NULL);
	CHECK_EQ(hits, 1);
	CHECK_OK(patch_fini());
	CHECK(memcmp(text, original, size) == 0);
}

/* ---- many that come and go --------------------------------------------------------------------------------------- */

#define STARTERS 3
#define ROUNDS 8

static void *call_it_once(void *unused)
{
	t_push_push(1, 2);
	return unused;
}

static void *start_others(void *unused)
{
	sem_post(&ready);
	while (!over) {
		pthread_t thread;

		if (pthread_create(&thread, NULL, call_it_once, NULL) == 0)
			pthread_join(thread, NULL);
	}
	return unused;
}

static void coming_and_going(void *unused)
{
	pthread_t threads[STARTERS];
	patch_t patch;

	(void)unused;
	seal_and_remember();
	for (int i = 0; i < STARTERS; i++)
		threads[i] = start(start_others);
	REQUIRE_OK(patch_init(NULL, 0));
	CHECK(memcmp(text, original, size) != 0);
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	for (int i = 0; i < 2 * ROUNDS; i++) {
		CHECK_OK(patch_commit());
		CHECK_OK(i % 2 == 0 ? patch_disable(patch) : patch_enable(patch));
	}
	CHECK_OK(patch_fini());
	CHECK(memcmp(text, original, size) == 0);
	over = true;
	for (int i = 0; i < STARTERS; i++)
		pthread_join(threads[i], NULL);
}

int main(void)
{
	void *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	harness_start();
	if (syscall(SYS_mseal, page, 4096, 0) != 0)
		SKIP("mseal(2): %s", strerror(errno));
	harness_isolated("a thread that blocks all signals", mediated, NULL);
	harness_isolated("the same, sealed later", mediated, &hits);
	harness_isolated("a thread that runs", restored, NULL);
	harness_isolated("the same, sealed later", restored, &hits);
	harness_isolated("PATCH_OPT_ADOPT_THREADS", refused_by_option, NULL);
	harness_isolated("ptrace() refused", refused_by_filter, NULL);
	harness_isolated("patch_fini() without a commit", refused_and_gone, NULL);
	harness_isolated("a child of vfork()", tried_again, NULL);
	harness_isolated("threads that come and go", coming_and_going, NULL);
	return harness_end();
}
