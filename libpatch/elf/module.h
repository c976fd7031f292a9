/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Loaded modules: which one contains an address, and what it refers to. module_find() is lock-free and
 * async-signal-safe (_dl_find_object); no section headers and no file are needed.
 */
#ifndef LIBPATCH_ELF_MODULE_H
#define LIBPATCH_ELF_MODULE_H

#include "base/compiler.h"
#include "base/thread_safety.h"
#include "sys/maps.h"

struct module {
	uintptr_t lower; /* [lower, upper): all its segments and any holes between them */
	uintptr_t upper;
	/*
	 * Its link_map; where libc has no _dl_find_object, its program headers; of module_find_mapped(), its ELF
	 * header.
	 */
	const void *identity;
	const void *eh_frame_hdr; /* NULL when it has none: what gcc -static links without --eh-frame-hdr */
	/* Program headers, which say what of [lower, upper) is readable. NULL: all of it. */
	const void *headers;
	size_t header_count;
	uintptr_t bias; /* load address less p_vaddr */
};

/*
 * The module around address, of which the dynamic linker has this link_map, and says that it begins at `start`. False:
 * it has no headers there. With the loader's lock (elf/loaded.h).
 */
struct link_map;
bool module_of_map(uintptr_t address, const void *start, const struct link_map *map, struct module *out);
/* The same of a library alone, without `identity`, by its ELF header at `start`. */
bool module_of_header(uintptr_t address, const void *start, struct module *out);

/* Program headers of the program, as the kernel passed them; NULL: unknown. */
const void *module_program_headers(size_t *count);

/* The module that contains address. False: no module does. Whether the vDSO is a module depends on libc. */
bool module_find(uintptr_t address, struct module *out);
/* The same in a signal handler; no when this libc cannot tell without a lock. */
bool module_find_without_lock(uintptr_t address, struct module *out);
/* In a signal handler, too: is the address in the module that the library is in? */
bool module_is_own(uintptr_t address);
/* The same, but where the library is linked into the program itself: there it cannot be told from that. */
bool module_is_librarys(uintptr_t address);

/*
 * The same for a module that others may unload: it is there as long as the library lock is held, which the linker's
 * unmapping waits for (interpose/unload.c). False, too, when its head cannot be read, or when this libc cannot tell
 * without a lock.
 */
bool module_find_current(uintptr_t address, struct module *out) REQUIRES(library_lock);

/* The path of a module of module_find_current(), as long as the lock is held; "": it is the program, or not known. */
const char *module_path(const struct module *module) REQUIRES(library_lock);

/*
 * The same for a module that module_find_current() does not know, which some other loader mapped: its ELF header is at
 * the start of a mapping, its segments lie around `address` as its program headers say, and come from the same file.
 * `mapping` is the one around address. Reads /proc/self/maps; the answer for a mapping is kept until module_forget(),
 * as long as the module's headers read the same. Called with the library lock held. No allocation, no call of libc;
 * what `out` refers to is good until the next call.
 */
bool module_find_mapped(uintptr_t address, const struct maps_mapping *mapping, struct module *out);

/* Modules were loaded or unloaded. */
void module_forget(void) REQUIRES(library_lock);
void module_forget_mapped(void);

/*
 * Does the module take this symbol from another one, as its relocations say? Only for modules that the dynamic linker
 * knows. Async-signal-safe.
 */
bool module_refers_to(const struct module *module, const char *symbol);
/* Is this its DT_SONAME? Under the same conditions. */
bool module_is_named(const struct module *module, const char *name);
/*
 * Is it libc, or a part of it, or a program that libc is linked into statically? Under the same conditions. By name:
 * the functions of libc's that libpatch would know it by may be the host's.
 */
bool module_is_libc(const struct module *module);

#endif
