/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Called in signal handlers: the stack is read through the caller's function, tables are read as they are. Who calls
 * has the function's module in use.
 */
#include "elf/caller.h"

#include "elf/cfa.h"

static bool caller_take(struct arch_registers *registers, const struct cfa_frame *frame, uintptr_t cfa,
			arch_read_fn *read, void *data)
{
	for (unsigned int i = 0; i < CFA_KEPT; ++i) {
		uint64_t word;

		if (frame->kept[i] == CFA_KEPT_NOWHERE)
			continue;
		if (frame->kept[i] == CFA_KEPT_ELSEWHERE ||
		    !read(data, cfa + 8 * (uintptr_t)(intptr_t)frame->kept[i], &word, sizeof(word)))
			return false;
		if (i == CFA_RETURN_ADDRESS)
			registers->pc = word;
		else
			registers->general[arch_dwarf_registers[i]] = word;
	}
	return true;
}

bool caller_registers(struct arch_registers *registers, bool returned, arch_read_fn *read, void *data)
{
	const uintptr_t pc = registers->pc - returned;
	const uintptr_t stack_pointer = registers->general[ARCH_RSP];
	struct module module;
	struct cfa_rows rows;
	uintptr_t cfa;

	if (!module_find_without_lock(pc, &module) || !cfa_begin(&rows, &module, pc))
		return false;
	cfa_seek(&rows, pc);
	if (!rows.frame.known || rows.frame.base >= CFA_RETURN_ADDRESS ||
	    rows.frame.kept[CFA_RETURN_ADDRESS] == CFA_KEPT_NOWHERE)
		return false;
	cfa = registers->general[arch_dwarf_registers[rows.frame.base]] + (uintptr_t)rows.frame.offset;
	if (cfa <= stack_pointer || !caller_take(registers, &rows.frame, cfa, read, data))
		return false;
	registers->general[ARCH_RSP] = cfa;
	return true;
}
