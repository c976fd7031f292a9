/* SPDX-License-Identifier: MIT */
/* What kind of file is it? */
#ifndef EXAMPLES_COVERAGE_FILE_H
#define EXAMPLES_COVERAGE_FILE_H

enum file_kind {
	LIBRARY,
	PROGRAM, /* would load a library by LD_PRELOAD */
	CLOSED,  /* a program that would not */
	NEITHER
};

/* *why: of CLOSED and NEITHER. */
enum file_kind file_kind(const char *path, const char **why);

#endif
