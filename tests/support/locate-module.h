/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A module that tests of symbols load, in several builds: every kind of symbol that there is, and functions that say
 * where the hidden ones are.
 */
#ifndef TESTS_LOCATE_MODULE_H
#define TESTS_LOCATE_MODULE_H

/* A function that stays what it is called, though nobody calls it. */
#if defined(__clang__)
#define KEEP __attribute__((noinline, used))
#else
#define KEEP __attribute__((noipa, used))
#endif

/* Returned by located_address(): where the function is that a name stands for. */
enum located_function {
	LOCATED_STATIC,    /* located_static, and its alias located_alias */
	LOCATED_HIDDEN,    /* located_hidden */
	LOCATED_DOUBLE_1,  /* located_double, static in two files */
	LOCATED_DOUBLE_2,
	LOCATED_OLD,       /* located_versioned@V_1 */
	LOCATED_NEW,       /* located_versioned@@V_2 */
	LOCATED_CHOSEN,    /* what located_indirect leads to */
	LOCATED_LABEL,     /* located_label: no type */
	LOCATED_BOTH,      /* located_both: static function here, static data in the other file */
	LOCATED_EXPORTED
};

void *located_address(enum located_function which);
/* Calls it. */
int located_call(enum located_function which);

#endif
