/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What every behaviour test shares: checks that print what they saw, a watchdog, children that keep one crash from
 * hiding the other results.
 *
 * A test exits 0 when all is well, 1 when a check failed, 77 when it cannot run here.
 */
#ifndef TESTS_HARNESS_H
#define TESTS_HARNESS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <libpatch/patch.h>

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define HARNESS_MAX_FAILURES 25
#define HARNESS_WATCHDOG_SECONDS 120

/* Procedures that may be probed with PATCH_REGS_GP_ONLY are compiled without extended state. */
#define GP_ONLY __attribute__((target("general-regs-only")))
#if defined(__clang__)
#define NOINLINE __attribute__((noinline))
#else
#define NOINLINE __attribute__((noinline, noclone))
#endif
#define MAYBE_UNUSED __attribute__((unused))

/* In shared memory, so that a parent can say where its child died. */
struct harness_shared {
	char context[256];
	char skipped[256]; /* why the last part that was skipped could not run */
};

static int harness_failures;
/* Parts of the test that ran in a child of their own and could not run here, and the reason that the first of them gave. */
static unsigned int harness_parts_skipped;
static char harness_part_skipped[512];
static struct harness_shared *harness_shared;

static inline void harness_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static inline void harness_say(const char *format, ...)
{
	char line[2048];
	va_list args;
	int length;

	va_start(args, format);
	length = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (length > (int)sizeof(line) - 1)
		length = (int)sizeof(line) - 1;
	while (write(STDERR_FILENO, line, (size_t)length) < 0 && errno == EINTR)
		;
}

/* What is under test now; printed with each failure. */
#define CONTEXT(...) \
	do { \
		if (harness_shared) \
			snprintf(harness_shared->context, sizeof(harness_shared->context), __VA_ARGS__); \
	} while (0)

