#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# bench.sh DIRECTORY [option of bench]...
#
# Run the benchmark. DIRECTORY gets bench.tsv, bench.md with tables, and bench.svg; the tables are printed, too.
# Programs of others that it is compared with are built and run where they are installed. With LIBPATCH_BENCH_DOC=FILE
# the tables replace those in that file, between the lines that say where.
set -u
source=${LIBPATCH_SOURCE_DIR:-$(dirname "$0")/..}
build=${LIBPATCH_BUILD_DIR:-.}
here=$source/bench
out=${1:?usage: bench.sh DIRECTORY [OPTION]...}
shift
mkdir -p "$out/peers" || exit 1
out=$(cd "$out" && pwd)
awk=${AWK:-awk}

LIBPATCH_BENCH_SOURCE=$here
LIBPATCH_BENCH_PROGRAM=$build/bench/bench
export LIBPATCH_BENCH_SOURCE LIBPATCH_BENCH_PROGRAM

status=0
"$LIBPATCH_BENCH_PROGRAM" --peers="$out/peers" "$@" >"$out/bench.tsv" || status=$?
"$awk" -f "$here/report.awk" "$out/bench.tsv" >"$out/bench.md" || status=1
"$awk" -f "$here/plot.awk" "$out/bench.tsv" >"$out/bench.svg" || status=1
cat "$out/bench.md"
echo "written: $out/bench.tsv, bench.md, bench.svg" >&2

if [ -n "${LIBPATCH_BENCH_DOC-}" ]; then
	"$awk" -v tables="$out/bench.md" '
		/^<!-- figures: end -->/ { inside = 0 }
		!inside { print }
		/^<!-- figures: begin -->/ { inside = 1; while ((getline line < tables) > 0) print line }
	' "$LIBPATCH_BENCH_DOC" >"$out/doc.md" && cp "$out/doc.md" "$LIBPATCH_BENCH_DOC" || status=1
fi
exit "$status"
