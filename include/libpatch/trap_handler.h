/* SPDX-License-Identifier: MIT */
/*
 * The handler of the traps that patches raise, for programs and tools that own the host's signal handling.
 */
#ifndef LIBPATCH_TRAP_HANDLER_H
#define LIBPATCH_TRAP_HANDLER_H

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
 * The trap handler, for others to call: patch_init() makes libpatch the handler of SIGTRAP and SIGILL, by system calls
 * of its own, whatever the host has put in front of sigaction().
 *
 * From then on libpatch mediates the program's calls of sigaction() for these signals: the kernel keeps libpatch's
 * handler, and the handler that the program sets gets each signal that no patch raised, with the mask and flags it was
 * set with; where the program has set none, the signal has its default effect. A handler of a module that refers to
 * libpatch_on_trap() is taken for a tool's, which is in front of this one: it gets every trap first, and hands a trap
 * on by calling this function with the signal's number, information and ucontext as it got them, from any stack and
 * with any signals blocked.
 *
 * Where a call of sigaction() is not mediated (a raw system call in code that was generated), the program's handler
 * replaces this one, and must hand traps on in the same way. libpatch never installs its handler again behind the
 * program's back.
 *
 * Thread safe and async-signal-safe: it takes no lock, allocates nothing and keeps errno. Before patch_init() it does
 * nothing.
 */
void libpatch_on_trap(int signo, siginfo_t *info, void *ucontext);

#ifdef __cplusplus
}
#endif

#endif
