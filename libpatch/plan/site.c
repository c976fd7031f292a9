/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * May the library patch at an address, and how far may a window reach there? Asks the kernel's list of mappings, the
 * loaded modules, and pinned.c. Reads text, and must not change anything.
 */
#include "plan/site.h"

#include "base/thread_safety.h"
#include "elf/eh_frame.h"
#include "elf/segments.h"
#include "patch/original.h"
#include "code/pc_map.h"
#include "plan/pinned.h"
#include "elf/module.h"
#include "plan/scan.h"
#include "sys/mem_read.h"
#include "sys/gaps.h"
#include "sys/maps.h"

#include <elf.h>
#include <sys/mman.h>

/* How what a client names must be mapped, and what is said where it is not. */
static const struct {
	int protection;
	const char *unmapped, *forbidden;
} uses[] = {
	[SITE_PROCEDURE] = { PROT_EXEC, "the procedure is not mapped", "the procedure is not executable" },
	[SITE_DESTROY] = { PROT_EXEC, "the destroy function is not mapped", "the destroy function is not executable" },
	[SITE_COUNTER] = { PROT_WRITE, "the counter is not mapped", "the counter cannot be written to" },
	[SITE_ORIGINAL] = { PROT_WRITE, "the place for the original is not mapped",
			    "the place for the original cannot be written to" },
};
/* For each use, the mapping that the last one was in. That others than the linker unmap it is not noticed. */
static struct maps_mapping used[sizeof(uses) / sizeof(uses[0])];
/* The mapping looked up last, around the address at hand: most patches are made module by module. */
static struct maps_mapping cached;

static bool site_mapping(uintptr_t address, struct maps_mapping *out, struct refusal *refusal, patch_status *status)
{
	bool readable;

	if (address < cached.lower || address >= cached.upper) {
		if (!maps_mapping(address, &cached, &readable)) {
			cached = (struct maps_mapping){ 0 };
			refusal->message = readable ? "the address is not mapped" : "/proc/self/maps cannot be read";
			*status = readable ? PATCH_EFAULT : PATCH_ESYS;
			return false;
		}
	}
	*out = cached;
	return true;
}

/* Is the module the main program? Libraries that are linked into it statically are it, too. */
static bool site_is_main(const struct module *module)
{
	size_t count;
	uintptr_t headers = (uintptr_t)module_program_headers(&count);

	return headers >= module->lower && headers < module->upper;
}

/*
 * Code that the trap path or a commit runs through (I9). Linked statically into the main program it cannot be told
 * apart from what is to be patched.
 */
static const char *site_protected_by(const struct module *module)
{
	const struct {
		const void *code;
		const char *reason;
	} needed[] = {
		{ (const void *)(uintptr_t)&patch_init, "libpatch does not patch itself" },
		{ arch_decoder_code(), "libpatch relies on Zydis, and does not patch it" },
	};

	if (site_is_main(module))
		return NULL;
	for (size_t i = 0; i < ARRAY_SIZE(needed); ++i)
		if ((uintptr_t)needed[i].code >= module->lower && (uintptr_t)needed[i].code < module->upper)
			return needed[i].reason;
	return NULL;
}

/* mov rax, 15; syscall: of libc, which the kernel enters behind handlers that it called without us. */
#define RESTORER_SIZE 9
static uintptr_t restorers[4];

void site_protect_restorer(uintptr_t address)
{
	for (size_t i = 0; i < ARRAY_SIZE(restorers); ++i) {
		if (restorers[i] == 0)
			restorers[i] = address;
		if (restorers[i] == address)
			return;
	}
}

/* Is it in one? Otherwise no window may run into the next one, whose unwind entry begins a byte early. */
static const char *site_check_restorers(uintptr_t address, struct extent *extent)
{
	for (size_t i = 0; i < ARRAY_SIZE(restorers) && restorers[i] != 0; ++i) {
		if (address - restorers[i] < RESTORER_SIZE)
			return "signal handlers return through this code";
		if (address < restorers[i] && restorers[i] < extent->barrier) {
			extent->limit = MIN(extent->limit, restorers[i]);
			extent->barrier = restorers[i];
		}
	}
	return NULL;
}

/* A window need not look farther. */
#define WINDOW_REACH (WINDOW_LENGTH_MAX + INSN_MAX)

/* *there: what is mapped at the address, if that is as good for a window as the mapping. */
static bool site_is_alike(const struct maps_mapping *mapping, uintptr_t address, struct maps_mapping *there)
{
	struct maps_mapping found;
	bool readable;

	if (!maps_mapping(address, &found, &readable) || found.protection != mapping->protection ||
	    found.shared != mapping->shared || found.special)
		return false;
	*there = found;
	return true;
}

