/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Public functions that need no library: attributes, errors, names.
 */
#include "base/base.h"
#include "base/error.h"

/* ---- attributes ------------------------------------------------------------------------------------------------- */

EXPORT patch_status patch_attr_init(patch_attr *attr, size_t sizeof_attr)
{
	error_reset();
	if (attr == NULL)
		return error_raise(PATCH_EINVAL, "patch_attr_init", "a pointer is NULL", "attr");
	if (sizeof_attr != sizeof(*attr))
		return error_raise(PATCH_EINVAL, "patch_attr_init", "the caller was built for another size of patch_attr",
				   "sizeof_attr");
	*attr = (patch_attr){ .trap_policy = PATCH_TRAP_POLICY_ALLOW, .abi = PATCH_ABI_OS };
	return PATCH_OK;
}

EXPORT patch_status patch_attr_fini(patch_attr *attr)
{
	error_reset();
	if (attr == NULL)
		return error_raise(PATCH_EINVAL, "patch_attr_fini", "a pointer is NULL", "attr");
	return PATCH_OK;
}

/* `field`: its offset. */
static patch_status set_attr(patch_attr *attr, size_t field, int value, int greatest, const char *origin)
{
	error_reset();
	if (attr == NULL)
		return error_raise(PATCH_EINVAL, origin, "a pointer is NULL", "attr");
	if (value < 0 || value > greatest)
		return error_raise(PATCH_EINVAL, origin, "the value is out of range", "value");
	((uint8_t *)attr)[field] = (uint8_t)value;
	return PATCH_OK;
}

EXPORT patch_status patch_attr_set_trap_policy(patch_attr *attr, int policy)
{
	return set_attr(attr, offsetof(patch_attr, trap_policy), policy, PATCH_TRAP_POLICY_FORCE, "patch_attr_set_trap_policy");
}

EXPORT patch_status patch_attr_set_abi(patch_attr *attr, int abi)
{
	return set_attr(attr, offsetof(patch_attr, abi), abi, PATCH_ABI_OS, "patch_attr_set_abi");
}

EXPORT patch_status patch_attr_set_initial_state(patch_attr *attr, int state)
{
	return set_attr(attr, offsetof(patch_attr, initial_state), state, PATCH_ENABLED, "patch_attr_set_initial_state");
}

/* ---- errors ----------------------------------------------------------------------------------------------------- */

EXPORT patch_status patch_last_error(struct patch_error *error)
{
	if (error == NULL)
		return PATCH_EINVAL;
	return error_last(error);
}

EXPORT const char *patch_status_string(patch_status status)
{
	switch (status) {
	case PATCH_BUG:
		return "library bug";
	case PATCH_OK:
		return "success";
	case PATCH_EINVAL:
		return "invalid argument";
	case PATCH_ENOTSUP:
		return "not supported";
	case PATCH_EFINI:
		return "library finished";
	case PATCH_EFAIL:
		return "part of the batch failed";
	case PATCH_ESYS:
		return "system call failed";
	case PATCH_ECONF:
		return "conflict";
	case PATCH_ENEXIST:
		return "does not exist";
	case PATCH_EEXIST:
		return "exists already";
	case PATCH_EDISASM:
		return "not an instruction";
	case PATCH_EINIT:
		return "library not initialised";
	case PATCH_ENOMEM:
		return "out of memory";
	case PATCH_EFAULT:
		return "not executable memory";
	case PATCH_EBOUNDARY:
		return "not the start of an instruction";
	case PATCH_ECHANGED:
		return "bytes changed by somebody else";
	case PATCH_ENOJUMP:
		return "no jump possible";
	case PATCH_EPROTECTED:
		return "protected code";
	case PATCH_ERELOCATE:
		return "instruction cannot be displaced";
	case PATCH_EBLOCKED:
		return "signals blocked by a thread";
	case PATCH_EBUSY:
		return "a procedure is running";
	}
	return "unknown status";
}
