/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the public functions share.
 */
#ifndef LIBPATCH_API_API_H
#define LIBPATCH_API_API_H

#include "base/base.h"
#include "runtime/lock.h"

/* Begin a public call: the thread's errors forgotten, the lock taken, the library initialised; else why not. */
patch_status api_enter(struct lock_scope *scope, const char *origin);
/* End it, with its status. */
patch_status api_leave(const struct lock_scope *scope, patch_status status);

#endif
