/* SPDX-License-Identifier: MIT */
/*
 * Which functions does this program call, how often, and where does its time go?
 *
 *   LD_PRELOAD=function-profile.so LIBPATCH_TRACE=libsqlite3.so.0,sqlite3 sqlite3 big.db < queries.sql
 *
 * Patches the entry of every function of the chosen modules when the program starts, counts and times their calls in
 * all threads, and writes a table when the program ends. Needs no source, no symbols, no frame pointers, no privileges;
 * the program's output is left alone.
 *
 *   LIBPATCH_TRACE=MODULES        file names or patterns, comma separated; "main" is the executable. Default: main
 *   LIBPATCH_TRACE_OUTPUT=FILE    where the table goes; %p is the process id. Default: standard error
 *   LIBPATCH_TRACE_TOP=N          lines of the table. Default: 20
 *   LIBPATCH_TRACE_SORT=time      by time instead of by calls
 *   LIBPATCH_TRACE_PROGRESS=1     a line of progress every second
 *   LIBPATCH_TRACE_TOGGLE=A[,B]   take all probes away when the program has run for A ms, put them back B ms later
 *                                 (default: A), while it runs
 *   LIBPATCH_TRACE_FOLLOW=1       also trace the programs that its children execute (use %p in the file name); what the
 *                                 process itself executes, as wrapper scripts do, is traced when LIBPATCH_TRACE is set
 *
 * Time is charged to the function entered last: from one entry to the next one on the same thread, waiting included. It
 * costs two reads of a counter instead of a patch at every return. What passes behind a thread's last entry is charged
 * to none.
 *
 * There is no table of a program that a signal ends, abort() included, or that executes another one, and none of forked
 * children: to see what a server does until SIGTERM, have it handle that signal, or read LIBPATCH_TRACE_PROGRESS.
 */
#define _GNU_SOURCE
#include "common/functions.h"
#include "common/output.h"
#include "common/probe_code.h"
#include "common/thread.h"
#include "settings.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <libpatch/patch.h>

#define MILLISECOND 1000000ull
#define SECOND 1000000000ull
#define REASONS_MAX 32

static struct settings settings;

/* ---- what was patched -------------------------------------------------------------------------------------------- */

struct reason {
	char text[160];
	size_t count;
};

struct cost {
	uint64_t ns;
	size_t patches;
	uint64_t at; /* ns after the start; 0: did not happen */
	patch_status status;
};

static struct functions functions;
static patch_t *patches; /* one per extent; NULL: refused */
static struct reason reasons[REASONS_MAX];
static size_t reason_count;
static struct cost cost_make, cost_first, cost_remove, cost_put_back;

/* ---- counting: runs in the program's threads --------------------------------------------------------------------- */

struct slot {
	uint64_t calls;
	uint64_t ticks;
};

/* Counters of one thread. Only that thread writes them; the list only grows, and threads inherit from dead ones. */
struct counters {
	struct counters *next;
	int tid;
	struct slot *last; /* function entered last */
	uint64_t entered;  /* when */
	struct slot slots[];
};

#define INHERIT_FROM 64 /* look for counters of dead threads once there are that many */

static struct counters *all_counters;
static unsigned int counters_count, threads_seen;
static __thread struct counters *own_counters __attribute__((tls_model("initial-exec")));
static __thread bool is_ours __attribute__((tls_model("initial-exec"))); /* a thread of this tool */

/*
 * Probe procedures touch general purpose registers only (PATCH_REGS_NO_STATE), and call nothing: they run wherever the
 * program's functions do, inside malloc and in signal handlers too.
 */
