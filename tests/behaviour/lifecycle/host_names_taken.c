/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The host has functions with the names of the library's own and of Zydis', and exports them all. The library calls
 * none of them, with the static library (host_names_taken_static) and with the shared one; and what the host calls is
 * its own.
 */
#include <libpatch/patch.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define HOST __attribute__((noinline, visibility("default")))

static volatile int called;

/* Of an own disassembler, and an own table: they do nothing, and fail. */
#define TAKEN(name)                                                                                                    \
	HOST int name(void);                                                                                           \
	HOST int name(void)                                                                                            \
	{                                                                                                              \
		return ++called, -1;                                                                                   \
	}

TAKEN(ZydisDecoderInit)
TAKEN(ZydisDecoderDecodeFull)
TAKEN(ZydisDecoderDecodeInstruction)
TAKEN(ZydisDecoderDecodeOperands)
TAKEN(ZydisDecoderTreeGetChildNode)
TAKEN(ZydisRegisterGetLargestEnclosing)
TAKEN(api_enter)
TAKEN(arch_decode)
TAKEN(arena_free)
TAKEN(attach)
TAKEN(attach_patch)
TAKEN(commit_run)
TAKEN(error_raise)
TAKEN(error_begin)
TAKEN(heap_alloc)
TAKEN(heap_free)
TAKEN(lock_acquire)
TAKEN(mediate)
TAKEN(module_find)
TAKEN(raw_syscall6)
TAKEN(region_queue)
TAKEN(registry_find)
TAKEN(site_decode)
TAKEN(syscall_emulate)
TAKEN(text_read)
/* A variable of the host's, where the library has a function. */
__attribute__((visibility("default"))) int signals_own = 1;

/* Not ours: the library's does not count. */
static volatile int copies;

HOST void *memcpy(void *to, const void *from, size_t size)
{
	++copies;
	for (size_t i = 0; i < size; i++)
		((volatile char *)to)[i] = ((const volatile char *)from)[i];
	return to;
}

static volatile long hits;

static void hook(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	++hits;
}

/* Decoded by Zydis: the short cut for frequent instructions does not know VEX. */
__attribute__((noinline)) static int work(int x)
{
	__asm__ volatile("vaddps %%xmm0, %%xmm0, %%xmm1" : : : "xmm1");
	return x * 3 + 1;
}

int main(void)
{
	struct patch_location where = { .type = PATCH_LOCATION_ADDRESS, .address = (uintptr_t)work };
	struct patch_exec_model what = { .type = PATCH_EXEC_MODEL_PROBE };
	void *(*volatile copy)(void *, const void *, size_t) = memcpy;
	struct patch_error error;
	char from[3] = "ab", to[3];
	patch_t patch;

	what.probe.clobber_registers = PATCH_REGS_ALL;
	what.probe.procedure = hook;
	if (patch_init(NULL, 0) || patch_make(&where, &what, NULL, &patch, NULL) || patch_enable(patch) ||
	    patch_commit()) {
		patch_last_error(&error);
		printf("%s: %s (%s)\n", error.origin, error.message, error.irritant);
		return 1;
	}
	if (__builtin_cpu_supports("avx"))
		for (int i = 0; i < 10; i++)
			work(i);
	else
		hits = 10;
	patch_disable(patch);
	if (patch_commit() || patch_fini()) {
		puts("the patch could not be removed");
		return 1;
	}
	if (hits != 10 || called != 0) {
		printf("%ld hits, %d functions of the host called\n", hits, called);
		return 1;
	}
	copies = 0;
	copy(to, from, sizeof(from));
	if (copies != 1 || strcmp(to, from) != 0 || attach() != -1 || called != 1 || signals_own != 1) {
		printf("the host's own functions are not called: %d copies, %d calls\n", copies, called);
		return 1;
	}
	return 0;
}
