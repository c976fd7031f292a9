#!/bin/sh
# SPDX-License-Identifier: MIT
# preload.c in a real program: the calls are counted, a function that does not exist is told, and the program does what
# it does without. The same beside another tool, whichever comes first.
tool=$(cd "${LIBPATCH_BUILD_DIR:-.}" && pwd)/examples/.libs/preload.so
directory=$(mktemp -d) || exit 1
trap 'rm -rf "$directory"' EXIT
cd "$directory" || exit 1
LD_PRELOAD=$tool CALLS='mkdir no_such_function' mkdir a b c 2>log
status=$?
cat log
test $status -eq 0 && test -d a && test -d b && test -d c || { echo "FAIL: mkdir"; exit 1; }
grep -qx ' *3 mkdir' log || { echo "FAIL: three calls of mkdir() were made"; exit 1; }
grep -q '^no_such_function: ' log || { echo "FAIL: nothing is told of no_such_function"; exit 1; }

profile=$(dirname "$tool")/../../tools/function-profile/.libs/function-profile.so
[ -r "$profile" ] || exit 0
for tools in "$tool:$profile" "$profile:$tool"; do
	rm -rf a b c
	LD_PRELOAD=$tools LIBPATCH_TRACE=main CALLS=mkdir mkdir a b c 2>log || { echo "FAIL: mkdir, $tools"; exit 1; }
	grep -qx ' *3 mkdir' log && grep -q '^mkdir .* 100.00% ' log || { cat log; echo "FAIL: $tools"; exit 1; }
done
