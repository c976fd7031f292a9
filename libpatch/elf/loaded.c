/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The dynamic linker's lists. dl_iterate_phdr() goes through one namespace, that of its caller; the others are in the
 * list that debuggers read. Nothing is kept.
 */
#include "elf/loaded.h"

#include "elf/dynamic.h"
#include "elf/segments.h"

#include <link.h>

/* struct r_debug_extended of glibc 2.35; the list is there when r_version is 2. */
struct debug_namespace {
	struct r_debug first;
	struct debug_namespace *next;
};

/* libpatch's own, by which its namespace is known. A program without dynamic section has one namespace. */
extern const ElfW(Dyn) loaded_own_dynamic[] __asm__("_DYNAMIC") __attribute__((weak, visibility("hidden")));

struct loaded_walk {
	loaded_visit_fn *visit;
	void *data;
	uint64_t changes;
};

static bool loaded_is_program(const struct module *module)
{
	size_t count;

	return module->headers != NULL && module->headers == module_program_headers(&count);
}

static int loaded_visit_own(struct dl_phdr_info *info, size_t size, void *data)
{
	struct loaded_walk *walk = data;
	struct loaded loaded = {
		.module = { .headers = info->dlpi_phdr, .header_count = info->dlpi_phnum, .bias = info->dlpi_addr },
		.path = info->dlpi_name != NULL ? info->dlpi_name : "",
	};

	(void)size;
	segments_extent(loaded.module.headers, loaded.module.header_count, loaded.module.bias, &loaded.module.lower,
			&loaded.module.upper);
	loaded.is_program = loaded_is_program(&loaded.module);
	return !walk->visit(&loaded, walk->data);
}

/* The list as the program's dynamic section refers to it; NULL: there is none, or it has one namespace only. */
static const struct debug_namespace *loaded_namespaces(void)
{
	const struct debug_namespace *namespaces;
	struct module program = { .bias = 0 };
	const Elf64_Phdr *headers;

	program.headers = headers = module_program_headers(&program.header_count);
	FOR_EACH_SEGMENT(segment, headers, program.header_count, PT_PHDR, 0)
		program.bias = (uintptr_t)headers - segment->p_vaddr;
	namespaces = (const struct debug_namespace *)dynamic_value(&program, DT_DEBUG);
	return namespaces != NULL && namespaces->first.r_version >= 2 ? namespaces : NULL;
}

static bool loaded_is_own(const struct debug_namespace *names)
{
	for (const struct link_map *map = names->first.r_map; map != NULL; map = map->l_next)
		if (map->l_ld == loaded_own_dynamic)
			return true;
	return false;
}

static bool loaded_visit_map(const struct link_map *map, const struct loaded_walk *walk)
{
	struct loaded loaded = { .path = map->l_name != NULL ? map->l_name : "" };

	if (!module_find((uintptr_t)map->l_ld, &loaded.module) || loaded.module.headers == NULL)
		return true;
	loaded.is_program = loaded_is_program(&loaded.module);
	return walk->visit(&loaded, walk->data);
}

/* Once, with the loader's lock. */
static int loaded_visit_others(struct dl_phdr_info *info, size_t size, void *data)
{
	const struct loaded_walk *walk = data;

	(void)info;
	(void)size;
	for (const struct debug_namespace *names = loaded_namespaces(); names != NULL; names = names->next) {
		if (loaded_is_own(names))
			continue;
		for (const struct link_map *map = names->first.r_map; map != NULL; map = map->l_next)
			if (!loaded_visit_map(map, walk))
				return 1;
	}
	return 1;
}

void loaded_visit(bool others, loaded_visit_fn *visit, void *data)
{
	struct loaded_walk walk = { .visit = visit, .data = data };

	dl_iterate_phdr(others ? loaded_visit_others : loaded_visit_own, &walk);
}

static int loaded_read_changes(struct dl_phdr_info *info, size_t size, void *data)
{
	struct loaded_walk *walk = data;

	if (size >= offsetof(struct dl_phdr_info, dlpi_subs) + sizeof(info->dlpi_subs))
		walk->changes = info->dlpi_adds + info->dlpi_subs;
	return 1;
}

uint64_t loaded_changes(void)
{
	struct loaded_walk walk = { .changes = 0 };

	dl_iterate_phdr(loaded_read_changes, &walk);
	return walk.changes;
}
