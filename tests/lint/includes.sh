#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The folders of libpatch/ are layers: a file includes headers of its own folder and of folders below it, each named
# with its folder. Only the decoder sees Zydis, and the trap handler sees next to nothing.
set -u
cd "${LIBPATCH_SOURCE_DIR:-$(dirname "$0")/../..}/libpatch" || exit 1
layers='base arch sys elf code trap runtime patch plan commit interpose api' # the lowest first

grep -rn --include='*.[chS]' '^[[:space:]]*#[[:space:]]*include' . |
	sed 's,^\./,,; s,:[^#]*#[[:space:]]*include[[:space:]]*, ,' |
	awk -v layers="$layers" '
	function complain(text) { print text; failed = 1 }
	BEGIN {
		for (n = split(layers, name, " "); n; n--)
			level[name[n]] = n
		in_trap = " base arch code trap "
	}
	{
		file = $1
		folder = file
		sub(/\/.*/, "", folder)
		other = $2
		gsub(/[<>"]/, "", other)
		if (!(folder in level))
			complain(file ": the folder is no layer")
		if (other ~ /^(Zydis|Zycore)/ && file !~ /^arch\/x86_64\/zydis\.[ch]$/)
			complain(file ": includes " other "; only arch/x86_64/zydis.[ch] may")
		if ($2 !~ /^"/ || other == "config.h") {
			if (file == "trap/trap.c" &&
			    other !~ /^(libpatch\/(patch|trap_handler)|signal|ucontext|sys\/ucontext)\.h$/)
				complain(file ": includes " other ", which is not for the trap handler")
			next
		}
		arrows++
		if (system("test -f " other))
			complain(file ": includes " other ", which is not named with its folder")
		sub(/\/.*/, "", other)
		if (level[other] > level[folder])
			complain(file ": includes " $2 ", of a folder above " folder "/")
		if (file == "trap/trap.c" && !index(in_trap, " " other " "))
			complain(file ": includes " $2 ", which is not for the trap handler")
	}
	END {
		print arrows " includes"
		exit failed || !arrows
	}'
