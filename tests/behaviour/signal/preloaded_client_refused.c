/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A client is preloaded, and what it depends on has started threads that block every signal before the client's
 * constructor calls patch_init(): in all ways to wait. They are adopted, and everything works; or, where the client
 * says so, or where nobody can have it otherwise, commits are refused with the thread's number and name until it has
 * gone. Nobody waits for such a thread.
 */
#include "harness.h"

#include "blocked-client.h"
#include "blocking.h"

#include <dlfcn.h>

#define PRELOADED "preloaded"

static char client[512];

static struct {
	const char *way;
	bool adopts;
} part;

static void preload(void *program)
{
	setenv("LD_PRELOAD", client, 1);
	setenv(BLOCKING_WAY, part.way, 1);
	setenv(BLOCKED_CLIENT_ADOPTS, part.adopts ? "1" : "0", 1);
	execl(program, program, PRELOADED, (char *)NULL);
	FAIL("%s: %s", (char *)program, strerror(errno));
}

static int preloaded(void)
{
	const char *const *failure = dlsym(RTLD_DEFAULT, BLOCKED_CLIENT_FAILURE);
	const char *details = dlsym(RTLD_DEFAULT, BLOCKED_CLIENT_DETAILS);

	REQUIRE(failure != NULL && details != NULL);
	CHECK_MSG(*failure == NULL, "%s (%s)", *failure, details);
	return harness_end();
}

static void run(const char *way, bool adopts)
{
	char name[64];

	part.way = way;
	part.adopts = adopts;
	snprintf(name, sizeof(name), "%s, %s", way, adopts ? "adopted" : "not to be adopted");
	harness_isolated(name, preload, (void *)"/proc/self/exe");
}

int main(int argc, char **argv)
{
	static const char *const ways[] = { "read",	 "futex", "sigwait", "sigwaitinfo",
					    "signalfd",	 "ppoll", "unseen ppoll", "pselect",
					    "epoll_pwait", "sigsuspend", "not started", "vfork",
					    "all" };
	const char *build = getenv("LIBPATCH_BUILD_DIR");

	harness_start();
	if (argc > 1 && strcmp(argv[1], PRELOADED) == 0)
		return preloaded();
	if (access("/proc/self/syscall", R_OK) != 0)
		SKIP("/proc/self/syscall: %s", strerror(errno));
	snprintf(client, sizeof(client), "%s/tests/support/.libs/blocked-client.so", build ? build : ".");
	if (access(client, R_OK) != 0)
		SKIP("%s: %s", client, strerror(errno));
	for (size_t i = 0; i < sizeof(ways) / sizeof(*ways); i++) {
		run(ways[i], true);
		run(ways[i], false);
	}
	return harness_end();
}
