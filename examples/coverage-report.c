/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "coverage.h"
#include "output.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const outcome_names[OUTCOMES] = {"not tried", "jump", "jump over several", "trap", "refused"};
static const char *const policy_names[POLICIES] = {"ALLOW", "FORBID"};

/* What a row is a share of. */
enum group {
	ENTRIES,
	INSTRUCTIONS,
	GROUPS
};

static double percent(uint64_t part, uint64_t whole)
{
	return whole ? 100.0 * (double)part / (double)whole : 0.0;
}

static bool belongs(const struct site *site, enum group group)
{
	return group == ENTRIES ? site->is_entry : site->is_sampled;
}

/* "symbol", "symbol+0x1c", or "module+0x1234" where the function has no name. */
static void site_name(const struct coverage *coverage, const struct site *site, const char *function, char *name,
		      size_t size)
{
	const struct extent *extent = &coverage->functions.extents[site->extent];
	const char *module = coverage->module->name;
	size_t length = strlen(module);
	uintptr_t offset = site->address - extent->lower;

	if (!strncmp(function, module, length) && function[length] == '+')
		snprintf(name, size, "%s+0x%jx", module, (uintmax_t)(site->address - coverage->module->base));
	else if (offset)
		snprintf(name, size, "%s+0x%jx", function, (uintmax_t)offset);
	else
		snprintf(name, size, "%s", function);
}

static void function_name(const struct coverage *coverage, const struct site *site, char *name, size_t size)
{
	functions_name(&coverage->functions, &coverage->functions.extents[site->extent], name, size);
}

/* ---- one line per site -------------------------------------------------------------------------------------------- */

static const char *reason_of(const struct coverage *coverage, size_t site)
{
	for (int policy = 0; policy < POLICIES; policy++)
		if (coverage->results[policy][site].outcome == REFUSED)
			return coverage->shared->reasons[coverage->results[policy][site].reason].text;
	return "";
}

static void print_table(const struct coverage *coverage)
{
	char function[512] = "", name[576];

	printf("%-18s  %-17s %6s  %-17s %6s  %s\n", "address", "ALLOW", "window", "FORBID", "window", "symbol: reason");
	for (size_t i = 0; i < coverage->site_count; i++) {
		const struct site *site = &coverage->sites[i];
		const struct result *allow = &coverage->results[ALLOW][i];
		const struct result *forbid = &coverage->results[FORBID][i];
		const char *reason = reason_of(coverage, i);

		if (i == 0 || site->extent != site[-1].extent)
			function_name(coverage, site, function, sizeof(function));
		site_name(coverage, site, function, name, sizeof(name));
		printf("0x%016jx  %-17s %6u  ", (uintmax_t)(site->address - coverage->module->base),
		       outcome_names[allow->outcome], allow->length);
		printf("%-17s %6u  %s%s%s\n", outcome_names[forbid->outcome], forbid->length, name,
		       reason[0] ? ": " : "", reason);
	}
}

/* ---- sums --------------------------------------------------------------------------------------------------------- */

static void print_histogram(const struct coverage *coverage)
{
	uint64_t sums[GROUPS][POLICIES][OUTCOMES] = {0}, totals[GROUPS] = {0};
	int groups = coverage->every ? GROUPS : 1;

	for (size_t i = 0; i < coverage->site_count; i++)
		for (int group = 0; group < groups; group++) {
			if (!belongs(&coverage->sites[i], group))
				continue;
			totals[group]++;
			for (int policy = 0; policy < POLICIES; policy++)
				sums[group][policy][coverage->results[policy][i].outcome]++;
		}
	printf("  %-20s %45s", "", "function entries    ");
	if (groups > 1)
		printf("  %45s", coverage->every == 1 ? "all instructions    " : "sampled instructions    ");
	printf("\n  %-20s", "");
	for (int group = 0; group < groups; group++)
		printf(" %22s %22s ", policy_names[ALLOW], policy_names[FORBID]);
	printf("\n");
	for (int outcome = JUMP; outcome <= OUTCOMES; outcome++) {
		int shown = outcome % OUTCOMES; /* UNKNOWN last */
		bool any = shown != UNKNOWN;

		for (int group = 0; group < groups; group++)
			any = any || sums[group][ALLOW][shown] || sums[group][FORBID][shown];
		if (!any)
			continue;
		printf("  %-20s", shown == JUMP ? "jump over one" : outcome_names[shown]);
		for (int group = 0; group < groups; group++) {
			for (int policy = 0; policy < POLICIES; policy++)
				printf(" %12s %8.3f%%", GROUPED(sums[group][policy][shown]),
				       percent(sums[group][policy][shown], totals[group]));
			printf(" ");
		}
		printf("\n");
	}
	printf("  %-20s", "by jump");
	for (int group = 0; group < groups; group++) {
		for (int policy = 0; policy < POLICIES; policy++) {
			uint64_t jumps = sums[group][policy][JUMP] + sums[group][policy][CONSTRAINED_JUMP];

			printf(" %12s %8.3f%%", GROUPED(jumps), percent(jumps, totals[group]));
		}
		printf(" ");
	}
	printf("\n  %-20s", "sites");
	for (int group = 0; group < groups; group++)
		printf(" %12s %9s %12s %9s ", GROUPED(totals[group]), "", GROUPED(totals[group]), "");
	printf("\n");
}

