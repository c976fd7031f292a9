/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is mapped, as /proc/self/maps tells it. Called with the library lock held.
 */
#ifndef LIBPATCH_SYS_MAPS_H
#define LIBPATCH_SYS_MAPS_H

#include "base/compiler.h"
#include "base/thread_safety.h"

struct maps_mapping {
	uintptr_t lower;
	uintptr_t upper;
	int protection; /* PROT_* */
	bool shared;
	bool stack;   /* of the main thread */
	bool special; /* [vdso], [vsyscall], [uprobes-trampoline] and their like: not to be written */
	/* Where there is no file, all three are 0. */
	uint64_t offset; /* in the file, of `lower` */
	uint64_t device; /* major << 32 | minor */
	uint64_t inode;
};

/* False when nothing is mapped at address, or /proc cannot be read (*readable is false then). */
bool maps_mapping(uintptr_t address, struct maps_mapping *out, bool *readable);

/*
 * The byte that the file mapped at address has for it: what nobody has written to memory. False when there is no file,
 * or it cannot be opened by the name that the kernel tells, or another file has that name now.
 */
bool maps_file_byte(uintptr_t address, uint8_t *byte) REQUIRES(library_lock);

/* Why /proc/self/maps cannot be read: -errno; 0: it can. */
long maps_refusal(void);

/* Visit every mapping, ascending, until `visit` returns false. False when /proc cannot be read. */
typedef bool maps_mapping_fn(const struct maps_mapping *mapping, void *data);
bool maps_mappings(maps_mapping_fn *visit, void *data);
/* The same without the library lock, in memory of the caller's. */
#define MAPS_BUFFER_SIZE 8192
bool maps_mappings_into(char buffer[MAPS_BUFFER_SIZE], maps_mapping_fn *visit, void *data);

#endif