PROBE_CODE static long system_call(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

PROBE_CODE static struct counters *inherit(int tid)
{
	long pid = system_call(SYS_getpid, 0, 0, 0, 0, 0, 0);

	for (struct counters *at = __atomic_load_n(&all_counters, __ATOMIC_ACQUIRE); at; at = at->next) {
		int owner = __atomic_load_n(&at->tid, __ATOMIC_RELAXED);

		if ((owner == tid || system_call(SYS_tgkill, pid, owner, 0, 0, 0, 0) == -ESRCH) &&
		    __atomic_compare_exchange_n(&at->tid, &owner, tid, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
			at->last = NULL;
			return at;
		}
	}
	return NULL;
}

/* The first entry of a thread. NULL: no memory, not counted. */
PROBE_CODE static __attribute__((noinline)) struct counters *attach(void)
{
	int tid = (int)system_call(SYS_gettid, 0, 0, 0, 0, 0, 0);
	struct counters *counters = NULL;
	size_t size = sizeof(*counters) + functions.extent_count * sizeof(counters->slots[0]);
	long memory;

	if (__atomic_load_n(&counters_count, __ATOMIC_RELAXED) >= INHERIT_FROM)
		counters = inherit(tid);
	if (!counters) {
		memory = system_call(SYS_mmap, 0, (long)size, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (memory < 0 && memory > -4096)
			return NULL;
		counters = (struct counters *)memory;
		counters->tid = tid;
		counters->next = __atomic_load_n(&all_counters, __ATOMIC_RELAXED);
		while (!__atomic_compare_exchange_n(&all_counters, &counters->next, counters, true, __ATOMIC_RELEASE,
						    __ATOMIC_RELAXED))
			;
		__atomic_fetch_add(&counters_count, 1, __ATOMIC_RELAXED);
	}
	__atomic_fetch_add(&threads_seen, 1, __ATOMIC_RELAXED);
	own_counters = counters;
	return counters;
}

/* One instruction, so that neither a signal handler nor a reader sees half an addition. */
PROBE_CODE static inline void add(uint64_t *counter, uint64_t value)
{
	__asm__("addq %1, %0" : "+m"(*counter) : "er"(value) : "cc");
}

PROBE_CODE static void on_entry(struct patch_exec_context *context, uint8_t post)
{
	struct counters *counters = own_counters;
	struct slot *slot;
	uint64_t now;

	(void)post;
	if (!counters) {
		if (is_ours)
			return;
		counters = attach();
		if (!counters)
			return;
	}
	slot = &counters->slots[(uintptr_t)context->user_data];
	add(&slot->calls, 1);
	now = __builtin_ia32_rdtsc();
	if (counters->last)
		add(&counters->last->ticks, now - counters->entered);
	counters->last = slot;
	counters->entered = now;
}

/* The gap while the probes are away is nobody's time. */
static void forget_last_entries(void)
{
	for (struct counters *at = __atomic_load_n(&all_counters, __ATOMIC_ACQUIRE); at; at = at->next)
		__atomic_store_n(&at->last, NULL, __ATOMIC_RELAXED);
}

static struct slot sum_of(size_t function)
{
	struct slot sum = {0, 0};

	for (struct counters *at = __atomic_load_n(&all_counters, __ATOMIC_ACQUIRE); at; at = at->next) {
		sum.calls += __atomic_load_n(&at->slots[function].calls, __ATOMIC_RELAXED);
		sum.ticks += __atomic_load_n(&at->slots[function].ticks, __ATOMIC_RELAXED);
	}
	return sum;
}

static pid_t owner; /* the process that reports; its forked children do not */
static uint64_t start_ns, start_ticks;

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

static double percent(double part, double whole)
{
	return whole > 0 ? 100.0 * part / whole : 0.0;
}

/* ---- patching ---------------------------------------------------------------------------------------------------- */

/* Reasons are told apart by their words: the address they name is left out. */
static void count_reason(const char *what)
{
	struct patch_error error;
	char text[sizeof(reasons[0].text)];
	size_t i;

	if (patch_last_error(&error) == PATCH_OK)
		snprintf(text, sizeof(text), "%s", what);
	else
		snprintf(text, sizeof(text), "%s: %s", patch_status_string(error.code), error.message);
	for (i = 0; i < reason_count; i++)
		if (!strcmp(reasons[i].text, text))
			break;
	if (i == REASONS_MAX)
		i--;
	else if (i == reason_count)
		snprintf(reasons[reason_count++].text, sizeof(text), "%s", text);
	reasons[i].count++;
}

static void complain(const char *what)
{
	struct patch_error error;

	if (patch_last_error(&error) != PATCH_OK)
		say("function-profile: %s: %s: %s%s%s\n", what, patch_status_string(error.code), error.message,
		    error.irritant[0] ? ": " : "", error.irritant);
}

static bool make_all(void)
{
	struct patch_exec_model model = {.type = PATCH_EXEC_MODEL_PROBE};
	struct patch_location location = {
		.type = PATCH_LOCATION_ADDRESS,
		.direction = PATCH_LOCATION_FORWARD,
		.algorithm = PATCH_LOCATION_FIRST,
	};
	uint64_t start = now_ns();
	patch_attr attr;

	patches = mmap(NULL, functions.extent_count * sizeof(*patches) + 1, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (patches == MAP_FAILED)
		return false;
	patch_attr_init(&attr, sizeof(attr));
	patch_attr_set_initial_state(&attr, PATCH_ENABLED);
	/* The procedure needs no register of the program's, changes none, and touches general purpose ones only. */
	model.probe.clobber_registers = PATCH_REGS_NO_STATE;
	model.probe.procedure = on_entry;
	for (size_t i = 0; i < functions.extent_count; i++) {
		location.address = functions.extents[i].lower;
		model.probe.user_data = (void *)i;
		if (patch_make(&location, &model, &attr, &patches[i], NULL) == PATCH_OK) {
			cost_make.patches++;
		} else {
			patches[i] = NULL;
			count_reason("patch_make");
		}
	}
	patch_attr_fini(&attr);
	cost_make.ns = now_ns() - start;
	return true;
}

/* Queue `change` for all patches (NULL: it is queued already) and commit. */
static void commit_all(patch_status (*change)(patch_t), struct cost *cost, const char *what)
{
	uint64_t start = now_ns();

	cost->at = start - start_ns;
	for (size_t i = 0; change && i < functions.extent_count; i++)
		if (patches[i])
			change(patches[i]);
	cost->patches = cost_make.patches;
	cost->status = patch_commit();
	cost->ns = now_ns() - start;
	if (cost->status != PATCH_OK)
		complain(what);
}

/* After an incomplete commit: what is not in place is refused. */
static void drop_missing(void)
{
	struct patch_info info;

	for (size_t i = 0; i < functions.extent_count; i++) {
		if (!patches[i] ||
		    (patch_info(patches[i], &info, sizeof(info)) == PATCH_OK && info.state == PATCH_ENABLED))
			continue;
		patch_unmake(patches[i]);
		patches[i] = NULL;
		count_reason("planned, but not in place after patch_commit()");
	}
}

/* ---- the controller: progress and toggling, in a thread of its own ----------------------------------------------- */

static pthread_t controller;
static bool controller_runs;
static sem_t controller_stop;

static uint64_t total_calls(void)
{
	uint64_t calls = 0;

	for (size_t i = 0; i < functions.extent_count; i++)
		calls += sum_of(i).calls;
	return calls;
}

static void *control(void *unused)
{
	uint64_t next_line = settings.progress ? start_ns + SECOND : UINT64_MAX;
	uint64_t remove_at = settings.remove_after ? now_ns() + settings.remove_after : UINT64_MAX;
	uint64_t put_back_at = UINT64_MAX;
	bool placed = true;

	(void)unused;
	is_ours = true;
	for (;;) {
		uint64_t next = next_line < remove_at ? next_line : remove_at;
		struct timespec until;
		uint64_t now;

		if (put_back_at < next)
			next = put_back_at;
		until.tv_sec = (time_t)(next / SECOND);
		until.tv_nsec = (long)(next % SECOND);
		if (sem_clockwait(&controller_stop, CLOCK_MONOTONIC, &until) == 0)
			return NULL;
		if (errno != ETIMEDOUT)
			continue;
		now = now_ns();
		if (now >= remove_at) {
			commit_all(patch_disable, &cost_remove, "removal");
			placed = false;
			remove_at = UINT64_MAX;
			put_back_at = now_ns() + settings.put_back_after;
			if (settings.progress)
				say("  %5.1f s  all %s probes removed in %.1f ms\n",
				    (double)cost_remove.at / SECOND, GROUPED(cost_remove.patches),
				    (double)cost_remove.ns / MILLISECOND);
		} else if (now >= put_back_at) {
			forget_last_entries();
			commit_all(patch_enable, &cost_put_back, "putting back");
			placed = true;
			put_back_at = UINT64_MAX;
			if (settings.progress)
				say("  %5.1f s  all %s probes put back in %.1f ms\n",
				    (double)cost_put_back.at / SECOND, GROUPED(cost_put_back.patches),
				    (double)cost_put_back.ns / MILLISECOND);
		}
		if (now >= next_line) {
			say("  %5.1f s  %14s calls counted, probes %s\n", (double)(now - start_ns) / SECOND,
			    GROUPED(total_calls()), placed ? "in place" : "away");
			next_line += SECOND;
		}
	}
}

/* The program stays single-threaded unless it is asked for. */
static void start_controller(void)
{
	if (!settings.progress && !settings.remove_after)
		return;
	sem_init(&controller_stop, 0, 0);
	controller_runs = thread_start(&controller, control) == 0;
	if (controller_runs)
		pthread_setname_np(controller, "libpatch-trace");
}

/* ---- the report -------------------------------------------------------------------------------------------------- */

/* No malloc, hence no qsort: _exit() may be called by a signal handler that interrupted malloc. */
static size_t next_hottest(const struct slot *sums, bool *shown)
{
	size_t best = SIZE_MAX;
	uint64_t best_key = 0;

	for (size_t i = 0; i < functions.extent_count; i++) {
		uint64_t key = settings.by_time ? sums[i].ticks : sums[i].calls;

		if (!shown[i] && sums[i].calls && (best == SIZE_MAX || key > best_key)) {
			best = i;
			best_key = key;
		}
	}
	if (best != SIZE_MAX)
		shown[best] = true;
	return best;
}

static void report_hottest(double ns_per_tick)
{
	size_t count = functions.extent_count, called = 0, lines = 0;
	struct slot total = {0, 0};
	struct slot *sums;
	bool *shown;

	sums = mmap(NULL, count * (sizeof(*sums) + sizeof(*shown)) + 1, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (sums == MAP_FAILED)
		return;
	shown = (bool *)(sums + count);
	for (size_t i = 0; i < count; i++) {
		sums[i] = sum_of(i);
		total.calls += sums[i].calls;
		total.ticks += sums[i].ticks;
		called += sums[i].calls != 0;
	}
	say("%s calls of %s different functions by %u thread%s\n\n", GROUPED(total.calls), GROUPED(called),
	    threads_seen, threads_seen == 1 ? "" : "s");
	say("                        | time until the next entry   |\n");
	say("          calls   share |       ms   share    ns/call | function\n");
	while (lines < settings.top) {
		size_t i = next_hottest(sums, shown);
		double ns;
		char name[200];

		if (i == SIZE_MAX)
			break;
		ns = (double)sums[i].ticks * ns_per_tick;
		functions_name(&functions, &functions.extents[i], name, sizeof(name));
		say("%15s %6.2f%% | %8.1f %6.2f%% %10.1f | %s\n", GROUPED(sums[i].calls),
		    percent((double)sums[i].calls, (double)total.calls), ns / MILLISECOND,
		    percent((double)sums[i].ticks, (double)total.ticks), ns / (double)sums[i].calls, name);
		lines++;
	}
	if (called > lines)
		say("%15s more functions\n", GROUPED(called - lines));
	munmap(sums, count * (sizeof(*sums) + sizeof(*shown)) + 1);
}

struct placed {
	size_t functions;
	size_t by[4]; /* enum patch_strategy */
};

static void report_placed_line(const char *name, const struct placed *placed)
{
	size_t several = placed->by[PATCH_STRATEGY_CONSTRAINED_JUMP] + placed->by[PATCH_STRATEGY_PUNNED_JUMP];
	size_t patched = placed->by[PATCH_STRATEGY_JUMP] + several + placed->by[PATCH_STRATEGY_TRAP];

	say("%-24s %9s %9s %7.2f%% %8s %8s %6s %8s\n", name, GROUPED(placed->functions), GROUPED(patched),
	    percent((double)patched, (double)placed->functions), GROUPED(placed->by[PATCH_STRATEGY_JUMP]),
	    GROUPED(several), GROUPED(placed->by[PATCH_STRATEGY_TRAP]),
	    GROUPED(placed->functions - patched));
}

static void report_placed(void)
{
	struct placed total = {0, {0}};
	uint64_t trap_hits = 0;

	say("\n%-24s %9s %9s %8s %8s %8s %6s %8s\n", "module", "functions", "patched", "share", "by jump", "by jump",
	    "by", "refused");
	say("%-24s %9s %9s %8s %8s %8s %6s %8s\n", "", "", "", "", "of one", "of more", "trap", "");
	say("%-24s %9s %9s %8s %8s %8s %6s %8s\n", "", "", "", "", "insn", "insns", "", "");
	for (size_t m = 0; m < functions.module_count; m++) {
		struct placed placed = {0, {0}};

		for (size_t i = 0; i < functions.extent_count; i++) {
			struct patch_info info;

			if (functions.extents[i].module != m)
				continue;
			placed.functions++;
			if (!patches[i])
				continue;
			/* Its module is gone, or patch_fini() was called by the program. */
			if (patch_info(patches[i], &info, sizeof(info)) != PATCH_OK) {
				count_reason("patch_info");
				continue;
			}
			if (info.strategy < 0 || info.strategy > PATCH_STRATEGY_PUNNED_JUMP)
				continue;
			placed.by[info.strategy]++;
			trap_hits += info.trap_hits;
		}
		report_placed_line(functions.modules[m].name, &placed);
		total.functions += placed.functions;
		for (int s = 0; s < 4; s++)
			total.by[s] += placed.by[s];
	}
	if (functions.module_count != 1)
		report_placed_line("total", &total);
	for (size_t i = 0; i < reason_count; i++)
		say("%s%8s  %s\n", i ? "" : "\nrefused because\n", GROUPED(reasons[i].count), reasons[i].text);
	say("\ntraps taken: %s\n", GROUPED(trap_hits));
}

static void report_cost(const char *what, const struct cost *cost)
{
	char at[32] = "";

	if (cost->at)
		snprintf(at, sizeof(at), "at %.2f s", (double)cost->at / SECOND);
	say("%-34s %9s %9.2f ms %9.2f us each  %s%s\n", what, GROUPED(cost->patches), (double)cost->ns / MILLISECOND,
	    cost->patches ? (double)cost->ns / 1000 / (double)cost->patches : 0.0, at,
	    cost->status == PATCH_OK ? "" : "  INCOMPLETE");
}

static void report_costs(void)
{
	say("\n%-34s %9s\n", "cost", "patches");
	report_cost("patch_make()", &cost_make);
	report_cost("patch_commit()", &cost_first);
	if (!settings.remove_after)
		return;
	if (!cost_remove.at)
		say("The program ended before the probes were to be removed.\n");
	else
		report_cost("removal: patch_disable(), commit", &cost_remove);
	if (cost_remove.at && !cost_put_back.at)
		say("The program ended before the probes were to be put back.\n");
	else if (cost_put_back.at)
		report_cost("put back: patch_enable(), commit", &cost_put_back);
}

static void report(void)
{
	uint64_t ns = now_ns() - start_ns;
	uint64_t ticks = __builtin_ia32_rdtsc() - start_ticks;

	say("\nfunction-profile: %s, process %d, %.2f s\n", program_invocation_short_name, (int)owner,
	    (double)ns / SECOND);
	report_hottest(ticks ? (double)ns / (double)ticks : 0.0);
	report_placed();
	report_costs();
}

/* Once, in the process that was started under the tool: not in what it forked or vforked. */
static void finish(void)
{
	static bool finished;

	if (!owner || getpid() != owner || __atomic_exchange_n(&finished, true, __ATOMIC_ACQ_REL))
		return;
	is_ours = true;
	own_counters = NULL;
	if (controller_runs) {
		sem_post(&controller_stop);
		pthread_join(controller, NULL);
	}
	if (output_reopen(settings.file))
		report();
}

__attribute__((destructor)) static void at_exit(void)
{
	finish();
}

/* Programs that leave without exit(): shells, children that became daemons' parents. */
__attribute__((visibility("default"), noreturn)) void _exit(int status)
{
	finish();
	for (;;)
		system_call(SYS_exit_group, status, 0, 0, 0, 0, 0);
}

__attribute__((visibility("default"), noreturn)) void _Exit(int status)
{
	_exit(status);
}

/* ---- start ----------------------------------------------------------------------------------------------------- */

static bool open_output(void)
{
	int reason;

	if (output_open(settings.file))
		return true;
	reason = errno;
	if (output_open(""))
		say("function-profile: %s: %s; nothing is traced\n", settings.file, strerror(reason));
	return false;
}

__attribute__((constructor)) static void start(void)
{
	const char *names;
	patch_status status;

	names = settings_read(&settings);
	if (!names || !open_output())
		return;
	if (settings.wrong)
		say("function-profile: %s\n", settings.wrong);
	start_ns = now_ns();
	start_ticks = __builtin_ia32_rdtsc();
	if (!functions_collect(names, &functions)) {
		say("function-profile: out of memory\n");
		return;
	}
	if (!functions.module_count) {
		say("function-profile: no loaded module is called %s; nothing is traced\n", names);
		return;
	}
	for (size_t i = 0; i < functions.module_count; i++)
		if (!functions.modules[i].described)
			say("function-profile: %s has no unwind table (.eh_frame_hdr): its functions are unknown\n",
			    functions.modules[i].name);
	is_ours = true;
	status = patch_init(NULL, 0);
	if (status != PATCH_OK && status != PATCH_EEXIST) {
		complain("patch_init()");
		return;
	}
	if (!make_all())
		return;
	commit_all(NULL, &cost_first, "patch_commit()");
	if (cost_first.status != PATCH_OK)
		drop_missing();
	owner = getpid();
	start_controller();
	is_ours = false;
}
