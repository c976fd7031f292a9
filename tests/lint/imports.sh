#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# What the shared library calls of others, each with the reason why it may. Anything else could be patched, and would
# then be called by a commit while it holds trap bytes, or by the trap handler (I9).
set -eu
: "${NM:=nm}"
build=${LIBPATCH_BUILD_DIR:-$(dirname "$0")/../..}
library=$build/.libs/libpatch.so
LC_ALL=C
export LC_ALL

allowed='
ZydisDecoderDecodeFull             planning; Zydis is not patched
ZydisDecoderDecodeInstruction      planning
ZydisDecoderInit                   planning
ZydisRegisterGetLargestEnclosing   planning
_dl_find_object                    planning; a stack overflow in a hook: lock-free, no allocation; complete patches
_Unwind_GetCFA                     the personality routine: called by an unwinder only
_Unwind_GetIP                      the same
_Unwind_GetLanguageSpecificData    the same
_Unwind_GetRegionStart             the same
__register_frame_info              outside the lock
__register_atfork                  patch_init(), outside the lock
dlsym                              patch_make() of a symbol, and patch_init(), outside the lock
dlvsym                             patch_make() of a symbol, outside the lock
dlopen                             patch_init(), outside the lock
dlinfo                             the same
dladdr1                            patch_init(), patch_make() of a symbol: modules of other namespaces; outside the lock
sigaction                          installing handlers, outside the lock
sigfillset                         the same
sigdelset                          the same
dl_iterate_phdr                    patch_init(): where system calls are; patch_make() of a symbol, outside the lock
__errno_location                   a constructor; around sigaction()
getauxval                          a constructor
__cxa_finalize                     compiler: when the library is unloaded, which it never is
__gmon_start__                     compiler: profiling
_ITM_deregisterTMCloneTable        compiler
_ITM_registerTMCloneTable          compiler
'

[ -e "$library" ] || { echo "no shared library was built"; exit 77; }
names=$($NM -D --undefined-only "$library" | awk '{ sub(/@.*/, "", $NF); print $NF }')
test -n "$names"
if echo "$names" | grep -Eq '^__(asan|ubsan|tsan)_'; then
	echo "built with a sanitizer, whose calls are everywhere"
	exit 77
fi
status=0
for name in $names; do
	echo "$allowed" | grep -q "^$name  *[^ ]" || { echo "$library calls $name(), which may be patched"; status=1; }
done
# Bound inside, not merely there: a definition that others could interpose would be no better.
for name in memcpy memmove memset memcmp; do
	$NM "$library" | grep -q " [tT] $name\$" || { echo "$library has no $name() of its own"; status=1; }
	! $NM -D --defined-only "$library" | grep -q " $name\(@\|\$\)" || { echo "$name() is exported"; status=1; }
done
exit $status
