/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Threads may be about to install a handler by system calls that were not mediated yet, or are not at all. Library lock
 * held.
 */
#ifndef LIBPATCH_INTERPOSE_HANDLER_AUDIT_H
#define LIBPATCH_INTERPOSE_HANDLER_AUDIT_H

#include "base/compiler.h"

/* System calls are mediated from now on: whoever is there may be in a call that is not. */
void handler_audit_begin(void);
/* Is every call that installs a handler and was not mediated over? Once it is true, it stays so. */
bool handler_audit_is_over(void);

#endif
