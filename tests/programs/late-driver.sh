# SPDX-License-Identifier: LGPL-2.1-or-later
# A tool that starts late in a real program, patches every function of it and of libc, toggles them and goes: the
# program prints the same, and exits with the same status, as without. Read by the scripts beside it, which say before:
#
#   program, package   what has to be installed
#   hits               how many the program has to have between two commits. Default: 100
#   modules            whose functions are patched, as in LATE_START_MODULES. Default: main,libc.so.6
#   prepare            function: makes the input in the directory that it is called in. Status 77: cannot run here
#   workload           function: runs the program there as `late COMMAND...`, and prints what is compared. The program
#                      works until there is a file report.over, so that it is at work while the tool is there, however
#                      fast the machine is; what it prints does not depend on how long that is
#
# Once under `make check', ten times where LIBPATCH_EVERY_INSTRUCTION is set; PROGRAM.sh N: so many times.
set -u
build=$(cd "${LIBPATCH_BUILD_DIR:-.}" && pwd) || exit 1
source=$(cd "${LIBPATCH_SOURCE_DIR:-$(dirname "$0")/../..}" && pwd) || exit 1
tool=$build/tests/programs/.libs/late-start.so
test -e "$tool" || { echo "$tool is not built: make check TESTS="; exit 1; }
for each in $program; do
	command -v "$each" >/dev/null || { echo "$each is not installed: apt-get install $package"; exit 77; }
done

scratch=$(mktemp -d) || exit 1
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM
report=$scratch/report
LC_ALL=C.UTF-8 HOME=$scratch TMPDIR=$scratch
export LC_ALL HOME TMPDIR
ulimit -c 0
full_run=${LIBPATCH_EVERY_INSTRUCTION-}
hits=${hits-100} # between two commits
unset LD_PRELOAD LIBPATCH_SOURCE_DIR LIBPATCH_BUILD_DIR LIBPATCH_EVERY_INSTRUCTION
cd "$scratch" || exit 1

# The program replaces the shell that runs this in the background, so that $! is its process.
late()
{
	test -n "$after" || exec "$@"
	LD_PRELOAD=${before:+$before }$tool LATE_START_REPORT=$report LATE_START_AFTER=$after \
		LATE_START_MODULES=${modules:-main,libc.so.6} LATE_START_ROUNDS=${rounds:-20} LATE_START_EVERY=10 \
		LATE_START_HITS=$hits LATE_START_POLICY=${policy:-allow} exec "$@"
}

# Without the tool, it is over before it begins.
clear_report()
{
	rm -f "$report" "$report.over"
	test -n "$after" || : >"$report.over"
}

# Did the tool do all that it is for, and did the program meet its patches while they came and went?
did_all()
{
	grep -q '^end .*committed=yes restored=yes' "$report" && ! grep '^error' "$report" &&
		test "$(sed -n 's/^end .* hits=\([0-9]*\) .*/\1/p' "$report")" -ge "$hits"
}

run()
{
	clear_report
	(workload) >"$1" 2>"$1.stderr" </dev/null
	echo "exit status $?" >>"$1"
}

prepare || exit $?
times=${1:-${full_run:+10}}
times=${times:-1} good=0 after=
run expected
for i in $(seq "$times"); do
	after=$((50 + i % 10 * 70))
	run actual
	if cmp -s expected actual && did_all; then
		good=$((good + 1))
	else
		echo "FAIL: $program: run $i"
		diff expected actual | head -n 20
		tail -n 20 actual.stderr
		cat "$report"
	fi
done
echo "$program: same in $good of $times; $(grep '^end' "$report")"
test "$good" -eq "$times"
