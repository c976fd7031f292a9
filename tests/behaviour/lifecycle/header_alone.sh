#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Each public header compiles first and alone, without a warning, in strict C99, C11 and C++.
here=$(cd "$(dirname "$0")" && pwd)
include=${LIBPATCH_INCLUDE:-$here/../../../include}
flags="-Wall -Wextra -Werror -pedantic -fsyntax-only -I$include"
compilers=0
status=0

try()
{
	printf '%s\n' "#include <libpatch/$3>" '#include <libpatch/patch.h>' "$4" |
		$1 $flags $2 - || { echo "FAIL: $1 $2, <libpatch/$3>" >&2; status=1; }
}

for compiler in "${CC:-gcc}" gcc clang; do
	command -v ${compiler%% *} >/dev/null 2>&1 || continue
	compilers=$((compilers + 1))
	for header in patch.h trap_handler.h tools.h; do
		for standard in c99 gnu99 c11; do
			try "$compiler" "-x c -std=$standard" $header 'int main(void) { return PATCH_OK; }'
		done
	done
done
for compiler in "${CXX:-g++}" g++ clang++; do
	command -v ${compiler%% *} >/dev/null 2>&1 || continue
	compilers=$((compilers + 1))
	for header in patch.h trap_handler.h tools.h; do
		for standard in c++98 c++11 c++17; do
			try "$compiler" "-x c++ -std=$standard" $header 'int main() { return PATCH_OK; }'
		done
	done
done
if test $compilers = 0; then
	echo "SKIP: no compiler"
	exit 77
fi
exit $status
