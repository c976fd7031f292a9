#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The model of lists and pairs: no error as it is; each mutant is caught, for its own reason; and all that is to be
# exercised was. As stress test (LIBPATCH_STRESS_SECONDS is set): more of everything.
#
#   lists.sh             as in `make check`
#   lists.sh NAME        a mutant's counterexample, step by step
set -u
model=lists mutants=23 stress_hash=24
standard='PATCHES=2 START=3 HITS=1 DEPTHS=1 LEAPS=0 INNER=0 MOVES=0 RING=2 STORES=4 AROUND=3 ALIKE=1'
attempts='ROUNDS=2
ROUNDS=3 START=1 ALIKE=0
ROUNDS=2 HITS=2 DEPTHS=2
ROUNDS=2 HITS=2 DEPTHS=2 MOVES=1
ROUNDS=2 HITS=4 LEAPS=2'
. "$(dirname "$0")/driver.sh"

safe ROUNDS=5
safe ROUNDS=4 AROUND=1
safe ROUNDS=4 PATCHES=3 START=1 ALIKE=0
safe ROUNDS=2 HITS=3 MOVES=1
safe ROUNDS=2 HITS=2 DEPTHS=2 LEAPS=1
if test -n "${LIBPATCH_STRESS_SECONDS-}"; then
	for name in CALLED_NOTED_BEHIND_RECORD SECOND_HAS_NO_RECORD CURRENT_KEPT_ON_WAY_BACK MOVED_STAYS_CALLED; do
		safe ROUNDS=3 HITS=2 DEPTHS=2 MOVES=1 MUTANT="$(number_of "$name")"
		safe ROUNDS=4 PATCHES=3 START=1 ALIKE=0 MUTANT="$(number_of "$name")"
	done
	safe ROUNDS=8
	safe ROUNDS=6 AROUND=1 HITS=2
	safe ROUNDS=6 PATCHES=3 START=1 ALIKE=0
	safe ROUNDS=5 HITS=2 STORES=6
	safe ROUNDS=3 HITS=3 DEPTHS=3 RING=3
	safe ROUNDS=3 HITS=3 DEPTHS=2 LEAPS=1
	safe ROUNDS=3 HITS=2 DEPTHS=2 LEAPS=1 MOVES=1
fi
check_covered
end_checks
