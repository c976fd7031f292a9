/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a region's text holds after each phase of the protocol (I1, I2, I4). Pure: computed from what it holds now.
 */
#ifndef LIBPATCH_COMMIT_PHASE_H
#define LIBPATCH_COMMIT_PHASE_H

#include "base/compiler.h"
#include "base/thread_safety.h"
#include "patch/region.h"

/* The text in the end: the patched region, or the original bytes. `bytes` has room for the whole region. */
void phase_final_bytes(const struct region *region, bool install, uint8_t *bytes) REQUIRES(library_lock);
/* The text after phase 0, when `live` is there. */
void phase_0_bytes(const struct region *region, const uint8_t *live, uint8_t *bytes);
/*
 * `texts` begins with the text that is there. Behind it the function puts the texts after phase 1, 2 and 3, each as
 * long. After phase 4 the text is the final one. Returns whether any phase has anything to write.
 */
bool phase_texts(const struct region *region, bool install, uint8_t *texts) REQUIRES(library_lock);
/* Do only bytes of the first instruction change? */
bool phase_is_one_instruction(const struct region *region, bool install, const uint8_t *live) REQUIRES(library_lock);
/* Is the final text another than what the region has in the text now? */
bool phase_changes_text(const struct region *region, bool install) REQUIRES(library_lock);

#endif
