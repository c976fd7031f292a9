#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# gzip, there and back, with a probe on every k-th instruction: up to all of them at once.
name=gzip package=gzip modules=main

prepare()
{
	cat "$source"/libpatch/*/*.c | head -c 200000 >text
	seq 1 20000 >numbers
	head -c 60000 "$build/.libs/libpatch.so" >binary
	head -c 30000 /dev/zero >zeros
	: >empty
}

workload()
{
	for file in text numbers binary zeros empty; do
		probed -n -c "../input/$file" >"$file.gz"
	done
	probed -n -9 -c ../input/text >text9.gz
	probed -n -1 -c ../input/binary >binary1.gz
	probed -dc text.gz | cmp - ../input/text
	probed -dc text9.gz binary1.gz | cksum
	probed -t numbers.gz zeros.gz empty.gz
	probed -l numbers.gz
	cp ../input/numbers . && probed -n numbers && ls numbers* && probed -d -k -f numbers.gz
	head -c 5000 text.gz >broken.gz
	probed -t broken.gz
	probed -dc nowhere.gz
	probed --no-such-option
	probed --version
}

quick='
1 0 allow gp probe
1 0 forbid gp probe
3 1 allow gp toggle
64 17 allow all probe
'
full='
7 all allow gp probe
7 all forbid all probe
200 1,77,130 force gp probe
1 0 allow all probe
16 3,11 allow all around
32 7,23 forbid gp toggle
'
. "$(dirname "$0")/driver.sh"
