# SPDX-License-Identifier: LGPL-2.1-or-later
# A real program with a probe on every k-th instruction does what it does without: same standard output, same standard
# error, same exit statuses, same files. Read by the scripts beside it, which say before what the program is:
#
#   name      of the executable, and package, which has it
#   modules   whose instructions are probed, as in EVERY_NTH_MODULES
#   prepare   function: makes the input, in a directory that the workload sees as ../input. Runs once, unpatched
#   workload  function: runs the program in an empty directory, as `probed ARGUMENTS...`; whatever it leaves there is
#             compared, so it removes what differs by itself (keys, times)
#   quick, full  what to run: lines of K, OFFSETS, POLICY, STATE and MODEL. OFFSETS is a list with commas, or "all",
#             which also checks that afterwards each instruction was probed, or refused with a reason. $full_run says
#             which of the two it is. MODEL is as in EVERY_NTH_MODEL, or "toggle": probes that come and go every 3 ms
#
# Run as
#
#   PROGRAM.sh                               what `make check` does: quick; full if LIBPATCH_EVERY_INSTRUCTION is set
#   PROGRAM.sh K OFFSETS [POLICY [STATE [MODEL]]]     that
#   PROGRAM.sh bisect K OFFSET [POLICY [STATE [MODEL]]]   search for the fewest instructions with which it still fails
set -u
build=$(cd "${LIBPATCH_BUILD_DIR:-.}" && pwd) || exit 1
source=$(cd "${LIBPATCH_SOURCE_DIR:-$(dirname "$0")/../..}" && pwd) || exit 1
tool=$build/tests/programs/.libs/every-nth.so
test -e "$tool" || { echo "$tool is not built: make check TESTS="; exit 1; }

# Not what a version manager puts before it in PATH.
program=/usr/bin/$name
test -x "$program" || program=$(command -v "$name") ||
	{ echo "$name is not installed: apt-get install $package"; exit 77; }

scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM
report=$scratch/report
limit=${EVERY_NTH_LIMIT:-3600} # seconds by the clock for one process
from= to= list=

LC_ALL=C.UTF-8 TZ=UTC HOME=$scratch TMPDIR=$scratch
PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1 PERL_HASH_SEED=0 PERL_PERTURB_KEYS=0
export LC_ALL TZ HOME TMPDIR PYTHONHASHSEED PYTHONDONTWRITEBYTECODE PERL_HASH_SEED PERL_PERTURB_KEYS
ulimit -c 0 # a core file would be compared
unset LD_PRELOAD LIBPATCH_SOURCE_DIR LIBPATCH_BUILD_DIR
full_run=${LIBPATCH_EVERY_INSTRUCTION-}
unset LIBPATCH_EVERY_INSTRUCTION

# The program, with probes or without. Its exit status is a result like the others; what the shell says of one that a
# signal has killed is not.
probed()
{
	{
		if test -n "$k"; then
			toggle=0
			test "$model" != toggle || toggle=3
			timeout -k 5 "$limit" env LD_PRELOAD="$tool" EVERY_NTH_MODULES="$modules" EVERY_NTH_K="$k" \
				EVERY_NTH_OFFSET="$offset" EVERY_NTH_POLICY="$policy" EVERY_NTH_STATE="$state" \
				EVERY_NTH_MODEL="$model" EVERY_NTH_TOGGLE="$toggle" EVERY_NTH_FROM="$from" \
				EVERY_NTH_TO="$to" EVERY_NTH_LIST="$list" EVERY_NTH_REPORT="$report" \
				EVERY_NTH_UNION="$scratch/union" "$program" "$@" 2>&3 3>&-
		else
			timeout -k 5 "$limit" "$program" "$@" 2>&3 3>&-
		fi
	} 3>&2 2>/dev/null
	set -- $?
	echo "$1" >>statuses
	return "$1"
}

# run_workload DIRECTORY: leave there what it did. Each run sees the same paths.
run_workload()
{
	rm -rf "$scratch/run" "$1" "$report" && mkdir "$scratch/run" || exit 1
	(cd "$scratch/run" && workload >stdout 2>stderr </dev/null)
	mv "$scratch/run" "$1" || exit 1
}