/* No window leaves what is mapped as the site is. Mappings of a module may be cut anywhere. */
static void site_bound(struct extent *extent, const struct maps_mapping *mapping, uintptr_t address)
{
	struct maps_mapping there = *mapping;

	while (there.upper - address < WINDOW_REACH && site_is_alike(mapping, there.upper, &there))
		;
	extent->mapped = there.upper;
	extent->limit = MIN(extent->limit, there.upper);
	extent->barrier = MIN(extent->barrier, there.upper);
	there = *mapping;
	while (address - there.lower < WINDOW_REACH && site_is_alike(mapping, there.lower - 1, &there))
		;
	extent->floor = there.lower;
}

/* The function looked up last: the next question is mostly about another instruction of it. */
static struct {
	const void *table; /* of its module; NULL: none */
	uintptr_t lower;
	uintptr_t upper;
	uintptr_t next;
} function;

/* The function around address: lower, upper and, so far, limit. */
static void site_find_function(struct extent *extent, const struct module *module, uintptr_t address)
{
	if (function.table != module->eh_frame_hdr || address < function.lower || address >= function.upper) {
		function.table = module->eh_frame_hdr;
		if (!eh_frame_function(module, address, &function.lower, &function.upper, &function.next)) {
			function.table = NULL;
			function.lower = 0;
			function.upper = 0;
		}
	}
	extent->lower = function.lower;
	extent->upper = function.upper;
	extent->limit = MIN(function.next, extent->barrier);
}

/* May the bytes at address be patched, as far as their mapping goes? */
static patch_status site_check_mapping(struct extent *extent, uintptr_t address, struct refusal *refusal)
{
	struct maps_mapping mapping;
	patch_status status;

	if (!site_mapping(address, &mapping, refusal, &status))
		return status;
	if (!(mapping.protection & PROT_EXEC) || !(mapping.protection & PROT_READ)) {
		/* It may have become so since it was looked up. */
		cached = (struct maps_mapping){ 0 };
		if (!site_mapping(address, &mapping, refusal, &status))
			return status;
	}
	if (!(mapping.protection & PROT_EXEC)) {
		refusal->message = "the address is not executable";
		return PATCH_EFAULT;
	}
	if (!(mapping.protection & PROT_READ)) {
		refusal->message = "the code is not readable";
		return PATCH_EFAULT;
	}
	if (mapping.special) {
		refusal->message = "the kernel maps this code, and does not let it be written";
		return PATCH_ENOTSUP;
	}
	if (mapping.shared) {
		refusal->message = "the mapping is shared: other processes would see the patch";
		return PATCH_ENOTSUP;
	}
	extent->no_rmw = (mapping.protection & PROT_WRITE) != 0;
	site_bound(extent, &mapping, address);
	return PATCH_OK;
}

/* So much is read behind a function, or an address in it. */
#define READ_BEHIND (WINDOW_REACH + WINDOW_LENGTH_MAX)

/*
 * What the dynamic linker knows stays mapped while the library lock is held: unloading waits for that
 * (interpose/unload.c). So the code that is planned with is read without asking the kernel again, as far as the mapping
 * goes that was looked up. Readable it may not be any more: what is remembered of the mapping says nothing of that.
 */
static void site_trust(const struct module *module, uintptr_t address, const struct extent *extent)
	REQUIRES(library_lock)
{
	uintptr_t lower = MAX(ALIGN_DOWN(extent->upper != 0 ? extent->lower : address, PAGE_SIZE), cached.lower);
	uintptr_t upper = MIN(ALIGN_UP(MAX(extent->upper, address) + READ_BEHIND, PAGE_SIZE), cached.upper);

	FOR_EACH_SEGMENT(segment, module->headers, module->header_count, PT_LOAD, PF_R | PF_X) {
		uintptr_t start = module->bias + segment->p_vaddr;
		uintptr_t end = start + segment->p_filesz;

		if (address >= start && address < end)
			mem_trust(MAX(lower, start), MIN(upper, end));
	}
}

/* See site_expect(); lower == upper: none. */
static struct module expected;

void site_expect(const struct module *module)
{
	expected = *module;
	expected.identity = module->headers;
}

/* Of the dynamic linker's. */
static bool site_known_module(uintptr_t address, struct module *module) REQUIRES(library_lock)
{
	if (address < expected.lower || address >= expected.upper)
		return module_find_current(address, module);
	*module = expected;
	return true;
}

bool site_module(uintptr_t address, struct module *module)
{
	struct maps_mapping mapping;
	struct refusal ignored;
	patch_status status;

	return site_mapping(address, &mapping, &ignored, &status) &&
	       (site_known_module(address, module) || module_find_mapped(address, &cached, module));
}

