/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Regions whose boundaries turned out to be branched to: a jump elsewhere takes their place, where there is one that no
 * boundary of it traps for. In three commits, because the new bytes are among the old ones:
 *
 *   replan_begin()    builds the new region; the old one is to be a trap, at its hooked instruction alone
 *   replan_go_on()    once that is so: the new region takes the old one in
 *
 * Called with the library lock held, which is not given up in between.
 */
#ifndef LIBPATCH_COMMIT_REPLAN_H
#define LIBPATCH_COMMIT_REPLAN_H

#include "base/base.h"

/* Queue what is to be a trap. False: there is nothing to do. */
bool replan_begin(void);
/* Queue what takes its place. */
void replan_go_on(void);

#endif
