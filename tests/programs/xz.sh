#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# xz and liblzma, there and back, with a probe on every k-th instruction. Threads, which block every signal, are for one
# file; with one thread the others are shorter.
name=xz package=xz-utils modules=main,liblzma.so.5

prepare()
{
	cat "$source"/libpatch/*/*.c | head -c 200000 >text
	seq 1 10000 >numbers
	head -c 60000 "$build/.libs/libpatch.so" >binary
	head -c 30000 /dev/zero >zeros
	: >empty
}

workload()
{
	for file in text numbers binary zeros empty; do
		probed -T1 -2 -c "../input/$file" >"$file.xz"
	done
	probed -T1 -9e -c ../input/numbers >numbers9.xz
	probed -T2 --block-size=16KiB -1 -c ../input/numbers >threads.xz
	probed -T1 --x86 --lzma2=preset=1 --check=sha256 -c ../input/binary >filtered.xz
	probed -T1 --delta=dist=4 --lzma2=preset=0 --check=crc32 -c ../input/binary >delta.xz
	probed -T1 --format=lzma -1 -c ../input/text >text.lzma
	probed -dc text.xz | cmp - ../input/text
	probed -dc filtered.xz delta.xz numbers9.xz text.lzma | cksum
	probed -t zeros.xz empty.xz
	probed -l -vv numbers.xz
	head -c 5000 text.xz >broken.xz
	probed -t broken.xz
	probed -dc nowhere.xz
	probed --no-such-option
	probed -T1 --info-memory
	probed --version
}

quick='
16 3 allow gp probe
32 20 forbid gp probe
16 9 allow gp toggle
'
full='
8 all allow gp probe
8 all forbid all probe
500 1,77,130 force gp probe
1 0 allow all probe
16 3,11 allow all around
32 7,23 forbid gp toggle
'
. "$(dirname "$0")/driver.sh"
