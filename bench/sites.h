/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What is patched in bulk: function entries, or all instructions, of a large library. */
#ifndef BENCHMARK_SITES_H
#define BENCHMARK_SITES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sites {
	const char *path;
	uintptr_t *addresses; /* ascending */
	size_t count;
};

/* Loads the library. NULL, or why it cannot be done. */
const char *sites_of_functions(struct sites *sites);
/* Up to `limit` instructions, from that of the first function on. */
const char *sites_of_instructions(struct sites *sites, size_t limit);

/* Code of the library to be run by a thread, over and over. NULL, or why not. */
const char *sites_caller(void (**call)(void));
/* Entry of one of its functions, which each call runs through once. */
uintptr_t sites_called(void);

/* Number `index` of `count` sites that are spread evenly; `batch` shifts all of them. */
uintptr_t sites_spread(const struct sites *sites, size_t count, size_t index, size_t batch);

#endif
