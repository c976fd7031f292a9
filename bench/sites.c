/* SPDX-License-Identifier: LGPL-2.1-or-later */
#define _GNU_SOURCE
#include "sites.h"

#include "common/functions.h"

#include <Zydis/Zydis.h>
#include <dlfcn.h>
#include <stdlib.h>

#define LIBRARY "libLLVM-14.so.1"
#define PATTERN "libLLVM-14.so*"

static void *library;
static struct functions functions;

static const char *load(void)
{
	if (library == NULL)
		library = dlopen(LIBRARY, RTLD_NOW | RTLD_GLOBAL);
	if (library == NULL)
		return LIBRARY " is not there (Debian: libllvm14)";
	if (functions.extent_count == 0 && (!functions_collect(PATTERN, &functions) || functions.extent_count == 0))
		return "the functions of " LIBRARY " are not known";
	return NULL;
}

static int compare(const void *a, const void *b)
{
	const uintptr_t x = *(const uintptr_t *)a, y = *(const uintptr_t *)b;

	return (x > y) - (x < y);
}

const char *sites_of_functions(struct sites *sites)
{
	const char *reason = load();

	if (reason)
		return reason;
	sites->path = functions.modules[0].path;
	sites->count = functions.extent_count;
	sites->addresses = calloc(sites->count, sizeof(*sites->addresses));
	if (!sites->addresses)
		return "out of memory";
	for (size_t i = 0; i < sites->count; i++)
		sites->addresses[i] = functions.extents[i].lower;
	qsort(sites->addresses, sites->count, sizeof(*sites->addresses), compare);
	return NULL;
}

const char *sites_of_instructions(struct sites *sites, size_t limit)
{
	const char *reason = load();
	ZydisDecoder decoder;

	if (reason)
		return reason;
	if (ZYAN_FAILED(ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64)))
		return "no decoder";
	sites->path = functions.modules[0].path;
	sites->count = 0;
	sites->addresses = calloc(limit, sizeof(*sites->addresses));
	if (!sites->addresses)
		return "out of memory";
	for (size_t i = 0; i < functions.extent_count; i++) {
		const struct extent *extent = &functions.extents[i];
		ZydisDecodedInstruction instruction;

		for (uintptr_t at = extent->lower; at < extent->upper && sites->count < limit;
		     at += instruction.length) {
			if (ZYAN_FAILED(ZydisDecoderDecodeInstruction(&decoder, NULL, (const void *)at,
								      extent->upper - at, &instruction)))
				break;
			sites->addresses[sites->count++] = at;
		}
	}
	return NULL;
}

/* Allocates, hashes and frees: some thousand instructions in some hundred functions of the library's. */
static void *(*create)(void);
static void (*dispose)(void *);

static void call_library(void)
{
	dispose(create());
}

const char *sites_caller(void (**call)(void))
{
	const char *reason = load();

	if (reason)
		return reason;
	create = (void *(*)(void))dlsym(library, "LLVMContextCreate");
	dispose = (void (*)(void *))dlsym(library, "LLVMContextDispose");
	*call = call_library;
	return create && dispose ? NULL : LIBRARY " has no LLVMContextCreate()";
}

uintptr_t sites_called(void)
{
	return (uintptr_t)create;
}

uintptr_t sites_spread(const struct sites *sites, size_t count, size_t index, size_t batch)
{
	size_t stride = sites->count / count;

	return sites->addresses[(index * stride + batch) % sites->count];
}
