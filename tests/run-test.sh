#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# run-test.sh COMMAND...: run one test; end it, and say so, when it does not end by itself.
limit=${TEST_TIMEOUT:-240}
timeout -k 10 "$limit" "$@" </dev/null
status=$?
if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
	echo "ended after $limit s, or killed"
fi
exit "$status"
