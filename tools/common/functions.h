/* SPDX-License-Identifier: MIT */
/*
 * Functions of loaded modules, from the unwind tables in memory: works on stripped programs, executes nothing of
 * theirs.
 */
#ifndef EXAMPLES_FUNCTIONS_H
#define EXAMPLES_FUNCTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct module {
	char name[256];  /* what the user calls it: file name without directories */
	char path[4096];
	uintptr_t base;  /* load bias: address in memory - address in the file */
	bool described;  /* it has an unwind table */
	bool unindexed;  /* ... but no .eh_frame_hdr: the file says where it is, libpatch does not know it */
};

/* One described extent. Compilers split functions: a cold part far from the rest is an extent of its own. */
struct extent {
	uintptr_t lower; /* [lower, upper) */
	uintptr_t upper;
	size_t module;   /* index */
};

struct functions {
	struct module *modules;
	size_t module_count;
	struct extent *extents;
	size_t extent_count;
};

/*
 * Collect the functions of every loaded module that a comma separated list of names selects. A name is a file name
 * without directories, a pattern as in fnmatch(3), or "main", the executable. The module that calls this is left out.
 * False when out of memory.
 */
bool functions_collect(const char *names, struct functions *out);

/*
 * The functions of one module that the dynamic linker need not know, by the unwind tables in memory; if its program
 * headers lead to none, as in what gcc -static links, by the section headers of its file. dlpi_name is the file's.
 */
struct dl_phdr_info;
bool functions_collect_mapped(struct dl_phdr_info *info, struct functions *out);

/*
 * Name of the function that starts at `extent`, as "symbol" or "module+0xoffset", into name[size]: dynamic symbols
 * first, then the symbol table of the module's file, if it has one.
 */
void functions_name(const struct functions *functions, const struct extent *extent, char *name, size_t size);

#endif