# The sums of all processes of a run; complains of those that did not end as they should. Those that a signal is to kill
# cannot report.
check_report()
{
	awk -v killed="$(grep -c '^1[2-5][0-9]$' "$scratch/expected/statuses")" '
	function complain(text) { print text; failed = 1 }
	{ for (i = 2; i <= NF; i++) if (split($i, pair, "=") == 2) value[pair[1]] = pair[2] }
	/^begin / { begun++ }
	/^error / { complain($0) }
	/^refused / { reason = $0; sub(/^refused [0-9]+ /, "", reason); reasons[reason] = $2; listed += $2 }
	/^end / {
		ended++
		if (value["commit"] != "ok" || value["fini"] != "ok" || value["restored"] != "yes" || value["missing"])
			complain($0)
		chosen = value["chosen"]; refused = value["refused"]; all_refused += refused
		instructions = value["instructions"]
		jump = value["jump"]; constrained = value["constrained"]
		punned = value["punned"]; trap = value["trap"]
		hits += value["hits"]; posts += value["posts"]; traps += value["traps"]; toggled += value["toggled"]
		make += value["make_ms"]; commit += value["commit_ms"]; fini += value["fini_ms"]
	}
	END {
		if (!begun) complain("no process has reported")
		if (begun - killed != ended) complain(begun " processes began, " ended + 0 " reported their end")
		if (listed + 0 != all_refused + 0) complain(all_refused " refused, but reasons for " listed + 0)
		printf "    %d of %d instructions: jump %d, of several %d, punned %d," \
			" trap %d, refused %d\n", chosen, instructions, jump, constrained, punned, trap, refused
		printf "    %d processes: hits %.0f, %.0f after, traps %.0f, toggled %d times," \
			" make %d ms, commit %d ms, removal %d ms\n",
			ended, hits, posts, traps, toggled, make, commit, fini
		for (reason in reasons) printf "    refused %d: %s\n", reasons[reason], reason
		exit failed
	}' "$report"
}

# one K OFFSET POLICY STATE MODEL: a run with probes; false when it differs.
one()
{
	k=$1 offset=$2 policy=$3 state=$4 model=$5
	run_workload "$scratch/actual"
	test -e "$report" || : >"$report"
	good=true
	check_report >"$scratch/checked" || good=false
	diff -r "$scratch/expected" "$scratch/actual" >"$scratch/difference" 2>&1 || good=false
	$good
}

# The numbers of the probed instructions are in the file that EVERY_NTH_UNION names: none may be left out.
check_union()
{
	left=$(tr -dc .x <"$scratch/union" | wc -c)
	echo "$name: of $(wc -c <"$scratch/union") instructions" \
		"$(tr -dc jcptJCPT <"$scratch/union" | wc -c) were probed," \
		"$(tr -dc JCPT <"$scratch/union" | wc -c) of them hit;" \
		"$(tr -dc r <"$scratch/union" | wc -c) were refused for the reasons above"
	test "$left" -eq 0 || { echo "FAIL: $left instructions were not probed and not refused"; return 1; }
}

# rotate K OFFSETS POLICY STATE MODEL
rotate()
{
	offsets=$(echo "$2" | tr , ' ')
	test "$2" != all || offsets=$(seq 0 $(($1 - 1)))
	rm -f "$scratch/union"
	for each in $offsets; do
		began=$(date +%s)
		if one "$1" "$each" "$3" "$4" "$5"; then
			echo "$name: k=$1 offset=$each $3 $4 $5: same, $(($(date +%s) - began)) s"
			cat "$scratch/checked"
		else
			failures=$((failures + 1))
			echo "FAIL: $name: k=$1 offset=$each $3 $4 $5"
			cat "$scratch/checked"
			head -n 40 "$scratch/difference"
			k=
			run_workload "$scratch/again"
			diff -r "$scratch/expected" "$scratch/again" >/dev/null 2>&1 ||
				echo "(without probes it is not the same each time, either)"
			echo "(to search: sh $0 bisect $1 $each $3 $4 $5)"
		fi
	done
	test "$2" != all || check_union || failures=$((failures + 1))
}

# Instructions are left out as long as the rest still fails: first the last ones, then the first.
bisect()
{
	from=0 to=
	! one "$@" || { echo "it does not fail"; return 1; }
	to=$(sed -n 's/^end .* instructions=\([0-9]*\) .*/\1/p' "$report" | head -n 1)
	to=${to:-16777216} low=0 # died before it could say
	while test $((to - low)) -gt 1; do
		high=$to to=$(((low + high) / 2))
		if one "$@"; then low=$to to=$high; fi
		echo "fails with instructions 0 to $to, not with 0 to $low"
	done
	high=$to
	while test $((high - from)) -gt 1; do
		low=$from from=$(((low + high) / 2))
		if one "$@"; then high=$from from=$low; fi
		echo "fails with instructions $from to $to, not with $high to $to"
	done
	list=$scratch/list
	one "$@"
	cat "$scratch/checked" "$scratch/difference"
	test ! -e "$list" || cat "$list"
}

failures=0 k=
here=$(pwd)
mkdir "$scratch/input" && cd "$scratch/input" && prepare && cd "$here" || exit 1
run_workload "$scratch/expected"
case ${1-} in
'')
	test -z "$full_run" || quick=$full
	while read -r k_ offsets_ policy_ state_ model_; do
		test -z "$k_" || rotate "$k_" "$offsets_" "$policy_" "$state_" "$model_"
	done <<-END
		$quick
	END
	;;
bisect) bisect "$2" "$3" "${4:-allow}" "${5:-gp}" "${6:-probe}" ;;
*) rotate "$1" "$2" "${3:-allow}" "${4:-gp}" "${5:-probe}" ;;
esac
exit $((failures > 0))