struct cause {
	uint64_t count;
	size_t example;
};

static void print_causes(const struct coverage *coverage, enum group group, int policy)
{
	static const char *const names[GROUPS] = {"function entries", "instructions"};
	struct cause causes[REASONS_MAX] = {{0, 0}};
	uint64_t total = 0, refused = 0;

	for (size_t i = 0; i < coverage->site_count; i++) {
		const struct result *result = &coverage->results[policy][i];

		if (!belongs(&coverage->sites[i], group))
			continue;
		total++;
		if (result->outcome != REFUSED)
			continue;
		refused++;
		if (!causes[result->reason].count++)
			causes[result->reason].example = i;
	}
	if (!refused)
		return;
	printf("  refused %s, %s:\n", names[group], policy_names[policy]);
	for (;;) {
		struct cause *most = &causes[0];
		const struct site *example;
		char function[512], name[576];

		for (size_t i = 1; i < REASONS_MAX; i++)
			if (causes[i].count > most->count)
				most = &causes[i];
		if (!most->count)
			return;
		example = &coverage->sites[most->example];
		function_name(coverage, example, function, sizeof(function));
		site_name(coverage, example, function, name, sizeof(name));
		printf("    %10s %8.3f%%  %s\n    %20s  such as 0x%jx, %s\n", GROUPED(most->count),
		       percent(most->count, total), coverage->shared->reasons[most - causes].text, "",
		       (uintmax_t)(example->address - coverage->module->base), name);
		most->count = 0;
	}
}

static void print_at_once(const struct coverage *coverage)
{
	for (int policy = 0; policy < POLICIES; policy++) {
		const uint64_t *outcomes = coverage->shared->at_once[policy].outcomes;
		uint64_t made = outcomes[JUMP] + outcomes[CONSTRAINED_JUMP] + outcomes[TRAP];
		uint64_t total = made + outcomes[REFUSED];

		printf("  all entries at once, %-6s ", policy_names[policy]);
		if (!coverage->shared->at_once[policy].complete) {
			printf("not known: the process that tried it died\n");
			continue;
		}
		printf("%.3f%% by jump, %s trap, %s refused; ",
		       percent(outcomes[JUMP] + outcomes[CONSTRAINED_JUMP], total), GROUPED(outcomes[TRAP]),
		       GROUPED(outcomes[REFUSED]));
		printf("%s mappings (%s lines in maps), %s bytes of code, %.0f each; %.2f us per patch_make\n",
		       GROUPED(coverage->shared->at_once[policy].arenas),
		       GROUPED(coverage->shared->at_once[policy].mappings),
		       GROUPED(coverage->shared->at_once[policy].code_bytes),
		       made ? (double)coverage->shared->at_once[policy].code_bytes / (double)made : 0.0,
		       total ? (double)coverage->shared->at_once[policy].ns / 1e3 / (double)total : 0.0);
	}
}

void coverage_report(const struct coverage *coverage)
{
	const struct shared *shared = coverage->shared;

	printf("%s (%s at 0x%jx)\n", coverage->module->path, coverage->is_program ? "program" : "library",
	       (uintmax_t)coverage->module->base);
	if (!coverage->module->described) {
		printf("  no unwind table (.eh_frame_hdr): its functions are unknown\n\n");
		return;
	}
	if (coverage->table) {
		print_table(coverage);
		printf("\n");
		return;
	}
	printf("  %s functions, %s instructions, ", GROUPED(coverage->function_count),
	       GROUPED(coverage->instruction_count));
	printf("%s bytes in functions that do not decode\n", GROUPED(coverage->undecoded_bytes));
	print_histogram(coverage);
	for (int group = 0; group < (coverage->every ? GROUPS : 1); group++)
		for (int policy = 0; policy < POLICIES; policy++)
			print_causes(coverage, group, policy);
	print_at_once(coverage);
	printf("  each site alone            ");
	for (int policy = 0; policy < POLICIES; policy++)
		printf("%s%.2f us (%s)", policy ? ", " : "",
		       shared->made[policy] ? (double)shared->ns[policy] / 1e3 / (double)shared->made[policy] : 0.0,
		       policy_names[policy]);
	printf(" per patch_make, of processor time\n\n");
}
