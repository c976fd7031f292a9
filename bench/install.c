/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Installing: microseconds per patch, by the size of the batch, with the other threads asleep or one of them running
 * through the code. Patches are spread evenly over the function entries of a large library, other ones for each
 * batch. A process takes few batches, processes of all rows take turns: what is cached, warm or learned is the same
 * for all.
 */
#define _GNU_SOURCE
#include "bench.h"
#include "patch.h"
#include "runner.h"
#include "sites.h"
#include "uprobe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define GROUP "install"
#define UNIT "us/patch"

struct row {
	const char *name;
	enum bench_kind kind;
	void (*batches)(const struct row *row);
	size_t largest; /* batch */
};

static struct {
	size_t count; /* 0: all */
	bool running;
	unsigned int batches;
	double seconds; /* after which a batch is given up */
	struct sites sites;
} now;

static char which[40];

static size_t batch_size(void)
{
	return now.count && now.count < now.sites.count ? now.count : now.sites.count;
}

/* Told when all that is to be measured is over: it takes longer than a patch does. */
static void add(const struct row *row, const char *what, uint64_t start, uint64_t end)
{
	char name[64];

	snprintf(name, sizeof(name), "%s: %s", row->name, what);
	child_add(name, which, UNIT, (double)(end - start) / 1e3 / (double)batch_size());
}

static void give_up(const struct row *row, const char *what, const char *reason)
{
	char name[64];

	snprintf(name, sizeof(name), "%s: %s", row->name, what);
	child_skip(name, which, reason);
}

/* ---- ours ---- */

static bool make_batch(const struct row *row, unsigned int batch, patch_t *patches)
{
	const uint64_t end = now_ns() + (uint64_t)(now.seconds * 1e9);
	const size_t size = batch_size();

	for (size_t i = 0; i < size; i++) {
		uintptr_t site = sites_spread(&now.sites, size, i, batch);
		char reason[80];

		if (!bench_make(site, row->kind, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patches[i])) {
			snprintf(reason, sizeof(reason), "%.79s", bench_last_error());
			give_up(row, "make + commit", reason);
			return false;
		}
		if (i % 1024 == 0 && now_ns() > end) {
			snprintf(reason, sizeof(reason), "only %zu in %.0f s", i, now.seconds);
			give_up(row, "make + commit", reason);
			return false;
		}
	}
	return true;
}

/* make, commit, disable, commit, unmake, commit; and once more, from enabled to gone. */
static bool cycle(const struct row *row, unsigned int batch, patch_t *patches)
{
	const size_t size = batch_size();
	const uint64_t start = now_ns(), own_start = thread_ns();
	uint64_t made, installed, own, changed, disabled, unmade;

	if (!make_batch(row, batch, patches))
		return false;
	made = now_ns();
	if (patch_commit()) {
		give_up(row, "make + commit", bench_last_error());
		return false;
	}
	installed = now_ns();
	own = thread_ns();

	changed = now_ns();
	for (size_t i = 0; i < size; i++)
		patch_disable(patches[i]);
	patch_commit();
	disabled = now_ns();
	for (size_t i = 0; i < size; i++)
		patch_unmake(patches[i]);
	patch_commit();
	unmade = now_ns();

	add(row, "make", start, made);
	add(row, "commit", made, installed);
	add(row, "make + commit", start, installed);
	/* Without what others take of the processor, and without waiting for other processors. */
	add(row, "make + commit, processor time", own_start, own);
	add(row, "disable + commit", changed, disabled);
	add(row, "unmake + commit", disabled, unmade);
	add(row, "disable + unmake", changed, unmade);
	return true;
}

static void ours(const struct row *row)
{
	const char *reason = bench_kind_missing(row->kind);
	patch_t *patches = calloc(now.sites.count, sizeof(*patches));

	if (!reason && !bench_init())
		reason = bench_last_error();
	for (unsigned int i = 0; !reason && i < now.batches; i++)
		if (!cycle(row, i, patches))
			return;
	if (reason)
		give_up(row, "make + commit", reason);
	else
		patch_fini();
}

/* ---- what changing the text takes, whoever does it ---- */

#define PAGE 4096UL
#define RUN (64 * 1024UL)

/*
 * One phase of the protocol, without any thought: all pages with sites are read and, in runs as long as there are,
 * written, with what they hold.
 */
