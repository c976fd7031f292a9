/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * module_find(): no lock, no allocation, and no call but _dl_find_object (glibc manual: AS-Safe). Without it
 * dl_iterate_phdr is used, which locks: module_find() must then stay out of signal handlers.
 *
 * The module must stay loaded during the call; that is the caller's business, and of module_find_current() ours: the
 * linker finds a module for a moment after it unmapped it, so its headers are read after the kernel was asked.
 */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "elf/module.h"

#include "elf/segments.h"
#include "sys/mem_read.h"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <sys/auxv.h>

static struct {
	const Elf64_Phdr *headers;
	size_t count;
	bool known;
} program;

/* Before anything can be patched, so that nothing of libc is called under the library lock. */
__attribute__((constructor(101))) static void module_read_auxiliary_vector(void)
{
	if (getauxval(AT_PHENT) == sizeof(Elf64_Phdr)) {
		program.headers = (const Elf64_Phdr *)getauxval(AT_PHDR);
		program.count = getauxval(AT_PHNUM);
	}
	program.known = true;
}

const void *module_program_headers(size_t *count)
{
	/* Called by what runs before all constructors. */
	if (!program.known)
		module_read_auxiliary_vector();
	*count = program.headers != NULL ? program.count : 0;
	return program.headers;
}

/* Bounds and unwind table by program headers. False when no segment is around address. */
static bool module_describe(struct module *module, uintptr_t address, const Elf64_Phdr *headers, size_t count,
			    uintptr_t bias)
{
	bool found = false;

	FOR_EACH_SEGMENT(segment, headers, count, PT_LOAD, 0) {
		uintptr_t start = bias + segment->p_vaddr;

		found |= address >= ALIGN_DOWN(start, PAGE_SIZE) &&
			 address < ALIGN_UP(start + segment->p_memsz, PAGE_SIZE);
	}
	if (!found)
		return false;
	segments_extent(headers, count, bias, &module->lower, &module->upper);
	module->eh_frame_hdr = NULL;
	FOR_EACH_SEGMENT(segment, headers, count, PT_GNU_EH_FRAME, 0)
		module->eh_frame_hdr = (const void *)(bias + segment->p_vaddr);
	module->headers = headers;
	module->header_count = count;
	module->bias = bias;
	return true;
}

/*
 * The program is described by the headers the kernel passes: _dl_find_object reports one segment only of a program with
 * holes between its segments, and of a static program the code without its unwind table (glibc 2.36).
 */
static bool module_is_program(struct module *module, uintptr_t address, const struct link_map *map)
{
	size_t count;
	const Elf64_Phdr *headers = module_program_headers(&count);
	uintptr_t bias = map->l_addr;

	if (headers == NULL)
		return false;
	FOR_EACH_SEGMENT(segment, headers, count, PT_PHDR, 0)
		bias = (uintptr_t)headers - segment->p_vaddr;
	/* Without PT_PHDR the bias is the found object's: it must be the program's own. */
	return module_describe(module, address, headers, count, bias) && (uintptr_t)headers >= module->lower &&
	       (uintptr_t)headers < module->upper;
}

/* Libraries are mapped as a whole, the ELF header at the start, as a rule with the program headers on the same page. */
bool module_of_header(uintptr_t address, const void *start, struct module *module)
{
	const Elf64_Ehdr *elf = start;
	const Elf64_Phdr *headers, *first;

	if (elf == NULL || (uintptr_t)elf % PAGE_SIZE != 0)
		return false;
	if (!segments_are_of(elf) || elf->e_phentsize != sizeof(*headers) || elf->e_phoff % _Alignof(Elf64_Phdr) != 0 ||
	    elf->e_phoff > PAGE_SIZE || elf->e_phnum > (PAGE_SIZE - elf->e_phoff) / sizeof(*headers))
		return false;
	headers = (const Elf64_Phdr *)((uintptr_t)elf + elf->e_phoff);
	first = segment_next(headers, elf->e_phnum, NULL, PT_LOAD, 0);
	return first != NULL && first->p_offset < PAGE_SIZE &&
	       module_describe(module, address, headers, elf->e_phnum,
			       (uintptr_t)elf - ALIGN_DOWN(first->p_vaddr, PAGE_SIZE));
}

