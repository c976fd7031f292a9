#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# No function of the library has a name that another one has, though it is static: a backtrace, a profile or a document
# names it without its file.
set -u
cd "${LIBPATCH_SOURCE_DIR:-$(dirname "$0")/../..}/libpatch" || exit 1
find . -name '*.[ch]' | sed 's,^\./,,' | LC_ALL=C sort | xargs awk '
	FILENAME ~ /\.h$/ && !/^static/ { next } # a prototype
	# In kernel style a function begins at the start of a line, with its return type. Prototypes are not counted.
	/^[a-z].*\(/ && !/^(extern|typedef|return|else)/ && !/;$/ {
		line = $0
		gsub(/__attribute__\(\([^()]*(\([^()]*\))?\)\)/, "", line)
		sub(/[=[].*/, "", line)
		if (!match(line, /[A-Za-z_][A-Za-z0-9_]*\(/) || line ~ /^[a-z_]*\(/)
			next
		name = substr(line, RSTART, RLENGTH - 1)
		count++
		if (name in place && place[name] != FILENAME) {
			print FILENAME ":" FNR ": " name "() is in " place[name] ", too"
			failed = 1
		}
		place[name] = FILENAME
	}
	END {
		print count " functions"
		exit failed || count < 100
	}'
