/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The library's own patches, put in by patch_init() and taken out by patch_fini(). They change whole, without a trap
 * byte at any time (S4). Which instructions they are on is syscall_sites.c's to know.
 */
#include "interpose/interpose.h"

#include "base/error.h"
#include "base/heap.h"
#include "commit/commit.h"
#include "interpose/mask_audit.h"
#include "interpose/syscall_emul.h"
#include "interpose/syscall_sites.h"
#include "interpose/unload.h"
#include "patch/region.h"
#include "plan/attach.h"
#include "plan/site.h"
#include "runtime/fork.h"

struct site {
	struct site *next;
	struct patch patch; /* with one attachment */
};

#define SITE_SIZE (offsetof(struct site, patch) + patch_size(1, false))

static struct site *sites GUARDED_BY(library_lock);
static struct interpose_usage usage GUARDED_BY(library_lock);

/* A syscall_sites_patch_fn. */
static bool interpose_patch(const struct syscall_site *found) REQUIRES(library_lock)
{
	arch_syscall_hook_fn *instead = found->unmaps ? unload_munmap : syscall_emulate;
	const struct extent *extent = found->extent;
	struct site *site = heap_alloc(SITE_SIZE);
	struct refusal refusal;

	if (site == NULL)
		return false;
	site->patch = (struct patch){ .count = 1,
				      .located = found->address,
				      .lower = extent->lower,
				      .upper = extent->upper,
				      .type = MODEL_SYSCALL };
	site->patch.attachments[0].record.procedure =
		(void (*)(struct patch_exec_context *, uint8_t))(uintptr_t)instead;
	patch_set_goal(&site->patch, GOAL_ENABLED);
	if (attach_in_window(&site->patch, found->address, found->start, found->end, extent, &refusal) != PATCH_OK) {
		region_detach(&site->patch);
		heap_free(site, SITE_SIZE);
		return false;
	}
	region_queue(site->patch.attachments[0].region);
	site->next = sites;
	sites = site;
	++usage.mediated;
	++usage.regions;
	return true;
}

void interpose_system_calls(const struct others *others)
{
	struct error_chain before;
	bool all_of_libc, whole;

	error_save(&before);
	all_of_libc = syscall_sites_find(others, interpose_patch);
	whole = commit_run_whole() == PATCH_OK;
	if (!whole)
		mask_audit_incomplete();
	lock_set_forks(whole && all_of_libc ? LOCK_FORKS_BY_CALL : LOCK_FORKS_BY_HANDLER);
	site_forget();
	/* What did not do is no error of the caller's. */
	error_restore(&before);
}

/* Regions restored at once: a batch of them takes no new memory. */
#define AT_ONCE 8

patch_status interpose_restore(void)
{
	patch_status status = PATCH_OK;

	lock_set_forks(LOCK_FORKS_BY_HANDLER);
	while (status == PATCH_OK && sites != NULL) {
		struct site *site = sites;

		for (int i = 0; i < AT_ONCE && site != NULL; ++i, site = site->next) {
			patch_set_goal(&site->patch, GOAL_DISABLED);
			region_queue(site->patch.attachments[0].region);
		}
		status = commit_run_whole();
		while (status == PATCH_OK && sites != site) {
			struct site *gone = sites;

			sites = gone->next;
			/* Its memory stays: the library ends, and quiesce.c looks at what was closed. */
			region_detach(&gone->patch);
			--usage.mediated;
			--usage.regions;
		}
	}
	site_forget();
	if (status == PATCH_OK)
		lock_set_forks(LOCK_FORKS_ARE_FREE);
	return status;
}

void interpose_usage(struct interpose_usage *out)
{
	*out = usage;
	out->kept = unload_kept();
}
