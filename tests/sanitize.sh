#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Builds of their own with sanitizers: all of it with UBSan, under which unit and behaviour tests run; and the unit
# tests with ASan. CONTRIBUTING.md says why not more. sanitize.sh [undefined|address TESTS]: some of them.
set -u
source=${LIBPATCH_SOURCE_DIR:-.}
build=${LIBPATCH_BUILD_DIR:-.}
failed=0
# The tests end themselves, with all that they started, before make ends them.
export LIBPATCH_TEST_TIMEOUT=500

# check NAME FLAGS TESTS: the tests named, as make knows them, in a build with these flags.
check()
{
	directory=$build/sanitize-$1
	rm -rf "$directory"
	mkdir -p "$directory" || exit 1
	# What make told this one is not for the other build.
	(
		unset MAKEFLAGS MAKELEVEL MFLAGS
		cd "$directory" || exit 1
		"$source/configure" CC="${CC:-cc}" CXX="${CXX:-c++}" \
			CFLAGS="-g -O1 $2" CXXFLAGS="-g -O1 $2" >configure.out 2>&1 ||
			{ echo "$1: configure failed: $directory/configure.out"; exit 77; }
		make >make.out 2>&1 || { echo "$1: $directory/make.out"; exit 1; }
		make -k check TESTS="$3" check_PROGRAMS="$3" TEST_TIMEOUT=600 >check.out 2>&1 ||
			{ grep -E '^(FAIL|ERROR)' check.out; exit 1; }
	)
	case $? in
	0) echo "$1: $(grep -c '^PASS' "$directory/check.out") tests passed"; rm -rf "$directory" ;;
	77) echo "SKIP: no compiler with $2"; exit 77 ;;
	*) failed=1 ;;
	esac
}

only=${1:-}
# A program whose stack is misaligned gets such contexts: on this processor that is no error.
[ "$only" = address ] ||
	check undefined '-fsanitize=undefined -fno-sanitize=alignment -fno-sanitize-recover=undefined' \
		"${2:-\$(unit_tests) \$(behaviour_tests)}"
[ "$only" = undefined ] ||
	check address '-fsanitize=address -fno-omit-frame-pointer' "${2:-\$(unit_tests)}"
exit "$failed"
