/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * From a thread's registers in a function to those that it will have when the function has returned, by the unwind
 * table of the function's module. Async-signal-safe; no lock, no allocation.
 */
#ifndef LIBPATCH_ELF_CALLER_H
#define LIBPATCH_ELF_CALLER_H

#include "arch/canonical.h"

/*
 * `returned`: the pc is where a call returns to, so that the function is the one that has made the call. Registers that
 * the function need not keep are as they are now. False: the function is not described, or by what is not known here,
 * or memory cannot be read; *registers is undefined then.
 */
bool caller_registers(struct arch_registers *registers, bool returned, arch_read_fn *read, void *data);

#endif
