/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The text as the program has it: what the library wrote is replaced by the original bytes that regions keep. This file
 * only reads; it must not ask the planner or the commit anything, which both ask it.
 */
#include "patch/original.h"

#include "patch/region.h"
#include "sys/mem_read.h"

bool original_is_in_place(uintptr_t lower, uintptr_t upper)
{
	return !region_may_be_installed_on(lower, upper);
}

size_t original_view(uintptr_t address, const uint8_t **bytes)
{
	struct region *region;

	if (!region_any_installed())
		return 0;
	region = region_at(address);
	if (region == NULL || !region->installed)
		return 0;
	*bytes = region->original + (address - region->start);
	return region->length - (address - region->start);
}

size_t original_read(uintptr_t address, uint8_t *bytes, size_t size)
{
	struct region *region;
	size_t got = mem_read_readable(address, bytes, size);

	if (!region_any_installed() || got == 0 || original_is_in_place(address, address + got))
		return got;
	region = region_covering(address);
	for (size_t at = 0; at < got; ++at) {
		uintptr_t here = address + at;

		if (region == NULL || here >= region->start + region->length)
			region = region_at(here);
		if (region != NULL && region->installed && here >= region->start &&
		    here < region->start + region->length)
			bytes[at] = region->original[here - region->start];
	}
	return got;
}
