/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A module that stress/torture loads, patches, runs and unloads. */
#include <stdint.h>

uint64_t torture_module(uint64_t a, uint64_t b);

__attribute__((noinline)) static uint64_t inner(uint64_t a, uint64_t b)
{
	__asm__ volatile("" : "+r"(a));
	return a * 3 + b;
}

uint64_t torture_module(uint64_t a, uint64_t b)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < (a & 7) + 1; i++)
		sum += inner(a + i, b ^ i);
	return sum;
}
