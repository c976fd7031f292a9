/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The program's dynamic section says where the dynamic linker's words for debuggers are.
 */
#include "elf/linker.h"

#include "elf/dynamic.h"
#include "elf/segments.h"

#include <link.h>
#include <sys/auxv.h>

const struct r_debug *linker_debug(void)
{
	struct module program = { .bias = 0 };
	const Elf64_Phdr *headers;

	program.headers = headers = module_program_headers(&program.header_count);
	FOR_EACH_SEGMENT(segment, headers, program.header_count, PT_PHDR, 0)
		program.bias = (uintptr_t)headers - segment->p_vaddr;
	return (const struct r_debug *)dynamic_value(&program, DT_DEBUG);
}

uintptr_t linker_bias(void)
{
	const uintptr_t base = getauxval(AT_BASE);
	const struct r_debug *debug = base == 0 ? linker_debug() : NULL;

	/* The kernel does not know of one that was started by hand. */
	return debug != NULL ? debug->r_ldbase : base;
}
