#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The coverage tool where it cannot be loaded beside what it examines: static programs, at a fixed address and not, and
# the modules of a running process, which does not notice.
set -u
coverage=${LIBPATCH_BUILD_DIR:-.}/tools/coverage/coverage
directory=$(mktemp -d) || exit 1
child=
trap 'test -z "$child" || kill "$child" 2>/dev/null; rm -rf "$directory"' EXIT
failed=0
fail()
{
	echo "FAIL: $*"
	failed=1
}

# Modules, and functions of all of them; every strategy sums to the number of sites.
check()
{
	awk -v modules="$2" '
		function number(text) { gsub(/,/, "", text); return text + 0 }
		/^\// { count++ }
		/ functions, .* instructions, / { if (number($1) == 0) bad = "no functions" }
		/^  (jump over one|jump over several|punned jump|trap|refused) +[0-9]/ { sum += number($(NF - 1)) }
		/^  not tried/ { bad = "some sites were not tried" }
		/^  sites / { sites += number($NF) }
		END {
			if (count < modules) bad = count + 0 " modules"
			if (!sites || sum != sites) bad = sum + 0 " strategies for " sites + 0 " sites"
			if (bad) print bad
			exit bad != ""
		}' "$1" || fail "$1"
}

# ---- static programs

cat >"$directory/program.c" <<-'EOF'
	#include <stdio.h>
	int main(void)
	{
		FILE *ran = fopen("ran", "w");

		return ran ? fclose(ran) : 1;
	}
EOF
linked=0
for how in '-static -no-pie' '-static -no-pie -Wl,--eh-frame-hdr' '-static-pie'; do
	# shellcheck disable=SC2086
	${CC:-cc} -O2 $how -o "$directory/program" "$directory/program.c" 2>/dev/null || continue
	linked=1
	(cd "$directory" && "$coverage" --every=7 ./program) >"$directory/log" 2>&1
	status=$?
	echo "$how"
	cat "$directory/log"
	if grep -q 'under ptrace' "$directory/log"; then
		echo "ptrace(2) is not allowed here"
		exit 77
	fi
	test $status -eq 0 || fail "$how: status $status"
	test ! -e "$directory/ran" || fail "$how: the program ran"
	check "$directory/log" 1
	case $how in
	*-no-pie*) grep -q 'at 0x0)' "$directory/log" || fail "$how: not at its address" ;;
	esac
	case $how in
	*hdr* | *-static-pie) ! grep -q 'no .eh_frame_hdr' "$directory/log" || fail "$how: unwind table not found" ;;
	esac
done

# ---- a process

read -r _ <"/proc/$$/syscall" 2>/dev/null || { echo "/proc/PID/syscall cannot be read"; exit 77; }
sleep 1000 &
child=$!
# Until it sleeps (nanosleep or clock_nanosleep): everything is loaded by then.
while ! grep -qE '^(35|230) ' "/proc/$child/syscall" 2>/dev/null; do
	kill -0 $child || exit 1
done
cp "/proc/$child/maps" "$directory/before"
"$coverage" --pid $child >"$directory/log" 2>&1 || fail "--pid: status $?"
cat "$directory/log"
check "$directory/log" 2
diff "$directory/before" "/proc/$child/maps" || fail "the process has changed"
# Where it is in the process.
base=$(awk '/libc[.-]/ { sub(/-.*/, "", $1); print $1; exit }' "$directory/before")
grep -q "libc.*in process $child at 0x$base)" "$directory/log" || fail "libc is not planned at $base"
"$coverage" --summary --pid $child --module 'libc[.-]*' >"$directory/log" 2>&1 || fail "--module: status $?"
test "$(wc -l <"$directory/log")" -eq 2 || fail "--module does not choose one"

test $failed -eq 0 || exit 1
if test $linked -eq 0; then
	echo "no static libc to link with: static programs were not tested"
	exit 77
fi
