/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The thread pointer. It differs between the threads of a process, and a static thread-local variable has the same
 * distance from it in every thread (ELF TLS, variant II).
 */
#ifndef LIBPATCH_ARCH_THREAD_POINTER_H
#define LIBPATCH_ARCH_THREAD_POINTER_H

#include "base/compiler.h"

#include <stdint.h>

/* Async-signal-safe. */
static inline uintptr_t arch_thread_pointer(void)
{
	uintptr_t self;

	/* The first word that %fs points to is its own address (psABI, TLS). */
	__asm__("mov %%fs:0, %0" : "=r"(self));
	return self;
}

#endif
