#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# What function-profile is told and cannot follow, it says, by name; the program runs as it does alone.
build=${LIBPATCH_BUILD_DIR:-.}
profile=$build/tools/function-profile/.libs/function-profile.so
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
status=0

[ -r "$profile" ] || { echo "SKIP: the tool was not built"; exit 77; }
/bin/ls / >"$work/expected"

fail()
{
	echo "FAIL: $1"
	cat "$work/err"
	status=1
}

# variable, value
run()
{
	env "$1=$2" LD_PRELOAD="$profile" /bin/ls / >"$work/out" 2>"$work/err" || fail "$1=$2: status $?"
	cmp -s "$work/expected" "$work/out" || fail "$1=$2: other output"
}

refuse()
{
	run "$1" "$2"
	grep -q "^function-profile: $1 is " "$work/err" || fail "$1=$2 is not refused"
	grep -q 'calls of .* functions by 1 thread' "$work/err" || fail "$1=$2: there is no table"
}

accept()
{
	run "$1" "$2"
	grep -q '^function-profile: LIBPATCH' "$work/err" && fail "$1=$2 is refused"
}

for value in x -1 '' 5x; do refuse LIBPATCH_TRACE_TOP "$value"; done
for value in 0 5; do accept LIBPATCH_TRACE_TOP "$value"; done
for value in x '' times; do refuse LIBPATCH_TRACE_SORT "$value"; done
for value in time calls; do accept LIBPATCH_TRACE_SORT "$value"; done
for value in x 5,x 5, ,5 5,5,5 5ms; do refuse LIBPATCH_TRACE_TOGGLE "$value"; done
for value in 5 5,1; do accept LIBPATCH_TRACE_TOGGLE "$value"; done

run LIBPATCH_TRACE_OUTPUT "$work/none/table"
grep -q "^function-profile: $work/none/table: .*; nothing is traced" "$work/err" || fail "a table is lost in silence"
run LIBPATCH_TRACE nonesuch
grep -q '^function-profile: .* nonesuch; nothing is traced' "$work/err" || fail "a module that is not there"
exit $status
