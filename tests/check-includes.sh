#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Who may include whom. A header includes only headers of lower levels; a source file those of its own level and below;
# api.c sees all. Only the decoder sees Zydis, and the trap path sees next to nothing.
set -u
source=${LIBPATCH_SOURCE_DIR:-$(dirname "$0")/..}
cd "$source/libpatch" || exit 1

levels='
0 base inject
1 error heap sort queue range process space arch/arch arch/x86-64/frame
2 arch/x86-64/decode arch/x86-64/relocate plan scan text sync arena registry module owned threads sections handlers
3 trampoline around critical held virtual wait lock
4 region handle signals trap
5 mediate earlier quiesce site hookset phase agenda
6 fit gone batch commit
7 attach replan
8 syscalls
9 api
'
# Source files that have no header of their own, and what they belong to.
parts='
attr=api
eh_frame=module
make=api
mapped=module
memory=base
pad=arena
stage=text
arch/x86-64/call=arch/arch
arch/x86-64/context=arch/arch
arch/x86-64/common=arch/x86-64/decode
arch/x86-64/emit=arch/arch
arch/x86-64/instead=arch/arch
arch/x86-64/relocate_far=arch/x86-64/relocate
arch/x86-64/unwind=arch/arch
arch/x86-64/xsave=arch/arch
'
# All that trap.c may include, beside libpatch/patch.h and libpatch/tools.h.
trap_includes='base.h arch/arch.h registry.h signals.h arena.h trap.h inject.h signal.h ucontext.h sys/ucontext.h'

find . -name '*.[ch]' | sed 's,^\./,,' | sort | while IFS= read -r file; do
	sed -n 's/^[ \t]*#[ \t]*include[ \t]*\([<"]\)\([^>"]*\)[>"].*/\1 \2/p' "$file" | sed "s,^,$file ,"
	echo "$file"
done | awk -v levels="$levels" -v parts="$parts" -v trap_includes="$trap_includes" '
	function complain(text) { print text; failed = 1 }
	# "arch/x86-64/../arch.h", or "base.h" as seen from the top -> "arch/arch"
	function module_of(from, name,    path, dir) {
		dir = from
		if (!sub(/\/[^\/]*$/, "/", dir))
			dir = ""
		path = dir name
		while (sub(/[^\/]+\/\.\.\//, "", path))
			;
		sub(/\.[chS]$/, "", path)
		if (!(path in level)) { # found through -I instead
			path = name
			sub(/\.[chS]$/, "", path)
		}
		return path
	}
	BEGIN {
		lines = split(levels, line, "\n")
		for (i = 1; i <= lines; i++) {
			words = split(line[i], word, " ")
			for (k = 2; k <= words; k++)
				level[word[k]] = word[1]
		}
		words = split(parts, word)
		for (i = 1; i <= words; i++) {
			split(word[i], pair, "=")
			level[pair[1]] = level[pair[2]]
		}
		words = split(trap_includes, word, " ")
		for (i = 1; i <= words; i++)
			in_trap[word[i]] = 1
	}
	NF == 1 {
		own = $1
		sub(/\.[ch]$/, "", own)
		if (!(own in level))
			complain($1 ": has no level in tests/check-includes.sh")
		files++
		next
	}
	{
		file = $1
		name = $3
		own = file
		header = own ~ /\.h$/
		sub(/\.[ch]$/, "", own)
		if (name ~ /^(Zydis|Zycore)/ && file != "arch/x86-64/decode.c")
			complain(file ": includes <" name ">; only arch/x86-64/decode.c may")
		if (file == "trap.c" && !(name in in_trap) && name !~ /^libpatch\/(patch|tools)\.h$/)
			complain(file ": includes " name ", which is not for the trap path")
		if ($2 != "\"" || name == "config.h")
			next
		other = module_of(file, name)
		if (!(other in level)) {
			complain(file ": includes \"" name "\", which has no level")
			next
		}
		if (other == own || !(own in level))
			next
		if (header ? level[other] >= level[own] : level[other] > level[own])
			complain(file " (level " level[own] "): includes \"" name "\" (level " level[other] ")")
	}
	END {
		print files " files read"
		exit failed || !files
	}'
