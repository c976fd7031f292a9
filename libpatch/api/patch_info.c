/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * patch_info(), patch_statistics(), patch_olx_original_pc(): what the program may ask. Nothing is changed here.
 */
#include "api/enter.h"

#include "base/error.h"
#include "base/heap.h"
#include "base/thread_block.h"
#include "code/arena.h"
#include "code/pad.h"
#include "code/pc_map.h"
#include "code/trampoline.h"
#include "commit/commit.h"
#include "elf/symbol_table.h"
#include "interpose/interpose.h"
#include "patch/handle.h"
#include "patch/region.h"
#include "runtime/entry_again.h"
#include "runtime/hook_threads.h"
#include "runtime/own_stack.h"
#include "sys/membarrier.h"
#include "sys/text.h"
#include "trap/registry.h"
#include "trap/trap.h"

#include <string.h>

EXPORT patch_status patch_olx_original_pc(uintptr_t pc, uintptr_t *original)
{
	error_begin();
	if (original == NULL)
		return error_raise(PATCH_EINVAL, "patch_olx_original_pc", "a pointer is NULL", "original");
	if (!pc_map_original(pc, original))
		return error_raise_at(PATCH_ENEXIST, "patch_olx_original_pc", "the address is not in generated code",
				      pc);
	return PATCH_OK;
}

static uint64_t info_trap_hits(const struct region *region)
{
	uint64_t hits = 0;

	for (unsigned int i = 0; i < region->count; ++i)
		hits += atomic_load_explicit(&region->entries[i]->hits, memory_order_relaxed);
	return hits;
}

/*
 * The structure of a program that was built for another version: fields that it does not have are not written, fields
 * that this library does not have are 0. `have`: size of the structure here.
 */
static void info_copy_out(void *out, size_t size, const void *filled, size_t have)
{
	memcpy(out, filled, MIN(size, have));
	if (size > have)
		memset((char *)out + have, 0, size - have);
}

/* A size that no version of the structure has or will have says that something else was passed. */
#define INFO_SIZE_MAX 65536

static patch_status info_check_out(const void *out, size_t size, size_t smallest, const char *origin, const char *name)
{
	if (out == NULL)
		return error_raise(PATCH_EINVAL, origin, "a pointer is NULL", name);
	if (size < smallest || size > INFO_SIZE_MAX || size % sizeof(uint64_t) != 0)
		return error_raise_at(PATCH_EINVAL, origin, "no version of the structure has this size", size);
	return PATCH_OK;
}

static uint64_t info_count_exits(const struct patch *patch)
{
	uint64_t count = 0;

	for (size_t i = 1; patch->type == PATCH_EXEC_MODEL_PROBE_RETURN && i < patch->count; ++i)
		count += patch->attachments[i].record.procedure != entry_again_leave;
	return count;
}

static void info_fill(const struct patch *patch, struct patch_info *info)
{
	const struct attachment *site = &patch->attachments[0];
	const struct region *region = site->region;
	unsigned int index = 0;

	while (region->start + region->offsets[index] != site->address)
		++index;
	*info = (struct patch_info){
		.address = patch->located,
		.lower = region->start,
		.upper = region->start + region->length,
		.trampoline = trampoline_entry(region_trampoline(region), index),
		.trap_hits = info_trap_hits(region),
		.strategy = region->strategy,
		.state = patch_is_open(patch) ? PATCH_ENABLED : PATCH_DISABLED,
		.exits = info_count_exits(patch),
	};
}

EXPORT patch_status patch_info(patch_t handle, struct patch_info *info, size_t sizeof_info)
{
	struct patch_info filled;
	struct lock_scope scope;
	struct patch *patch;
	patch_status status;

	error_begin();
	status = info_check_out(info, sizeof_info, sizeof(info->address), "patch_info", "info");
	if (status != PATCH_OK)
		return status;
	if (!api_enter(&scope, "patch_info", &status))
		return status;
	status = api_find_patch(handle, &patch, "patch_info");
	if (status == PATCH_OK && patch->gone)
		status = error_raise_at(PATCH_EFAULT, "patch_info", "its code, or its procedure's, was unmapped",
					patch->located);
	if (status == PATCH_OK) {
		info_fill(patch, &filled);
		info_copy_out(info, sizeof_info, &filled, sizeof(filled));
	}
	return api_leave(&scope, status);
}

EXPORT patch_status patch_statistics(struct patch_statistics *statistics, size_t sizeof_statistics)
{
	struct patch_statistics filled;
	struct arena_usage arenas;
	struct pad_usage pads;
	struct region_usage regions;
	struct interpose_usage own;
	struct hook_threads_usage threads;
	struct lock_scope scope;
	patch_status status;

	error_begin();
	status = info_check_out(statistics, sizeof_statistics, sizeof(statistics->patches), "patch_statistics",
				"statistics");
	if (status != PATCH_OK)
		return status;
	if (!api_enter(&scope, "patch_statistics", &status))
		return status;
	arena_usage(&arenas);
	pad_usage(&pads);
	region_usage(&regions);
	interpose_usage(&own);
	hook_threads_usage(&threads);
	filled = (struct patch_statistics){
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
		.heap_bytes = heap_mapped() + threads.bytes + thread_block_bytes() + own_stack_bytes() +
			      symbol_tables_mapped(),
		.pending = handle_revoked_count(),
		.threads = threads.known,
		.missed = threads.missed + own_stack_missed(),
		.mediated = own.mediated,
		.modules_kept = own.kept,
		.heap_lost = heap_lost(),
		.code_lost = arenas.lost_bytes,
	};
	info_copy_out(statistics, sizeof_statistics, &filled, sizeof(filled));
	return api_leave(&scope, status);
}
