/* SPDX-License-Identifier: MIT */
/*
 * The places of a module where a patch could be: its function entries, and all or every k-th of its instructions.
 *
 * Each site is to be planned as if it were alone, but patches whose windows touch would join. So sites are dealt into
 * passes, DISTANCE bytes apart.
 */
#define _GNU_SOURCE
#include "coverage.h"

#include <stdlib.h>

#include <Zydis/Zydis.h>

/* Farther than any window reaches from its site, either way: 4 + 19 bytes forwards. */
#define DISTANCE 48

static int compare_extents(const void *a, const void *b)
{
	const struct extent *left = a, *right = b;

	return left->lower < right->lower ? -1 : left->lower > right->lower;
}

/* The extents of the module alone, ascending, without those that begin twice. */
void coverage_select_extents(struct coverage *coverage)
{
	struct functions *functions = &coverage->functions;
	size_t kept = 0;

	qsort(functions->extents, functions->extent_count, sizeof(*functions->extents), compare_extents);
	for (size_t i = 0; i < functions->extent_count; i++) {
		const struct extent extent = functions->extents[i];

		if (&functions->modules[extent.module] != coverage->module ||
		    (kept && functions->extents[kept - 1].lower == extent.lower))
			continue;
		functions->extents[kept++] = extent;
	}
	functions->extent_count = kept;
	coverage->function_count = kept;
}

static bool add_site(struct coverage *coverage, uintptr_t address, size_t extent, bool is_entry, bool is_sampled)
{
	static uintptr_t ends[PASSES_MAX];
	static size_t capacity;
	uint8_t pass = 0;

	if (coverage->site_count == capacity) {
		void *larger;

		capacity = capacity ? capacity * 2 : 4096;
		larger = reallocarray(coverage->sites, capacity, sizeof(*coverage->sites));
		if (!larger)
			return false;
		coverage->sites = larger;
	}
	while (pass < PASSES_MAX - 1 && address < ends[pass])
		pass++;
	ends[pass] = address + DISTANCE;
	coverage->sites[coverage->site_count++] = (struct site){address, (uint32_t)extent, pass, is_entry, is_sampled};
	return true;
}

static bool find_sites(struct coverage *coverage)
{
	const struct functions *functions = &coverage->functions;
	uintptr_t last = 0;
	ZydisDecoder decoder;

	ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	for (size_t i = 0; i < functions->extent_count; i++) {
		const struct extent *extent = &functions->extents[i];

		/* Extents may overlap: what was seen is not counted again, but the entry is one. */
		for (uintptr_t at = extent->lower; at < extent->upper;) {
			ZydisDecodedInstruction instruction;
			ZydisDecoderContext context;
			bool is_entry = at == extent->lower, is_sampled = false;

			if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, &context, (const void *)at,
									extent->upper - at, &instruction))) {
				coverage->undecoded_bytes++;
				instruction.length = 1;
			} else if (at >= last) {
				is_sampled = coverage->every && coverage->instruction_count % coverage->every == 0;
				coverage->instruction_count++;
			}
			if ((is_entry || is_sampled) && !add_site(coverage, at, i, is_entry, is_sampled))
				return false;
			at += instruction.length;
			last = at > last ? at : last;
		}
	}
	return true;
}

/* Indices of sites, pass by pass, in each ascending. */
static bool order_sites(struct coverage *coverage)
{
	size_t next[PASSES_MAX] = {0}, first = 0;

	coverage->order = calloc(coverage->site_count + 1, sizeof(*coverage->order));
	if (!coverage->order)
		return false;
	for (size_t i = 0; i < coverage->site_count; i++)
		next[coverage->sites[i].pass]++;
	for (size_t pass = 0; pass < PASSES_MAX; pass++) {
		coverage->passes[pass] = first;
		first += next[pass];
		next[pass] = coverage->passes[pass];
	}
	coverage->passes[PASSES_MAX] = first;
	for (size_t i = 0; i < coverage->site_count; i++)
		coverage->order[next[coverage->sites[i].pass]++] = (uint32_t)i;
	return true;
}

bool coverage_collect_sites(struct coverage *coverage)
{
	return find_sites(coverage) && order_sites(coverage);
}
