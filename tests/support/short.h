/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Functions of short instructions, for tests that look at single bytes of them. */
#ifndef TESTS_SHORT_H
#define TESTS_SHORT_H

#include <stdint.h>

/* plain(n) is n + 6. */
unsigned long plain(unsigned long n);
/* counted(n) is 2 * n; the first instruction's jump is punned, see punned_jump_misled.c. */
unsigned long counted(unsigned long n);
/* entered(n) is n + 4. */
unsigned long entered(unsigned long n);
/* Enters it behind entered_site, with 4 in rax. That is not known to the library, as the jump is computed. */
unsigned long enter_behind(void);
extern const uint8_t plain_second[], plain_end[], counted_end[], entered_site[];

#endif
