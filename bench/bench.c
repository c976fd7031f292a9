/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench [--quick] [--group=NAME] [--row=PATTERN] [--scale=FACTOR] [--peers=DIRECTORY] [--list]
 *
 * Measures, and prints tab-separated values. report.awk makes tables of them, plot.awk a picture.
 */
#include "bench.h"

#include <fnmatch.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options options = {.scale = 1};

static const struct group {
	const char *name;
	void (*run)(void);
	const char *what;
} groups[] = {
	{"hit", group_hit, "cost of one hit, by kind of probe; floors and peers"},
	{"install", group_install, "make, commit, disable, unmake, per patch"},
	{"disturb", group_disturb, "pauses and lost throughput of a thread in code that is being patched"},
	{"size", group_size, "bytes and mappings per patch"},
	{"start", group_start, "patch_init() and the first commit, in processes with threads"},
	{"scale", group_scale, "from 10 to 1,000,000 patches, from 1 to 256 threads"},
};

bool row_wanted(const char *row)
{
	return options.row == NULL || fnmatch(options.row, row, 0) == 0;
}

static void usage(void)
{
	fprintf(stderr, "usage: bench [--quick] [--group=NAME] [--row=PATTERN] [--scale=FACTOR] [--peers=DIRECTORY]\n");
	for (size_t i = 0; i < sizeof(groups) / sizeof(*groups); i++)
		fprintf(stderr, "  %-8s %s\n", groups[i].name, groups[i].what);
	exit(2);
}

static void parse(int argc, char **argv)
{
	static const struct option known[] = {
		{"quick", no_argument, NULL, 'q'},       {"group", required_argument, NULL, 'g'},
		{"row", required_argument, NULL, 'r'},   {"scale", required_argument, NULL, 's'},
		{"peers", required_argument, NULL, 'p'}, {NULL, 0, NULL, 0},
	};
	int option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
		switch (option) {
		case 'q':
			options.quick = true;
			break;
		case 'g':
			options.group = optarg;
			break;
		case 'r':
			options.row = optarg;
			break;
		case 's':
			options.scale = strtod(optarg, NULL);
			break;
		case 'p':
			options.peers = optarg;
			break;
		default:
			usage();
		}
	}
	if (optind != argc || !(options.scale > 0))
		usage();
}

int main(int argc, char **argv)
{
	bool any = false;

	parse(argc, argv);
	machine_print();
	fflush(stdout);
	for (size_t i = 0; i < sizeof(groups) / sizeof(*groups); i++) {
		uint64_t start = now_ns();

		if (options.group && strcmp(options.group, groups[i].name))
			continue;
		any = true;
		groups[i].run();
		if (!options.quick)
			fprintf(stderr, "bench: %s: %.0f s\n", groups[i].name, (double)(now_ns() - start) / 1e9);
	}
	if (!any)
		usage();
	series_print();
	return series_failed() ? 1 : 0;
}
