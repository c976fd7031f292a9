/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Finding system call instructions in the modules' code: by their bytes, then by the instructions in front of them,
 * which set the number. A site of which that cannot be told is reported, never guessed at. Nothing is patched here.
 */
#include "interpose/syscall_sites.h"

#include "arch/trap_bytes.h"
#include "base/syscall.h"
#include "elf/linker.h"
#include "elf/loaded.h"
#include "elf/sections.h"
#include "elf/segments.h"
#include "interpose/mask_audit.h"
#include "interpose/syscall_emul.h"
#include "plan/scan.h"
#include "plan/site.h"

#include <signal.h>
#include <string.h>

struct search {
	syscall_sites_patch_fn *patch;
	bool libc_incomplete; /* a call of libc's is not patched */
	bool others; /* modules of other namespaces, which have the same dynamic linker */
	const struct loaded *module; /* the one at hand */
	bool is_libc;
	bool is_loader; /* the dynamic linker: what it maps and unmaps are modules */
	/* Where the module's code is, once it was asked for; code_upper 0: it was not. */
	uintptr_t code_lower;
	uintptr_t code_upper;
	uintptr_t lower; /* where its segment at hand begins */
};

/* SYSCALL (AMD APM vol. 3). */
#define SYSCALL_SIZE 2
static bool syscall_sites_is_call(const uint8_t *bytes)
{
	return bytes[0] == 0x0F && bytes[1] == 0x05;
}

/* mov eax, imm32; mov rax, imm32 sign extended; xor eax, eax. The number, or -1. */
static long syscall_sites_number(const uint8_t *bytes)
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
static struct found syscall_sites_examine(uintptr_t address, uintptr_t lower) REQUIRES(library_lock)
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
		found.number = syscall_sites_number(bytes);
		if (found.number >= 0)
			break;
		next = at;
	}
	return found;
}

extern const int32_t __start_libpatch_syscalls[] __attribute__((visibility("hidden")));
extern const int32_t __stop_libpatch_syscalls[] __attribute__((visibility("hidden")));

static bool syscall_sites_is_own(uintptr_t address)
{
	for (const int32_t *own = __start_libpatch_syscalls; own < __stop_libpatch_syscalls; ++own)
		if ((uintptr_t)own + (uintptr_t)(intptr_t)*own == address)
			return true;
	return false;
}

/* By which the dynamic linker maps and unmaps modules. */
static bool syscall_sites_is_of_loader(long number, const struct search *search)
{
	return search->is_loader && (number == SYS_mmap || number == SYS_close || number == SYS_munmap);
}

static bool syscall_sites_concerns(long number, const struct search *search)
{
	return syscall_emul_concerns(number) || syscall_sites_is_of_loader(number, search);
}

/* Without knowing its function: nearly all have their number right in front. */
static bool syscall_sites_is_harmless(uintptr_t address, const struct search *search)
{
	static const uint8_t distances[] = { 5, 7, 2 };

	for (size_t i = 0; i < ARRAY_SIZE(distances); ++i) {
		long number = address - search->lower >= distances[i] ?
				      syscall_sites_number((const uint8_t *)address - distances[i]) :
				      -1;

		if (number >= 0)
			return !syscall_sites_concerns(number, search);
	}
	return false;
}

/* Data in an executable segment. Few modules have any, so that the file is read only then, and once. */
static bool syscall_sites_is_outside_code(uintptr_t address, struct search *search)
{
	const struct module *module = &search->module->module;

	if (search->code_upper == 0 &&
	    !sections_of_code(search->module->path, module->bias, module->headers, module->header_count,
			      &search->code_lower, &search->code_upper))
		search->code_upper = UINTPTR_MAX;
	return address < search->code_lower || address >= search->code_upper;
}

/*
 * mov rax, 15; syscall: what handlers return through. Its unwind entry begins in front of it, where no instruction
 * does, for unwinders that look for the address before the one that a handler returns to.
 */
#define RETURN_SIZE 7
static bool syscall_sites_returns(uintptr_t address, uintptr_t lower)
{
	static const uint8_t load[RETURN_SIZE] = { 0x48, 0xC7, 0xC0, SYS_rt_sigreturn, 0, 0, 0 };

	return address - lower >= RETURN_SIZE && memcmp((const uint8_t *)address - RETURN_SIZE, load, RETURN_SIZE) == 0;
}

