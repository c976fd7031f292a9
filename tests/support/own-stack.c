/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* To be preloaded: every procedure is called on a stack of the thread's own, whatever the program asks for. */
#define _GNU_SOURCE
#include <libpatch/patch.h>

#include <dlfcn.h>
#include <stdlib.h>

patch_status patch_make(const struct patch_location *location, const struct patch_exec_model *model,
			const patch_attr *attr, patch_t *out, void *reserved)
{
	__typeof__(patch_make) *make = (__typeof__(patch_make) *)dlsym(RTLD_NEXT, "patch_make");
	patch_attr own = { .trap_policy = PATCH_TRAP_POLICY_ALLOW };

	if (make == NULL)
		abort();
	if (attr != NULL)
		own = *attr;
	own.stack = PATCH_STACK_OWN;
	return make(location, model, &own, out, reserved);
}
