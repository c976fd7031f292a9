/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Arguments are another thread's, and what they point to may be gone: it is read with care. What cannot be read counts
 * as a mask.
 */
#include "interpose/wait_mask.h"

#include "base/syscall.h"
#include "sys/mem_read.h"
#include "trap/owned_signals.h"

/* IORING_ENTER_EXT_ARG of the kernel: the argument is a structure that begins with the pointer. */
#define ENTER_EXT_ARG 8

/* The word that a pointer leads to; 0 behind a null pointer. */
static uint64_t wait_mask_word(uint64_t pointer)
{
	uint64_t word = 0;
	int error;

	if (pointer == 0)
		return 0;
	return mem_read((uintptr_t)pointer, &word, sizeof(word), &error) == sizeof(word) ? word : ~(uint64_t)0;
}

bool wait_mask_hides(const struct tasks_wait *wait)
{
	const uint64_t *arguments = wait->arguments;

	switch (wait->call) {
	case SYS_ppoll:
		return arguments[3] != 0;
	case SYS_epoll_pwait:
	case SYS_epoll_pwait2:
		return arguments[4] != 0;
	case SYS_pselect6:
	case SYS_io_pgetevents:
		return wait_mask_word(arguments[5]) != 0;
	case SYS_io_uring_enter:
		return (arguments[3] & ENTER_EXT_ARG ? wait_mask_word(arguments[4]) : arguments[4]) != 0;
	case SYS_rt_sigsuspend:
		return true;
	case SYS_rt_sigtimedwait:
		/* It lets through what it waits for, nothing else (kernel/signal.c). */
		return (wait_mask_word(arguments[0]) & SIGNALS_OWNED) != 0;
	default:
		return false;
	}
}
