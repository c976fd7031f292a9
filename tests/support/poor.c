/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The whole job, done before and after the surroundings are taken. See poor.h. */
#include "poor.h"

#include "targets.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>

static const char *const names[] = { "t_push_push",  "t_2_2_1",          "t_1_4",
				     "t_five_bytes", "t_loop_to_second", "t_call_last" };
#define FUNCTIONS (sizeof(names) / sizeof(names[0]))

static const char *const outcome_name[] = { "all works", "patch_init() fails", "a later call fails" };

static unsigned int hits[FUNCTIONS];
static patch_t patches[FUNCTIONS];
static struct text_copy before[FUNCTIONS];
static unsigned int wrong;
static uint64_t rounds;
static char said[512];

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	__atomic_fetch_add((unsigned int *)context->user_data, 1, __ATOMIC_RELAXED);
}

static void call(size_t n)
{
	const struct target *target = target_named(names[n]);

	if (target->function(5, 7) != target->model(5, 7))
		__atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED);
}

void poor_call_all(void)
{
	for (size_t n = 0; n < FUNCTIONS; n++)
		call(n);
}

static void *run(void *unused)
{
	for (;;) {
		poor_call_all();
		__atomic_fetch_add(&rounds, 1, __ATOMIC_RELAXED);
	}
	return unused;
}

/* Never joined: the C library ends the process where futex() is refused. */
static void start_thread(void)
{
	pthread_t thread;

	REQUIRE(pthread_create(&thread, NULL, run, NULL) == 0);
	while (__atomic_load_n(&rounds, __ATOMIC_RELAXED) == 0)
		sched_yield();
}

/* This thread, and the one that the filter does not reach, through every function. */
static void run_all(void)
{
	uint64_t until = __atomic_load_n(&rounds, __ATOMIC_RELAXED) + 4;

	poor_call_all();
	while (__atomic_load_n(&rounds, __ATOMIC_RELAXED) < until)
		sched_yield();
	CHECK_EQ(__atomic_load_n(&wrong, __ATOMIC_RELAXED), 0);
}

void poor_check_hits(bool wanted)
{
	unsigned int seen[FUNCTIONS];

	if (!wanted)
		CHECK_OK(patch_synchronize(-1));
	for (size_t n = 0; n < FUNCTIONS; n++)
		seen[n] = __atomic_load_n(&hits[n], __ATOMIC_RELAXED);
	run_all();
	for (size_t n = 0; n < FUNCTIONS; n++)
		if (patches[n] && (__atomic_load_n(&hits[n], __ATOMIC_RELAXED) != seen[n]) != wanted)
			FAIL("%s: %s", names[n], wanted ? "enabled, but the procedure is not called" :
							  "disabled, but the procedure is called");
}

/* PATCH_OK, or words. */
static bool well(patch_status status, const char *what)
{
	struct patch_error error;

	if (status == PATCH_OK)
		return true;
	memset(&error, 0, sizeof(error));
	/* of a commit that failed in part, the chain has the reasons */
	if ((patch_last_error(&error) != status && (status != PATCH_EFAIL || error.code == PATCH_OK)) ||
	    !error.origin || !error.origin[0] || !error.message || !error.message[0])
		FAIL("%s returned %d (%s) without saying why", what, (int)status, patch_status_string(status));
	if (!said[0])
		snprintf(said, sizeof(said), "%s: %s", what, harness_last_error());
	return false;
}

bool poor_make_all(int state)
{
	bool good = true;

	for (size_t n = 0; n < FUNCTIONS; n++)
		if (!well(make_probe(target_start(target_named(names[n])), procedure, &hits[n],
				     n % 3 == 2 ? PATCH_TRAP_POLICY_FORCE : PATCH_TRAP_POLICY_ALLOW, state,
				     &patches[n]),
			  "patch_make")) {
			patches[n] = 0;
			good = false;
		}
	return good;
}

static bool turn_all(bool on)
{
	bool good = true;

	for (size_t n = 0; n < FUNCTIONS; n++)
		if (patches[n] && !well(on ? patch_enable(patches[n]) : patch_disable(patches[n]), "patch_enable"))
			good = false;
	if (!well(patch_commit(), "patch_commit"))
		good = false;
	else
		poor_check_hits(on);
	run_all();
	return good;
}

bool poor_finish(void)
{
	if (!well(patch_fini(), "patch_fini")) {
		run_all();
		return false;
	}
	for (size_t n = 0; n < FUNCTIONS; n++)
		CHECK_TEXT_SAME(&before[n]);
	run_all();
	return true;
}

static volatile uint64_t frame_mask;

static void on_signal(int signo, siginfo_t *info, void *data)
{
	const ucontext_t *context = data;

	(void)signo;
	(void)info;
	frame_mask = *(const uint64_t *)&context->uc_sigmask;
}

