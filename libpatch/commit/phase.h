/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a region's text holds after each phase of the protocol (I1, I2, I4). Pure: computed from what it holds now.
 */
#ifndef LIBPATCH_COMMIT_PHASE_H
#define LIBPATCH_COMMIT_PHASE_H

#include "base/base.h"
#include "patch/region.h"

/* In the end: the region patched, or the original bytes. `bytes` has room for the whole region. */
void phase_final_bytes(const struct region *region, bool install, uint8_t *bytes);
/* After phase 0, from what is there. */
void phase_0_bytes(const struct region *region, const uint8_t *live, uint8_t *bytes);
/*
 * `texts`: what is there, followed by room for three times as much, which becomes what is there after phase 1, 2 and 3.
 * Is there anything to write, in these or in phase 4, after which it is the final bytes?
 */
bool phase_texts(const struct region *region, bool install, uint8_t *texts);
/* Do only bytes of the first instruction change, from the one that is there to another? */
bool phase_is_one_instruction(const struct region *region, bool install, const uint8_t *live);
/* Is there anything to write? */
bool phase_changes_text(const struct region *region, bool install);

#endif
