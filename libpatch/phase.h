/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a region's text holds after each phase of the protocol (I1, I2, I4). Pure: computed from what it holds now.
 */
#ifndef LIBPATCH_PHASE_H
#define LIBPATCH_PHASE_H

#include "base.h"
#include "region.h"

/* In the end: the region patched, or the original bytes. `bytes` has room for the whole region. */
void phase_final_bytes(const struct region *region, bool install, uint8_t *bytes);
/* After phase 0 to 4; PHASE_WHOLE: all at once. */
#define PHASE_WHOLE 5
void phase_bytes(const struct region *region, bool install, int phase, uint8_t *bytes);
/* Do only bytes of the first instruction change, from one instruction to another? */
bool phase_is_one_instruction(const struct region *region, bool install);
/* Is there anything to write? */
bool phase_changes_text(const struct region *region, bool install);

#endif
