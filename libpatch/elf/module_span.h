/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What of a loaded module can be read, by its program headers: nothing that its tables refer to is believed before.
 * Pure. The module must stay loaded meanwhile.
 */
#ifndef LIBPATCH_ELF_MODULE_SPAN_H
#define LIBPATCH_ELF_MODULE_SPAN_H

#include "elf/module.h"
#include "elf/segments.h"

/* How many bytes there are from address to the end of the readable segment around it; 0: it is in none. */
static inline size_t module_room(const struct module *module, uintptr_t address)
{
	FOR_EACH_SEGMENT(segment, module->headers, module->header_count, PT_LOAD, PF_R)
		if (segment_contains(segment, module->bias, address))
			return module->bias + segment->p_vaddr + segment->p_memsz - address;
	return 0;
}

/* `size` bytes at address; NULL: they are not all there, or not aligned. */
static inline const void *module_span(const struct module *module, uintptr_t address, size_t size, size_t alignment)
{
	return address % alignment == 0 && module_room(module, address) >= size ? (const void *)address : NULL;
}

/* Is there code at address, as the segments say? */
static inline bool module_has_code(const struct module *module, uintptr_t address)
{
	FOR_EACH_SEGMENT(segment, module->headers, module->header_count, PT_LOAD, PF_X)
		if (segment_contains(segment, module->bias, address))
			return true;
	return false;
}

#endif
