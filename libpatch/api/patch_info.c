/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * patch_info(), patch_statistics(), patch_olx_original_pc(): what the program may ask. Nothing is changed here.
 */
#include "api/enter.h"

#include "base/error.h"
#include "base/heap.h"
#include "code/arena.h"
#include "code/pad.h"
#include "code/pc_map.h"
#include "code/trampoline.h"
#include "commit/commit.h"
#include "interpose/syscall_sites.h"
#include "patch/handle.h"
#include "patch/region.h"
#include "runtime/hook_threads.h"
#include "sys/membarrier.h"
#include "sys/text.h"
#include "trap/registry.h"
#include "trap/trap.h"

EXPORT patch_status patch_olx_original_pc(uintptr_t pc, uintptr_t *original)
{
	error_reset();
	if (original == NULL)
		return error_raise(PATCH_EINVAL, "patch_olx_original_pc", "a pointer is NULL", "original");
	if (!pc_map_original(pc, original))
		return error_raise_at(PATCH_ENEXIST, "patch_olx_original_pc", "the address is not in generated code", pc);
	return PATCH_OK;
}

static uint64_t info_trap_hits(const struct region *region)
{
	uint64_t hits = 0;

	for (unsigned int i = 0; i < region->count; ++i)
		hits += atomic_load_explicit(&region->entries[i]->hits, memory_order_relaxed);
	return hits;
}

EXPORT patch_status patch_info(patch_t handle, struct patch_info *info)
{
	struct lock_scope scope;
	struct patch *patch;
	patch_status status;

	error_reset();
	if (info == NULL)
		return error_raise(PATCH_EINVAL, "patch_info", "a pointer is NULL", "info");
	status = api_enter(&scope, "patch_info");
	if (status != PATCH_OK)
		return status;
	status = api_find_patch(handle, &patch, "patch_info");
	if (status == PATCH_OK && patch->gone)
		status = error_raise_at(PATCH_EFAULT, "patch_info", "its code, or its procedure's, was unmapped", patch->located);
	if (status == PATCH_OK) {
		const struct attachment *site = &patch->sites[ROLE_SITE].attachment;
		const struct region *region = site->region;
		unsigned int index = 0;

		while (region->start + region->offsets[index] != site->address)
			++index;
		info->address = patch->located;
		info->lower = region->start;
		info->upper = region->start + region->length;
		info->trampoline = trampoline_entry(region_trampoline(region), index);
		info->trap_hits = info_trap_hits(region);
		info->strategy = region->strategy;
		info->state = patch->enabled ? PATCH_ENABLED : PATCH_DISABLED;
	}
	return api_leave(&scope, status);
}

EXPORT patch_status patch_statistics(struct patch_statistics *statistics)
{
	struct arena_usage arenas;
	struct pad_usage pads;
	struct region_usage regions;
	struct interpose_usage own;
	struct hook_threads_usage threads;
	struct lock_scope scope;
	patch_status status;

	error_reset();
	if (statistics == NULL)
		return error_raise(PATCH_EINVAL, "patch_statistics", "a pointer is NULL", "statistics");
	status = api_enter(&scope, "patch_statistics");
	if (status != PATCH_OK)
		return status;
	arena_usage(&arenas);
	pad_usage(&pads);
	region_usage(&regions);
	interpose_usage(&own);
	hook_threads_usage(&threads);
	*statistics = (struct patch_statistics){
		.patches = handle_count(),
		.regions = regions.regions - own.regions,
		.regions_installed = regions.installed - own.regions,
		.arenas = arenas.mappings,
		.code_bytes = arenas.code_bytes,
		.retired_bytes = regions.retired_bytes,
		.commits = commit_count(),
		.core_syncs = core_sync_count(),
		.text_writes = text_write_count(),
		.traps = trap_count(),
		.pads = pads.pads,
		.pad_bytes = pads.bytes,
		.heap_bytes = heap_mapped() + threads.bytes,
		.pending = handle_revoked_count(),
		.threads = threads.known,
		.missed = threads.missed,
		.mediated = own.mediated,
		.modules_kept = own.kept,
	};
	return api_leave(&scope, status);
}
