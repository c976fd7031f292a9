#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The library is loaded late, behind libraries that leave 256 bytes of what libc keeps for the static thread-local
# storage of all of them (glibc: 1,664).
set -eu
build=${LIBPATCH_BUILD_DIR:-.}
library=$(cd "$build" && pwd)/.libs/libpatch.so
test -e "$library" || { echo "SKIP: no shared library was built"; exit 77; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
cat >other.c <<'END'
__thread char taken[1664 - 256] __attribute__((tls_model("initial-exec"), aligned(8)));
char *other(void)
{
	return taken;
}
END
cat >host.c <<'END'
#include <dlfcn.h>
#include <stdio.h>
int main(int count, char **names)
{
	for (int i = 1; i < count; ++i) {
		if (dlopen(names[i], RTLD_NOW) == NULL) {
			puts(dlerror());
			return i;
		}
	}
	return 0;
}
END
if ! ${CC:-cc} -o host host.c -ldl || ! ${CC:-cc} -shared -fPIC -o other.so other.c; then
	echo "SKIP: no compiler for shared libraries"
	exit 77
fi
./host ./other.so || { echo "SKIP: libc keeps less"; exit 77; }
./host ./other.so "$library"
