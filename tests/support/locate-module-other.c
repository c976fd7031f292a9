/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The other file of locate-module.c, with names that are in both. */
#include "locate-module.h"

KEEP static int located_double(void)
{
	__asm__ volatile("nop\nnop\nnop\nnop\nnop");
	return LOCATED_DOUBLE_2;
}
__attribute__((used)) static int located_both[4] = { 1 };

void *const located_other_double = (void *)located_double;
void *const located_other_both = located_both;