static const char *phase(int memory, size_t size)
{
	static unsigned char bytes[RUN + 2 * PAGE];

	for (size_t i = 0; i < size;) {
		const uintptr_t start = sites_spread(&now.sites, size, i, 0);
		uintptr_t end = start + 1;
		struct iovec local, remote;

		while (++i < size && sites_spread(&now.sites, size, i, 0) < (end & -PAGE) + 2 * PAGE &&
		       end - start < RUN)
			end = sites_spread(&now.sites, size, i, 0) + 1;
		local = (struct iovec){bytes, end - start};
		remote = (struct iovec){(void *)start, end - start};
		if (process_vm_readv(getpid(), &local, 1, &remote, 1, 0) != (ssize_t)(end - start))
			return "text cannot be read";
		if (pwrite(memory, bytes, end - start, (off_t)start) != (ssize_t)(end - start))
			return "text cannot be written";
	}
	return NULL;
}

/* Three of them; all cores are synchronised behind each, or, as after an installation, behind the first two. */
static const char *phases(int memory, size_t size, int syncs)
{
	const char *reason = NULL;

	for (int i = 0; !reason && i < 3; i++) {
		reason = phase(memory, size);
		if (!reason && i < syncs && syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0))
			reason = "no membarrier";
	}
	return reason;
}

static void text_alone(const struct row *row)
{
	int memory = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	const char *reason = memory < 0 ? "no /proc/self/mem" : NULL;
	uint64_t start, first, again;

	if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0))
		reason = "no membarrier";
	start = now_ns();
	if (!reason)
		reason = phases(memory, batch_size(), 2);
	first = now_ns();
	if (!reason)
		reason = phases(memory, batch_size(), 3);
	again = now_ns();
	close(memory);
	if (reason) {
		give_up(row, "first", reason);
		return;
	}
	add(row, "first", start, first);
	add(row, "again", first, again);
}

/* ---- the kernel's ---- */

static void offsets_of(unsigned int batch, uint64_t *offsets)
{
	const size_t size = batch_size();

	for (size_t i = 0; i < size; i++)
		if (!file_offset(sites_spread(&now.sites, size, i, batch), &offsets[i]))
			offsets[i] = 0;
}

static void uprobes(const struct row *row)
{
	uint64_t *offsets = calloc(now.sites.count, sizeof(*offsets));
	int *events = calloc(now.sites.count, sizeof(*events));
	const char *reason = NULL;

	/* Each is detached in milliseconds. */
	for (unsigned int batch = 0; batch < now.batches && batch < (now.count > 1 ? 1 : 8); batch++) {
		const size_t size = batch_size();
		size_t attached = 0;
		uint64_t start, done;

		offsets_of(batch, offsets);
		start = now_ns();
		for (size_t i = 0; i < size; i++) {
			events[attached] = uprobe_attach(now.sites.path, offsets[i], false, -1, &reason);
			attached += events[attached] >= 0;
		}
		if (attached < size) {
			give_up(row, "attach", reason);
			return;
		}
		done = now_ns();
		for (size_t i = 0; i < attached; i++)
			close(events[i]);
		add(row, "detach", done, now_ns());
		add(row, "attach", start, done);
	}
}

/* One refused site refuses all of a batch: leave those out. */
static size_t accepted(int program, uint64_t *offsets, size_t count)
{
	int link = uprobe_multi_attach(program, now.sites.path, offsets, count);
	size_t left, right;

	if (link >= 0) {
		close(link);
		return count;
	}
	if (count <= 1)
		return 0;
	left = accepted(program, offsets, count / 2);
	right = accepted(program, offsets + count / 2, count - count / 2);
	memmove(offsets + left, offsets + count / 2, right * sizeof(*offsets));
	return left + right;
}

static void uprobe_multi(const struct row *row)
{
	uint64_t *offsets = calloc(now.sites.count, sizeof(*offsets));
	const char *reason = NULL;
	int program = uprobe_program(true, &reason);

	for (unsigned int batch = 0; !reason && batch < now.batches && batch < 8; batch++) {
		uint64_t start, done;
		size_t count;
		int link;

		offsets_of(batch, offsets);
		link = uprobe_multi_attach(program, now.sites.path, offsets, 1);
		if (link < 0 && batch_size() > 1) {
			reason = errno == EINVAL ? "the kernel has no uprobe_multi" : "the kernel refuses uprobe_multi";
			break;
		}
		close(link);
		count = batch_size();
		start = now_ns();
		link = uprobe_multi_attach(program, now.sites.path, offsets, count);
		if (link < 0) {
			count = accepted(program, offsets, count);
			start = now_ns();
			link = uprobe_multi_attach(program, now.sites.path, offsets, count);
		}
		if (link < 0 || count < batch_size() / 2) {
			reason = "the kernel refuses these sites";
			break;
		}
		done = now_ns();
		close(link);
		add(row, "detach", done, now_ns());
		add(row, "attach", start, done);
	}
	if (reason)
		give_up(row, "attach", reason);
}

