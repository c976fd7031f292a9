#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# An enabled and a disabled static tracepoint of lttng-ust, into a ring buffer that is never read.
. "${LIBPATCH_BENCH_SOURCE:?}/peer-common.sh"
need lttng lttng-sessiond
echo '#include <lttng/tracepoint.h>' | $CC -E - >/dev/null 2>&1 || refuse "liblttng-ust-dev is not installed"
build lttng -llttng-ust -ldl

LTTNG_HOME=$directory/lttng
export LTTNG_HOME
mkdir -p "$LTTNG_HOME"
pidfile=$LTTNG_HOME/pid
session=libpatch-bench-$$
daemon=
if ! lttng --no-sessiond list >/dev/null 2>&1; then
	lttng-sessiond --background --no-kernel --pidfile "$pidfile" >/dev/null 2>&1 </dev/null ||
		refuse "lttng-sessiond does not start"
	daemon=$(cat "$pidfile")
fi
finish()
{
	lttng --no-sessiond destroy "$session" >/dev/null 2>&1 </dev/null
	[ -z "$daemon" ] || kill "$daemon"
}
trap finish EXIT
{
	lttng --no-sessiond create "$session" --snapshot --output="$LTTNG_HOME/out" &&
		lttng --no-sessiond enable-channel -u -s "$session" --overwrite ring &&
		lttng --no-sessiond enable-event -u -s "$session" -c ring libpatch_bench:hit &&
		lttng --no-sessiond start "$session"
} >"$directory/peer-lttng.log" 2>&1 </dev/null || refuse "no lttng session, see $directory/peer-lttng.log"
LTTNG_UST_REGISTER_TIMEOUT=5000 "$directory/peer-lttng"