static patch_status site_examine_for(uintptr_t address, bool mediated, struct extent *extent, struct refusal *refusal)
	REQUIRES(library_lock)
{
	struct pinned pinned;
	struct module module;
	patch_status status;
	bool known; /* to the dynamic linker */

	refusal->irritant = address;
	*extent = (struct extent){ .limit = UINTPTR_MAX, .barrier = UINTPTR_MAX };
	if (pc_map_contains(address)) {
		refusal->message = "the address is in code that libpatch generated";
		return PATCH_EPROTECTED;
	}
	status = site_check_mapping(extent, address, refusal);
	if (status != PATCH_OK)
		return status;
	known = site_known_module(address, &module);
	if (!known && !module_find_mapped(address, &cached, &module))
		return status;
	refusal->message = site_protected_by(&module);
	if (refusal->message != NULL)
		return PATCH_EPROTECTED;
	site_find_function(extent, &module, address);
	if (known)
		site_trust(&module, address, extent);
	refusal->message = pinned_examine(&module, address, extent->lower, extent->upper, mediated, &pinned);
	if (refusal->message != NULL)
		return PATCH_EPROTECTED;
	refusal->message = site_check_restorers(address, extent);
	if (refusal->message != NULL)
		return PATCH_EPROTECTED;
	if (pinned.ceiling < extent->barrier) {
		extent->limit = MIN(extent->limit, pinned.ceiling);
		extent->barrier = pinned.ceiling;
	}
	extent->floor = MAX(extent->floor, pinned.floor);
	if (extent->upper == 0)
		return PATCH_OK;
	scan_set(extent->lower, extent->upper);
	if (address != extent->lower && scan_function() && !scan_is_start(address)) {
		refusal->message = "the address is not the start of an instruction of its function";
		return PATCH_EBOUNDARY;
	}
	return PATCH_OK;
}

patch_status site_examine(uintptr_t address, struct extent *extent, struct refusal *refusal)
{
	return site_examine_for(address, false, extent, refusal);
}

patch_status site_examine_syscall(uintptr_t address, struct extent *extent, struct refusal *refusal)
{
	return site_examine_for(address, true, extent, refusal);
}

patch_status site_check_target(uintptr_t address, struct refusal *refusal)
{
	struct maps_mapping mapping;
	bool readable;

	*refusal = (struct refusal){ "the target is in code that libpatch generated", address };
	if (pc_map_contains(address))
		return PATCH_EINVAL;
	if (!maps_mapping(address, &mapping, &readable)) {
		refusal->message = readable ? "the target is not mapped" : "/proc/self/maps cannot be read";
		return readable ? PATCH_EFAULT : PATCH_ESYS;
	}
	refusal->message = "the target is not executable";
	return mapping.protection & PROT_EXEC ? PATCH_OK : PATCH_EFAULT;
}

patch_status site_check_use(uintptr_t address, enum site_use use, struct refusal *refusal)
{
	struct maps_mapping mapping;
	bool readable;

	if (address >= used[use].lower && address < used[use].upper)
		return PATCH_OK;
	*refusal = (struct refusal){ uses[use].unmapped, address };
	if (!maps_mapping(address, &mapping, &readable))
		return readable ? PATCH_EFAULT : PATCH_OK;
	refusal->message = uses[use].forbidden;
	if (!(mapping.protection & uses[use].protection))
		return PATCH_EFAULT;
	used[use] = mapping;
	return PATCH_OK;
}

uintptr_t site_next_function_end(const struct extent *extent)
{
	struct module module;
	uintptr_t lower, upper;

	if (extent->limit == UINTPTR_MAX || !site_module(extent->limit, &module) ||
	    !eh_frame_function(&module, extent->limit, &lower, &upper, NULL) || lower != extent->limit)
		return 0;
	return MIN(upper, extent->barrier);
}

bool site_decode(uintptr_t address, struct arch_insn *insn)
{
	uint8_t bytes[INSN_MAX];
	size_t size = original_read(address, bytes, sizeof(bytes));

	return arch_decode(bytes, size, address, insn);
}

void site_forget_unmapped(uintptr_t lower, uintptr_t upper)
{
	site_forget();
	for (size_t i = 0; i < sizeof(used) / sizeof(used[0]); i++)
		if (lower < used[i].upper && used[i].lower < upper)
			used[i] = (struct maps_mapping){ 0 };
}

void site_forget(void)
{
	cached = (struct maps_mapping){ 0 };
	function.table = NULL;
	expected = (struct module){ 0 };
	mem_trust(0, 0);
	module_forget();
	scan_forget();
	gaps_forget();
	gaps_try_again();
}
