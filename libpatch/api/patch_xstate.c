/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * patch_x86_64_state_component(): its arguments, and why it fails. The layout of XSAVE images is in
 * arch/x86_64/xsave.c. It needs no patch_init() and takes no lock, because handlers of faults call it.
 */
#include "arch/cpu.h"
#include "base/error.h"

#define ORIGIN "patch_x86_64_state_component"

EXPORT patch_status patch_x86_64_state_component(void *xsave, int component, void **out, void *reserved)
{
	patch_status status;

	error_begin();
	if (xsave == NULL || out == NULL)
		return error_raise(PATCH_EINVAL, ORIGIN, "a pointer is NULL", xsave == NULL ? "xsave" : "out");
	if (reserved != NULL)
		return error_raise(PATCH_EINVAL, ORIGIN, "the last argument must be NULL", "reserved");
	status = arch_xsave_component(xsave, component, out);
	switch (status) {
	case PATCH_OK:
		return PATCH_OK;
	case PATCH_EINVAL:
		return error_raise(status, ORIGIN, "no state component has this number", "component");
	case PATCH_ENOTSUP:
		return error_raise_at(status, ORIGIN, "the processor or the kernel does not have the state component",
				      (uintptr_t)component);
	default:
		return error_raise_at(status, ORIGIN, "the image does not hold the state component",
				      (uintptr_t)component);
	}
}
