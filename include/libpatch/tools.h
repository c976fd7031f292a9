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
 * The trap handler, as patch_init() gives it to sigaction() for SIGTRAP (and, once a patch needs it, SIGILL). Programs need
 * not call it: the library stays in place when a program sets a handler for these signals, and hands on to that handler
 * what belongs to no patch; when there is none, the signal has its default effect. A tool that wants to see traps first
 * installs a handler that forwards to this one, with the signal's number, information and ucontext as the kernel gave
 * them, from any stack and with any signals blocked; the library takes a handler in a module that refers to this function for
 * such a handler, which then gets all traps.
 *
 * Async-signal-safe; takes no lock, allocates nothing, keeps errno.
 */
void libpatch_on_trap(int signo, siginfo_t *info, void *ucontext);

#ifdef __cplusplus
}
#endif

#endif
