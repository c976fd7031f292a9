/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "coverage.h"
#include "common/output.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const outcome_names[OUTCOMES] = {
	"not tried", "jump", "jump over several", "punned jump", "trap", "refused",
};
static const char *const policy_names[POLICIES] = {"ALLOW", "FORBID"};

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

/* ---- one line per site ------------------------------------------------------------------------------------------- */

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

/* ---- sums -------------------------------------------------------------------------------------------------------- */

struct sums {
	uint64_t of[GROUPS][POLICIES][OUTCOMES];
	uint64_t total[GROUPS];
};

static void add_up(const struct coverage *coverage, struct sums *sums)
{
	memset(sums, 0, sizeof(*sums));
	for (size_t i = 0; i < coverage->site_count; i++)
		for (int group = 0; group < GROUPS; group++) {
			if (!belongs(&coverage->sites[i], group))
				continue;
			sums->total[group]++;
			for (int policy = 0; policy < POLICIES; policy++)
				sums->of[group][policy][coverage->results[policy][i].outcome]++;
		}
}

static uint64_t by_jump(const uint64_t outcomes[OUTCOMES])
{
	return outcomes[JUMP] + outcomes[CONSTRAINED_JUMP] + outcomes[PUNNED_JUMP];
}

static uint64_t not_refused(const uint64_t outcomes[OUTCOMES])
{
	return by_jump(outcomes) + outcomes[TRAP];
}

static void print_histogram(const struct coverage *coverage, const struct sums *sums)
{
	int groups = coverage->every ? GROUPS : 1;

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
			any = any || sums->of[group][ALLOW][shown] || sums->of[group][FORBID][shown];
		if (!any)
			continue;
		printf("  %-20s", shown == JUMP ? "jump over one" : outcome_names[shown]);
		for (int group = 0; group < groups; group++) {
			for (int policy = 0; policy < POLICIES; policy++)
				printf(" %12s %8.3f%%", GROUPED(sums->of[group][policy][shown]),
				       percent(sums->of[group][policy][shown], sums->total[group]));
			printf(" ");
		}
		printf("\n");
	}
	printf("  %-20s", "by jump");
	for (int group = 0; group < groups; group++) {
		for (int policy = 0; policy < POLICIES; policy++) {
			uint64_t jumps = by_jump(sums->of[group][policy]);

			printf(" %12s %8.3f%%", GROUPED(jumps), percent(jumps, sums->total[group]));
		}
		printf(" ");
	}
	printf("\n  %-20s", "sites");
	for (int group = 0; group < groups; group++)
		printf(" %12s %9s %12s %9s ", GROUPED(sums->total[group]), "", GROUPED(sums->total[group]), "");
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

/* ---- all at once ------------------------------------------------------------------------------------------------- */

static double each(uint64_t whole, uint64_t count)
{
	return count ? (double)whole / (double)count : 0.0;
}

static void print_memory(const struct at_once *all)
{
	uint64_t made = not_refused(all->outcomes);
	/* Nothing but trampolines and pads is executable, and trampolines lie without gaps. */
	uint64_t code = (all->code_bytes + 4095) & -4096ULL;
	uint64_t generated = all->patched.generated;
	uint64_t total = generated + all->patched.heap + all->patched.copied;

	printf("    planned    %s mappings, ", GROUPED(all->arenas));
	printf("%s more lines in maps; ", GROUPED(all->planned.mappings));
	printf("code %s bytes, %.0f each; ", GROUPED(all->code_bytes), each(all->code_bytes, made));
	printf("heap %s bytes, %.0f each\n", GROUPED(all->planned.heap), each(all->planned.heap, made));
	if (!all->committed)
		return;
	printf("    committed  %s more lines in maps; resident: ", GROUPED(all->patched.mappings));
	printf("code %s, pads %s, ", GROUPED(code), GROUPED(generated > code ? generated - code : 0));
	printf("heap %s, pages of text copied %s; ", GROUPED(all->patched.heap), GROUPED(all->patched.copied));
	printf("%s bytes, %.0f each; %.2f us each\n", GROUPED(total), each(total, made),
	       each(all->commit_ns, made) / 1e3);
}

