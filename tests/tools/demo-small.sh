#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The demo on a small database: same output, a table, and at least 99 % of SQLite's functions patched, which are in
# libsqlite3, or in the sqlite3 program where that was built with them.
set -u
source=${LIBPATCH_SOURCE_DIR:-$(dirname "$0")/../..}
for needed in bash sqlite3; do
	command -v $needed >/dev/null || { echo "$needed is not installed: apt-get install $needed"; exit 77; }
done
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
bash "$source/demo" --small >"$log" 2>&1
status=$?
cat "$log"
test $status -eq 0 || exit $status

expect()
{
	grep -Eq "$1" "$log" || { echo "missing from the output: $1"; exit 1; }
}
expect '^Output: identical, byte for byte'
expect 'time until the next entry'
expect '^ +[0-9,]+ +[0-9.]+% \| +[0-9.]+ +[0-9.]+% +[0-9.]+ \| '
expect '^patch_make\(\) '
# On a busy machine the program may be done sooner than when it ran alone.
expect '^put back: |^The program ended before the probes were to be '
expect '^removal: |^The program ended before the probes were to be removed'
expect '^patch_commit\(\) '
if grep -q INCOMPLETE "$log"; then
	echo "a commit was incomplete"
	exit 1
fi
# SQLite has more than a thousand functions; a program that links to libsqlite3 has a few hundred.
awk '$1 ~ /^(libsqlite3|sqlite3$)/ && $4 ~ /%$/ {
		functions = $2
		gsub(/,/, "", functions)
		if (functions <= 1000) next
		found = 1
		enough = substr($4, 1, length($4) - 1) + 0 >= 99
	}
	END {
		if (!found) print "no line about the module that has SQLite"
		else if (!enough) print "fewer than 99 % of the functions of SQLite are patched"
		exit !(found && enough)
	}' "$log"
