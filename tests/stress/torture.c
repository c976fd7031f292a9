/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Everything at once: threads that come and go run awkward functions; a controller toggles, makes and unmakes patches
 * on each of their instructions, of all policies, models and register masks; probes commit; signals arrive at random
 * instants, from a timer and from thread to thread, and their handlers, on an alternate stack, run probed code and
 * commit; threads make patches of their own for a moment; the process forks, and its children toggle, patch, run and
 * check; a module is loaded, patched, run and unloaded; functions of libc are patched, that run where libc blocks all
 * signals and in children that have no handlers any more; threads block everything and spawn programs. Every result is
 * right, no process dies, every byte is back at the end.
 *
 * torture-stops is the same with the library's injection points: between the steps of the protocol, and between a trap
 * and its look-up, threads stop for a moment or longer, while all others go on.
 *
 * torture [seconds [threads]], or TORTURE_SECONDS
 */
#include "stress.h"

#include <dlfcn.h>
#include <limits.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/time.h>

#define SHARED_SITES 64 /* for handlers, and for probes that commit */
#define CHILD_WELL 42
#define CHILD_SECONDS 100
#define ALTERNATE_STACK (256 * 1024)
#define MODULE "tests/support/.libs/torture-module.so"

struct worker {
	pthread_t thread;
	uint64_t seed;
	unsigned int rounds; /* then it ends */
	bool started, ended;
	pid_t tid;
};

static struct worker workers[STRESS_MAX_THREADS];
static unsigned int worker_count;
static struct site handler_sites[SHARED_SITES], probe_sites[SHARED_SITES];
/* What patches of a moment give their procedure: threads may be about to call it still. */
static struct site moment_sites[STRESS_MAX_SITES];
static unsigned int handler_site_count, probe_site_count;
static struct {
	uint64_t changes, commits, signals, handlers, probe_commits, refused, forks, modules, threads, blocked, spawned,
		libc;
	uint64_t entered, returned; /* by patches of PROBE_RETURN */
	uint64_t stops;
} counted;

#define ADD(what, n) __atomic_fetch_add(&counted.what, n, __ATOMIC_RELAXED)

static bool is_over(void)
{
	return __atomic_load_n(&stress.stop, __ATOMIC_RELAXED) != 0;
}

/* ---- stops ------------------------------------------------------------------------------------------------------- */

#ifdef TORTURE_STOPS
#include "base/inject.h"
#include "base/syscall.h"

/* Under the library's lock, or in its handler: nothing of libc, which is patched. */
static GP_ONLY int stop_sometimes(enum inject_point point)
{
	static uint64_t calls;
	uint64_t bits = __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED) * 0x9e3779b97f4a7c15u >> 20;
	/* Traps are many. */
	unsigned int rarely = point == INJECT_TRAP ? 64 : 1;
	struct timespec time = { 0, 20000 << (bits >> 36 & 7) };

	if (point == INJECT_ALLOC || point == INJECT_SYSCALL || point == INJECT_MMAP)
		return 0;
	if (bits % (64 * rarely) == 0)
		raw_syscall(SYS_nanosleep, &time, 0);
	else if (bits % (8 * rarely) == 0)
		raw_syscall(SYS_sched_yield);
	else
		return 0;
	ADD(stops, 1);
	return 0;
}

static void let_stop(void)
{
	libpatch_inject = stop_sometimes;
}

static void check_stops(void)
{
	libpatch_inject = NULL;
	printf("%llu stops between steps\n", (unsigned long long)counted.stops);
	CHECK(counted.stops > 0);
}
#else
static void let_stop(void)
{
}

static void check_stops(void)
{
}
#endif

/* ---- probes ------------------------------------------------------------------------------------------------------ */

/* Of PROBE_AROUND the second call comes with the address that follows. */
static GP_ONLY void count_hit(struct patch_exec_context *context, uint8_t post)
{
	if (post)
		stress_hits++;
	else
		stress_procedure(context, post);
}

/* PROBE_RETURN. A second call is never made without a first. */
static GP_ONLY void count_return(struct patch_exec_context *context, uint8_t post)
{
	if (post)
		ADD(returned, 1);
	else
		ADD(entered, 1);
	count_hit(context, post);
}

static void switch_and_commit(struct site *site, uint64_t bits)
{
	stress_note(bits & 1 ? patch_enable(site->patch) : patch_disable(site->patch), "enable or disable");
	stress_note(patch_commit(), "patch_commit");
	ADD(changes, 1);
	ADD(commits, 1);
}

