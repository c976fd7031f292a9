/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What every behaviour test shares. Nothing here takes part in what is tested: no patches of its own, no handlers, no
 * threads.
 */
#include "harness.h"

#include "own_time.h"

#include <stdarg.h>
#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/user.h>

#define HARNESS_MAX_FAILURES 25

int harness_failures;
struct harness_shared *harness_shared;
/* Parts of the test that ran in a child of their own and could not run here, and the reason that the first of them
 * gave. */
static unsigned int harness_parts_skipped;
static char harness_part_skipped[512];

void harness_say(const char *format, ...)
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

void harness_fail(const char *file, int line, const char *format, ...)
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

const char *harness_last_error(void)
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

bool harness_error_is_at(uintptr_t address)
{
	struct patch_error error;
	char text[24];

	snprintf(text, sizeof(text), "0x%lx", (unsigned long)address);
	return patch_last_error(&error) != PATCH_OK && strcmp(error.irritant, text) == 0;
}

bool harness_chain_has(patch_status code)
{
	struct patch_error error;
	unsigned int length = 0;

	if (patch_last_error(&error) == PATCH_OK)
		return false;
	for (struct patch_error *next = &error; next; next = next->next) {
		CHECK(next->origin && next->irritant && next->message);
		if (next->code == code)
			return true;
		if (++length > 1000) {
			FAIL("the error chain has no end");
			return false;
		}
	}
	return false;
}

void harness_commit_refused(const void *text)
{
	uint8_t before[32];

	memcpy(before, text, sizeof(before));
	CHECK_STATUS(patch_commit(), PATCH_EFAIL);
	CHECK(harness_chain_has(PATCH_ECHANGED));
	CHECK(memcmp(before, text, sizeof(before)) == 0);
}

void harness_skip(const char *format, ...)
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

/* Until the limit is reached, or the test has ended. */
static void watch_test(pid_t test, unsigned int seconds)
{
	const struct timespec period = { .tv_sec = OWN_TIME_PERIOD };
	struct own_time own;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	prctl(PR_SET_PDEATHSIG, SIGALRM);
	setpgid(0, 0);
	own_time_start(&own, false, test);
	while (getppid() == test) {
		sigtimedwait(&set, NULL, &period);
		own_time_look(&own);
		if (own.charged < seconds && own.by_clock < (double)seconds * OWN_TIME_PATIENCE)
			continue;
		harness_say("WATCHDOG: test hangs after %.0f s of its own time, %.0f s by the clock [%s]\n",
			    own.charged, own.by_clock, harness_shared ? harness_shared->context : "");
		own_time_report(&own);
		kill(-test, SIGKILL);
		kill(test, SIGKILL);
		break;
	}
}

/*
 * The watchdog is a process of its own: it needs no signal of the test, no thread, and works when the test blocks
 * everything. It ends with the test, however that ends, and with it what is left of the test's process group.
 */
static void harness_watchdog(unsigned int seconds)
{
	pid_t test = getpid();

	if (fork() != 0)
		return;
	watch_test(test, seconds);
	kill(-test, SIGKILL);
	_exit(0);
}

unsigned int harness_seconds(const char *variable, unsigned int standard)
{
	const char *value = getenv(variable);

	return value && *value ? (unsigned int)strtoul(value, NULL, 0) : standard;
}

void harness_start_seconds(unsigned int seconds)
{
	harness_shared = (struct harness_shared *)mmap(NULL, sizeof(*harness_shared), PROT_READ | PROT_WRITE,
						       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (harness_shared == MAP_FAILED)
		harness_shared = NULL;
	setpgid(0, 0);
	harness_watchdog(seconds);
}

void harness_start(void)
{
	harness_start_seconds(harness_seconds("LIBPATCH_TEST_TIMEOUT", HARNESS_SECONDS));
}

int harness_end(void)
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

int harness_child(void (*fn)(void *), void *argument)
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

void harness_skip_part(const char *what, const char *reason)
{
	harness_say("SKIP: %s: %s\n", what, reason);
	if (harness_parts_skipped++ == 0)
		snprintf(harness_part_skipped, sizeof(harness_part_skipped), "%s: %s", what, reason);
}

void harness_isolated(const char *what, void (*fn)(void *), void *argument)
{
	int status;

	CONTEXT("%s", what);
	if (harness_shared)
		harness_shared->skipped[0] = '\0';
	status = harness_child(fn, argument);
	if (WIFSIGNALED(status))
		FAIL("%s: child died of signal %d (%s)", what, WTERMSIG(status), strsignal(WTERMSIG(status)));
	else if (WIFEXITED(status) && WEXITSTATUS(status) == HARNESS_SKIPPED)
		harness_skip_part(what, harness_shared && harness_shared->skipped[0] ? harness_shared->skipped
										     : "it does not say why");
	else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		FAIL("%s: child exited with %#x", what, (unsigned int)status);
}

bool harness_waits(pid_t tid)
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

int harness_stop_of(pid_t child)
{
	int status;

	REQUIRE(waitpid(child, &status, 0) == child);
	return WIFSTOPPED(status) ? WSTOPSIG(status) : -status;
}

uintptr_t harness_pc_of(pid_t child)
{
	return (uintptr_t)ptrace(PTRACE_PEEKUSER, child, offsetof(struct user_regs_struct, rip), NULL);
}

const char *harness_module(void)
{
	static char path[512];
	const char *directory = getenv("LIBPATCH_BUILD_DIR");

	snprintf(path, sizeof(path), "%s/tests/support/.libs/module.so", directory != NULL ? directory : ".");
	if (access(path, R_OK) != 0)
		SKIP("%s: %s", path, strerror(errno));
	return path;
}

int call_code(const void *code)
{
	int (*function)(void);

	memcpy(&function, &code, sizeof(function));
	return function();
}

struct patch_location location_at(uintptr_t address)
{
	struct patch_location location;

	memset(&location, 0, sizeof(location));
	location.type = PATCH_LOCATION_ADDRESS;
	location.direction = PATCH_LOCATION_FORWARD;
	location.algorithm = PATCH_LOCATION_FIRST;
	location.address = address;
	return location;
}

struct patch_exec_model model_of(int type, probe_procedure procedure, void *user_data)
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

patch_attr attr_of(int policy, int state)
{
	patch_attr attr;

	CHECK_OK(patch_attr_init(&attr, sizeof(attr)));
	CHECK_OK(patch_attr_set_trap_policy(&attr, policy));
	CHECK_OK(patch_attr_set_abi(&attr, PATCH_ABI_OS));
	CHECK_OK(patch_attr_set_initial_state(&attr, state));
	return attr;
}

patch_status make_probe(uintptr_t address, probe_procedure procedure, void *user_data, int policy, int state,
			patch_t *out)
{
	struct patch_location location = location_at(address);
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE, procedure, user_data);
	patch_attr attr = attr_of(policy, state);

	return patch_make(&location, &model, &attr, out, NULL);
}

const char *policy_name(int policy)
{
	return policy == PATCH_TRAP_POLICY_ALLOW ? "ALLOW" : policy == PATCH_TRAP_POLICY_FORBID ? "FORBID" : "FORCE";
}
