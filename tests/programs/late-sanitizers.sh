#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# A program built with each sanitizer that the compilers have, linked with the tool, and with the tool preloaded: their
# functions that stand before libc's are patched as well, and no report comes of it.
program="cc" package="gcc clang"
modules='main,libc.so.6,libtsan*,libasan*,libubsan*'
# libstdc++ is not built with it: what it says of bytes that come from there, and how often, is no matter.
MSAN_OPTIONS=report_umrs=0:exitcode=0:log_path=msan
export MSAN_OPTIONS

prepare()
{
	kinds=
	# The quick ones: a report of leaks is what goes wrong first.
	wanted=address
	test -z "$full_run" || wanted='address thread memory undefined'
	for compiler in g++ clang++; do
		for kind in $wanted; do
			command="$compiler -O1 -fsanitize=$kind $source/tests/programs/busy.cpp -lpthread"
			test $kind != memory || command="$command -fsanitize-recover=memory"
			$command -o busy-$compiler-$kind >/dev/null 2>&1 ||
				{ echo "not with $compiler -fsanitize=$kind"; continue; }
			$command -o linked-$compiler-$kind -Wl,--no-as-needed "$tool" \
				-Wl,-rpath,"${tool%/*}" || return 1
			kinds="$kinds linked-$compiler-$kind busy-$compiler-$kind"
		done
	done
	test -n "$kinds" || { echo "no compiler here has a sanitizer"; return 77; }
}

# Each tool comes and goes before the next one starts; one report with all of it would not tell whether it did.
workload()
{
	for kind in $kinds; do
		clear_report
		case $kind in
		linked-*)
			test -z "$after" || export LATE_START_REPORT="$report" LATE_START_AFTER="$after" \
				LATE_START_ROUNDS=8 LATE_START_EVERY=10 LATE_START_MODULES="$modules" \
				LATE_START_HITS="$hits"
			./$kind 100 "$report.over" 2>&1
			;;
		*)
			before=
			test $kind != busy-g++-address || before=$(g++ -print-file-name=libasan.so)
			(late ./$kind 100 "$report.over") 2>&1
			;;
		esac
		echo "$kind: $?"
		unset LATE_START_REPORT
		test -z "$after" || did_all || echo "$kind: $(cat "$report")"
	done
}

. "$(dirname "$0")/late-driver.sh"
