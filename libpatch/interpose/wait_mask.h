/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Calls that wait with a mask of their own: what a thread is seen to block meanwhile (SigBlk in /proc) is that, and not
 * what the kernel will put back.
 */
#ifndef LIBPATCH_INTERPOSE_WAIT_MASK_H
#define LIBPATCH_INTERPOSE_WAIT_MASK_H

#include "sys/tasks.h"

/* May the thread that waits in this call block owned signals behind it, though it is not seen to block them? */
bool wait_mask_hides(const struct tasks_wait *wait);

#endif
