#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Each public header compiles first and alone, in strict C99, C11 and C++, without a warning.
set -u
: "${CC:=cc}"
source=${LIBPATCH_SOURCE_DIR:-$(dirname "$0")/..}
include=$source/include
status=0
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT

try()
{
	echo "$*"
	"$@" -Wall -Wextra -Werror -pedantic-errors -I"$include" -c -o "$scratch/out.o" || status=1
}

for header in patch.h tools.h; do
	printf '#include <libpatch/%s>\n#include <libpatch/%s>\nint x;\n' "$header" "$header" >"$scratch/alone.c"
	cp "$scratch/alone.c" "$scratch/alone.cc"
	for std in c99 gnu99 c11; do
		try $CC -std=$std "$scratch/alone.c"
	done
	if [ -n "${CXX:-}" ]; then
		for std in c++11 c++17; do
			try $CXX -std=$std "$scratch/alone.cc"
		done
	fi
done

# Every file says its licence.
for file in $(find "$source/include" "$source/libpatch" "$source/examples" "$source/tests" \
	-name '*.[chS]' -o -name '*.sh' -o -name '*.map' -o -name '*.sql'); do
	case $file in
	*/include/* | */examples/*) licence=MIT ;;
	*) licence=LGPL-2.1-or-later ;;
	esac
	head -n 3 "$file" | grep -q "SPDX-License-Identifier: $licence" || {
		echo "$file: no SPDX-License-Identifier: $licence in its first lines"
		status=1
	}
done
exit $status
