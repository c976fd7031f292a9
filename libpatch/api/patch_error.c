/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * patch_last_error() and patch_status_string(): what a program is told of a failure. The chain itself is in
 * base/error.c.
 */
#include "base/error.h"

EXPORT patch_status patch_last_error(struct patch_error *error)
{
	if (error == NULL)
		return PATCH_EINVAL;
	return error_last(error);
}

EXPORT const char *patch_status_string(int status)
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
		return "memory that cannot be used so";
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
	case PATCH_EAMBIGUOUS:
		return "ambiguous name";
	case PATCH_EBUSY:
		return "a procedure is running";
	}
	return "unknown status";
}
