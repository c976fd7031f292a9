#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The benchmark runs: every row has a figure or a reason, ours have figures, and tables and picture come of it. How long
# anything takes is not looked at.
set -u
build=${LIBPATCH_BUILD_DIR:-.}
source=${LIBPATCH_SOURCE_DIR:-$(dirname "$0")/..}
here=$source/bench
out=$(mktemp -d) || exit 1
trap 'rm -rf "$out"' EXIT
awk=${AWK:-awk}
failed=0

"$build/bench/bench" --quick >"$out/tsv" || { echo "bench failed"; failed=1; }
"$awk" -F '\t' '
	/^# machine: / { machine++; next }
	$1 == "group" { header++; next }
	NF != 13 { print "not 13 fields: " $0; bad = 1; next }
	$5 == 0 && ($13 == "" || $13 == "no sample") { print "neither figure nor reason: " $0; bad = 1 }
	$5 > 0 { figures[$1 " " $2]++; groups[$1]++ }
	$2 == "probe: make + commit" && $5 == 0 && $13 ~ /libLLVM/ { no_library = 1 }
	END {
		if (machine != 1 || header != 1) { print "no machine line or header"; bad = 1 }
		split("bare_entry stub_sahf stub_trap gpr gpr_prologue gpr_middle gpr_2_in_region gpr_4_in_region " \
			"gpr_2_at_place gpr_4_at_place all trap", wanted, " ")
		for (i in wanted)
			if (!(("hit " wanted[i]) in figures)) { print "no figure: hit " wanted[i]; bad = 1 }
		split(no_library ? "hit start" : "hit install disturb size start scale", wanted_groups, " ")
		for (i in wanted_groups)
			if (!(wanted_groups[i] in groups)) { print "no figure in group " wanted_groups[i]; bad = 1 }
		exit bad
	}' "$out/tsv" || failed=1
"$awk" -f "$here/report.awk" "$out/tsv" >"$out/md" || failed=1
grep -q '^| general registers, entry' "$out/md" || { echo "no table of bars"; failed=1; }
"$awk" -f "$here/plot.awk" "$out/tsv" >"$out/svg" || failed=1
grep -q '^</svg>' "$out/svg" || { echo "no picture"; failed=1; }
[ "$failed" = 0 ] || cat "$out/tsv"
exit "$failed"
