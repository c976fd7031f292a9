#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# A program under valgrind's memcheck, linked with the tool, and with the tool preloaded: no error, the same output. The
# program meets its patches where valgrind has translated the code before they came, and leaves them when they are gone.
program="valgrind g++" package="valgrind g++"

prepare()
{
	g++ -O1 "$source/tests/programs/busy.cpp" -lpthread -o busy-preloaded &&
		g++ -O1 "$source/tests/programs/busy.cpp" -lpthread -o busy-linked -Wl,--no-as-needed "$tool" \
			-Wl,-rpath,"${tool%/*}"
}

start()
{
	(
		if test -n "$after"; then
			export LATE_START_REPORT="$report" LATE_START_AFTER="$after" LATE_START_ROUNDS=8 \
				LATE_START_EVERY=10 LATE_START_MODULES=main,libc.so.6 LATE_START_HITS=$hits \
				LATE_START_PROGRAM=busy-$1
			test "$1" = linked || export LD_PRELOAD="$tool"
		fi
		# Else a thread that waits for the others to let it run may wait for minutes.
		exec valgrind -q --fair-sched=yes --error-exitcode=9 "./busy-$1" 20 "$report.over"
	)
}

# What it says of a system call by which the library asks whether memory can be read is no error.
workload()
{
	for kind in linked preloaded; do
		clear_report
		start $kind >said 2>&1
		echo "$kind: $?"
		grep -v "sigprocmask: unknown 'how' field -1" said
		test -z "$after" || did_all || echo "$kind: $(cat "$report")"
	done
}

. "$(dirname "$0")/late-driver.sh"