/* Commits once in a while: also for the very patch that it is called for. */
static void committing_procedure(struct patch_exec_context *context, uint8_t post)
{
	static __thread uint64_t calls;

	count_hit(context, post);
	if (++calls % 512 == 0) {
		uint64_t seed = calls * 0x9e3779b97f4a7c15u;

		ADD(probe_commits, 1);
		switch_and_commit(&probe_sites[stress_random(&seed) % probe_site_count], seed >> 20);
	}
}

static patch_status make(struct site *site, int type, int policy, int state, probe_procedure procedure,
			 struct site *data)
{
	struct patch_location location = location_at(site->address);
	struct patch_exec_model model = model_of(type, procedure, data);
	patch_attr attr = attr_of(policy, state);
	patch_status status;

	if (procedure == count_hit && site->address % 3)
		model.probe.clobber_registers = PATCH_REGS_GP_ONLY;
	status = patch_make(&location, &model, &attr, &site->patch, NULL);
	site->enabled = status == PATCH_OK && state == PATCH_ENABLED;
	if (status != PATCH_OK)
		site->patch = NULL;
	return status;
}

static bool is_function(uintptr_t address)
{
	for (size_t t = 0; t < TARGET_COUNT; t++)
		if (address == sites[site_first[t]].address)
			return true;
	return false;
}

