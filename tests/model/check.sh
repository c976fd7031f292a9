#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The model of the commit protocol: no error as it is; each mutant is caught, for its own reason; and all that is to be
# exercised was. As stress test (LIBPATCH_STRESS_SECONDS is set): more commits, more failures, two threads.
#
#   check.sh             as in `make check`
#   check.sh NAME        a mutant's counterexample, step by step
set -u
model=protocol mutants=20 stress_hash=25
standard='THREADS=1 ROUNDS=2 FAILURES=0 PUNNED=0 GROWN=0 REUSE=0'
attempts='ROUNDS=2
ROUNDS=2 PUNNED=1
ROUNDS=2 GROWN=1
ROUNDS=2 FAILURES=1
ROUNDS=3
ROUNDS=2 FAILURES=1 PUNNED=1
ROUNDS=3 FAILURES=1
ROUNDS=3 FAILURES=1 PUNNED=1'
. "$(dirname "$0")/driver.sh"

safe ROUNDS=3 FAILURES=1
safe ROUNDS=2 FAILURES=1 PUNNED=1
safe ROUNDS=2 FAILURES=1 GROWN=1
safe ROUNDS=3 REUSE=1
safe ROUNDS=2 THREADS=2
if test -n "${LIBPATCH_STRESS_SECONDS-}"; then
	safe ROUNDS=4 FAILURES=2
	safe ROUNDS=3 FAILURES=2 PUNNED=1
	safe ROUNDS=3 FAILURES=2 GROWN=1
	safe ROUNDS=3 FAILURES=1 PUNNED=1 GROWN=1
	safe ROUNDS=2 FAILURES=1 THREADS=2 REUSE=1
	safe ROUNDS=2 PUNNED=1 THREADS=2
fi
check_covered

# What doc/protocol.md says is not needed for these errors not to happen.
safe ROUNDS=2 PUNNED=1 MUTANT="$(number_of SYNC_3_ALWAYS)"
safe ROUNDS=2 FAILURES=1 MUTANT="$(number_of NO_SYNC_3_PUNNED)"
end_checks
