/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The claim is a page at an address that every copy of the library knows. The kernel maps it for one of them only, so
 * that the claim is atomic between threads and between copies; and it is in the address space itself, where neither
 * hidden symbols, nor namespaces of the dynamic linker, nor a copy that interposes the other one's system calls come
 * between. It must not be changed between versions of the library.
 */
#include "sys/claim.h"

#include "base/syscall.h"

#include <stdatomic.h>

/*
 * Where neither programs, nor mmap(), nor the shadows of sanitizers are. The next one is taken where something else is
 * in the way.
 */
static const uintptr_t claim_places[] = { 0x6c6962706000, 0x5c6962706000, 0x4c6962706000 };

struct claim {
	_Atomic uint64_t magic;
	_Atomic uintptr_t owner; /* an address in the copy that has the process */
};

#define CLAIM_MAGIC UINT64_C(0x686374617062696c) /* "libpatch" */

/* Its address is different in each copy. */
static struct claim *claim_held;

/*
 * Is what is mapped there a claim? One that was just mapped has 0 in it. The kernel finds out whether it can be read.
 */
static bool claim_is_at(uintptr_t place)
{
	const struct claim *claim = (const struct claim *)place;
	uint64_t magic;

	if (!raw_is_readable(place))
		return false;
	magic = atomic_load(&claim->magic);
	return magic == CLAIM_MAGIC || magic == 0;
}

bool claim_process(void)
{
	if (claim_held != NULL)
		return true;
	for (size_t i = 0; i < ARRAY_SIZE(claim_places); ++i) {
		long result = raw_map_at(claim_places[i], PAGE_SIZE, PROT_READ | PROT_WRITE, 0);

		if (result == -EEXIST) {
			const struct claim *claim = (const struct claim *)claim_places[i];

			if (!claim_is_at(claim_places[i]))
				continue;
			/*
			 * A child that was made while its parent claimed the process has the page, and the parent's
			 * addresses.
			 */
			if (atomic_load(&claim->owner) != (uintptr_t)&claim_held)
				return false;
			claim_held = (struct claim *)claim_places[i];
			return true;
		}
		/* Without memory for one page nothing else will succeed, and the reason is told there. */
		if (result < 0)
			return true;
		claim_held = (struct claim *)claim_places[i];
		atomic_store(&claim_held->owner, (uintptr_t)&claim_held);
		atomic_store(&claim_held->magic, CLAIM_MAGIC);
		return true;
	}
	return true;
}

uintptr_t claim_owner(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(claim_places); ++i)
		if (claim_is_at(claim_places[i]))
			return atomic_load(&((const struct claim *)claim_places[i])->owner);
	return 0;
}

void claim_release(void)
{
	if (claim_held != NULL)
		raw_syscall(SYS_munmap, claim_held, PAGE_SIZE);
	claim_held = NULL;
}