/* ---- all together ---- */

static const struct row rows[] = {
	{"probe", KIND_GPR, ours, SIZE_MAX},
	{"count", KIND_COUNT_PLAIN, ours, SIZE_MAX},
	{"text alone", KIND_GPR, text_alone, SIZE_MAX},
	{"uprobe_multi", KIND_GPR, uprobe_multi, SIZE_MAX},
	{"uprobes one by one", KIND_GPR, uprobes, 100},
};
#define ROWS (sizeof(rows) / sizeof(*rows))

static void in_child(void *argument)
{
	const struct row *row = argument;
	const char *reason = NULL;
	void (*call)(void);

	if (now.running) {
		reason = sites_caller(&call);
		if (!reason && !runner_start(call))
			reason = "no thread";
	}
	if (reason)
		give_up(row, "make + commit", reason);
	else
		row->batches(row);
	/* The other thread is not waited for: the process ends. */
}

static void relate_to_text(const char *ours_name)
{
	char name[64];

	snprintf(name, sizeof(name), "%s: commit", ours_name);
	series_relate(GROUP, name, which, "text alone: first", NULL);
	snprintf(name, sizeof(name), "%s: disable + commit", ours_name);
	series_relate(GROUP, name, which, "text alone: again", NULL);
}

static void relate(const char *ours_name, bool is_multi)
{
	const char *peer = is_multi ? "uprobe_multi" : "uprobes one by one";
	char name[64], floor[64];

	snprintf(name, sizeof(name), "%s: make + commit", ours_name);
	snprintf(floor, sizeof(floor), "%s: attach", peer);
	series_relate(GROUP, name, which, floor, NULL);
	snprintf(name, sizeof(name), "%s: disable + unmake", ours_name);
	snprintf(floor, sizeof(floor), "%s: detach", peer);
	series_relate(GROUP, name, which, floor, NULL);
}

/* What happens to a peer is no failure. */
static bool run_row(const struct row *row)
{
	const bool is_ours = row->batches == ours;
	const char *step = "make + commit";
	char name[64];

	if (child_run(GROUP, in_child, (void *)(uintptr_t)row, is_ours ? 100 : 30))
		return true;
	if (!is_ours)
		step = row->batches == text_alone ? "first" : "attach";
	snprintf(name, sizeof(name), "%s: %s", row->name, step);
	(is_ours ? series_fail : series_skip)(GROUP, name, which, "its process died, or took too long");
	return false;
}

static void run_case(size_t count, bool running, double seconds)
{
	const uint64_t end = now_ns() + (uint64_t)(seconds * options.scale * 1e9);
	bool usable[ROWS];

	now.count = count;
	now.running = running;
	now.batches = options.quick ? 1 : count == 0 || count > 1000 ? 1 : count > 10 ? 20 : 200;
	now.seconds = options.quick ? 20 : 45;
	snprintf(which, sizeof(which), count ? "%zu, %s" : "all %zu, %s", count ? count : now.sites.count,
		 running ? "running" : "asleep");
	for (size_t i = 0; i < ROWS; i++)
		usable[i] = row_wanted(rows[i].name) && batch_size() <= rows[i].largest &&
			    (!options.quick || rows[i].batches == ours);
	/*
	 * Back and forth: what one leaves to the kernel to clear up is in the way of the next, which is to be another
	 * each time.
	 */
	for (bool forth = true; ; forth = !forth) {
		for (size_t k = 0; k < ROWS; k++) {
			const size_t i = forth ? k : ROWS - 1 - k;

			if (usable[i])
				usable[i] = run_row(&rows[i]);
		}
		if (now_ns() >= end)
			break;
	}
	for (size_t i = 0; i < ROWS; i++)
		if (usable[i] && rows[i].batches == ours) {
			relate(rows[i].name, true);
			relate(rows[i].name, false);
			relate_to_text(rows[i].name);
		}
}

void group_install(void)
{
	const char *reason = sites_of_functions(&now.sites);

	if (reason) {
		series_skip(GROUP, "probe: make + commit", "any", reason);
		return;
	}
	for (int running = 0; running <= 1; running++) {
		run_case(1, running, options.quick ? 0 : 6);
		run_case(100, running, options.quick ? 0 : 6);
		if (options.quick)
			continue;
		run_case(10000, running, 10);
		run_case(0, running, 20);
	}
}
