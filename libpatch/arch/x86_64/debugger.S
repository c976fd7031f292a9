/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What gdb looks for by name (arch/unwind.h). Hosts with a compiler of their own, and its libraries, have the same
 * names, and each has a list of its own: gdb looks into every module. So the names are exported, or gdb would not find
 * them in a library without symbols, but with a version that is not the default one: nobody's reference is bound to
 * them, and ours are not bound to others'. In assembly, as link-time optimisation loses versions.
 *
 * gdb before version 11 leaves out names whose version is not the default one. It finds the local ones, which a library
 * has that is not stripped.
 */
#ifdef __CET__
#include <cet.h>
#endif
#ifndef _CET_ENDBR
#define _CET_ENDBR
#endif

	.data
	.balign 8
	.globl libpatch_debugger_list, libpatch_debugger_list_exported
	.hidden libpatch_debugger_list
	.type libpatch_debugger_list, @object
	.type libpatch_debugger_list_exported, @object
	.type __jit_debug_descriptor, @object
__jit_debug_descriptor:
libpatch_debugger_list:
libpatch_debugger_list_exported:
	.long 1, 0
	.quad 0, 0
	.size __jit_debug_descriptor, . - __jit_debug_descriptor
	.size libpatch_debugger_list, . - libpatch_debugger_list
	.size libpatch_debugger_list_exported, . - libpatch_debugger_list_exported
	.symver libpatch_debugger_list_exported, __jit_debug_descriptor@LIBPATCH_DEBUGGER

	.text
	.globl libpatch_debugger_stop, libpatch_debugger_stop_exported
	.hidden libpatch_debugger_stop
	.type libpatch_debugger_stop, @function
	.type libpatch_debugger_stop_exported, @function
	.type __jit_debug_register_code, @function
__jit_debug_register_code:
libpatch_debugger_stop:
libpatch_debugger_stop_exported:
	_CET_ENDBR
	ret
	.size __jit_debug_register_code, . - __jit_debug_register_code
	.size libpatch_debugger_stop, . - libpatch_debugger_stop
	.size libpatch_debugger_stop_exported, . - libpatch_debugger_stop_exported
	.symver libpatch_debugger_stop_exported, __jit_debug_register_code@LIBPATCH_DEBUGGER

	.section .note.GNU-stack, "", @progbits
