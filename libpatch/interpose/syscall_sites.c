/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "interpose/syscall_sites.h"

#include "arch/syscall.h"
#include "arch/trap_bytes.h"
#include "base/syscall.h"
#include "elf/segments.h"
#include "plan/attach.h"
#include "commit/commit.h"
#include "interpose/mask_audit.h"
#include "base/error.h"
#include "base/heap.h"
#include "base/thread_safety.h"
#include "runtime/fork.h"
#include "interpose/syscall_emul.h"
#include "interpose/unload.h"
#include "patch/region.h"
#include "plan/scan.h"
#include "elf/sections.h"
#include "plan/site.h"

#include <link.h>
#include <signal.h>
#include <string.h>
#include <sys/auxv.h>

/* ---- where code is ---------------------------------------------------------------------------------------------- */

struct segment {
	uintptr_t lower;
	uintptr_t upper;
	bool libc; /* numbers that are not known there are none of ours */
	bool loader; /* the dynamic linker's: what it unmaps are modules */
	/* The module's. */
	const char *path;
	uintptr_t bias;
	const ElfW(Phdr) *headers;
	size_t header_count;
	/* Where its code is, once it was asked for; code_upper 0: it was not. */
	uintptr_t code_lower;
	uintptr_t code_upper;
};

#define SEGMENTS 512

static struct segment segments[SEGMENTS];
static size_t segment_count;
/* Not all of libc's calls go through syscall_emulate(). */
static bool libc_incomplete;

static int add_segments(struct dl_phdr_info *info, size_t size, void *data)
{
	const uintptr_t *libc = data;
	size_t first = segment_count;
	bool is_loader = info->dlpi_addr != 0 && info->dlpi_addr == getauxval(AT_BASE);
	bool is_libc = is_loader;

	(void)size;
	FOR_EACH_SEGMENT(header, info->dlpi_phdr, info->dlpi_phnum, PT_LOAD, PF_R | PF_X) {
		uintptr_t lower = info->dlpi_addr + header->p_vaddr;

		if (segment_count == SEGMENTS) {
			mask_audit_incomplete();
			libc_incomplete = true;
			return 1;
		}
		is_libc |= *libc >= lower && *libc < lower + header->p_memsz;
		segments[segment_count++] = (struct segment){
			.lower = lower, .upper = lower + header->p_memsz, .loader = is_loader,
			.path = info->dlpi_name, .bias = info->dlpi_addr,
			.headers = info->dlpi_phdr, .header_count = info->dlpi_phnum,
		};
	}
	while (first < segment_count)
		segments[first++].libc = is_libc;
	return 0;
}

/* ---- what a system call is -------------------------------------------------------------------------------------- */

/* SYSCALL (AMD APM vol. 3). */
#define SYSCALL_SIZE 2
static bool is_syscall(const uint8_t *bytes)
{
	return bytes[0] == 0x0F && bytes[1] == 0x05;
}

/* mov eax, imm32; mov rax, imm32 sign extended; xor eax, eax. The number, or -1. */
static long number_set_by(const uint8_t *bytes)
{
	int32_t number = 0;

	if (bytes[0] == 0xB8)
		memcpy(&number, bytes + 1, sizeof(number));
	else if (bytes[0] == 0x48 && bytes[1] == 0xC7 && bytes[2] == 0xC0)
		memcpy(&number, bytes + 3, sizeof(number));
	else if ((bytes[0] != 0x31 && bytes[0] != 0x33) || bytes[1] != 0xC0)
		return -1;
	return number;
}

/* How far in front of it the number is looked for. */
#define DISTANCE 40

struct found {
	long number;     /* -1: not known */
	/* of the nearest instruction of a jump's length from which control flows straight to it; 0: none */
	uintptr_t start;
};

/* With its function scanned. */
static struct found examine(uintptr_t address, uintptr_t lower) REQUIRES(library_lock)
{
	struct found found = { -1, 0 };
	uintptr_t next = address;

	for (uintptr_t at = address; at-- > lower && address - at <= DISTANCE;) {
		const uint8_t *bytes = (const uint8_t *)at;
		struct arch_insn insn;

		if (!scan_is_start(at))
			continue;
		if (!arch_decode(bytes, next - at, at, &insn) || at + insn.length != next || insn.kind != ARCH_PLAIN ||
		    (insn.flags & (ARCH_F_SYSCALL | ARCH_F_REFUSED)) || scan_is_target(next))
			break;
		if (found.start == 0 && insn.length >= ARCH_JMP_SIZE)
			found.start = at;
		found.number = number_set_by(bytes);
		if (found.number >= 0)
			break;
		next = at;
	}
	return found;
}

extern const int32_t __start_libpatch_syscalls[] __attribute__((visibility("hidden")));
extern const int32_t __stop_libpatch_syscalls[] __attribute__((visibility("hidden")));

static bool is_own(uintptr_t address)
{
	for (const int32_t *own = __start_libpatch_syscalls; own < __stop_libpatch_syscalls; ++own)
		if ((uintptr_t)own + (uintptr_t)(intptr_t)*own == address)
			return true;
	return false;
}

static bool concerns(long number, const struct segment *segment)
{
	return syscall_emul_concerns(number) || (number == SYS_munmap && segment->loader);
}

