/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Walks the dynamic section for each value: it has some thirty entries. What the values mean is the callers' business.
 */
#include "elf/dynamic.h"

#include "elf/module_span.h"

uint64_t dynamic_value(const struct module *module, int64_t tag)
{
	FOR_EACH_SEGMENT(segment, module->headers, module->header_count, PT_DYNAMIC, 0) {
		uintptr_t address = module->bias + segment->p_vaddr;
		const Elf64_Dyn *entry = module_span(module, address, sizeof(*entry), _Alignof(Elf64_Dyn));
		size_t count = MIN(module_room(module, address), segment->p_memsz) / sizeof(*entry);

		for (size_t i = 0; entry != NULL && i < count && entry[i].d_tag != DT_NULL; ++i)
			if (entry[i].d_tag == tag)
				return entry[i].d_un.d_val;
	}
	return 0;
}

uintptr_t dynamic_address(const struct module *module, int64_t tag)
{
	uint64_t value = dynamic_value(module, tag);

	return value != 0 && value < module->lower ? module->bias + value : value;
}
