/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a thread notices of its code being patched. It calls a function of a library over and over; the other thread
 * enables and disables patches in that code at a fixed rate. Throughput is calls per second of the thread's own
 * processor time, so that what else runs on the machine does not count, but interrupts and traps do. As a patch is
 * enabled half of the time, the loss is that against the mean of segments with nothing committed, patches enabled and
 * disabled: it is the committing's, not the probe's. Segments take turns.
 */
#include "bench.h"
#include "patch.h"
#include "runner.h"
#include "sites.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define GROUP "disturb"
#define PATCHES_MAX 1000

struct load {
	const char *name;
	unsigned int rate;  /* commits per second */
	size_t patches;     /* in a commit */
};

static const struct load loads[] = {
	{"10 commits/s", 10, 1},
	{"10 commits/s of 1000", 10, 1000},
	{"1000 commits/s", 1000, 1},
};

static struct {
	patch_t patches[PATCHES_MAX];
	size_t count;
	bool enabled;
} now;

static void pass(uint64_t until)
{
	uint64_t at = now_ns();

	if (at < until) {
		struct timespec time = {(time_t)((until - at) / 1000000000), (long)((until - at) % 1000000000)};

		nanosleep(&time, NULL);
	}
}

static void change(void)
{
	for (size_t i = 0; i < now.count; i++)
		now.enabled ? patch_disable(now.patches[i]) : patch_enable(now.patches[i]);
	patch_commit();
	now.enabled = !now.enabled;
}

/* Calls per second while committing at a rate, 0: not at all. */
static double segment(unsigned int rate, double seconds, double *longest_us, uint64_t *commit_ns, uint64_t *commits)
{
	const uint64_t start = now_ns(), end = start + (uint64_t)(seconds * 1e9);
	struct runner_state before, after;

	runner_look(&before);
	for (uint64_t i = 0; rate && start + i * 1000000000 / rate < end; i++) {
		uint64_t began;

		pass(start + i * 1000000000 / rate);
		began = now_ns();
		change();
		*commit_ns += now_ns() - began;
		++*commits;
	}
	pass(end);
	runner_look(&after);
	*longest_us = (double)after.longest_ns / 1e3;
	return (double)(after.calls - before.calls) * 1e9 / (double)(after.thread_ns - before.thread_ns);
}

static void compare(const struct load *load, double seconds)
{
	double pause, still[2], changing;
	uint64_t ns = 0, commits = 0;
	char name[64];

	for (int i = 0; i < 2; i++) {
		still[i] = segment(0, seconds / 2, &pause, &ns, &commits);
		child_add("longest pause, nothing committed", load->name, "us", pause);
		change();
	}
	changing = segment(load->rate, seconds, &pause, &ns, &commits);
	/* An even number of changes leaves things as they were. */
	if (now.enabled)
		change();
	snprintf(name, sizeof(name), "longest pause");
	child_add(name, load->name, "us", pause);
	/* Half of the time in either state. */
	child_add("throughput loss", load->name, "%", 100 * (1 - 2 * changing / (still[0] + still[1])));
	child_add("time of a commit", load->name, "us", (double)ns / 1e3 / (double)commits);
}

static void in_child(void *argument)
{
	const struct load *load = argument;
	/* Short, for drifts to be the same in all: two commits, or a hundred. */
	const double seconds = options.quick ? 0.02 : load->rate >= 100 ? 0.1 : 0.2;
	struct sites sites;
	const char *reason = sites_of_functions(&sites);
	void (*call)(void);

	if (!reason)
		reason = sites_caller(&call);
	if (!reason && !bench_init())
		reason = bench_last_error();
	/* The first one is what the thread calls itself, others are around it and elsewhere. */
	for (size_t i = 0; !reason && i < load->patches; i++) {
		uintptr_t site = i == 0 ? sites_called() : sites_spread(&sites, PATCHES_MAX, i, 0);

		if (bench_make(site, KIND_GPR, PATCH_TRAP_POLICY_ALLOW, PATCH_DISABLED, &now.patches[now.count]))
			now.count++;
		else if (i == 0)
			reason = bench_last_error();
	}
	if (!reason && !runner_start(call))
		reason = "no thread";
	if (reason) {
		child_skip("throughput loss", load->name, reason);
		return;
	}
	change();
	change();
	for (int i = 0; i < (options.quick ? 1 : (int)(40 * options.scale) + 1); i++)
		compare(load, seconds);
	runner_stop();
}

void group_disturb(void)
{
	for (size_t i = 0; i < sizeof(loads) / sizeof(*loads); i++) {
		if (options.quick && loads[i].patches > 1)
			continue;
		if (!child_run(GROUP, in_child, (void *)(uintptr_t)&loads[i], 120))
			series_fail(GROUP, "throughput loss", loads[i].name, "its process did not end well");
		else
			series_relate(GROUP, "longest pause", loads[i].name, "longest pause, nothing committed", NULL);
	}
}
