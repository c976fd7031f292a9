/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The pointers through which liburcu is called (urcu.h), and the list of them for patch_init(). Nothing is called here.
 * They change in patch_init() only, before there is a table, so that the trap handler reads them as constants.
 */
#include "base/dependency.h"
#include "trap/registry.h"

#define _LGPL_SOURCE
#include <urcu/rculfhash.h>

#define DEFINE(name) __typeof__(name) *libpatch_##name = name
DEFINE(_cds_lfht_new);
DEFINE(cds_lfht_add);
DEFINE(cds_lfht_del);
DEFINE(cds_lfht_first);
DEFINE(cds_lfht_lookup);
DEFINE(cds_lfht_next);

const struct dependency registry_table_dependency = {
	.library = URCU_SONAME,
	.count = 6,
	.functions = {
		DEPENDENCY_FUNCTION(_cds_lfht_new),
		DEPENDENCY_FUNCTION(cds_lfht_add),
		DEPENDENCY_FUNCTION(cds_lfht_del),
		DEPENDENCY_FUNCTION(cds_lfht_first),
		DEPENDENCY_FUNCTION(cds_lfht_lookup),
		DEPENDENCY_FUNCTION(cds_lfht_next),
	},
};
