/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a module calls itself, and which symbols it takes from others, by its dynamic section. The tables that this
 * refers to are believed: the dynamic linker has read them.
 */
#include "elf/dynamic.h"
#include "elf/segments.h"

#include <signal.h>

static bool references_is_same(const char *a, const char *b)
{
	while (*a != '\0' && *a == *b) {
		++a;
		++b;
	}
	return *a == *b;
}

bool module_refers_to(const struct module *module, const char *symbol)
{
	/* Of data, and of calls. */
	static const int64_t tables[][2] = { { DT_RELA, DT_RELASZ }, { DT_JMPREL, DT_PLTRELSZ } };
	const Elf64_Sym *symbols = (const Elf64_Sym *)dynamic_address(module, DT_SYMTAB);
	const char *names = (const char *)dynamic_address(module, DT_STRTAB);

	for (size_t table = 0; symbols != NULL && names != NULL && table < ARRAY_SIZE(tables); ++table) {
		const Elf64_Rela *at = (const Elf64_Rela *)dynamic_address(module, tables[table][0]);
		size_t count = at != NULL ? dynamic_value(module, tables[table][1]) / sizeof(*at) : 0;

		for (; count > 0; --count, ++at)
			if (references_is_same(names + symbols[ELF64_R_SYM(at->r_info)].st_name, symbol))
				return true;
	}
	return false;
}

bool module_is_named(const struct module *module, const char *name)
{
	const char *names = (const char *)dynamic_address(module, DT_STRTAB);
	uint64_t own = dynamic_value(module, DT_SONAME);

	return names != NULL && own != 0 && references_is_same(names + own, name);
}

bool module_is_libc(const struct module *module)
{
	/* Before glibc 2.34 threads were a library of their own. */
	static const char *const names[] = { "libc.so.6", "libpthread.so.0" };
	uintptr_t function = (uintptr_t)&sigaction;

	for (size_t i = 0; i < ARRAY_SIZE(names); ++i)
		if (module_is_named(module, names[i]))
			return true;
	FOR_EACH_SEGMENT(segment, module->headers, module->header_count, PT_LOAD, PF_R | PF_X)
		if (segment_contains(segment, module->bias, function))
			return true;
	return false;
}
