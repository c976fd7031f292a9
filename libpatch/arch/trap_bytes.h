/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Bytes that trap when they are executed, and the jump that is written over instructions.
 */
#ifndef LIBPATCH_ARCH_TRAP_BYTES_H
#define LIBPATCH_ARCH_TRAP_BYTES_H

#include "base/compiler.h"

#include <signal.h>

#define ARCH_INT3 0xCC
#define ARCH_INVALID 0xCE /* of the SIGILL class */
#define ARCH_JMP_REL32 0xE9
#define ARCH_JMP_SIZE 5

/* How a trap byte reports: by SIGTRAP with rip behind it, or by SIGILL with rip on it. 0: no trap byte. */
enum arch_trap_class { ARCH_TRAP_NONE, ARCH_TRAP_SIGTRAP, ARCH_TRAP_SIGILL };
enum arch_trap_class arch_trap_class(uint8_t byte);

/* The code of a SIGTRAP for an event of the thread's, which is sent: TRAP_PERF of Linux 5.13 (perf_event_open). */
#define ARCH_TRAP_EVENT 6

/*
 * Is the signal one that the thread's instruction has raised, and that the kernel does not wait with? The code alone
 * does not say so: that of a child's end, and what a process says to itself, have the same values, with a process id
 * where the address would be. `pc`: where the thread is said to be.
 */
bool arch_is_raised(const siginfo_t *info, uintptr_t pc);
/* By an int3? Linux says SI_KERNEL then; valgrind, which executes code itself, TRAP_BRKPT. Neither has an address. */
bool arch_is_int3(const siginfo_t *info, uintptr_t pc);

/*
 * The trap byte for an instruction of `length` bytes, while a jump comes or goes, and on boundaries; a site that
 * stays a trap has an int3 (commit/phase.c). When a SIGTRAP that somebody sent is pending while a thread executes an
 * int3, the kernel delivers one of the two signals, and the pc behind the int3 is all that tells of it. Behind an
 * instruction of one byte the thread may be anyway. An instruction of one byte gets a byte that leaves the pc where
 * it is: a thread whose SIGILL was merged executes it once more.
 */
static inline uint8_t arch_trap_byte(unsigned int length)
{
	return length > 1 ? ARCH_INT3 : ARCH_INVALID;
}

/*
 * Trap bytes that may be the top byte of a rel32, in order of preference: int3 first, then the SIGILL class, that
 * faults on every processor whatever follows (AMD APM vol. 3, table A-1: invalid in 64-bit mode).
 */
extern const uint8_t arch_top_trap_bytes[];
extern const size_t arch_top_trap_byte_count;

#endif
