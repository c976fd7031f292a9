/* SPDX-License-Identifier: MIT */
/*
 * What the user wants of function-profile, from the environment; function-profile.c has the list.
 */
#ifndef EXAMPLES_SETTINGS_H
#define EXAMPLES_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

struct settings {
	unsigned long top;
	bool by_time;
	bool progress;
	uint64_t remove_after; /* ns; 0: never */
	uint64_t put_back_after;
	char file[4096]; /* "": standard error */
	const char *wrong; /* what a variable with another value may be; NULL: none has one */
};

/* Names of the modules to trace; NULL when this is not a process to trace. */
const char *settings_read(struct settings *settings);

#endif
