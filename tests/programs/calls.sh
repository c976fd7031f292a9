#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# With a probe at the entry and at all exits of all functions of a program, each is entered as often as callgrind says
# that it is called; and of each, what was entered has returned, but for the frames that exceptions and longjmp() have
# passed over, which the program counts. A jump to the own entry is a call to callgrind (tail recursion), where there
# are symbols; to libpatch it is a loop. The program counts these, too; where a compiler has made others, they are told
# by objdump.
#
# calls.sh [PROGRAM [ARGUMENT...]]   another program, of which only the calls are compared; COUNT_CALLS_MODULES: of
#                                    another module, by its file name
set -u
build=${LIBPATCH_BUILD_DIR:-.}
source=${LIBPATCH_SOURCE_DIR:-$(dirname "$0")/../..}
tool=$build/tests/programs/.libs/count-calls.so
test -e "$tool" || { echo "$tool is not built: make check TESTS="; exit 1; }
command -v valgrind >/dev/null || { echo "valgrind is not installed"; exit 77; }
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT

# compare FRAMES NAME: whether the program counts the frames that were passed over; the module's file name
compare()
{
	awk -v frames="$1" -v name="$2" '
		function complain(text) { if (failed++ < 20) print "FAIL: " text }
		function is_ours(object) { sub(/.*\//, "", object); return object == name }
		FILENAME ~ /callgrind$/ {
			if (/^ob=/) { object = called = substr($0, 4) }
			else if (/^cob=/) { called = substr($0, 5) }
			else if (/^cfn=/) { callee = substr($0, 5) }
			else if (/^calls=/) {
				if (is_ours(called)) { calls[$2] += substr($1, 7); names[$2] = callee }
				called = object
			}
			next
		}
		FILENAME ~ /loops$/ { loops[$1] = 1; next }
		/^function / {
			entries[$2] = $3; returns[$2] = $4; names[$2] = $5
			total += $3; returned += $4
			next
		}
		/^refused / { refused[$2] = 1; print; next }
		/^error/ { complain($0) }
		/^end / { functions = $2 }
		/^passed over / { passed_over = $3 }
		/^again / { known_again = $2 }
		END {
			for (address in entries) {
				if (address in loops) {
					if (names[address] == "runs_again")
						again = calls[address] - entries[address]
					if (entries[address] <= calls[address])
						calls[address] = entries[address]
				}
				if (entries[address] != calls[address])
					complain(names[address] " at " address ": entered " entries[address] \
						" times, called " calls[address] + 0)
				if (names[address] != "_start") # which never returns
					left += entries[address] - returns[address]
				if (returns[address] > entries[address])
					complain(names[address] " returned more often than it was entered")
				if (entries[address] != returns[address])
					print "    " names[address] ": entered " entries[address] ", returned " \
						returns[address]
				entered++
			}
			for (address in calls) {
				called_functions++
				if (address in entries)
					continue
				others = others "\n    " names[address] " at " address ": called " calls[address]
				# Without a name: code to begin and end with, which no entry describes.
				if (names[address] !~ /^0x/ && !(address in refused))
					complain(names[address] " at " address " was not entered")
			}
			print functions " functions, " entered " entered " total " times, returned " returned \
				" times; callgrind has calls of " called_functions " addresses"
			if (others != "") print "called, but not patched:" others
			if (functions == 0 || total == 0) complain("nothing was counted")
			if (frames && again != known_again)
				complain("a function goes to its own entry " known_again " times, not " again)
			if (frames && left != passed_over)
				complain(left " have not returned, " passed_over " frames were passed over")
			exit failed > 0
		}' "$scratch/loops" "$scratch/callgrind" "$scratch/report" "$scratch/output"
}

# Functions that jump to their own entry, by address.
find_loops()
{
	objdump -d --no-show-raw-insn "$1" | awk '
		/^[0-9a-f]+ <.*>:$/ { start = $1; sub(/^0+/, "", start) }
		/^ / && $2 ~ /^(bnd|notrack)?j/ && $3 == start && !(start in seen) {
			seen[start] = 1
			print "0x" start
		}'
}

# both PROGRAM ARGUMENT...: under callgrind, and with all functions patched. A call whose function the dynamic linker
# looks up then may be a jump of the linker's to callgrind (with glibc 2.31): there, all are looked up before.
both()
{
	LD_BIND_NOW=1 valgrind -q --tool=callgrind --dump-instr=yes --compress-strings=no --compress-pos=no \
		--callgrind-out-file="$scratch/callgrind" "$@" >"$scratch/output" 2>"$scratch/errors" || {
		echo "valgrind does not run it:"
		cat "$scratch/errors"
		exit 77
	}
	COUNT_CALLS_REPORT=$scratch/report LD_PRELOAD=$tool "$@" >"$scratch/again" 2>"$scratch/errors" || {
		echo "FAIL: with all functions patched:"
		cat "$scratch/errors"
		return 1
	}
	cmp "$scratch/output" "$scratch/again" || { echo "FAIL: it does something else"; return 1; }
}

if test $# -gt 0; then
	find_loops "$1" >"$scratch/loops"
	both "$@" && compare 0 "${COUNT_CALLS_MODULES:-$(basename "$1")}"
	exit
fi
rounds=5
test -z "${LIBPATCH_EVERY_INSTRUCTION-}" || rounds=200
failures=0 ran=0
for compiler in g++ clang++; do
	for options in -O0 -O1 -O2 -Os '-O3 -fcf-protection' '-O2 -fno-plt -no-pie'; do
		# shellcheck disable=SC2086 # several
		$compiler -std=c++17 $options -g "$source/tests/programs/calls.cpp" -o "$scratch/calls" 2>/dev/null ||
			continue
		ran=$((ran + 1))
		echo "$compiler $options:"
		find_loops "$scratch/calls" >"$scratch/loops"
		both "$scratch/calls" "$rounds" && compare 1 calls || failures=$((failures + 1))
	done
done
test $ran -gt 0 || { echo "there is no compiler for C++"; exit 77; }
exit $((failures > 0))