/* Without knowing its function: nearly all have their number right in front. */
static bool is_harmless(uintptr_t address, const struct segment *segment)
{
	static const uint8_t distances[] = { 5, 7, 2 };

	for (size_t i = 0; i < ARRAY_SIZE(distances); ++i) {
		long number = address - segment->lower >= distances[i] ?
				      number_set_by((const uint8_t *)address - distances[i]) :
				      -1;

		if (number >= 0)
			return !concerns(number, segment);
	}
	return false;
}

/* ---- patching --------------------------------------------------------------------------------------------------- */

struct site {
	struct site *next;
	struct patch patch;
};

static struct site *sites;
static struct interpose_usage usage;

static bool add(const struct extent *extent, uintptr_t address, uintptr_t start, arch_syscall_hook_fn *function)
	REQUIRES(library_lock)
{
	struct site *site = heap_alloc(sizeof(*site));
	struct refusal refusal;

	if (site == NULL)
		return false;
	site->patch = (struct patch){
		.roles = 1, .located = address, .lower = extent->lower, .upper = extent->upper, .type = MODEL_SYSCALL
	};
	site->patch.sites[ROLE_SITE].record.procedure =
		(void (*)(struct patch_exec_context *, uint8_t))(uintptr_t)function;
	patch_set_goal(&site->patch, GOAL_ENABLED);
	if (attach_in_window(&site->patch, address, start, address + SYSCALL_SIZE, extent, &refusal) != PATCH_OK) {
		region_detach(&site->patch);
		heap_free(site, sizeof(*site));
		return false;
	}
	region_queue(site->patch.sites[ROLE_SITE].attachment.region);
	site->next = sites;
	sites = site;
	++usage.mediated;
	++usage.regions;
	return true;
}

/* Data in an executable segment. Few segments have any, so that the file is read only then, and once. */
static bool is_outside_code(uintptr_t address, struct segment *segment)
{
	if (segment->code_upper == 0 &&
	    !sections_of_code(segment->path, segment->bias, segment->headers, segment->header_count,
			      &segment->code_lower, &segment->code_upper))
		segment->code_upper = UINTPTR_MAX;
	return address < segment->code_lower || address >= segment->code_upper;
}

/* True: it is patched, or need not be. */
static bool consider(uintptr_t address, struct segment *segment) REQUIRES(library_lock)
{
	struct refusal refusal;
	struct extent extent;
	struct found found;
	patch_status status;

	/* Most are, and their function need not be scanned. */
	if (is_harmless(address, segment) || is_own(address))
		return true;
	status = site_examine(address, &extent, &refusal);

	/* Data, the kernel's, or our own. */
	if (status == PATCH_EBOUNDARY || status == PATCH_EPROTECTED || status == PATCH_ENOTSUP)
		return true;
	if (status != PATCH_OK)
		return false;
	/* libc's clone() and clone3() have no unwind entry. */
	if (extent.upper == 0)
		return (segment->libc && *(const uint8_t *)(address - ARCH_JMP_SIZE) == 0xB8 &&
			add(&extent, address, address - ARCH_JMP_SIZE, syscall_emulate)) ||
		       is_outside_code(address, segment);
	if (!scan_is_start(address))
		return true;
	found = examine(address, extent.lower);
	/* The number is given by somebody else, and everything is in place right in front: libc's syscall(). */
	if (found.number < 0 && found.start != 0) {
		struct arch_insn insn;

		if (!arch_decode((const uint8_t *)found.start, INSN_MAX, found.start, &insn) ||
		    found.start + insn.length != address)
			return segment->libc;
		return add(&extent, address, found.start, syscall_emulate) || segment->libc;
	}
	if (found.number < 0)
		return segment->libc;
	if (!concerns(found.number, segment))
		return true;
	return found.start != 0 &&
	       add(&extent, address, found.start, found.number == SYS_munmap ? unload_munmap : syscall_emulate);
}

static void search(struct segment *segment) REQUIRES(library_lock)
{
	const uint8_t *at = (const uint8_t *)segment->lower + 1;
	const uint8_t *end = (const uint8_t *)segment->upper;

	/* The rarer byte of the two. */
	while (at < end && (at = memchr(at, 0x05, (size_t)(end - at))) != NULL) {
		if (is_syscall(at - 1) && !consider((uintptr_t)at - 1, segment)) {
			mask_audit_incomplete();
			libc_incomplete |= segment->libc;
		}
		++at;
	}
}

void interpose_system_calls(void)
{
	uintptr_t libc = (uintptr_t)&sigaction;
	bool whole;

	segment_count = 0;
	dl_iterate_phdr(add_segments, &libc);
	for (size_t i = 0; i < segment_count; ++i)
		search(&segments[i]);
	whole = commit_run_whole() == PATCH_OK;
	if (!whole)
		mask_audit_incomplete();
	lock_set_forks(whole && !libc_incomplete ? LOCK_FORKS_BY_CALL : LOCK_FORKS_BY_HANDLER);
	site_forget();
	/* What did not do is no error of the caller's. */
	error_reset();
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
			region_queue(site->patch.sites[ROLE_SITE].attachment.region);
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
