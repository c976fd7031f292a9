#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Procedures on a stack of the thread's own (PATCH_STACK_OWN): tests of what procedures and signals may do pass as they
# do on the program's stack: models, masks and extended state, moves, pairs, exceptions and cancellation, signals that
# come meanwhile, backtraces, children, threads that are gone.
build=${LIBPATCH_BUILD_DIR:-.}
module=$build/tests/support/.libs/own-stack.so
status=0
ran=0

[ -r "$module" ] || { echo "SKIP: no $module"; exit 77; }
for name in \
	fork/fork_shares_patches \
	fork/odd_exits_lose_patches \
	probe/around_call_missing \
	probe/around_pair_broken \
	probe/extended_state_lost \
	probe/moved_elsewhere_ignored \
	probe/place_shared_wrongly \
	probe/probe_on_another_stack_recurses \
	probe/procedure_clobbers_program \
	probe/return_missed \
	probe/x87_state_lost \
	reclaim/destroyed_while_in_use \
	reclaim/lost_thread_blocks_removal \
	signal/handler_runs_in_procedure \
	signal/handler_sees_generated_code \
	trap/patch_from_fault_handler_lost \
	unwind/cancellation_in_probe_hangs \
	unwind/exceptions \
	unwind/unwinding_stops_at_probe
do
	[ -x "$build/tests/behaviour/$name" ] || { echo "not built: $name"; continue; }
	LD_PRELOAD=$module "$build/tests/behaviour/$name" || {
		code=$?
		[ $code -eq 77 ] || { echo "FAIL: $name: $code"; status=1; }
	}
	ran=$((ran + 1))
done
[ $ran -gt 0 ] || exit 77
exit $status
