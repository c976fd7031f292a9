#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Every file says its licence in its first lines: MIT where users copy from, LGPL for the rest.
set -u
cd "${LIBPATCH_SOURCE_DIR:-$(dirname "$0")/../..}" || exit 1
find include libpatch examples tools bench tests doc ! -name Makefile.inc \
	\( -name '*.[chS]' -o -name '*.cpp' -o -name '*.inc' \
	-o -name '*.map' -o -name '*.sh' -o -name '*.awk' -o -name '*.py' -o -name '*.pl' \
	-o -name '*.sql' -o -name '*.pml' -o -name '*.[37]' \) |
	LC_ALL=C sort | {
	status=0
	while IFS= read -r file; do
		case $file in
		include/* | examples/* | tools/*) licence=MIT ;;
		*) licence=LGPL-2.1-or-later ;;
		esac
		head -n 3 "$file" | grep -q "SPDX-License-Identifier: $licence" || {
			echo "$file: no SPDX-License-Identifier: $licence in its first lines"
			status=1
		}
	done
	exit $status
}
