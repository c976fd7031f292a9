/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Functions that jump to their own entry (PROBE_RETURN): such a jump is neither a return nor a call. It is left with a
 * mark in the shadow, in the word below that of the stack pointer, where no function can be entered before the jump has
 * arrived; the entry's procedure that finds the mark calls nothing. The pair's `id` is the record's pair, so that marks
 * from before the patch was opened are none.
 */
#ifndef LIBPATCH_RUNTIME_ENTRY_AGAIN_H
#define LIBPATCH_RUNTIME_ENTRY_AGAIN_H

#include "runtime/call_pairs.h"

/* Procedures of the hooks at the jump and at the entry; their user_data is the pair. */
void entry_again_leave(struct patch_exec_context *context, uint8_t post);
void entry_again_enter(struct patch_exec_context *context, uint8_t post);

#endif
