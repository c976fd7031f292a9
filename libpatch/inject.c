/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "inject.h"

#ifdef LIBPATCH_INJECT
int (*libpatch_inject)(enum inject_point point);
#else
typedef int inject_is_empty; /* ISO C wants a declaration in every unit */
#endif
