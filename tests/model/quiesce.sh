#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The model of the grace period: no error as it is; each mutant is caught, for its own reason; and all that is to be
# exercised was. As stress test (LIBPATCH_STRESS_SECONDS is set): more of everything.
#
#   quiesce.sh             as in `make check`
#   quiesce.sh NAME        a mutant's counterexample, step by step
set -u
model=quiesce mutants=12
standard='THREADS=1 ROUNDS=4 HOOKS=2 DEATHS=0'
attempts='ROUNDS=4 HOOKS=1
ROUNDS=4 HOOKS=2
ROUNDS=6 HOOKS=1
ROUNDS=6 HOOKS=2 DEATHS=1'
. "$(dirname "$0")/driver.sh"

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
check_covered
end_checks
