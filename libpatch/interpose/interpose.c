/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The library's own patches, put in by patch_init() and taken out by patch_fini(). They change whole, without a trap
 * byte at any time (S4). Which instructions they are on is syscall_sites.c's to know.
 */
#include "interpose/interpose.h"

#include "base/error.h"
#include "base/heap.h"
#include "base/syscall.h"
#include "commit/commit.h"
#include "elf/loaded.h"
#include "interpose/load.h"
#include "interpose/mask_audit.h"
#include "interpose/syscall_emul.h"
#include "interpose/syscall_sites.h"
#include "interpose/unload.h"
#include "patch/quiesce.h"
#include "patch/region.h"
#include "patch/unmapped.h"
#include "plan/attach.h"
#include "plan/site.h"
#include "runtime/fork.h"
#include "sys/process.h"
#include "sys/stop_world.h"
#include "sys/tasks.h"
#include "trap/owned_signals.h"

struct site {
	struct site *next;
	struct patch patch; /* with one attachment */
};

#define SITE_SIZE (offsetof(struct site, patch) + patch_size(1, false))

static struct site *sites GUARDED_BY(library_lock);
static struct interpose_usage usage GUARDED_BY(library_lock);

static arch_syscall_hook_fn *interpose_answer(const struct syscall_site *found)
{
	switch (found->of_loader) {
	case SYS_mmap:
		return load_mmap;
	case SYS_close:
		return load_close;
	case SYS_munmap:
		return unload_munmap;
	default:
		return syscall_emulate;
	}
}

/* A syscall_sites_patch_fn. */
static bool interpose_patch(const struct syscall_site *found) REQUIRES(library_lock)
{
	arch_syscall_hook_fn *instead = interpose_answer(found);
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

static void interpose_run_whole(void *status) REQUIRES(library_lock)
{
	*(patch_status *)status = commit_run_whole();
}

/* While no other thread executes anything. False: that cannot be had. */
static bool interpose_run_alone(patch_status *status) REQUIRES(library_lock)
{
	uint64_t before;
	bool ran;

	if (!mask_audit_adopts() || process_is_borrowed())
		return false;
	before = signals_block();
	ran = stop_world_and_run(interpose_run_whole, status);
	signals_set_mask(before);
	return ran;
}

/*
 * Whole, as S4 says. Where pages cannot be exchanged beside other threads, as those of text that is sealed (mseal(2)),
 * those are stopped.
 */
static patch_status interpose_change_text(void) REQUIRES(library_lock)
{
	const bool single = tasks_is_single();
	struct error_chain before, after;
	patch_status status;

	error_save(&before);
	status = commit_run_whole();
	if (status == PATCH_OK || single)
		return status;
	error_save(&after);
	error_restore(&before);
	if (!interpose_run_alone(&status))
		error_restore(&after);
	return status;
}

/* What was refused is tried again. */
static bool interpose_commit(void) REQUIRES(library_lock)
{
	bool whole = interpose_change_text() == PATCH_OK;

	if (!whole)
		mask_audit_set_pending(true);
	site_forget();
	return whole;
}

bool interpose_try_again(void)
{
	struct error_chain before;
	bool whole;

	error_save(&before);
	whole = interpose_commit();
	error_restore(&before);
	if (whole)
		mask_audit_set_pending(false);
	return whole;
}

void interpose_system_calls(const struct others *others)
{
	struct error_chain before;
	bool all_of_libc, whole;

	error_save(&before);
	all_of_libc = syscall_sites_find(others, interpose_patch);
	whole = interpose_commit();
	lock_set_forks(whole && all_of_libc ? LOCK_FORKS_BY_CALL : LOCK_FORKS_BY_HANDLER);
	/* What did not do is no error of the caller's. */
	error_restore(&before);
}

void interpose_module(const struct loaded *loaded)
{
	struct error_chain before;
	bool all_of_libc;

	if (sites == NULL)
		return;
	error_save(&before);
	/* Everything that was looked up may be of what was there before. */
	site_forget();
	site_expect(&loaded->module);
	all_of_libc = syscall_sites_find_in(loaded, interpose_patch);
	if (!interpose_commit() || !all_of_libc)
		lock_set_forks(LOCK_FORKS_BY_HANDLER);
	error_restore(&before);
}

/* Sites of modules that are gone. A thread may use a record still, so that threads are looked at, but not each time. */
#define FORMER_MAX 64
static struct site *former GUARDED_BY(library_lock);
static size_t former_count GUARDED_BY(library_lock);

static void interpose_free_former(void) REQUIRES(library_lock)
{
	if (former_count < FORMER_MAX)
		return;
	unmapped_collect();
	quiesce_poll();
	for (struct site **link = &former; *link != NULL;) {
		struct site *site = *link;

		if (site->patch.life != LIFE_QUIET) {
			link = &site->next;
			continue;
		}
		*link = site->next;
		heap_free(site, SITE_SIZE);
		--former_count;
	}
}

bool interpose_forget(uintptr_t lower, uintptr_t upper)
{
	bool any = false;

	interpose_free_former();
	for (struct site **link = &sites; *link != NULL;) {
		struct site *site = *link;

		if (site->patch.located < lower || site->patch.located >= upper) {
			link = &site->next;
			continue;
		}
		*link = site->next;
		site->next = former;
		former = site;
		++former_count;
		--usage.mediated;
		--usage.regions;
		any = true;
	}
	return any;
}

/* Not analysed: the audit, which asks, visits threads by pointers to functions. */
bool interpose_is_in_window(uintptr_t pc) NO_THREAD_SAFETY_ANALYSIS
{
	LOCK_ASSERT_HELD();
	for (const struct site *site = sites; site != NULL; site = site->next) {
		const struct region *region = site->patch.attachments[0].region;

		if (region != NULL && pc > region->start && pc < region->start + region->length)
			return true;
	}
	return false;
}

/* What is not in the text yet is not to come any more. Was anything? */
static bool interpose_give_up_waiting(void) REQUIRES(library_lock)
{
	bool any = false;

	for (struct site *site = sites; site != NULL; site = site->next) {
		const struct region *region = site->patch.attachments[0].region;

		if (region == NULL || !region_waits_for_whole(region))
			continue;
		patch_set_goal(&site->patch, GOAL_DISABLED);
		any = true;
	}
	return any;
}

/* Regions restored at once: a batch of them takes no new memory. */
#define AT_ONCE 8

patch_status interpose_restore(void)
{
	patch_status status = PATCH_OK;
	const bool waited = interpose_give_up_waiting();

	lock_set_forks(LOCK_FORKS_BY_HANDLER);
	while (status == PATCH_OK && sites != NULL) {
		struct site *site = sites;

		for (int i = 0; i < AT_ONCE && site != NULL; ++i, site = site->next) {
			struct region *region = site->patch.attachments[0].region;

			patch_set_goal(&site->patch, GOAL_DISABLED);
			/* It may have gone with its code, which a commit has seen. */
			if (region != NULL)
				region_queue(region);
		}
		status = interpose_change_text();
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
	else if (waited)
		mask_audit_incomplete();
	return status;
}

void interpose_usage(struct interpose_usage *out)
{
	*out = usage;
	out->kept = unload_kept();
}
