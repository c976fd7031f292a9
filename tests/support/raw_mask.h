/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A signal mask that is set past the library: the system call's number is not known where the call is made, nor can
 * what is in front of it be displaced with it.
 */
#ifndef TESTS_RAW_MASK_H
#define TESTS_RAW_MASK_H

#include "harness.h"

#include <sys/syscall.h>

static NOINLINE void raw_mask(int how, uint64_t set)
{
	static volatile long number = SYS_rt_sigprocmask;
	register long size __asm__("r10") = sizeof(set);
	long result;

	__asm__ volatile("jmp 1f\n1:\tsyscall"
			 : "=a"(result)
			 : "a"(number), "D"((long)how), "S"(&set), "d"(0L), "r"(size)
			 : "rcx", "r11", "memory");
	REQUIRE(result == 0);
}

#endif