bool module_of_map(uintptr_t address, const void *start, const struct link_map *map, struct module *out)
{
	struct module module = { .identity = map };

	if (!module_is_program(&module, address, map) && !module_of_header(address, start, &module))
		return false;
	*out = module;
	return true;
}

/* By the linker that made the module; the first one is not there where the headers are not mapped. */
extern const char __ehdr_start[] __attribute__((weak, visibility("hidden")));
extern const char _end[] __attribute__((visibility("hidden")));

bool module_is_own(uintptr_t address)
{
	return __ehdr_start != NULL && address >= (uintptr_t)__ehdr_start && address < (uintptr_t)_end;
}

bool module_is_librarys(uintptr_t address)
{
	size_t count;

	return module_is_own(address) && !module_is_own((uintptr_t)module_program_headers(&count));
}

#ifdef HAVE_DL_FIND_OBJECT

static void module_take(uintptr_t address, const struct dl_find_object *object, struct module *out)
{
	struct module module;

	if (!module_of_map(address, object->dlfo_map_start, object->dlfo_link_map, &module)) {
		module = (struct module){.lower = (uintptr_t)object->dlfo_map_start,
					 .upper = (uintptr_t)object->dlfo_map_end};
	}
	module.identity = object->dlfo_link_map;
	module.eh_frame_hdr = object->dlfo_eh_frame;
	*out = module;
}

bool module_find(uintptr_t address, struct module *out)
{
	struct dl_find_object object;

	if (_dl_find_object((void *)address, &object) != 0)
		return false;
	module_take(address, &object, out);
	return true;
}

bool module_find_without_lock(uintptr_t address, struct module *out)
{
	return module_find(address, out);
}

/* Where a module begins that was seen to be mapped, and has not been unmapped since; 0: none was seen. */
static uintptr_t current GUARDED_BY(library_lock);
/* What was found last, where the linker says that this begins. */
static struct module described GUARDED_BY(library_lock);
static const void *described_start GUARDED_BY(library_lock);

static bool module_is_current(uintptr_t start) REQUIRES(library_lock)
{
	if (start == current)
		return true;
	if (!mem_is_readable(start, start + PAGE_SIZE))
		return false;
	current = start;
	return true;
}

bool module_find_current(uintptr_t address, struct module *out)
{
	struct dl_find_object object;

	if (_dl_find_object((void *)address, &object) != 0 || !module_is_current((uintptr_t)object.dlfo_map_start))
		return false;
	/* Mostly it is the same as the last time. */
	if (described.identity != object.dlfo_link_map || described_start != object.dlfo_map_start) {
		module_take(address, &object, &described);
		described_start = object.dlfo_map_start;
	}
	*out = described;
	return true;
}

void module_forget(void)
{
	current = 0;
	described = (struct module){ 0 };
	module_forget_mapped();
}

const char *module_path(const struct module *module)
{
	return ((const struct link_map *)module->identity)->l_name;
}

#else

const char *module_path(const struct module *module)
{
	(void)module;
	return "";
}

struct find_request {
	uintptr_t address;
	struct module *out;
};

static int module_find_visit(struct dl_phdr_info *info, size_t size, void *data)
{
	struct find_request *request = data;
	struct module module = {.identity = info->dlpi_phdr};

	(void)size;
	if (!module_describe(&module, request->address, info->dlpi_phdr, info->dlpi_phnum, info->dlpi_addr))
		return 0;
	*request->out = module;
	return 1;
}

bool module_find(uintptr_t address, struct module *out)
{
	struct find_request request = {.address = address, .out = out};

	return dl_iterate_phdr(module_find_visit, &request) == 1;
}

bool module_find_without_lock(uintptr_t address, struct module *out)
{
	(void)address;
	(void)out;
	return false;
}

/* The lock that dl_iterate_phdr() takes is held by who unmaps a module, and waits for ours. */
bool module_find_current(uintptr_t address, struct module *out)
{
	(void)address;
	(void)out;
	return false;
}

void module_forget(void)
{
	module_forget_mapped();
}

#endif
