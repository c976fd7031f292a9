# SPDX-License-Identifier: LGPL-2.1-or-later
# What the scripts that run peers share. A script is a worker (worker.h): it compiles a program into the directory that
# it is given, and becomes it; or it says to every order why that cannot be.
directory=$1
here=$LIBPATCH_BENCH_SOURCE
CC=${CC:-cc}

refuse()
{
	while IFS= read -r _; do
		echo "skip $*"
	done
	exit 0
}

need()
{
	for program; do
		command -v "$program" >/dev/null || refuse "$program is not installed"
	done
}

# build NAME [FLAG]...: peer-NAME.c, the worker and the functions
build()
{
	name=$1
	shift
	$CC -O2 -g -std=gnu11 -I"$here" "$here/peer-$name.c" "$here/worker-serve.c" "$here/targets.S" \
		-o "$directory/peer-$name" -lpthread "$@" 2>"$directory/peer-$name.log" ||
		refuse "peer-$name.c does not compile here, see $directory/peer-$name.log"
}