/* What conflicts with others that are there, or cannot be displaced, is refused: no news here. */
static bool make_any(struct site *site, uint64_t bits, int state, struct site *data)
{
	int type = bits & 3 ? PATCH_EXEC_MODEL_PROBE : PATCH_EXEC_MODEL_PROBE_AROUND;
	int policy = (bits >> 2 & 7) == 0 ? PATCH_TRAP_POLICY_FORCE :
		     (bits >> 2 & 7) == 1 ? PATCH_TRAP_POLICY_FORBID :
					    PATCH_TRAP_POLICY_ALLOW;

	probe_procedure procedure = count_hit;

	/* Elsewhere than where a function begins it is refused. */
	if ((bits >> 5 & 3) == 0 && is_function(site->address)) {
		type = PATCH_EXEC_MODEL_PROBE_RETURN;
		procedure = count_return;
	}
	if (make(site, type, policy, state, procedure, data) == PATCH_OK)
		return true;
	ADD(refused, 1);
	return false;
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

static void call_some(uint64_t *seed, unsigned int count)
{
	for (unsigned int n = 0; n < count; n++) {
		size_t t = stress_random(seed) % TARGET_COUNT;

		stress_call(t, (stress_random(seed) & ~(uint64_t)0xff) | 3, stress_random(seed));
	}
}

/* A patch of this thread alone, which others' patches may be on, for a moment. */
static void patch_for_a_moment(uint64_t *seed)
{
	struct site *data = &moment_sites[stress_random(seed) % site_count];
	struct site site = { .address = data->address };

	if (!make_any(&site, stress_random(seed) >> 20, PATCH_ENABLED, data))
		return;
	stress_note(patch_commit(), "patch_commit");
	call_some(seed, 4);
	stress_note(patch_unmake(site.patch), "patch_unmake");
	stress_note(patch_commit(), "patch_commit");
	ADD(changes, 2);
	ADD(commits, 2);
}

static void send_signal(uint64_t *seed)
{
	pid_t tid = __atomic_load_n(&workers[stress_random(seed) % worker_count].tid, __ATOMIC_RELAXED);

	if (tid != 0 && syscall(SYS_tgkill, getpid(), tid, SIGUSR1) == 0)
		ADD(signals, 1);
}

static void on_signal(int signo)
{
	uint64_t seed = 0x9e3779b97f4a7c15u * (ADD(handlers, 1) + 7);
	int saved = errno;

	(void)signo;
	call_some(&seed, 3);
	if (!is_over())
		switch_and_commit(&handler_sites[stress_random(&seed) % handler_site_count], seed >> 20);
	call_some(&seed, 1);
	errno = saved;
}

/* With everything blocked, as it believes. */
static void run_blocked(uint64_t *seed)
{
	sigset_t all, before, now;

	sigfillset(&all);
	REQUIRE(pthread_sigmask(SIG_SETMASK, &all, &before) == 0);
	call_some(seed, 16);
	REQUIRE(pthread_sigmask(SIG_BLOCK, NULL, &now) == 0);
	CHECK(sigismember(&now, SIGTRAP) == 1 && sigismember(&now, SIGILL) == 1 && sigismember(&now, SIGUSR1) == 1);
	REQUIRE(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
	CHECK(sigismember(&before, SIGTRAP) == 0);
	ADD(blocked, 1);
}

static void spawn_one(void)
{
	char *arguments[] = { "sh", "-c", "exit 3", NULL };
	int status = 0;
	pid_t pid;

	REQUIRE(posix_spawn(&pid, "/bin/sh", NULL, NULL, arguments, environ) == 0);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	CHECK_EQ(status, 3 << 8);
	ADD(spawned, 1);
}

static void *work(void *argument)
{
	struct worker *worker = argument;
	stack_t stack = { .ss_sp = malloc(ALTERNATE_STACK), .ss_size = ALTERNATE_STACK };
	uint64_t *seed = &worker->seed;
	stack_t none = { .ss_flags = SS_DISABLE };

	REQUIRE(stack.ss_sp != NULL && sigaltstack(&stack, NULL) == 0);
	__atomic_store_n(&worker->tid, (pid_t)syscall(SYS_gettid), __ATOMIC_RELAXED);
	for (unsigned int round = 0; round < worker->rounds && !is_over(); round++) {
		size_t hot = __atomic_load_n(&stress.hot, __ATOMIC_RELAXED);

		for (unsigned int n = 0; n < 256; n++)
			stress_call(hot, (stress_random(seed) & ~(uint64_t)0xff) | 7, *seed);
		call_some(seed, 64);
		if (stress_random(seed) >> 20 & 1)
			send_signal(seed);
		if ((stress_random(seed) >> 20) % 16 == 0)
			patch_for_a_moment(seed);
		if ((stress_random(seed) >> 20) % 8 == 0)
			run_blocked(seed);
		if ((stress_random(seed) >> 20) % 512 == 0)
			spawn_one();
		if ((stress_random(seed) >> 20) % 8 == 0)
			sched_yield();
	}
	__atomic_store_n(&worker->tid, 0, __ATOMIC_RELAXED);
	__atomic_fetch_add(&stress.hits, stress_hits, __ATOMIC_RELAXED);
	sigaltstack(&none, NULL);
	free(stack.ss_sp);
	__atomic_store_n(&worker->ended, true, __ATOMIC_RELEASE);
	return NULL;
}

static void start(struct worker *worker, uint64_t *seed)
{
	worker->seed = stress_random(seed);
	worker->rounds = 1 + (unsigned int)(worker->seed >> 40) % 64;
	worker->ended = false;
	worker->started = pthread_create(&worker->thread, NULL, work, worker) == 0;
	REQUIRE(worker->started);
	ADD(threads, 1);
}

static void replace_ended(uint64_t *seed)
{
	for (unsigned int n = 0; n < worker_count; n++) {
		if (!__atomic_load_n(&workers[n].ended, __ATOMIC_ACQUIRE))
			continue;
		pthread_join(workers[n].thread, NULL);
		start(&workers[n], seed);
	}
}

/* ---- the controller ---------------------------------------------------------------------------------------------- */

static void set_site(struct site *site, bool enabled)
{
	ADD(changes, stress_set(site, enabled));
}

static void remake_target(size_t t, uint64_t *seed)
{
	for (unsigned int s = site_first[t]; s < site_first[t + 1]; s++) {
		if (!sites[s].patch)
			continue;
		ADD(changes, sites[s].enabled);
		stress_note(patch_unmake(sites[s].patch), "patch_unmake");
		sites[s].patch = NULL;
		sites[s].enabled = false;
	}
	if (stress_random(seed) >> 20 & 1)
		stress_note(patch_commit(), "patch_commit");
	for (unsigned int s = site_first[t]; s < site_first[t + 1]; s++) {
		uint64_t bits = stress_random(seed) >> 20;

		if (make_any(&sites[s], bits, bits >> 12 & 1 ? PATCH_ENABLED : PATCH_DISABLED, &sites[s]))
			ADD(changes, sites[s].enabled);
	}
}

static void change(uint64_t *seed)
{
	uint64_t choice = stress_random(seed) >> 8;
	size_t t = choice >> 40 & 1 ? stress.hot : (choice >> 8) % TARGET_COUNT;

	if ((choice >> 32) % 32 == 0)
		__atomic_store_n(&stress.hot, (unsigned int)((choice >> 20) % TARGET_COUNT), __ATOMIC_RELAXED);
	switch (choice % 8) {
	case 0:
		remake_target(t, seed);
		break;
	case 1:
	case 2: /* a target, all of it */
		for (unsigned int s = site_first[t]; s < site_first[t + 1]; s++)
			set_site(&sites[s], choice >> 41 & 1);
		break;
	case 3: /* everything at random */
		for (unsigned int s = 0; s < site_count; s++)
			set_site(&sites[s], stress_random(seed) >> 32 & 1);
		break;
	case 4:
	case 5:
		for (unsigned int s = site_first[t]; s < site_first[t + 1]; s++)
			set_site(&sites[s], stress_random(seed) >> 32 & 1);
		break;
	default:
		set_site(&sites[site_first[t] + (choice >> 16) % (site_first[t + 1] - site_first[t])],
			 choice >> 42 & 1);
		break;
	}
	stress_note(patch_commit(), "patch_commit");
	ADD(commits, 1);
}

/* ---- libc -------------------------------------------------------------------------------------------------------- */

static const char *const libc_names[] = { "pthread_create", "pthread_join", "pthread_sigmask", "sigaction",
					  "posix_spawn",    "execve",       "waitpid",         "fork",
					  "mmap",           "munmap",       "mprotect",        "sched_yield",
					  "malloc",         "free",         "sigaltstack",     "_exit",
					  "dlopen",         "dlclose" };
#define LIBC_SITES (sizeof(libc_names) / sizeof(libc_names[0]))
static patch_t libc_patches[LIBC_SITES];

static GP_ONLY void count_libc(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	ADD(libc, 1);
}

static void make_libc(void)
{
	for (size_t n = 0; n < LIBC_SITES; n++) {
		void *function = dlsym(RTLD_DEFAULT, libc_names[n]);

		REQUIRE(function != NULL);
		CHECK_OK(make_probe((uintptr_t)function, count_libc, NULL,
				    n % 3 ? PATCH_TRAP_POLICY_ALLOW : PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED,
				    &libc_patches[n]));
	}
}

static void change_libc(uint64_t *seed)
{
	uint64_t bits = stress_random(seed) >> 20;
	patch_t patch = libc_patches[bits % LIBC_SITES];

	stress_note(bits >> 10 & 1 ? patch_enable(patch) : patch_disable(patch), "patch_enable");
	stress_note(patch_commit(), "patch_commit");
	ADD(changes, 1);
	ADD(commits, 1);
}

/* ---- fork -------------------------------------------------------------------------------------------------------- */

/* A copy of the process with this thread only, at a random instant of the others. */
static void child(uint64_t seed)
{
	uint64_t before = stress.wrong_results + stress.wrong_pc + stress.failed_calls;
	int failures = harness_failures;

	alarm(CHILD_SECONDS);
	for (unsigned int n = 0; n < 8; n++) {
		change(&seed);
		call_some(&seed, 64);
		patch_for_a_moment(&seed);
	}
	if (seed >> 30 & 1) {
		stress_note(patch_fini(), "patch_fini");
		stress_check_text();
		call_some(&seed, 64);
	}
	_exit(stress.wrong_results + stress.wrong_pc + stress.failed_calls == before && harness_failures == failures ?
		      CHILD_WELL :
		      1);
}

static void fork_one(uint64_t *seed)
{
	uint64_t of_child = stress_random(seed);
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		signal(SIGALRM, SIG_DFL);
		child(of_child);
	}
	REQUIRE(pid > 0);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != CHILD_WELL)
		FAIL("a child, seed %#llx: wait status %#x", (unsigned long long)of_child, (unsigned int)status);
	ADD(forks, 1);
}