static void print_at_once(const struct coverage *coverage, enum group group)
{
	static const char *const names[GROUPS] = {"entries", "instructions"};

	if (!coverage_at_once(coverage, group)) {
		if (coverage->every == 1)
			printf("  all instructions at once   not tried: more than %lu (see --limit)\n",
			       coverage->limit);
		return;
	}
	for (int policy = 0; policy < POLICIES; policy++) {
		const struct at_once *all = &coverage->shared->at_once[group][policy];
		uint64_t total = not_refused(all->outcomes) + all->outcomes[REFUSED];

		printf("  all %s at once, %-6s ", names[group], policy_names[policy]);
		if (!all->complete) {
			printf("not known: the process that tried it died\n");
			continue;
		}
		printf("%.3f%% by jump, %s trap, %s refused; %.2f us per patch_make\n",
		       percent(by_jump(all->outcomes), total), GROUPED(all->outcomes[TRAP]),
		       GROUPED(all->outcomes[REFUSED]), each(all->ns, total) / 1e3);
		print_memory(all);
		if (coverage->commit && !all->committed)
			printf("    committed  not: patch_commit() failed\n");
	}
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static void print_summary(const struct coverage *coverage, const struct sums *sums)
{
	const struct at_once *all = &coverage->shared->at_once[ENTRIES][ALLOW];
	uint64_t made = not_refused(all->outcomes);

	printf("%9zu %12ju", coverage->function_count, (uintmax_t)coverage->instruction_count);
	for (int group = 0; group < GROUPS; group++) {
		uint64_t total = sums->total[group];

		if (total)
			printf(" | %18.3f %8.3f %8.3f", percent(by_jump(sums->of[group][ALLOW]), total),
			       percent(not_refused(sums->of[group][ALLOW]), total),
			       percent(by_jump(sums->of[group][FORBID]), total));
		else
			printf(" | %18s %8s %8s", "-", "-", "-");
	}
	if (all->complete)
		printf(" | %5ju %5.0f", (uintmax_t)(all->committed ? all->patched : all->planned).mappings,
		       each(all->code_bytes, made));
	else
		printf(" | %5s %5s", "-", "-");
	if (all->committed)
		printf(" %5.0f", each(all->patched.generated + all->patched.heap + all->patched.copied, made));
	else
		printf(" %5s", "-");
	printf("  %s%s%s\n", coverage->module->path, coverage->module->described ? "" : " (no unwind table)",
	       coverage->module->unindexed ? " (no .eh_frame_hdr)" : "");
}

static void print_place(const struct coverage *coverage)
{
	printf("%s (%s at 0x%jx)\n", coverage->module->path,
	       coverage->label       ? coverage->label :
	       coverage->is_program ? "program" :
					"library",
	       (uintmax_t)coverage->module->base);
	if (coverage->module->unindexed)
		printf("  no .eh_frame_hdr: libpatch knows neither where its functions end nor where they branch to\n");
	if (!coverage->module->described)
		printf("  no unwind table (.eh_frame): its functions are unknown\n\n");
}

void coverage_report(const struct coverage *coverage)
{
	const struct shared *shared = coverage->shared;
	int groups = coverage->every ? GROUPS : 1;
	struct sums sums;

	add_up(coverage, &sums);
	if (coverage->summary) {
		print_summary(coverage, &sums);
		return;
	}
	print_place(coverage);
	if (!coverage->module->described)
		return;
	if (coverage->table) {
		print_table(coverage);
		printf("\n");
		return;
	}
	printf("  %s functions, %s instructions, ", GROUPED(coverage->function_count),
	       GROUPED(coverage->instruction_count));
	printf("%s bytes in functions that do not decode\n", GROUPED(coverage->undecoded_bytes));
	print_histogram(coverage, &sums);
	for (int group = 0; group < groups; group++)
		for (int policy = 0; policy < POLICIES; policy++)
			print_causes(coverage, group, policy);
	for (int group = 0; group < groups; group++)
		print_at_once(coverage, group);
	printf("  each site alone            ");
	for (int policy = 0; policy < POLICIES; policy++)
		printf("%s%.2f us (%s, %s sites)", policy ? ", " : "",
		       each(shared->ns[policy], shared->made[policy]) / 1e3, policy_names[policy],
		       GROUPED(shared->made[policy]));
	printf(" per patch_make, of processor time\n\n");
}
