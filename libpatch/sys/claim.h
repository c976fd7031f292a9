/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One copy of libpatch in a process: the static archive in some module, the shared library, another one that was loaded
 * under another name or in another namespace of the dynamic linker. Two copies would each patch the system calls of the
 * other one, and each answer the other one's traps.
 */
#ifndef LIBPATCH_SYS_CLAIM_H
#define LIBPATCH_SYS_CLAIM_H

#include "base/compiler.h"

/*
 * Claim the process for this copy. False when another copy has it. A claim is inherited over fork(), as the library is,
 * and ends with execve(2). Thread safe, async-signal-safe; repeated by the same copy it is true.
 */
bool claim_process(void);
/* An address in the copy that has the process; 0: none has it, or it has just begun to claim it. */
uintptr_t claim_owner(void);
/* Give the claim back: the library could not be initialised, and has left nothing behind. */
void claim_release(void);

#endif
