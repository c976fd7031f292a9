/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See locate-module.h. */
#include "locate-module.h"

#define EXPORTED __attribute__((visibility("default")))
#define BODY(number) \
	{ \
		__asm__ volatile("nop\nnop\nnop\nnop\nnop"); \
		return number; \
	}

extern void *const located_other_double, *const located_other_both;

KEEP static int located_static(void) BODY(LOCATED_STATIC)
KEEP int located_hidden(void) BODY(LOCATED_HIDDEN)
KEEP static int located_double(void) BODY(LOCATED_DOUBLE_1)
KEEP static int located_both(void) BODY(LOCATED_BOTH)
KEEP EXPORTED int located_exported(void) BODY(LOCATED_EXPORTED)
KEEP static int located_chosen(void) BODY(LOCATED_CHOSEN)
KEEP EXPORTED int located_old(void) BODY(LOCATED_OLD)
KEEP EXPORTED int located_new(void) BODY(LOCATED_NEW)

static int located_alias(void) __attribute__((alias("located_static"), used));

__asm__(".symver located_old, located_versioned@V_1");
__asm__(".symver located_new, located_versioned@@V_2");

/* No unwind information, no type, and no size. */
__asm__(".text\n.balign 16\n.globl located_label\n.hidden located_label\nlocated_label:\n"
	"	mov $8, %eax\n	nop\n	ret\n");
extern int located_label(void);

__attribute__((used)) static int (*located_resolve(void))(void)
{
	return located_chosen;
}
EXPORTED int located_indirect(void) __attribute__((ifunc("located_resolve")));
static int located_own_indirect(void) __attribute__((ifunc("located_resolve"), used));

EXPORTED int located_data = 1;
__attribute__((used)) static int located_local_data = 2;
EXPORTED _Thread_local int located_thread_data = 3;

EXPORTED void *located_address(enum located_function which)
{
	switch (which) {
	case LOCATED_STATIC:
		return located_static;
	case LOCATED_HIDDEN:
		return located_hidden;
	case LOCATED_DOUBLE_1:
		return located_double;
	case LOCATED_DOUBLE_2:
		return located_other_double;
	case LOCATED_OLD:
		return located_old;
	case LOCATED_NEW:
		return located_new;
	case LOCATED_CHOSEN:
		return located_chosen;
	case LOCATED_LABEL:
		return located_label;
	case LOCATED_BOTH:
		return located_both;
	case LOCATED_EXPORTED:
		return located_exported;
	default:
		return 0;
	}
}

EXPORTED int located_call(enum located_function which)
{
	return ((int (*)(void))located_address(which))() + 0 * located_local_data;
}
