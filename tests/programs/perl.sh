#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# perl with a probe on every k-th instruction: perl.pl, one-liners, errors.
name=perl package=perl modules=main

prepare()
{
	cp "$source/tests/programs/perl.pl" .
	seq 1 4000 | awk '{ print "line " $1 ": " $1 * 7919 % 10007 " words and " $1 / 7 }' >lines
}

workload()
{
	probed ../input/perl.pl
	probed -ne 'print if /9{2}|(\d)\1\1/' ../input/lines
	probed -pe 's/(\w+): (\d+)/$2 :$1/; tr/a-y/b-z/' ../input/lines | cksum
	probed -lane '$sum{$F[2] % 17} += $F[-1];
		END { printf "%s %.6f\n", $_, $sum{$_} for sort keys %sum }' ../input/lines
	cp ../input/lines edited && probed -i.old -pe 's/words/things/' edited
	probed -c ../input/perl.pl
	probed -MO=Concise -e 'print "a" . 1' | sed 's/0x[0-9a-f]*//g'
	probed -we 'my $x; print "value $x\n"; exit 7'
	probed -e 'die { code => 3 }' 2>/dev/null
	probed -e 'print 1 +'
	probed -e 'kill "TERM", $$'
}

quick='
64 9 allow gp probe
61 23 forbid gp probe
67 51 allow all probe
61 29 allow gp around
64 33 allow gp toggle
'
full='
16 all allow gp probe
64 3,19,35,51 forbid all probe
512 1,100,300 force gp probe
1 0 allow gp probe
1 0 forbid gp probe
16 3,11 allow all around
32 7,23 forbid gp toggle
'
. "$(dirname "$0")/driver.sh"
