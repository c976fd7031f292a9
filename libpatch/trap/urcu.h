/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * liburcu, as libpatch calls it: through pointers (base/dependency.h). The headers of liburcu, read with these names,
 * declare them.
 */
#ifndef LIBPATCH_TRAP_URCU_H
#define LIBPATCH_TRAP_URCU_H

#define _cds_lfht_new (*libpatch__cds_lfht_new)
#define cds_lfht_add (*libpatch_cds_lfht_add)
#define cds_lfht_del (*libpatch_cds_lfht_del)
#define cds_lfht_first (*libpatch_cds_lfht_first)
#define cds_lfht_lookup (*libpatch_cds_lfht_lookup)
#define cds_lfht_next (*libpatch_cds_lfht_next)

#pragma GCC visibility push(hidden)
#define _LGPL_SOURCE
#include <urcu/flavor.h>
#include <urcu/rculfhash.h>
#pragma GCC visibility pop

#endif
