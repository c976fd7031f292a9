#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# redis with jemalloc, whose background thread blocks every signal, and with threads for its sockets, under load.
program="redis-server redis-benchmark redis-cli" package=redis

prepare()
{
	:
}

workload()
{
	late redis-server --port 0 --unixsocket "$scratch/socket" --save '' --appendonly no --io-threads 3 \
		--jemalloc-bg-thread yes --dir "$scratch" >log 2>&1 &
	server=$!
	until redis-cli -s socket ping >/dev/null 2>&1; do
		kill -0 $server || exit 1
		sleep 0.05
	done
	while :; do
		redis-benchmark -s socket -q -n 2000 -c 10 -P 4 -t set,get,incr,lpush,zadd >benchmark 2>&1 || exit 1
		grep -i error benchmark
		kill -0 $server || exit 1
		test ! -e "$report.over" || break
	done
	for i in 1 2 3 4 5; do
		redis-cli -s socket set key$i value$i
		redis-cli -s socket get key$i
	done
	redis-cli -s socket shutdown nosave
	wait $server
}

. "$(dirname "$0")/late-driver.sh"
