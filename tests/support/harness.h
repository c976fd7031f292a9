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

#include "common/probe_code.h"

#include <libpatch/patch.h>

#include <errno.h>
#include <signal.h>
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

/* Procedures that may be probed with PATCH_REGS_GP_ONLY are compiled without extended state. */
#define GP_ONLY PROBE_CODE
#if defined(__clang__)
#define NOINLINE __attribute__((noinline))
#else
#define NOINLINE __attribute__((noinline, noclone))
#endif
/* No test needs as much by far. */
#define HARNESS_SECONDS 120

#define MAYBE_UNUSED __attribute__((unused))

#ifdef __cplusplus
extern "C" {
#endif

/* In shared memory, so that a parent can say where its child died. */
struct harness_shared {
	char context[256];
	char skipped[256]; /* why the last part that was skipped could not run */
};

extern int harness_failures; /* of this process */
extern struct harness_shared *harness_shared;

void harness_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* What is under test now; printed with each failure. */
#define CONTEXT(...) \
	do { \
		if (harness_shared) \
			snprintf(harness_shared->context, sizeof(harness_shared->context), __VA_ARGS__); \
	} while (0)

void harness_fail(const char *file, int line, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* The last error of the calling thread, in one line. */
const char *harness_last_error(void);

/* Is that error about this address? */
bool harness_error_is_at(uintptr_t address);

/* Is `code` among the errors of the calling thread's last call? */
bool harness_chain_has(patch_status code);
/* A commit says that somebody changed the 32 bytes at `text`, and leaves them. */
void harness_commit_refused(const void *text);

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
 * The process ends, and says why. In a child of harness_isolated() it is one part of the test that is skipped. What
 * failed before counts for more.
 */
void harness_skip(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

#define SKIP(...) harness_skip(__VA_ARGS__)

unsigned int harness_seconds(const char *variable, unsigned int standard);
/* The test is ended after `seconds` of its own time (own_time.h). */
void harness_start_seconds(unsigned int seconds);
/* After LIBPATCH_TEST_TIMEOUT seconds, or HARNESS_SECONDS. */
void harness_start(void);

/*
 * The exit status of the test: 1 when a check failed; 77 when a part was skipped, because a test that could not do all
 * it is for has not passed; else 0. The last line names the first part that was skipped, for the sum of all tests shows
 * that line.
 */
int harness_end(void);

/* Run fn(argument) in a child; returns its wait status. The child exits with what harness_end() says. */
int harness_child(void (*fn)(void *), void *argument);

/* A part of the test cannot run here. */
void harness_skip_part(const char *what, const char *reason);

/*
 * Run fn(argument) in a child of its own and count the child's end as a failure unless it went well. When the child
 * calls SKIP(), the part is noted for harness_end(); the parts behind it run.
 */
void harness_isolated(const char *what, void (*fn)(void *), void *argument);

/* Is the thread of this process in futex(2)? */
bool harness_waits(pid_t tid);

/* Of a child that is traced: the signal that it stops with, or -status when it has ended; and where it has stopped. */
int harness_stop_of(pid_t child);
uintptr_t harness_pc_of(pid_t child);

/*
 * The path of the module that is built beside the tests (module.c). Not in a child: the test ends where there is none.
 */
const char *harness_module(void);

/* Call what a test wrote at `code`: a function without arguments. */
int call_code(const void *code);

/* ---- small things around the public interface -------------------------------------------------------------------- */

struct patch_location location_at(uintptr_t address);

typedef void (*probe_procedure)(struct patch_exec_context *, uint8_t);

struct patch_exec_model model_of(int type, probe_procedure procedure, void *user_data);
patch_attr attr_of(int policy, int state);

/* PROBE at address, every register readable, everything may be clobbered. */
patch_status make_probe(uintptr_t address, probe_procedure procedure, void *user_data, int policy, int state,
			patch_t *out);
const char *policy_name(int policy);

#ifdef __cplusplus
}
#endif

#endif
