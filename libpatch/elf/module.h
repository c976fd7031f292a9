/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Loaded modules and the extents of their functions, from the in-memory .eh_frame_hdr. module_find()
 * and module_function() are lock-free and async-signal-safe (_dl_find_object); no section headers and no file are needed.
 */
#ifndef LIBPATCH_ELF_MODULE_H
#define LIBPATCH_ELF_MODULE_H

#include "base/compiler.h"
#include "sys/maps.h"

struct module {
	uintptr_t lower; /* [lower, upper): all its segments and any holes between them */
	uintptr_t upper;
	const void *identity;     /* its link_map; its program headers where libc has no _dl_find_object; its ELF header */
	const void *eh_frame_hdr; /* NULL when it has none: what gcc -static links without --eh-frame-hdr */
	/* Program headers, which say what of [lower, upper) is readable. NULL: all of it. */
	const void *headers;
	size_t header_count;
	uintptr_t bias; /* load address less p_vaddr */
};

/* Program headers of the program, as the kernel passed them; NULL: unknown. */
const void *module_program_headers(size_t *count);

/* The module that contains address; false when none does (generated code, the vDSO may or may not count). */
bool module_find(uintptr_t address, struct module *out);

/*
 * The same for a module that the dynamic linker does not know, which some other loader mapped: its ELF header is at the
 * start of a mapping, its segments lie around `address` as its program headers say, and come from the same file. `mapping`
 * is the one around address. Reads /proc/self/maps; the answer for a mapping is kept until module_forget(), as long as the
 * module's headers read the same. Called with the library lock held. No allocation, no call of libc; what `out` refers to
 * is good until the next call.
 */
bool module_find_mapped(uintptr_t address, const struct maps_mapping *mapping, struct module *out);
void module_forget(void);

/*
 * Extent [*lower, *upper) of the function around address, from the module's unwind table. False when there is no
 * entry around it. *next_lower (may be NULL) receives the start of the next described function, or UINTPTR_MAX. A range
 * without an entry around `address` still fills *next_lower.
 */
bool module_function(const struct module *module, uintptr_t address, uintptr_t *lower, uintptr_t *upper,
		     uintptr_t *next_lower);

/*
 * Call `function` while no module is loaded or unloaded: with the loader's lock, which is taken before the library lock where
 * both are. Others wait for it with another lock of the loader's: dlsym() and the like must not be called. Not for signal
 * handlers.
 */
void module_hold_all(void (*function)(void *), void *data);

/*
 * Does the module take this symbol from another one, as its relocations say? Only for modules that the dynamic linker knows.
 * Async-signal-safe.
 */
bool module_refers_to(const struct module *module, const char *symbol);

#endif
