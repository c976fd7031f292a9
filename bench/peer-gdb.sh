#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# A fast tracepoint of gdb's, without actions: gdbserver and its agent in the process.
. "${LIBPATCH_BENCH_SOURCE:?}/peer-common.sh"
need gdb gdbserver
agent=
for library in /usr/lib/libinproctrace.so /usr/lib/*/libinproctrace.so; do
	[ ! -f "$library" ] || agent=$library
done
[ -n "$agent" ] || refuse "libinproctrace.so is not installed (Debian: gdbserver)"
# It does not find its site in position-independent programs.
build gdb -no-pie

log=$directory/peer-gdb.log
server=
finish()
{
	[ -z "$server" ] || kill "$server" 2>/dev/null
}
trap finish EXIT
: >"$log"
# Orders come from our standard input; a background process would have none.
exec 3<&0
gdbserver --once --wrapper env LD_PRELOAD="$agent" -- localhost:0 "$directory/peer-gdb" <&3 2>"$log" &
server=$!
port=
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
	port=$(sed -n 's/^Listening on port //p' "$log")
	[ -z "$port" ] || break
	sleep 0.25
done
[ -n "$port" ] || refuse "gdbserver does not listen, see $log"
gdb -nx -batch -ex 'set confirm off' -ex "target remote localhost:$port" -ex 'tbreak main' -ex 'continue' \
	-ex 'set circular-trace-buffer on' -ex 'ftrace *bench_gdb_entry' -ex 'tstart' -ex 'continue' \
	"$directory/peer-gdb" >"$directory/peer-gdb.gdb" 2>&1 </dev/null
wait "$server"
