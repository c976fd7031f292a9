/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * patch_attr_*(): attributes of a patch to be made. They need no patch_init() and no lock.
 */
#include "base/error.h"

EXPORT patch_status patch_attr_init(patch_attr *attr, size_t sizeof_attr)
{
	error_begin();
	if (attr == NULL)
		return error_raise(PATCH_EINVAL, "patch_attr_init", "a pointer is NULL", "attr");
	if (sizeof_attr != sizeof(*attr))
		return error_raise(PATCH_EINVAL, "patch_attr_init",
				   "the caller was built for another size of patch_attr", "sizeof_attr");
	*attr = (patch_attr){ .trap_policy = PATCH_TRAP_POLICY_ALLOW, .abi = PATCH_ABI_OS };
	return PATCH_OK;
}

EXPORT patch_status patch_attr_fini(patch_attr *attr)
{
	error_begin();
	if (attr == NULL)
		return error_raise(PATCH_EINVAL, "patch_attr_fini", "a pointer is NULL", "attr");
	return PATCH_OK;
}

/* `field`: its offset. */
static patch_status attr_set(patch_attr *attr, size_t field, int value, int greatest, const char *origin)
{
	error_begin();
	if (attr == NULL)
		return error_raise(PATCH_EINVAL, origin, "a pointer is NULL", "attr");
	if (value < 0 || value > greatest)
		return error_raise(PATCH_EINVAL, origin, "the value is out of range", "value");
	((uint8_t *)attr)[field] = (uint8_t)value;
	return PATCH_OK;
}

EXPORT patch_status patch_attr_set_trap_policy(patch_attr *attr, int policy)
{
	return attr_set(attr, offsetof(patch_attr, trap_policy), policy, PATCH_TRAP_POLICY_FORCE,
			"patch_attr_set_trap_policy");
}

EXPORT patch_status patch_attr_set_abi(patch_attr *attr, int abi)
{
	return attr_set(attr, offsetof(patch_attr, abi), abi, PATCH_ABI_OS, "patch_attr_set_abi");
}

EXPORT patch_status patch_attr_set_exits(patch_attr *attr, int exits)
{
	return attr_set(attr, offsetof(patch_attr, exits), exits, PATCH_EXITS_KNOWN, "patch_attr_set_exits");
}

EXPORT patch_status patch_attr_set_stack(patch_attr *attr, int stack)
{
	return attr_set(attr, offsetof(patch_attr, stack), stack, PATCH_STACK_OWN, "patch_attr_set_stack");
}

EXPORT patch_status patch_attr_set_initial_state(patch_attr *attr, int state)
{
	return attr_set(attr, offsetof(patch_attr, initial_state), state, PATCH_ENABLED,
			"patch_attr_set_initial_state");
}
