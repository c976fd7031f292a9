#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The functions that the public headers declare, those in the version script, and those that the shared library exports
# are the same.
set -eu
: "${CC:=cc}" "${NM:=nm}"
source=${LIBPATCH_SOURCE_DIR:-$(dirname "$0")/../..}
build=${LIBPATCH_BUILD_DIR:-$source}
library=$build/.libs/libpatch.so
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
LC_ALL=C
export LC_ALL

# Preprocess, keep what stems from our headers, then read statement by statement: a declaration is what ends in ';' at
# the outermost level and has a '(' in it.
printf '#include <libpatch/patch.h>\n#include <libpatch/trap_handler.h>\n' >"$scratch/all.c"
$CC -E -I"$source/include" "$scratch/all.c" | awk '
	/^# [0-9]+ "/ { ours = $3 ~ /include\/libpatch\//; next }
	/^#/ || !ours { next }
	{
		line = $0 " "
		for (i = 1; i <= length(line); i++) {
			c = substr(line, i, 1)
			if (c == "{") {
				depth++
			} else if (c == "}") {
				if (--depth == 0 && statement ~ /^[ \t]*static[ \t]/)
					statement = ""
			} else if (depth) {
				continue
			} else if (c == ";") {
				if (statement !~ /^[ \t]*(typedef|static)[ \t]/ &&
				    match(statement, /[A-Za-z_0-9]+[ \t]*\(/)) {
					name = substr(statement, RSTART, RLENGTH)
					sub(/[ \t]*\(/, "", name)
					print name
				}
				statement = ""
			} else {
				statement = statement c
			}
		}
	}' | sort -u >"$scratch/headers"

awk '/global:/ { on = 1; next } /local:/ { on = 0 } on { gsub(/[ \t;]/, ""); if ($0 != "") print }' \
	"$source/libpatch/libpatch.map" | sort >"$scratch/map"

test -s "$scratch/headers" || { echo "no declaration found in the headers"; exit 1; }
status=0
diff -u "$scratch/headers" "$scratch/map" || { echo "include/libpatch/ and libpatch/libpatch.map differ"; status=1; }

if [ -e "$library" ]; then
	$NM -D --defined-only --with-symbol-versions "$library" |
		awk '$2 != "A" { print $3 }' | sort >"$scratch/exports"
	{
		sed 's/$/@@LIBPATCH_2.0/' "$scratch/map"
		# for gdb; by another version than the default one, so that no reference is bound to them
		echo __jit_debug_descriptor@LIBPATCH_DEBUGGER
		echo __jit_debug_register_code@LIBPATCH_DEBUGGER
	} | sort >"$scratch/versioned"
	diff -u "$scratch/versioned" "$scratch/exports" || { echo "$library exports something else"; status=1; }
	readelf -d "$library" >"$scratch/dynamic"
	grep -q 'SONAME.*\[libpatch\.so\.2\]' "$scratch/dynamic" || { echo "SONAME is not libpatch.so.2"; status=1; }
	grep -Eq 'FLAGS_1.*NOW' "$scratch/dynamic" || { echo "not linked with -z now"; status=1; }
	grep -Eq 'FLAGS_1.*NODELETE' "$scratch/dynamic" || { echo "not linked with -z nodelete"; status=1; }
	readelf -lW "$library" | grep -Eq 'GNU_STACK.*RWE' && { echo "executable stack"; status=1; }
	readelf -rW "$library" | grep -q DTPMOD && { echo "thread-local storage that is not initial-exec"; status=1; }
	# glibc keeps 1,664 bytes for all libraries that are loaded late.
	tls=$(readelf -lW "$library" | awk '$1 == "TLS" { print $6 }')
	test $((tls)) -le 256 || { echo "$((tls)) bytes of static thread-local storage"; status=1; }
	$NM --defined-only --extern-only "$build/libpatch/libpatch.a" |
		awk 'NF == 3 { print $3 }' | sort >"$scratch/static"
	diff -u "$scratch/map" "$scratch/static" || { echo "libpatch.a exports something else"; status=1; }
else
	echo "no shared library was built: only the version script was compared"
fi
exit $status
