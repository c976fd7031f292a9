/* SPDX-License-Identifier: MIT */
/*
 * The former name of <libpatch/trap_handler.h>, which programs go on including.
 */
#ifndef LIBPATCH_TOOLS_H
#define LIBPATCH_TOOLS_H

#include <libpatch/trap_handler.h>

#endif