/* ---- a module ---------------------------------------------------------------------------------------------------- */

static uint64_t module_model(uint64_t a, uint64_t b)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < (a & 7) + 1; i++)
		sum += (a + i) * 3 + (b ^ i);
	return sum;
}

static void load_and_unload(uint64_t *seed)
{
	static struct site site;
	char path[PATH_MAX];
	const char *build = getenv("LIBPATCH_BUILD_DIR");
	uint64_t a = stress_random(seed), b = stress_random(seed), hits = stress_hits;
	uint64_t (*function)(uint64_t, uint64_t);
	struct text_copy text;
	void *module;

	snprintf(path, sizeof(path), "%s/" MODULE, build ? build : ".");
	module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	CHECK_MSG(module != NULL, "%s", dlerror());
	if (!module)
		return;
	function = (uint64_t(*)(uint64_t, uint64_t))(uintptr_t)dlsym(module, "torture_module");
	REQUIRE(function != NULL);
	site.address = (uintptr_t)function;
	text = text_save(site.address, 64);
	stress_note(make(&site, PATCH_EXEC_MODEL_PROBE, (int)(a >> 30 & 1) * PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED,
			 count_hit, &site),
		    "patch_make in a module");
	stress_note(patch_commit(), "patch_commit");
	CHECK_EQ(function(a, b), module_model(a, b));
	/* Handlers on this thread call probed functions, too. */
	CHECK(stress_hits > hits);
	/* Three times out of four as it should be; else the code goes first. */
	if (b >> 30 & 3) {
		stress_note(patch_unmake(site.patch), "patch_unmake");
		stress_note(patch_commit(), "patch_commit");
		CHECK_TEXT_SAME(&text);
		CHECK_EQ(function(b, a), module_model(b, a));
		dlclose(module);
	} else {
		dlclose(module);
		stress_note(patch_unmake(site.patch), "patch_unmake of unloaded code");
		stress_note(patch_commit(), "patch_commit after unloading");
	}
	ADD(changes, 2);
	ADD(modules, 1);
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static void set_handlers(void)
{
	struct sigaction action;
	stack_t stack = { .ss_sp = malloc(ALTERNATE_STACK), .ss_size = ALTERNATE_STACK };

	REQUIRE(stack.ss_sp != NULL && sigaltstack(&stack, NULL) == 0);
	memset(&action, 0, sizeof(action));
	action.sa_handler = on_signal;
	action.sa_flags = SA_RESTART | SA_ONSTACK;
	REQUIRE(sigaction(SIGUSR1, &action, NULL) == 0);
	REQUIRE(sigaction(SIGALRM, &action, NULL) == 0);
}

static void make_first(void)
{
	for (unsigned int s = 0; s < site_count; s++)
		{
		moment_sites[s] = sites[s];
		make_any(&sites[s], s * 5, PATCH_ENABLED, &sites[s]);
	}
	for (unsigned int s = 0; s < site_count && handler_site_count < SHARED_SITES; s += 11) {
		struct site *site = &handler_sites[handler_site_count];

		site->address = sites[s].address;
		if (make(site, PATCH_EXEC_MODEL_PROBE, PATCH_TRAP_POLICY_ALLOW, PATCH_DISABLED, count_hit, site) ==
		    PATCH_OK)
			handler_site_count++;
	}
	for (unsigned int s = 5; s < site_count && probe_site_count < SHARED_SITES; s += 13) {
		struct site *site = &probe_sites[probe_site_count];

		site->address = sites[s].address;
		if (make(site, PATCH_EXEC_MODEL_PROBE, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, committing_procedure,
			 site) == PATCH_OK)
			probe_site_count++;
	}
	make_libc();
	REQUIRE(handler_site_count > 0 && probe_site_count > 0);
	CHECK_OK(patch_commit());
}

/* No hit without a patch; and patches hit. */
static void check_counters(void)
{
	uint64_t seed = 1, hits = stress_hits;

	for (unsigned int n = 0; n < handler_site_count; n++)
		CHECK_OK(patch_unmake(handler_sites[n].patch));
	for (unsigned int n = 0; n < probe_site_count; n++)
		CHECK_OK(patch_unmake(probe_sites[n].patch));
	for (size_t n = 0; n < LIBC_SITES; n++)
		CHECK_OK(patch_unmake(libc_patches[n]));
	for (unsigned int s = 0; s < site_count; s++)
		set_site(&sites[s], false);
	CHECK_OK(patch_commit());
	stress_check_text();
	call_some(&seed, 10000);
	CHECK_EQ(stress_hits, hits);
	for (unsigned int s = 0; s < site_count; s++)
		set_site(&sites[s], true);
	CHECK_OK(patch_commit());
	call_some(&seed, 10000);
	CHECK(stress_hits >= hits + 10000);
}

#define HAPPENED(what) (__atomic_load_n(&counted.what, __ATOMIC_RELAXED) > 0)

/* On a busy machine few turns fit into the time. */
static bool is_mixed(void)
{
	return HAPPENED(changes) && HAPPENED(forks) && HAPPENED(handlers) && HAPPENED(probe_commits) &&
	       HAPPENED(modules) && HAPPENED(blocked) && HAPPENED(libc);
}

static void report(double elapsed)
{
	struct patch_statistics statistics;

	CHECK_OK(patch_statistics(&statistics, sizeof(statistics)));
	printf("%.1f s, %u sites, %u threads at a time, %llu in all\n", elapsed, site_count, worker_count,
	       (unsigned long long)counted.threads);
	printf("%llu probe hits, %llu state changes, %llu commits, %llu of them in probes, %llu makes refused\n",
	       (unsigned long long)stress.hits, (unsigned long long)counted.changes,
	       (unsigned long long)counted.commits, (unsigned long long)counted.probe_commits,
	       (unsigned long long)counted.refused);
	printf("%llu functions entered, %llu returned from\n", (unsigned long long)counted.entered,
	       (unsigned long long)counted.returned);
	CHECK(counted.returned <= counted.entered && counted.returned > 0);
	printf("%llu forks, %llu signals sent, %llu handlers, %llu modules, %llu traps, %llu KiB retired\n",
	       (unsigned long long)counted.forks, (unsigned long long)counted.signals,
	       (unsigned long long)counted.handlers, (unsigned long long)counted.modules,
	       (unsigned long long)statistics.traps, (unsigned long long)statistics.retired_bytes / 1024);
	printf("%llu times everything blocked, %llu programs spawned, %llu hits in libc, %llu instructions mediated\n",
	       (unsigned long long)counted.blocked, (unsigned long long)counted.spawned,
	       (unsigned long long)counted.libc, (unsigned long long)statistics.mediated);
	printf("%llu wrong results, %llu wrong program counters, %llu failed calls\n",
	       (unsigned long long)stress.wrong_results, (unsigned long long)stress.wrong_pc,
	       (unsigned long long)stress.failed_calls);
	fflush(stdout);
	CONTEXT("%s", "");
	CHECK_EQ(stress.wrong_results, 0);
	CHECK_EQ(stress.wrong_pc, 0);
	CHECK_EQ(stress.failed_calls, 0);
	CHECK(stress.hits > 0 && is_mixed());
}

int main(int argc, char **argv)
{
	unsigned int seconds = 5, threads = 2 * (unsigned int)sysconf(_SC_NPROCESSORS_ONLN) + 2;
	struct itimerval timer = { { 0, 1700 }, { 0, 1700 } }, no_timer = { { 0, 0 }, { 0, 0 } };
	uint64_t seed = 0x853c49e6748fea9b ^ (uint64_t)time(NULL) << 32;
	double begun, elapsed;

	stress_arguments(argc, argv, &seconds, &threads);
	if (argc <= 1)
		seconds = harness_seconds("TORTURE_SECONDS", seconds);
	harness_start_seconds(seconds + 200);
	stress_prepare();
	printf("seed %#llx\n", (unsigned long long)seed);
	REQUIRE_OK(patch_init(NULL, 0));
	set_handlers();
	make_first();
	worker_count = threads;
	for (unsigned int n = 0; n < threads; n++)
		start(&workers[n], &seed);
	REQUIRE(setitimer(ITIMER_REAL, &timer, NULL) == 0);
	let_stop();
	begun = stress_now();
	for (uint64_t turn = 0; harness_failures == 0; turn++) {
		elapsed = stress_now() - begun;
		if (elapsed >= (double)seconds && is_mixed())
			break;
		CONTEXT("%.1f s, %llu turns", elapsed, (unsigned long long)turn);
		for (unsigned int n = 0; n < 16; n++)
			change(&seed);
		change_libc(&seed);
		send_signal(&seed);
		replace_ended(&seed);
		if ((stress_random(&seed) >> 20) % 8 == 0)
			fork_one(&seed);
		if ((stress_random(&seed) >> 20) % 4 == 0)
			load_and_unload(&seed);
		if (stress.wrong_results + stress.wrong_pc + stress.failed_calls > 100)
			break;
	}
	elapsed = stress_now() - begun;
	REQUIRE(setitimer(ITIMER_REAL, &no_timer, NULL) == 0);
	__atomic_store_n(&stress.stop, 1, __ATOMIC_RELAXED);
	for (unsigned int n = 0; n < threads; n++)
		pthread_join(workers[n].thread, NULL);
	signal(SIGUSR1, SIG_IGN);
	signal(SIGALRM, SIG_IGN);
	stress.hits += stress_hits;
	report(elapsed);
	check_stops();
	check_counters();
	stress_end();
	return harness_end();
}
