/* SPDX-License-Identifier: MIT */
/*
 * For tools that own the host's signal handling.
 */
#ifndef LIBPATCH_TOOLS_H
#define LIBPATCH_TOOLS_H

#include <signal.h>
#if defined(__has_include)
#if __has_include(<bits/types/siginfo_t.h>)
#include <bits/types/siginfo_t.h> /* strict ISO C modes: <signal.h> leaves it out */
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The trap handler, as patch_init() gives it to sigaction() for SIGTRAP (and, once a patch needs it, SIGILL). A program
 * may install its own handler afterwards and forward to this one, with the signal's number, information and ucontext as
 * the kernel gave them, from any stack and with any signals blocked. A trap that belongs to no patch goes on to the
 * handler that was in place when patch_init() was called; when there was none, it has its default effect.
 *
 * Async-signal-safe; takes no lock, allocates nothing, keeps errno.
 */
void libpatch_on_trap(int signo, siginfo_t *info, void *ucontext);

#ifdef __cplusplus
}
#endif

#endif