/* libc's system calls are patched, too: what the program blocks, it sees everywhere, and the kernel does not. */
static void check_masks(void)
{
	sigset_t most, old, seen;

	sigfillset(&most);
	sigdelset(&most, SIGUSR1);
	pthread_sigmask(SIG_SETMASK, &most, &old);
	raise(SIGUSR1);
	CHECK_EQ(frame_mask >> (SIGUSR2 - 1) & 1, 1);
	CHECK_EQ(frame_mask >> (SIGTRAP - 1) & 1, 1);
	/* An int3 that is met with SIGTRAP blocked ends the process. */
	poor_check_hits(true);
	pthread_sigmask(SIG_SETMASK, &old, &seen);
	CHECK(sigismember(&seen, SIGTRAP));
}

static int statm = -1;

/* Pages of address space. */
static unsigned long pages(void)
{
	char text[128] = "";

	REQUIRE(lseek(statm, 0, SEEK_SET) == 0 && read(statm, text, sizeof(text) - 1) > 0);
	return strtoul(text, NULL, 10);
}

static unsigned int descriptors(void)
{
	unsigned int count = 0;

	for (int fd = 0; fd < 1100; fd++)
		count += fcntl(fd, F_GETFD) != -1;
	return count;
}

static void check_outcome(bool good, const struct wanted *wanted)
{
	enum outcome seen = good ? ALL_WORKS : LATER_FAILS;

	if (seen != wanted->outcome || !strstr(said, wanted->says))
		FAIL("%s (%s), wanted: %s (%s)", outcome_name[seen], said, outcome_name[wanted->outcome], wanted->says);
}

void poor_begin(void)
{
	struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };

	REQUIRE(sigaction(SIGUSR1, &action, NULL) == 0);
	statm = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	REQUIRE(statm >= 0);
	for (size_t n = 0; n < FUNCTIONS; n++)
		before[n] = text_of_target(target_named(names[n]));
	start_thread();
}

/* patch_init() said no: as if it had not been called, however often; and it can be called again. */
static void unborn(const struct surroundings *taken)
{
	bool may_be_read = taken->argument == NULL;
	unsigned long size = may_be_read ? pages() : 0;
	unsigned int open_files = descriptors();

	if (taken->before.outcome != INIT_FAILS || !strstr(said, taken->before.says))
		FAIL("patch_init() fails (%s), wanted: %s (%s)", said, outcome_name[taken->before.outcome],
		     taken->before.says);
	for (int again = 0; again < 3; again++) {
		CHECK(!well(patch_init(NULL, 0), "patch_init"));
		CHECK_STATUS(patch_commit(), PATCH_EINIT);
	}
	if (may_be_read)
		CHECK_EQ(pages(), size);
	CHECK_EQ(descriptors(), open_files);
	for (size_t n = 0; n < FUNCTIONS; n++)
		CHECK_TEXT_SAME(&before[n]);
	run_all();
	if (!taken->give_back)
		return;
	taken->give_back();
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE(poor_make_all(PATCH_ENABLED) && turn_all(true) && poor_finish());
}

void poor_before(void *argument)
{
	const struct surroundings *taken = argument;
	bool good = true;

	poor_begin();
	taken->take(taken->argument);
	if (!well(patch_init(NULL, 0), "patch_init")) {
		unborn(taken);
		return;
	}
	good &= poor_make_all(PATCH_DISABLED);
	for (int round = 0; round < 4; round++)
		good &= turn_all(round % 2 == 0);
	good &= turn_all(true);
	if (taken->masks)
		check_masks();
	good &= poor_finish();
	check_outcome(good, &taken->before);
}

void poor_after(void *argument)
{
	const struct surroundings *taken = argument;
	const struct target *another = target_named("t_3_1_1");
	struct text_copy text_of_another = text_of_target(another);
	unsigned int more = 0, open_files;
	bool good = true, finished;
	patch_t patch = 0;

	poor_begin();
	open_files = descriptors();
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE(poor_make_all(PATCH_ENABLED));
	REQUIRE_OK(patch_commit());
	poor_check_hits(true);
	CHECK_EQ(descriptors(), open_files);
	taken->take(taken->argument);
	open_files = descriptors();
	poor_check_hits(true);
	if (!well(make_probe(target_start(another), procedure, &more, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch),
		  "patch_make"))
		good = false;
	if (!well(patch_commit(), "patch_commit"))
		good = false;
	CHECK_EQ(another->function(5, 7), another->model(5, 7));
	if (good)
		CHECK_EQ(more, 1);
	for (int round = 0; round < 4; round++)
		good &= turn_all(round % 2 != 0);
	if (taken->argument == NULL)
		CHECK_EQ(descriptors(), open_files);
	finished = poor_finish();
	good &= finished;
	if (!finished && taken->give_back) {
		taken->give_back();
		finished = poor_finish();
		CHECK(finished);
	}
	if (finished)
		CHECK_TEXT_SAME(&text_of_another);
	CHECK_EQ(another->function(5, 7), another->model(5, 7));
	check_outcome(good, &taken->after);
}
