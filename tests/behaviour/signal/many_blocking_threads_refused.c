/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * However many threads block every signal before patch_init(), asleep or in a wait that hides what they will block
 * behind it: all of them are adopted, and the first commit is not refused. Lists of 1,024 were too short.
 */
#include "harness.h"
#include "targets.h"

#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>

#define THREADS 1100

static sem_t go_on;
static volatile bool over;
static unsigned int ready, hits, differing;

GP_ONLY static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	__atomic_fetch_add(&hits, 1, __ATOMIC_RELAXED);
}

static void sleep_blocking(void)
{
	while (sem_wait(&go_on) != 0)
		;
}

static void wait_with_mask(void)
{
	sigset_t none;

	sigemptyset(&none);
	while (!over)
		ppoll(NULL, 0, NULL, &none);
}

static void *block(void *wait)
{
	sigset_t all, now;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	/* Some cannot be blocked. */
	pthread_sigmask(SIG_BLOCK, NULL, &all);
	__atomic_fetch_add(&ready, 1, __ATOMIC_RELAXED);
	((void (*)(void))(uintptr_t)wait)();
	/* Where a trap byte ends who blocks SIGTRAP. */
	if (t_push_push(1, 2) != 5 || pthread_sigmask(SIG_BLOCK, NULL, &now) != 0 ||
	    memcmp(&now, &all, sizeof(uint64_t)) != 0)
		__atomic_fetch_add(&differing, 1, __ATOMIC_RELAXED);
	return NULL;
}

static void wake(int signo)
{
	(void)signo;
}

/* Does each thread but this one wait in the kernel? */
static bool all_wait(void)
{
	DIR *directory = opendir("/proc/self/task");
	unsigned int waiting = 0;
	struct dirent *entry;

	REQUIRE(directory != NULL);
	while ((entry = readdir(directory)) != NULL) {
		char name[300], text[16] = "";
		FILE *file;
		long call;

		snprintf(name, sizeof(name), "/proc/self/task/%s/syscall", entry->d_name);
		file = entry->d_name[0] == '.' ? NULL : fopen(name, "re");
		if (!file)
			continue;
		call = fgets(text, sizeof(text), file) && text[0] != 'r' ? strtol(text, NULL, 10) : -1;
		fclose(file);
		waiting += call == SYS_futex || call == SYS_ppoll;
	}
	closedir(directory);
	return waiting == THREADS;
}

static void run(void *wait)
{
	static pthread_t threads[THREADS];
	pthread_attr_t attributes;
	patch_t patch;

	sem_init(&go_on, 0, 0);
	signal(SIGUSR1, wake);
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 64 << 10);
	for (size_t i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], &attributes, block, wait) != 0)
			SKIP("no more than %zu threads", i);
	while (__atomic_load_n(&ready, __ATOMIC_RELAXED) < THREADS)
		sched_yield();
	while (!all_wait())
		sched_yield();
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	CHECK_OK(patch_commit());
	over = true;
	for (size_t i = 0; i < THREADS; i++) {
		sem_post(&go_on);
		pthread_kill(threads[i], SIGUSR1);
	}
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	CHECK_EQ(hits, THREADS);
	CHECK_EQ(differing, 0);
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	if (access("/proc/self/syscall", R_OK) != 0)
		SKIP("/proc/self/syscall cannot be read");
	harness_isolated("asleep", run, (void *)(uintptr_t)sleep_blocking);
	harness_isolated("in a call with a mask", run, (void *)(uintptr_t)wait_with_mask);
	return harness_end();
}
