/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A signal that comes while a hook calls a procedure waits for the end of that call: the kernel keeps it blocked, and
 * the call returns to a stub, which unblocks it. What is called from a hook is found by where it returns to, so that
 * hooks need not do anything.
 */
#ifndef LIBPATCH_ARCH_PUT_OFF_H
#define LIBPATCH_ARCH_PUT_OFF_H

#include "arch/canonical.h"
#include "base/compiler.h"

#include <ucontext.h>

/* A call has one of these numbers of words of the hook between the frame's base and the address that it returns to. */
#define ARCH_PUT_OFF_WAYS 2

/* Where the hook with its frame at `base` has the address that its call returns to. */
uintptr_t *arch_put_off_return(uintptr_t base, unsigned int way);
/* Is the pc, in that place, where the hook's call returns to? */
bool arch_put_off_is_call(const struct arch_code_map *map, uintptr_t pc, uintptr_t base, unsigned int way);

/* Have the call return to the stub. Once for each call: what it returns to is kept, and lost the second time. */
void arch_put_off(uintptr_t base, unsigned int way);
/* It does already. */
bool arch_put_off_is_done(uintptr_t base, unsigned int way);

/* A thread in the stub: put it to where the call would have returned to. False: it is elsewhere. */
bool arch_put_off_finish(greg_t *registers);

#endif
