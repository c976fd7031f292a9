/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Patching libpatch, liburcu or Zydis is refused with PATCH_EPROTECTED, whatever the policy. */
#include "targets.h"

#include <dlfcn.h>
#include <libpatch/tools.h>

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static void refuse(const char *name, uintptr_t address)
{
	patch_t patch = NULL;

	for (int policy = PATCH_TRAP_POLICY_ALLOW; policy <= PATCH_TRAP_POLICY_FORCE; policy++) {
		CONTEXT("%s, %s", name, policy_name(policy));
		CHECK_STATUS(make_probe(address, procedure, NULL, policy, PATCH_ENABLED, &patch), PATCH_EPROTECTED);
		CHECK_OK(patch_commit());
	}
}

int main(void)
{
	static const char *const symbols[] = { "patch_commit", "patch_make", "libpatch_on_trap", "patch_last_error",
					       "cds_lfht_lookup", "_cds_lfht_new_with_alloc", "_cds_lfht_new",
					       "cds_lfht_add", "ZydisDecoderDecodeFull" };
	unsigned int found = 0;
	int status;

	harness_start();
	REQUIRE_OK(patch_init(NULL, 0));
	for (size_t n = 0; n < sizeof(symbols) / sizeof(symbols[0]); n++) {
		void *address = dlsym(RTLD_DEFAULT, symbols[n]);

		if (!address)
			continue;
		found++;
		refuse(symbols[n], (uintptr_t)address);
	}
	CHECK(found >= 4);
	status = PATCH_OK;
	CHECK_EQ(status, patch_commit());
	CHECK_OK(patch_fini());
	return harness_end();
}
