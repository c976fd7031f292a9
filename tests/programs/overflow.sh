#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# A program of OCaml whose stack overflows, which its runtime makes an exception of, with a probe on every instruction:
# it does what it does without, with procedures on the program's stack, and with a stack of the thread's own.
set -u
build=$(cd "${LIBPATCH_BUILD_DIR:-.}" && pwd) || exit 1
source=$(cd "${LIBPATCH_SOURCE_DIR:-$(dirname "$0")/../..}" && pwd) || exit 1
tool=$build/tests/programs/.libs/every-nth.so
own=$build/tests/support/.libs/own-stack.so
test -e "$tool" && test -e "$own" || { echo "$tool or $own is not built: make check TESTS="; exit 1; }
command -v ocamlopt >/dev/null || { echo "OCaml is not installed: apt-get install ocaml-nox"; exit 77; }
case $(ocamlopt -version) in
5.*) echo "OCaml 5 has stacks of its own, which it looks at before it uses them"; exit 77 ;;
esac
scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
ulimit -c 0
ulimit -s 8192 2>/dev/null
failures=0

cp "$source/tests/programs/overflow.ml" "$scratch/" && cd "$scratch" && ocamlopt overflow.ml -o overflow >log 2>&1 ||
	{ cat log; exit 1; }
./overflow >expected 2>&1
echo "status $?" >>expected
grep -c overflow expected

# probed PRELOADED K OFFSET POLICY STATE TOGGLE
probed()
{
	preloaded=$1
	shift
	rm -f report
	LD_PRELOAD=$preloaded EVERY_NTH_REPORT=$scratch/report EVERY_NTH_MODULES=main EVERY_NTH_K=$1 \
		EVERY_NTH_OFFSET=$2 EVERY_NTH_POLICY=$3 EVERY_NTH_STATE=$4 EVERY_NTH_TOGGLE=$5 ./overflow >actual 2>&1
	echo "status $?" >>actual
	diff expected actual && grep '^end .* hits=[1-9]' report || {
		echo "FAIL: $preloaded $*"
		failures=$((failures + 1))
	}
}

[ "$(grep -c ': overflow' expected)" -eq 40 ] || { echo "FAIL: without patches: $(cat expected)"; exit 1; }
# On the program's stack, an overflow is found there, and shown to the program, with the help of glibc 2.35.
on_stack=$tool
case $(getconf GNU_LIBC_VERSION) in
"glibc 2."[0-9] | "glibc 2."[12]? | "glibc 2.3"[0-4]) on_stack= ;;
esac
for preloaded in ${on_stack:+"$on_stack"} "$own $tool"; do
	probed "$preloaded" 1 0 allow gp 0
	probed "$preloaded" 1 0 allow all 0
	probed "$preloaded" 3 1 allow gp 3
	probed "$preloaded" 7 2 force gp 0
done
test $failures -eq 0 || exit 1
test -n "$on_stack" || { echo "procedures on the program's stack were left out: glibc is older than 2.35"; exit 77; }
