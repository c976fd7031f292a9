#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# function-profile cannot write its table: a pipe has no reader any more, a file may not grow. Its host, which the
# kernel would end by SIGPIPE or SIGXFSZ, ends as it does alone, with all that it has written.
build=${LIBPATCH_BUILD_DIR:-.}
profile=$build/tools/function-profile/.libs/function-profile.so
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
status=0

[ -r "$profile" ] || { echo "SKIP: the tool was not built"; exit 77; }
/bin/ls / >"$work/expected"

check()
{
	[ "$2" = 0 ] || { echo "FAIL: $1: status $2"; status=1; }
	[ "$3" = "$(cat "$work/expected")" ] || { echo "FAIL: $1: other output"; status=1; }
}

mkfifo "$work/pipe"
exec 4<>"$work/pipe" 5>"$work/pipe" 4<&-
output=$(LD_PRELOAD="$profile" /bin/ls / 2>&5)
check "a pipe without a reader" $? "$output"

output=$(ulimit -f 0; LIBPATCH_TRACE_OUTPUT="$work/table" LD_PRELOAD="$profile" exec /bin/ls /)
check "a limit of the size of files" $? "$output"
[ -e "$work/table" ] && [ ! -s "$work/table" ] || { echo "FAIL: the limit was not there"; status=1; }

exit $status
