#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# One function, patched by uftrace when the program starts: records of entry and exit.
. "${LIBPATCH_BENCH_SOURCE:?}/peer-common.sh"
need uftrace
build uftrace -fpatchable-function-entry=5 -fcf-protection=none
trap 'rm -rf "$directory/uftrace"' EXIT
uftrace record --no-libcall --no-event --patch '^traced$' --data "$directory/uftrace" "$directory/peer-uftrace" \
	2>>"$directory/peer-uftrace.log"
