# SPDX-License-Identifier: LGPL-2.1-or-later
# What checks of models share: a model without an error as it is, mutants of it that are caught, each for its own
# reason, and a list of what is to be exercised. Sourced by the check of a model, which then calls safe() and
# end_checks(). It has set
#
#   model      name of the .pml beside it
#   standard   settings of all runs, unless they are given others
#   attempts   settings under which a mutant may be caught, one line each, those that take least first
#   mutants    how many there are at least
#
# Its argument, if any, is the name of a mutant: then its counterexample is shown, step by step, and nothing checked.

models=$(cd "$(dirname "$0")" && pwd)
pml=$models/$model.pml
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

megabytes=900 hash=22
test -z "${LIBPATCH_STRESS_SECONDS-}" || megabytes=${MODEL_MEGABYTES:-6000} hash=${stress_hash:-22}
# A copy: counterexamples are written where the model is.
cp "$pml" model.pml && cp "$models/common.pml" . && spin -a model.pml >spin.log 2>&1 &&
	"$@" -O2 -w -DSAFETY -DCOLLAPSE -DMEMLIM=$megabytes -o pan pan.c || {
	cat spin.log
	echo 'FAIL: the model does not compile'
	exit 1
}
# Number, name and violation of each mutant; names of all that is to be covered.
sed -n 's|^#define \([A-Z0-9_]*\) *\([0-9]*\) /\* MUTANT: \(.*\) \*/$|\2 \1 \3|p' "$pml" >mutants
sed -n 's|.*COVER([0-9]*, "\(.*\)").*|\1|p' "$pml" | sort -u >to_cover
number_of()
{
	sed -n "s/^#define $1 *\([0-9]*\) .*/\1/p" "$pml"
}

# run SETTING=VALUE...: the output in run.log
run()
{
	# -m: deep enough, else it says so.
	# shellcheck disable=SC2086
	env $standard MUTANT=0 "$@" ./pan -m500000 -w$hash -n >run.log 2>&1
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

# caught NUMBER: what it was caught for in $violated, and under which settings in $settings
caught()
{
	while IFS= read -r settings; do
		# shellcheck disable=SC2086
		run MUTANT="$1" $settings
		violated=$(sed -n 's/^violated: //p' run.log)
		test -z "$violated" || return 0
	done <<-END
	$attempts
	END
	return 1
}

# Of what ran so far.
check_covered()
{
	sort -u covered | comm -13 - to_cover >missing
	while IFS= read -r point; do
		fail "never happened: $point"
	done <missing
}

end_checks()
{
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
	test $count -ge "$mutants" || fail "only $count mutants were found in $pml"
	exit $failed
}

: >covered
if test -n "$name"; then
	number=$(number_of "$name")
	test -n "$number" || { echo "no such mutant: $name"; exit 1; }
	caught "$number" || { echo "$name was not caught"; exit 1; }
	# shellcheck disable=SC2086
	env $standard MUTANT="$number" $settings ./pan -C |
		grep -v -e '^covered' -e '\[else\]' -e '\[.(goto)\]' -e '\[((*1)*\]'
	exit 0
fi
