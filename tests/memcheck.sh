#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The pure parts under valgrind's memcheck: each test of theirs in its own process, which is followed. Not the tests
# that run what was relocated: valgrind stops at instructions whose length it has wrong (assumed next %rip).
set -u
build=${LIBPATCH_BUILD_DIR:-.}
command -v valgrind >/dev/null || { echo "SKIP: no valgrind"; exit 77; }
failed=0
ran=0
for test in arch/test_decode arch/test_emit arch/test_relocate plan/test_plan; do
	program=$build/tests/unit/$test
	[ -x "$program" ] || continue
	ran=1
	valgrind -q --trace-children=yes --error-exitcode=9 "$program" || { echo "$test: $?"; failed=1; }
done
[ "$ran" = 1 ] || { echo "SKIP: the unit tests are not built"; exit 77; }
exit "$failed"
