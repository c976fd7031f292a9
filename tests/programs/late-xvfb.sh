#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Xvfb, which loads drivers, and unloads them whenever its last client has gone, while the tool is there. It refuses
# clients meanwhile, as it does without the tool.
program="Xvfb xdpyinfo" package="xvfb x11-utils" hits=100

prepare()
{
	:
}

workload()
{
	rm -f display
	late Xvfb -displayfd 3 -screen 0 640x480x24 -nolisten tcp 3>display 2>log &
	server=$!
	until test -s display; do
		kill -0 $server || exit 1
		sleep 0.05
	done
	DISPLAY=:$(cat display)
	export DISPLAY
	until test -e "$report.over" && xdpyinfo >answer 2>errors; do
		kill -0 $server || exit 1
		xdpyinfo >answer 2>errors
	done
	grep -E 'dimensions|depth of root|vendor string' answer
	kill $server
	wait $server
}

. "$(dirname "$0")/late-driver.sh"