/* True: it is patched, or need not be. */
static bool syscall_sites_consider(struct search *search, uintptr_t address) REQUIRES(library_lock)
{
	struct extent extent;
	struct syscall_site site = { .address = address, .extent = &extent, .end = address + SYSCALL_SIZE };
	struct refusal refusal;
	struct found found;
	patch_status status;

	site.of_loader = -1;
	/* Most are, and their function need not be scanned. */
	if (syscall_sites_is_harmless(address, search) || syscall_sites_is_own(address))
		return true;
	status = site_examine_syscall(address, &extent, &refusal);

	if ((status == PATCH_OK || status == PATCH_EBOUNDARY) && syscall_sites_returns(address, search->lower)) {
		bool patched;

		site.start = address - RETURN_SIZE;
		extent.lower = extent.upper = 0;
		patched = search->patch(&site);
		site_protect_restorer(site.start);
		return patched;
	}
	/* Data, the kernel's, or our own. */
	if (status == PATCH_EBOUNDARY || status == PATCH_EPROTECTED || status == PATCH_ENOTSUP)
		return true;
	if (status != PATCH_OK)
		return false;
	/* libc's clone() and clone3() have no unwind entry. */
	if (extent.upper == 0) {
		site.start = address - ARCH_JMP_SIZE;
		return (search->is_libc && *(const uint8_t *)site.start == 0xB8 && search->patch(&site)) ||
		       syscall_sites_is_outside_code(address, search);
	}
	if (!scan_is_start(address))
		return true;
	found = syscall_sites_examine(address, extent.lower);
	site.start = found.start;
	/* A number that is given by somebody else is looked at when the call is made. */
	if (found.number >= 0 && !syscall_sites_concerns(found.number, search))
		return true;
	if (syscall_sites_is_of_loader(found.number, search))
		site.of_loader = found.number;
	if (found.start != 0 && search->patch(&site))
		return true;
	/* In a loop, to which the number comes from in front: libc has none of ours there. */
	return found.number < 0 && search->is_libc;
}

static void syscall_sites_search_segment(struct search *search, uintptr_t upper) REQUIRES(library_lock)
{
	const uint8_t *at = (const uint8_t *)search->lower + 1;
	const uint8_t *end = (const uint8_t *)upper;

	/* The rarer byte of the two. */
	while (at < end && (at = memchr(at, 0x05, (size_t)(end - at))) != NULL) {
		if (syscall_sites_is_call(at - 1) && !syscall_sites_consider(search, (uintptr_t)at - 1)) {
			mask_audit_incomplete();
			search->libc_incomplete |= search->is_libc;
		}
		++at;
	}
}

static bool syscall_sites_search_module(const struct loaded *loaded, void *data) REQUIRES(library_lock)
{
	const struct module *module = &loaded->module;
	const Elf64_Phdr *headers = module->headers;
	struct search *search = data;

	search->module = loaded;
	search->is_loader = module->bias != 0 && module->bias == linker_bias();
	search->is_libc = search->is_loader || module_is_libc(module);
	search->code_upper = 0;
	if (search->is_loader && search->others)
		return true;
	FOR_EACH_SEGMENT(segment, headers, module->header_count, PT_LOAD, PF_R | PF_X) {
		search->lower = module->bias + segment->p_vaddr;
		syscall_sites_search_segment(search, search->lower + segment->p_memsz);
	}
	return true;
}

bool syscall_sites_find(const struct others *others, syscall_sites_patch_fn *patch)
{
	struct search search = { .patch = patch };

	loaded_visit(false, syscall_sites_search_module, &search);
	/* Another libc's calls are the program's, too. Whether there is one may not be known. */
	if (others == NULL)
		mask_audit_incomplete();
	search.others = true;
	loaded_visit_others(others, syscall_sites_search_module, &search);
	return !search.libc_incomplete;
}

bool syscall_sites_find_in(const struct loaded *loaded, syscall_sites_patch_fn *patch)
{
	struct search search = { .patch = patch };

	syscall_sites_search_module(loaded, &search);
	return !search.libc_incomplete;
}
