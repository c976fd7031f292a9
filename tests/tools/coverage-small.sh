#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The coverage tool on a small library, every instruction: ALLOW refuses nothing, and the numbers add up, in the sums
# and between the sums and the table. coverage-process.sh has static programs and running processes.
set -u
coverage=${LIBPATCH_BUILD_DIR:-.}/tools/coverage/coverage
library=libz.so.1
log=$(mktemp) || exit 1
trap 'rm -f "$log" "$log".*' EXIT
"$coverage" --all $library >"$log" 2>&1
status=$?
cat "$log"
if grep -q "$library: no such file" "$log"; then
	echo "$library is not installed: apt-get install zlib1g"
	exit 77
fi
test $status -eq 0 || exit $status
# What a punned jump can reach depends on where everything is: both times at the same addresses, where that is allowed.
fixed="setarch $(uname -m) -R"
$fixed true 2>/dev/null || fixed=
$fixed "$coverage" --all --table $library >"$log.table" 2>&1 || exit 1
# Where ALLOW gives a jump, FORBID is not tried: it gives the same. Where ALLOW gives a trap, FORBID is tried both
# times; with --both, code planned for other sites may lie where its punned jump would lead, and then another jump is
# taken.
$fixed "$coverage" --all --table --both $library >"$log.both" 2>&1 || exit 1
for table in table both; do
	sed -E -e 's/ at 0x[0-9a-f]*\)$//' \
		-e 's/^(0x[0-9a-f]+ +trap +[0-9]+ +)(jump over one|jump over several|punned jump) +[0-9]+ /\1jump /' \
		"$log.$table" >"$log.$table.compared"
done
if test -z "$fixed"; then
	echo "not compared: addresses are random"
else
	diff "$log.table.compared" "$log.both.compared" || { echo "FAIL: --both makes a difference"; exit 1; }
fi
# A line per module, under a line of titles.
"$coverage" --all --summary --commit $library >"$log.summary" 2>&1 || exit 1
cat "$log.summary"
awk 'NR == 2 && NF == 15 && $NF ~ /libz/ && $12 > 0 && $13 > 0 && $14 > $13 { good = 1 }
	END { exit NR != 2 || !good }' \
	"$log.summary" || { echo "FAIL: the summary is not two lines, or lacks numbers"; exit 1; }

# The four columns: entries with ALLOW and FORBID, instructions with ALLOW and FORBID.
awk '
	function fail(text) { print "FAIL: " text; failed = 1 }
	function number(text) { gsub(/,/, "", text); return text + 0 }
	FNR == NR && / functions, .* instructions, / { functions = number($1); instructions = number($3) }
	FNR == NR && /^  (jump over one|jump over several|punned jump|trap|refused) +[0-9]/ {
		first = NF - 7
		for (i = 0; i < 4; i++)
			sum[i] += number($(first + 2 * i))
		if ($1 == "refused")
			for (i = 0; i < 4; i++)
				refused[i] = number($(first + 2 * i))
	}
	FNR == NR && /^  sites / { for (i = 0; i < 4; i++) sites[i] = number($(2 + i)); }
	FNR == NR && /^  not tried/ { fail("some sites were not tried") }
	FNR == NR && /^  refused / && /, FORBID:$/ { inside = $2 == "function" ? 1 : 3 }
	FNR == NR && inside && /^ +[0-9,]+ +[0-9.]+%  [a-z]/ { reasons[inside] += number($1) }
	FNR != NR && /^0x/ {
		lines++
		if (/^0x[0-9a-f]+ +refused/) fail("ALLOW refuses: " $0)
	}
	END {
		if (!functions || !instructions) fail("no sums")
		for (i = 0; i < 4; i++) {
			if (sites[i] != (i < 2 ? functions : instructions)) fail("column " i ": wrong number of sites")
			if (sum[i] != sites[i]) fail("column " i ": strategies sum to " sum[i] ", not " sites[i])
			if (i % 2 == 0 && refused[i]) fail("column " i ": ALLOW refuses " refused[i])
			if (i % 2 == 1 && reasons[i] + 0 != refused[i]) fail("column " i ": reasons do not add up")
		}
		if (lines != instructions) fail("the table has " lines " lines for " instructions " instructions")
		exit failed
	}' "$log" "$log.table"
