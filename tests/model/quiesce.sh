#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The model of the grace period: no error as it is; each mutant is caught, for its own reason; and all that is to be
# exercised was. As stress test (LIBPATCH_STRESS_SECONDS is set): more of everything.
#
#   quiesce.sh             as in `make check`
#   quiesce.sh NAME        a mutant's counterexample, step by step
set -u
model=$(cd "$(dirname "$0")" && pwd)/quiesce.pml
command -v spin >/dev/null || { echo 'the model needs spin: apt-get install spin'; exit 77; }
set -- "${1-}" ${CC:-cc}
name=$1
shift
directory=$(mktemp -d) || exit 1
trap 'rm -rf "$directory"' EXIT
trap 'exit 1' HUP INT TERM
cd "$directory" || exit 1
echo 'int main(void) { return 0; }' >try.c
"$@" -o try try.c 2>/dev/null || { echo "the model needs a C compiler: $1 does not work"; exit 77; }

megabytes=900
test -z "${LIBPATCH_STRESS_SECONDS-}" || megabytes=${MODEL_MEGABYTES:-6000}
cp "$model" quiesce.pml && spin -a quiesce.pml >spin.log 2>&1 &&
	"$@" -O2 -w -DSAFETY -DCOLLAPSE -DMEMLIM=$megabytes -o pan pan.c || {
	cat spin.log
	echo 'FAIL: the model does not compile'
	exit 1
}
sed -n 's|^#define \([A-Z0-9_]*\) *\([0-9]*\) /\* MUTANT: \(.*\) \*/$|\2 \1 \3|p' "$model" >mutants
sed -n 's|.*COVER([0-9]*, "\(.*\)").*|\1|p' "$model" | sort -u >to_cover
number_of()
{
	sed -n "s/^#define $1 *\([0-9]*\) .*/\1/p" "$model"
}

run()
{
	env THREADS=1 ROUNDS=4 HOOKS=2 DEATHS=0 MUTANT=0 "$@" ./pan -m500000 -w22 -n >run.log 2>&1
	sed -n 's/^covered: //p' run.log >>covered
}

failed=0
fail()
{
	echo "FAIL: $*"
	failed=1
}

safe()
{
	begin=$(date +%s)
	run "$@"
	states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' run.log)
	memory=$(sed -n 's/^ *\([0-9.]*\)\ttotal actual memory usage.*/\1/p' run.log)
	echo "$*: $states states, $memory MB, $(($(date +%s) - begin)) s"
	if ! grep -q 'errors: 0$' run.log; then
		fail "$(grep '^violated\|^pan' run.log | head -n 3)"
	elif grep -q 'too small\|not completed\|out of memory\|reached -DMEMLIM' run.log; then
		fail "the search was not complete: \
$(grep 'too small\|not completed\|out of memory\|MEMLIM' run.log | head -n 1)"
	fi
}

# The smallest settings that catch one are tried first.
caught()
{
	for settings in 'ROUNDS=4 HOOKS=1' 'ROUNDS=4 HOOKS=2' 'ROUNDS=6 HOOKS=1' 'ROUNDS=6 HOOKS=2 DEATHS=1'; do
		# shellcheck disable=SC2086
		run MUTANT="$1" $settings
		violated=$(sed -n 's/^violated: //p' run.log)
		test -z "$violated" || return 0
	done
	return 1
}

: >covered
if test -n "$name"; then
	number=$(number_of "$name")
	test -n "$number" || { echo "no such mutant: $name"; exit 1; }
	caught "$number" || { echo "$name was not caught"; exit 1; }
	# shellcheck disable=SC2086
	env THREADS=1 DEATHS=0 MUTANT="$number" $settings ./pan -C |
		grep -v -e '^covered' -e '\[else\]' -e '\[.(goto)\]' -e '\[((*1)*\]'
	exit 0
fi

safe ROUNDS=4 HOOKS=2
safe ROUNDS=6 HOOKS=1
safe ROUNDS=3 HOOKS=2 DEATHS=1
if test -n "${LIBPATCH_STRESS_SECONDS-}"; then
	# The order of these two does not matter: the fence comes behind both.
	safe ROUNDS=4 HOOKS=2 MUTANT="$(number_of ZEROED_AFTER_GUARD)"
	safe ROUNDS=6 HOOKS=2
	safe ROUNDS=5 HOOKS=2 DEATHS=1
	safe ROUNDS=3 HOOKS=1 THREADS=2
fi
sort -u covered | comm -13 - to_cover >missing
while IFS= read -r point; do
	fail "never happened: $point"
done <missing

count=0
while read -r number name reason; do
	caught "$number"
	if test "$violated" = "$reason"; then
		echo "$name: $reason ($settings)"
	else
		fail "$name: should be caught as '$reason', was '$violated'"
	fi
	count=$((count + 1))
done <mutants
test $count -ge 12 || fail "only $count mutants were found in $model"
exit $failed
