#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Unwind tables that are wrong: the program runs as it does alone under both tools, whatever its .eh_frame_hdr and
# .eh_frame hold. Each is filled from some offset on with one byte, all of it or a few bytes.
build=${LIBPATCH_BUILD_DIR:-.}
profile=$build/tools/function-profile/.libs/function-profile.so
coverage=$build/tools/coverage/coverage
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
status=0 runs=0

[ -r "$profile" ] && [ -x "$coverage" ] || { echo "SKIP: the tools were not built"; exit 77; }
command -v readelf >/dev/null || { echo "SKIP: there is no readelf: apt-get install binutils"; exit 77; }
# Name, offset, size.
sections=$(readelf -SW /bin/ls |
	sed -n 's/^ *\[ *[0-9]*\] \(\.eh_frame[_hdr]*\) .* \([0-9a-f]*\) \([0-9a-f]*\) 00 .*/\1 \2 \3/p')
[ -n "$sections" ] || { echo "SKIP: /bin/ls has no unwind table"; exit 77; }
expected=$(cd / && /bin/ls /usr)

fail()
{
	echo "FAIL: $1"
	status=1
}

# file, offset, bytes, octal value
fill()
{
	head -c "$3" /dev/zero | tr '\0' "\\$4" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}

check()
{
	runs=$((runs + 1))
	[ "$("$work/ls" /usr 2>&1)" = "$expected" ] || { fail "$1: alone"; return; }
	LD_PRELOAD=$profile LIBPATCH_TRACE=main "$work/ls" /usr >"$work/out" 2>"$work/err" || fail "$1: profiled: $?"
	[ "$(cat "$work/out")" = "$expected" ] || fail "$1: profiled: other output"
	"$coverage" "$work/ls" >/dev/null 2>"$work/err" || { fail "$1: coverage: $?"; cat "$work/err"; }
}

for byte in 377 177 0; do
	set -- $sections
	while [ $# -ge 3 ]; do
		name=$1 lower=$((0x$2)) size=$((0x$3))
		shift 3
		for at in 0 4 8 12 16 20 24 28 40 $((size / 2)) $((size - 8)); do
			for count in 4 $((size - at)); do
				cp /bin/ls "$work/ls"
				fill "$work/ls" $((lower + at)) "$count" "$byte"
				check "$name, $count bytes at $at are $byte"
			done
		done
	done
done
echo "$runs tables"
[ "$runs" -ge 100 ] || fail "too few"
exit $status
