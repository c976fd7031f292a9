/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * New memory for generated code is registered with libgcc, which takes a mutex of its own for it. A probe of the
 * function that gives the mutex back may patch something that needs new memory again: that waits for nobody.
 */
#include "targets.h"

#include <pthread.h>
#include <sys/mman.h>

#define FAR 4
static uint8_t *code[FAR];
static int next;
static bool nest;

/* push rbp; mov rbp, rsp; mov eax, 42; pop rbp; ret */
static const uint8_t function[] = { 0x55, 0x48, 0x89, 0xE5, 0xB8, 42, 0, 0, 0, 0x5D, 0xC3 };

static void nothing(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static patch_status patch_next(void)
{
	patch_t patch;
	patch_status status =
		make_probe((uintptr_t)code[next++], nothing, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch);

	return status == PATCH_OK ? patch_commit() : status;
}

static void patch_once_more(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	if (nest && next < FAR)
		patch_next();
}

int main(void)
{
	patch_t patch;

	harness_start();
	/* Each out of reach of the others' memory. */
	for (int i = 0; i < FAR; i++) {
		code[i] = mmap((void *)(0x100000000000 + i * 0x400000000), 4096, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
		REQUIRE(code[i] != MAP_FAILED);
		memcpy(code[i], function, sizeof(function));
		REQUIRE(mprotect(code[i], 4096, PROT_READ | PROT_EXEC) == 0);
	}
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)pthread_mutex_unlock, patch_once_more, NULL, PATCH_TRAP_POLICY_ALLOW,
			      PATCH_ENABLED, &patch));
	REQUIRE_OK(patch_commit());
	nest = true;
	CHECK_OK(patch_next());
	nest = false;
	while (next < FAR)
		CHECK_OK(patch_next());
	for (int i = 0; i < FAR; i++)
		CHECK_EQ(call_code(code[i]), 42);
	CHECK_OK(patch_fini());
	return harness_end();
}
