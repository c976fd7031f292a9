/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Samples by row and case, and what becomes of them: lines of tab-separated values. */
#include "bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct series {
	char group[16];
	char row[64];
	char which[40];
	char unit[16];
	char reason[160];
	char floor[64];
	char bare[64];
	double *values;
	size_t count, capacity;
	bool failed;
};

static struct series *all;
static size_t all_count, all_capacity;

static void *checked(void *memory)
{
	if (memory == NULL) {
		perror("bench");
		exit(1);
	}
	return memory;
}

static struct series *lookup(const char *group, const char *row, const char *which)
{
	for (size_t i = 0; i < all_count; i++)
		if (!strcmp(all[i].row, row) && !strcmp(all[i].which, which) && !strcmp(all[i].group, group))
			return &all[i];
	return NULL;
}

static struct series *series(const char *group, const char *row, const char *which)
{
	struct series *found = lookup(group, row, which);

	if (found != NULL)
		return found;
	if (all_count == all_capacity) {
		all_capacity = all_capacity ? 2 * all_capacity : 256;
		all = checked(reallocarray(all, all_capacity, sizeof(*all)));
	}
	found = &all[all_count++];
	memset(found, 0, sizeof(*found));
	snprintf(found->group, sizeof(found->group), "%s", group);
	snprintf(found->row, sizeof(found->row), "%s", row);
	snprintf(found->which, sizeof(found->which), "%s", which);
	return found;
}

void series_skip(const char *group, const char *row, const char *which, const char *reason)
{
	struct series *to = series(group, row, which);

	snprintf(to->reason, sizeof(to->reason), "%s", reason);
}

void series_fail(const char *group, const char *row, const char *which, const char *reason)
{
	series_skip(group, row, which, reason);
	series(group, row, which)->failed = true;
	fprintf(stderr, "bench: %s: %s (%s): %s\n", group, row, which, reason);
}

void series_add(const char *group, const char *row, const char *which, const char *unit, double value)
{
	struct series *to = series(group, row, which);

	if (to->count == to->capacity) {
		to->capacity = to->capacity ? 2 * to->capacity : 64;
		to->values = checked(reallocarray(to->values, to->capacity, sizeof(*to->values)));
	}
	snprintf(to->unit, sizeof(to->unit), "%s", unit);
	to->values[to->count++] = value;
}

void series_relate(const char *group, const char *row, const char *which, const char *floor, const char *bare)
{
	struct series *from = lookup(group, row, which);
	const struct series *already = from && from->floor[0] ? lookup(group, from->floor, which) : NULL;

	if (from == NULL || (already != NULL && already->count > 0))
		return;
	snprintf(from->floor, sizeof(from->floor), "%s", floor);
	snprintf(from->bare, sizeof(from->bare), "%s", bare ? bare : "");
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double minimum(const struct series *of)
{
	return of && of->count ? of->values[0] : NAN;
}

static double median(const struct series *of)
{
	return of && of->count ? (of->values[(of->count - 1) / 2] + of->values[of->count / 2]) / 2 : NAN;
}

static void print_number(double value)
{
	if (isfinite(value))
		printf("\t%.6g", value);
	else
		printf("\t-");
}

static void print_series(const struct series *of)
{
	const struct series *floor = of->floor[0] ? lookup(of->group, of->floor, of->which) : NULL;
	const struct series *bare = of->bare[0] ? lookup(of->group, of->bare, of->which) : NULL;
	double least = minimum(of) - (of->bare[0] ? minimum(bare) : 0);
	double middle = median(of) - (of->bare[0] ? median(bare) : 0);
	double floor_least = minimum(floor) - (of->bare[0] ? minimum(bare) : 0);
	double floor_middle = median(floor) - (of->bare[0] ? median(bare) : 0);

	printf("%s\t%s\t%s\t%s\t%zu", of->group, of->row, of->which, of->unit[0] ? of->unit : "-", of->count);
	print_number(minimum(of));
	print_number(median(of));
	print_number(least);
	print_number(middle);
	printf("\t%s", floor && floor->count ? of->floor : "-");
	print_number(floor_least > 0 ? least / floor_least : NAN);
	print_number(floor_middle > 0 ? middle / floor_middle : NAN);
	printf("\t%s\n", of->count ? "" : of->reason[0] ? of->reason : "no sample");
}

void series_print(void)
{
	for (size_t i = 0; i < all_count; i++)
		qsort(all[i].values, all[i].count, sizeof(double), compare);
	printf("group\trow\tcase\tunit\tsamples\tmin\tmedian\tover_bare_min\tover_bare_median\tfloor\tratio_min\t"
	       "ratio_median\tnote\n");
	for (size_t i = 0; i < all_count; i++)
		print_series(&all[i]);
}

size_t series_failed(void)
{
	size_t failed = 0;

	for (size_t i = 0; i < all_count; i++)
		failed += all[i].failed || (all[i].count == 0 && all[i].reason[0] == '\0');
	return failed;
}
