/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which of the executable mappings of files are in modules of other namespaces. As a rule there is no such mapping that
 * is in no module of our own namespace, and nothing is asked of the dynamic linker.
 */
#include "elf/others.h"

#include "base/syscall.h"
#include "elf/linker.h"
#include "elf/segments.h"
#include "sys/maps.h"

#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>

/* At first; when there are more, it is doubled. */
#define ROOM 32

/* libpatch's own. A program without dynamic section has one namespace, and no dynamic linker to ask. */
extern const ElfW(Dyn) others_own_dynamic[] __asm__("_DYNAMIC") __attribute__((weak, visibility("hidden")));

struct others_mapping {
	uintptr_t address; /* where it begins */
	bool found;
};

static int others_is_in(struct dl_phdr_info *info, size_t size, void *data)
{
	struct others_mapping *mapping = data;

	(void)size;
	FOR_EACH_SEGMENT(segment, info->dlpi_phdr, info->dlpi_phnum, PT_LOAD, 0) {
		const uintptr_t start = info->dlpi_addr + segment->p_vaddr;

		mapping->found |= mapping->address >= ALIGN_DOWN(start, PAGE_SIZE) &&
				  mapping->address < start + segment->p_memsz;
	}
	return mapping->found;
}

/* Is it in a module of our own namespace? */
static bool others_is_own(uintptr_t address)
{
	struct others_mapping mapping = { .address = address };

	dl_iterate_phdr(others_is_in, &mapping);
	return mapping.found;
}

#ifdef HAVE_DL_FIND_OBJECT

/* Lock-free. */
static const struct link_map *others_ask(uintptr_t address, const void **start)
{
	struct dl_find_object object;

	if (_dl_find_object((void *)address, &object) != 0)
		return NULL;
	*start = object.dlfo_map_start;
	return object.dlfo_link_map;
}

/*
 * Can there be other namespaces? What debuggers read says so by its version, from glibc 2.35 on, and then no mapping
 * need be looked at.
 */
static bool others_can_be(void)
{
	const struct r_debug *debug = linker_debug();

	return debug == NULL || debug->r_version >= 2;
}

#else

static const struct link_map *others_ask(uintptr_t address, const void **start)
{
	struct link_map *map = NULL;
	Dl_info info;

	if (dladdr1((const void *)address, &info, (void **)&map, RTLD_DL_LINKMAP) == 0)
		return NULL;
	*start = info.dli_fbase;
	return map;
}

static bool others_can_be(void)
{
	return true;
}

#endif

static bool others_has(const struct others *others, const struct link_map *map)
{
	for (size_t i = 0; i < MIN(others->count, others->room); ++i)
		if (others->modules[i].map == map)
			return true;
	return false;
}

/* A maps_mapping_fn. */
static bool others_consider(const struct maps_mapping *mapping, void *data)
{
	struct others *others = data;
	const struct link_map *map;
	const void *start;

	if (mapping->inode == 0 || !(mapping->protection & PROT_EXEC) || others_is_own(mapping->lower))
		return true;
	map = others_ask(mapping->lower, &start);
	if (map == NULL || others_has(others, map))
		return true;
	if (others->count < others->room)
		others->modules[others->count] = (struct other){ mapping->lower, start, map };
	++others->count;
	return true;
}

static struct others *others_allocate(size_t room)
{
	size_t size = sizeof(struct others) + MAPS_BUFFER_SIZE + room * sizeof(struct other);
	struct others *others;
	long result;

	size = ALIGN_UP(size, PAGE_SIZE);
	result = raw_syscall(SYS_mmap, NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (result < 0)
		return NULL;
	others = (struct others *)result;
	others->size = size;
	others->room = room;
	others->modules = (struct other *)(others->buffer + MAPS_BUFFER_SIZE);
	return others;
}

struct others *others_make(void)
{
	for (size_t room = ROOM;; room *= 2) {
		struct others *others = others_allocate(room);
		bool read;

		if (others == NULL || others_own_dynamic == NULL || !others_can_be())
			return others;
		read = maps_mappings_into(others->buffer, others_consider, others);
		if (read && others->count <= room)
			return others;
		others_free(others);
		if (!read)
			return NULL;
	}
}

void others_free(struct others *others)
{
	if (others != NULL)
		raw_syscall(SYS_munmap, others, others->size);
}
