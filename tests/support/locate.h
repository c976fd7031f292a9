/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * For tests of locations by name: what a name leads to, and files of modules in a directory of the test's own.
 */
#ifndef TESTS_LOCATE_H
#define TESTS_LOCATE_H

#include "harness.h"
#include "locate-module.h"

/* Where a patch by this name is made, plus nothing else: it is unmade. 0: it was refused. */
uintptr_t locate(const char *name);
void locate_expect(const char *name, const void *address);
void locate_refused(const char *name, patch_status status, const char *message);
/* Does an error of the last call say this, about this? */
void locate_chain_says(const char *message, const char *irritant);

/* A directory that is removed with all its files when the process that made it ends. */
const char *locate_directory(void);
/* The path of this file in it. */
const char *locate_path(const char *file);
/* A copy of the module that is built for this, in the directory. */
const char *locate_copy(const char *file);
/* Copy or replace any file by another one. */
void locate_copy_file(const char *from, const char *to);
/* Run a tool of binutils; the test is skipped where it is missing. */
void locate_tool(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The module's functions, once it is loaded. */
struct locate_module {
	void *handle;
	void *(*address)(enum located_function which);
	int (*call)(enum located_function which);
};
struct locate_module locate_load(const char *path, int flags);

#endif
