/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which build a module is, and a file: its build id, or, where it has none, a sum over its program headers and its
 * table of functions. Files are replaced while programs run, and names say nothing.
 */
#ifndef LIBPATCH_ELF_IDENTITY_H
#define LIBPATCH_ELF_IDENTITY_H

#include "elf/elf_file.h"
#include "elf/module.h"

#define IDENTITY_SIZE 64

struct identity {
	uint8_t size; /* 0: it cannot be known */
	bool is_sum;  /* there is no build id */
	uint8_t bytes[IDENTITY_SIZE];
};

/* The module must stay loaded meanwhile. */
void identity_of_module(const struct module *module, struct identity *out);
void identity_of_file(const struct elf_file *file, struct identity *out);
/* The file's build id alone: a file of debug information has no table of functions. */
void identity_build_id(const struct elf_file *file, struct identity *out);
/* Are both known, and the same? */
bool identity_is_same(const struct identity *a, const struct identity *b);

#endif