static inline void harness_fail(const char *file, int line, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
static inline void harness_fail(const char *file, int line, const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	harness_say("%s:%d: FAIL: %s%s%s%s\n", file, line, text,
		    harness_shared && harness_shared->context[0] ? " [" : "",
		    harness_shared ? harness_shared->context : "",
		    harness_shared && harness_shared->context[0] ? "]" : "");
	if (__atomic_add_fetch(&harness_failures, 1, __ATOMIC_RELAXED) >= HARNESS_MAX_FAILURES) {
		harness_say("too many failures, giving up\n");
		_exit(1);
	}
}

/* The last error of the calling thread, in one line. */
static inline const char *harness_last_error(void)
{
	static __thread char text[512];
	struct patch_error error;
	size_t used = 0;
	struct patch_error *next;

	memset(&error, 0, sizeof(error));
	if (patch_last_error(&error) == PATCH_OK)
		return "no error recorded";
	text[0] = '\0';
	for (next = &error; next && used < sizeof(text) - 1; next = next->next) {
		int n = snprintf(text + used, sizeof(text) - used, "%s%d: %s: %s: %s", used ? " <- " : "", next->code,
				 next->origin, next->irritant, next->message);

		if (n < 0)
			break;
		used += (size_t)n;
	}
	return text;
}

#define FAIL(...) harness_fail(__FILE__, __LINE__, __VA_ARGS__)

#define CHECK(condition) \
	do { \
		if (!(condition)) \
			FAIL("%s", #condition); \
	} while (0)

#define CHECK_MSG(condition, ...) \
	do { \
		if (!(condition)) { \
			harness_say(__VA_ARGS__); \
			harness_say("\n"); \
			FAIL("%s", #condition); \
		} \
	} while (0)

#define CHECK_EQ(actual, expected) \
	do { \
		uint64_t actual_ = (uint64_t)(actual); \
		uint64_t expected_ = (uint64_t)(expected); \
		if (actual_ != expected_) \
			FAIL("%s == %s: is %#llx (%lld), wanted %#llx (%lld)", #actual, #expected, \
			     (unsigned long long)actual_, (long long)actual_, (unsigned long long)expected_, \
			     (long long)expected_); \
	} while (0)

/* A libpatch call and the status it has to return. */
#define CHECK_STATUS(call, expected) \
	do { \
		patch_status status_ = (call); \
		patch_status expected_ = (expected); \
		if (status_ != expected_) \
			FAIL("%s: returned %d (%s), wanted %d (%s); last error: %s", #call, (int)status_, \
			     patch_status_string(status_), (int)expected_, patch_status_string(expected_), \
			     harness_last_error()); \
	} while (0)

#define CHECK_OK(call) CHECK_STATUS(call, PATCH_OK)

/* As CHECK_OK, but there is no point in going on after a failure. */
#define REQUIRE_OK(call) \
	do { \
		patch_status required_ = (call); \
		if (required_ != PATCH_OK) { \
			FAIL("%s: returned %d (%s); last error: %s", #call, (int)required_, \
			     patch_status_string(required_), harness_last_error()); \
			exit(1); \
		} \
	} while (0)

#define REQUIRE(condition) \
	do { \
		if (!(condition)) { \
			FAIL("%s (errno %d)", #condition, errno); \
			exit(1); \
		} \
	} while (0)

#define HARNESS_SKIPPED 77

/*
 * The process ends, and says why. In a child of harness_isolated() it is one part of the test that is skipped. What failed
 * before counts for more.
 */
static inline void harness_skip(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
static inline void harness_skip(const char *format, ...)
{
	char reason[sizeof(harness_shared->skipped)];
	va_list args;

	va_start(args, format);
	vsnprintf(reason, sizeof(reason), format, args);
	va_end(args);
	harness_say("SKIP: %s\n", reason);
	if (harness_shared)
		memcpy(harness_shared->skipped, reason, sizeof(reason));
	exit(harness_failures ? 1 : HARNESS_SKIPPED);
}

#define SKIP(...) harness_skip(__VA_ARGS__)

/*
 * The watchdog is a process of its own: it needs no signal of the test, no thread, and works when the test blocks
 * everything. It ends with the test, however that ends, and with it what is left of the test's process group.
 */
static inline void harness_watchdog(unsigned int seconds)
{
	pid_t test = getpid();
	pid_t pid = fork();

	if (pid == 0) {
		struct timespec limit = { .tv_sec = (time_t)seconds, .tv_nsec = 0 };
		sigset_t set;

		sigemptyset(&set);
		sigaddset(&set, SIGALRM);
		sigprocmask(SIG_BLOCK, &set, NULL);
		prctl(PR_SET_PDEATHSIG, SIGALRM);
		setpgid(0, 0);
		while (getppid() == test)
			if (sigtimedwait(&set, NULL, &limit) < 0 && errno == EAGAIN)
				break;
		if (getppid() == test) {
			harness_say("WATCHDOG: test hangs after %u s [%s]\n", seconds,
				    harness_shared ? harness_shared->context : "");
			kill(-test, SIGKILL);
			kill(test, SIGKILL);
		}
		kill(-test, SIGKILL);
		_exit(0);
	}
}

static inline unsigned int harness_seconds(const char *variable, unsigned int standard)
{
	const char *value = getenv(variable);

	return value && *value ? (unsigned int)strtoul(value, NULL, 0) : standard;
}

static inline void harness_start_seconds(unsigned int seconds)
{
	harness_shared = (struct harness_shared *)mmap(NULL, sizeof(*harness_shared), PROT_READ | PROT_WRITE,
						       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (harness_shared == MAP_FAILED)
		harness_shared = NULL;
	setpgid(0, 0);
	harness_watchdog(seconds);
}

static inline void harness_start(void)
{
	harness_start_seconds(harness_seconds("LIBPATCH_TEST_TIMEOUT", HARNESS_WATCHDOG_SECONDS));
}

/*
 * The exit status of the test: 1 when a check failed; 77 when a part was skipped, because a test that could not do all it is
 * for has not passed; else 0. The last line names the first part that was skipped, for the sum of all tests shows that line.
 */
static inline int harness_end(void)
{
	if (harness_failures) {
		harness_say("%d failure(s)\n", harness_failures);
		return 1;
	}
	if (harness_parts_skipped) {
		harness_say("SKIP: %u part(s) of the test: %s\n", harness_parts_skipped, harness_part_skipped);
		/* for the parent, if this is a part itself */
		if (harness_shared)
			snprintf(harness_shared->skipped, sizeof(harness_shared->skipped), "%.255s",
				 harness_part_skipped);
		return HARNESS_SKIPPED;
	}
	return 0;
}

/* Run fn(argument) in a child; returns its wait status. The child exits with what harness_end() says. */
static inline int harness_child(void (*fn)(void *), void *argument)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		harness_failures = 0;
		harness_parts_skipped = 0;
		fn(argument);
		fflush(NULL);
		_exit(harness_end());
	}
	if (pid < 0)
		return -1;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

/* A part of the test cannot run here. */
static inline void harness_skip_part(const char *what, const char *reason)
{
	harness_say("SKIP: %s: %s\n", what, reason);
	if (harness_parts_skipped++ == 0)
		snprintf(harness_part_skipped, sizeof(harness_part_skipped), "%s: %s", what, reason);
}

/*
 * Run fn(argument) in a child of its own and count the child's end as a failure unless it went well. When the child calls
 * SKIP(), the part is noted for harness_end(); the parts behind it run.
 */
static inline void harness_isolated(const char *what, void (*fn)(void *), void *argument)
{
	int status;

	CONTEXT("%s", what);
	if (harness_shared)
		harness_shared->skipped[0] = '\0';
	status = harness_child(fn, argument);
	if (WIFSIGNALED(status))
		FAIL("%s: child died of signal %d (%s)", what, WTERMSIG(status), strsignal(WTERMSIG(status)));
	else if (WIFEXITED(status) && WEXITSTATUS(status) == HARNESS_SKIPPED)
		harness_skip_part(what, harness_shared && harness_shared->skipped[0] ? harness_shared->skipped :
										       "it does not say why");
	else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		FAIL("%s: child exited with %#x", what, (unsigned int)status);
}

/* Is the thread of this process in futex(2)? */
static inline bool harness_waits(pid_t tid)
{
	char path[64], line[64] = "";
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", tid);
	file = fopen(path, "r");
	if (file == NULL || fgets(line, sizeof(line), file) == NULL)
		line[0] = '\0';
	if (file != NULL)
		fclose(file);
	return atoi(line) == SYS_futex && line[0] != '\0';
}

/* The path of the module that is built beside the tests (module.c). Not in a child: the test ends where there is none. */
static inline const char *harness_module(void)
{
	static char path[512];
	const char *directory = getenv("LIBPATCH_BUILD_DIR");

	snprintf(path, sizeof(path), "%s/tests/support/.libs/module.so", directory != NULL ? directory : ".");
	if (access(path, R_OK) != 0)
		SKIP("%s: %s", path, strerror(errno));
	return path;
}

/* Call what a test wrote at `code`: a function without arguments. */
static inline int call_code(const void *code)
{
	int (*function)(void);

	memcpy(&function, &code, sizeof(function));
	return function();
}

/* ---- small things around the public interface -------------------------------------------------------------------- */

static inline struct patch_location location_at(uintptr_t address)
{
	struct patch_location location;

	memset(&location, 0, sizeof(location));
	location.type = PATCH_LOCATION_ADDRESS;
	location.direction = PATCH_LOCATION_FORWARD;
	location.algorithm = PATCH_LOCATION_FIRST;
	location.address = address;
	return location;
}

typedef void (*probe_procedure)(struct patch_exec_context *, uint8_t);

static inline struct patch_exec_model model_of(int type, probe_procedure procedure, void *user_data)
{
	struct patch_exec_model model;

	memset(&model, 0, sizeof(model));
	model.type = type;
	model.probe.read_registers = PATCH_REGS_ALL;
	model.probe.clobber_registers = PATCH_REGS_ALL;
	model.probe.user_data = user_data;
	model.probe.procedure = procedure;
	return model;
}

static inline patch_attr attr_of(int policy, int state)
{
	patch_attr attr;

	CHECK_OK(patch_attr_init(&attr, sizeof(attr)));
	CHECK_OK(patch_attr_set_trap_policy(&attr, policy));
	CHECK_OK(patch_attr_set_abi(&attr, PATCH_ABI_OS));
	CHECK_OK(patch_attr_set_initial_state(&attr, state));
	return attr;
}

/* PROBE at address, every register readable, everything may be clobbered. */
static inline patch_status make_probe(uintptr_t address, probe_procedure procedure, void *user_data, int policy,
				      int state, patch_t *out)
{
	struct patch_location location = location_at(address);
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE, procedure, user_data);
	patch_attr attr = attr_of(policy, state);

	return patch_make(&location, &model, &attr, out, NULL);
}

static inline const char *policy_name(int policy)
{
	return policy == PATCH_TRAP_POLICY_ALLOW ? "ALLOW" : policy == PATCH_TRAP_POLICY_FORBID ? "FORBID" : "FORCE";
}

#endif
