/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * PROBE_CALL: the procedure's second call comes from a hook at the call's return address, which other paths may reach,
 * too. Both hooks go through here; equal stack pointers tell that this return belongs to that call.
 */
#ifndef LIBPATCH_RUNTIME_CALL_PAIRS_H
#define LIBPATCH_RUNTIME_CALL_PAIRS_H

#include "base/compiler.h"

#include <libpatch/patch.h>

struct call_pair {
	uint64_t id; /* never used again */
	void (*procedure)(struct patch_exec_context *context, uint8_t post);
	void *user_data;
	uintptr_t program_counter; /* reported after the call */
};

/* Procedures of the two hooks; their user_data is the pair. */
void call_pair_begin(struct patch_exec_context *context, uint8_t post);
void call_pair_end(struct patch_exec_context *context, uint8_t post);

#endif
