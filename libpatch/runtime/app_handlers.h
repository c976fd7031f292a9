/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Can a handler of the program interrupt the library? Then signals are blocked under the library lock, by two system
 * calls each time. Where the program never had a handler, of the owned signals neither, they need not be.
 *
 *  - That there are none is known only when all system calls that install one are mediated, and every thread that was
 *    there before is seen to be in no such call (interpose/mask_audit.h).
 *  - A thread enters (adds one to a count) and then looks whether there are handlers. Who is about to install one says
 *    so first, and then waits until the count is 0. Of the two, at least one sees the other: either signals are
 *    blocked, or the handler is installed when the thread is out.
 *  - Once there was a handler, it stays so: others may be installed by then without anybody's waiting.
 */
#ifndef LIBPATCH_RUNTIME_APP_HANDLERS_H
#define LIBPATCH_RUNTIME_APP_HANDLERS_H

#include "base/compiler.h"

/* There are none, unless app_handlers_expect() was called before. Once; not by a thread that is in. */
void app_handlers_begin(void);

/* True: none can run in this thread until app_handlers_leave(). False: there may be some. */
bool app_handlers_enter(void);
void app_handlers_leave(void);

/* Before one is installed. Waits for others that are in, not for the calling thread. Async-signal-safe. */
void app_handlers_expect(void);

/* In a child of fork(), by the thread that is left. */
void app_handlers_forget_others(void);

#endif
