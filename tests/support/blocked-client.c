/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A tool that is preloaded, and depends on a library with threads that block every signal (blocking.h): its constructor
 * patches every function of the program and of libc, takes patches away and back, lets the threads go on into an int3,
 * and undoes everything.
 */
#define _GNU_SOURCE
#include "blocking.h"
#include "blocked-client.h"
#include "common/functions.h"
#include "common/probe_code.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libpatch/patch.h>

#define ROUNDS 6
#define THIRDS 3
#define KEPT 16

__attribute__((visibility("default"))) const char *blocked_client_failure = "its constructor did not come to its end";
__attribute__((visibility("default"))) char blocked_client_details[512];

static struct functions functions;
static struct site {
	patch_t patch; /* NULL: refused */
	uint8_t text[KEPT];
} *sites;
static patch_t step;
static uint64_t hits, steps;

PROBE_CODE static void on_hit(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	__atomic_fetch_add((uint64_t *)context->user_data, 1, __ATOMIC_RELAXED);
}

static bool fail(const char *what)
{
	struct patch_error error;

	patch_last_error(&error);
	blocked_client_failure = what;
	snprintf(blocked_client_details, sizeof(blocked_client_details), "%s: %s", error.message, error.irritant);
	return false;
}

static patch_status make(uintptr_t address, int policy, uint64_t *counter, patch_t *patch)
{
	struct patch_location location = { .type = PATCH_LOCATION_ADDRESS, .address = address };
	struct patch_exec_model model = { .type = PATCH_EXEC_MODEL_PROBE };
	patch_status status;
	patch_attr attr;

	patch_attr_init(&attr, sizeof(attr));
	patch_attr_set_initial_state(&attr, PATCH_ENABLED);
	patch_attr_set_trap_policy(&attr, policy);
	model.probe.procedure = on_hit;
	model.probe.user_data = counter;
	model.probe.clobber_registers = PATCH_REGS_GP_ONLY;
	status = patch_make(&location, &model, &attr, patch, NULL);
	patch_attr_fini(&attr);
	return status;
}

/* patch_init() patches some of libc's. */
static void keep_text(void)
{
	for (size_t i = 0; i < functions.extent_count; i++)
		memcpy(sites[i].text, (const void *)functions.extents[i].lower, KEPT);
}

static bool is_text_same(void)
{
	for (size_t i = 0; i < functions.extent_count; i++)
		if (memcmp(sites[i].text, (const void *)functions.extents[i].lower, KEPT) != 0)
			return false;
	return true;
}

static bool make_all(void)
{
	size_t made = 0;

	for (size_t i = 0; i < functions.extent_count; i++) {
		if (make(functions.extents[i].lower, PATCH_TRAP_POLICY_ALLOW, &hits, &sites[i].patch) == PATCH_OK)
			made++;
		else
			sites[i].patch = NULL;
	}
	if (made < functions.extent_count / 2)
		return fail("most functions were refused");
	return make((uintptr_t)blocking_step, PATCH_TRAP_POLICY_FORCE, &steps, &step) == PATCH_OK ||
	       fail("patch_make() of the threads' function");
}

/* A thread that cannot be adopted is named, and nothing is written until it has gone. */
static bool expect_refusal(void)
{
	const char *way = getenv(BLOCKING_WAY);
	const patch_status status = patch_commit();
	struct patch_error error;

	/* It may have run only behind patch_init(), and then blocks them by a call that is mediated: it believes so. */
	if (status == PATCH_OK && way && strcmp(way, "not started") == 0)
		return true;
	if (status != PATCH_EBLOCKED)
		return fail("patch_commit() was not refused with PATCH_EBLOCKED");
	patch_last_error(&error);
	if (!blocking_is_thread(atoi(error.irritant)))
		return fail("another thread is named");
	/* Before it runs, it has the name of the one that made it. */
	if (!strstr(error.irritant, " (" BLOCKING_THREAD ")") && !blocking_is_thread(-1))
		return fail("the thread's name is missing");
	getppid();
	return hits == 0 || fail("text was changed all the same");
}

static bool toggle(void)
{
	for (unsigned int round = 0; round < ROUNDS; round++) {
		for (size_t i = 0; i < functions.extent_count; i++) {
			if (!sites[i].patch)
				continue;
			if (i % THIRDS == round % THIRDS)
				patch_disable(sites[i].patch);
			else
				patch_enable(sites[i].patch);
		}
		if (patch_commit() != PATCH_OK)
			return fail("patch_commit() of a round");
	}
	return true;
}

static bool undo(void)
{
	for (size_t i = 0; i < functions.extent_count; i++)
		if (sites[i].patch && patch_unmake(sites[i].patch) != PATCH_OK)
			return fail("patch_unmake()");
	if (patch_unmake(step) != PATCH_OK || patch_commit() != PATCH_OK)
		return fail("patch_commit() of what is undone");
	if (patch_fini() != PATCH_OK)
		return fail("patch_fini()");
	return is_text_same() || fail("text is not what it was");
}

static bool run(bool adopts)
{
	const struct patch_option option = { .type = PATCH_OPT_ADOPT_THREADS, .adopt_threads = adopts };
	const bool refused = !adopts || !blocking_can_be_adopted();

	if (!functions_collect("main,libc.so.6", &functions) ||
	    !(sites = calloc(functions.extent_count + 1, sizeof(*sites))))
		return fail("out of memory");
	keep_text();
	if (patch_init(&option, 1) != PATCH_OK)
		return fail("patch_init()");
	if (!make_all() || (refused && !expect_refusal()))
		return false;
	if (refused && !blocking_end())
		return fail("a thread that was left alone is not what it was");
	if (patch_commit() != PATCH_OK)
		return fail("patch_commit()");
	getppid();
	if (!toggle())
		return false;
	if (!refused && !blocking_end())
		return fail("an adopted thread is not what it was");
	if (!refused && steps != blocking_count())
		return fail("hits of the threads are missing");
	return hits > 0 ? undo() : fail("nothing was hit");
}

__attribute__((constructor)) static void start(void)
{
	const char *adopts = getenv(BLOCKED_CLIENT_ADOPTS);

	if (adopts != NULL && run(strcmp(adopts, "1") == 0))
		blocked_client_failure = NULL;
}
