/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * By default no mapping is writable and executable at any time: a thread reads /proc/self/maps over and over while
 * another makes, toggles and unmakes patches of all strategies.
 */
#include "targets.h"

#include <fcntl.h>
#include <pthread.h>

static unsigned int stop, samples, seen;
static char line_seen[256];

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static void *sample(void *argument)
{
	static char text[1 << 20];

	(void)argument;
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
		size_t size = 0;
		ssize_t got;

		if (fd < 0)
			continue;
		while (size < sizeof(text) - 1 && (got = read(fd, text + size, sizeof(text) - 1 - size)) > 0)
			size += (size_t)got;
		close(fd);
		text[size] = '\0';
		for (char *line = text; *line;) {
			char *end = strchr(line, '\n'), *permissions = strchr(line, ' ');

			if (!end || !permissions)
				break;
			*end = '\0';
			if (permissions[2] == 'w' && permissions[3] == 'x' && !seen++)
				snprintf(line_seen, sizeof(line_seen), "%.200s", line);
			line = end + 1;
		}
		__atomic_fetch_add(&samples, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

int main(void)
{
	pthread_t thread;

	harness_start();
	REQUIRE(pthread_create(&thread, NULL, sample, NULL) == 0);
	while (__atomic_load_n(&samples, __ATOMIC_RELAXED) < 5)
		sched_yield();
	if (seen)
		SKIP("%s is writable and executable without us", line_seen);
	REQUIRE_OK(patch_init(NULL, 0));
	for (unsigned int round = 0; round < 40 || __atomic_load_n(&samples, __ATOMIC_RELAXED) < 300; round++) {
		patch_t patches[TARGET_COUNT];

		for (size_t t = 0; t < TARGET_COUNT; t++) {
			patches[t] = NULL;
			CHECK_OK(make_probe(target_start(&targets[t]), procedure, NULL,
					    (round + t) % 3 ? PATCH_TRAP_POLICY_ALLOW : PATCH_TRAP_POLICY_FORCE,
					    PATCH_ENABLED, &patches[t]));
			if (t % 16 == 0)
				CHECK_OK(patch_commit());
		}
		CHECK_OK(patch_commit());
		for (size_t t = 0; t < TARGET_COUNT; t++)
			CHECK_OK(patches[t] ? patch_disable(patches[t]) : PATCH_OK);
		CHECK_OK(patch_commit());
		for (size_t t = 0; t < TARGET_COUNT; t++)
			CHECK_OK(patches[t] ? patch_unmake(patches[t]) : PATCH_OK);
		CHECK_OK(patch_commit());
		if (round > 100000)
			break;
	}
	CHECK_OK(patch_fini());
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	if (seen)
		FAIL("seen: %s", line_seen);
	harness_say("%u samples\n", samples);
	return harness_end();
}
