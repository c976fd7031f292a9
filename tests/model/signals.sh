#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The model of a thread's signals: no error as it is; each mutant is caught, for its own reason; and all that is to be
# exercised was. As stress test (LIBPATCH_STRESS_SECONDS is set): more calls, and more signals.
#
#   signals.sh             as in `make check`
#   signals.sh NAME        a mutant's counterexample, step by step
set -u
model=signals mutants=34
standard='CALLS=3 SENDS=2'
attempts='CALLS=1 SENDS=1
CALLS=2 SENDS=1
CALLS=2 SENDS=2
CALLS=3 SENDS=2
CALLS=3 SENDS=3'
. "$(dirname "$0")/driver.sh"

safe CALLS=3 SENDS=2
safe CALLS=2 SENDS=3
if test -n "${LIBPATCH_STRESS_SECONDS-}"; then
	safe CALLS=4 SENDS=3
	safe CALLS=5 SENDS=3
fi
check_covered
end_checks
