#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# A program of Rust with a probe at the entry and at all exits of each of its functions, those of Rust's library among
# them: panics unwind through them, and are caught, as without; backtraces have the same names; and of the functions
# that panics leave, so many calls do not return as were left. Where there is valgrind: all are entered as often as
# called.
set -u
build=${LIBPATCH_BUILD_DIR:-.}
source=${LIBPATCH_SOURCE_DIR:-$(dirname "$0")/../..}
tool=$build/tests/programs/.libs/count-calls.so
test -e "$tool" || { echo "$tool is not built: make check TESTS="; exit 1; }
rustc=$(command -v rustc || command -v "${HOME-}/.cargo/bin/rustc") || { echo "rustc is not installed"; exit 77; }
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT

# run NAME ARGUMENT...: what it prints without and with patches, and its exit status
run()
{
	name=$1
	shift
	"$scratch/$name" "$@" >"$scratch/expected" 2>&1
	echo "status $?" >>"$scratch/expected"
	COUNT_CALLS_REPORT=$scratch/report LD_PRELOAD=$tool "$scratch/$name" "$@" >"$scratch/actual" 2>&1
	echo "status $?" >>"$scratch/actual"
	diff "$scratch/expected" "$scratch/actual" >"$scratch/difference" || {
		echo "FAIL: $name $*:"
		head -n 40 "$scratch/difference"
		failures=$((failures + 1))
	}
}

check_left()
{
	awk -v name="$1" '
		/^function / {
			functions++; entries += $3; left += $3 - $4
			if ($4 > $3) { print "FAIL: " $0; failed = 1 }
			# What panics begin in, leave, or are caught in.
			if ($3 != $4 && $5 !~ /panic|unwind|call_once|do_call|closure|short_backtrace|unwrap_failed/ &&
			    $5 !~ /^(descend|pass_on|_start)$/) {
				print "FAIL: " $5 " was entered " $3 " times, and returned " $4
				failed = 1
			}
			if ($5 == "descend" || $5 == "pass_on") by_panics += $3 - $4
		}
		/^error/ { print; failed = 1 }
		/^left / { known = $2 }
		END {
			printf "%s: %d functions entered %d times, not returned %d, of descend and pass_on %d\n",
				name, functions, entries, left, by_panics
			if (by_panics != known || known == 0) { print "FAIL: panics have left " known + 0; failed = 1 }
			exit failed
		}' "$scratch/report" "$scratch/expected" || failures=$((failures + 1))
}

failures=0 ran=0
for options in '-C opt-level=0' '-C opt-level=2' '-C opt-level=s -C lto=yes' '-C opt-level=3 -C codegen-units=1'; do
	name=panics-$(echo "$options" | tr -dc '0-9a-z')
	# shellcheck disable=SC2086 # several
	"$rustc" --edition 2021 -g $options "$source/tests/programs/panics.rs" -o "$scratch/$name" \
		2>"$scratch/errors" || {
		head -n 10 "$scratch/errors"
		continue
	}
	ran=$((ran + 1))
	run "$name" 5 backtraces
	grep -q look_back "$scratch/expected" || { echo "FAIL: there was no backtrace"; failures=$((failures + 1)); }
	run "$name" 5
	check_left "$name"
	run "$name" 3 threads
	# Without backtraces, for which Rust reads the list of mappings: that is not the same twice.
	sh "$source/tests/programs/calls.sh" "$scratch/$name" 5 >"$scratch/calls" 2>&1 || {
		test $? -eq 77 || { failures=$((failures + 1)); grep FAIL "$scratch/calls"; }
	}
	grep "functions," "$scratch/calls"
done
test $ran -gt 0 || { echo "rustc cannot build it"; exit 77; }
exit $((failures > 0))
