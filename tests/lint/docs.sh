#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# Functions, files and tests that a document or a comment of the library names exist. Lines have 120 columns at most.
# No file names a place of the machine that it was written on, and nothing is tracked that the build makes.
set -u
cd "${LIBPATCH_SOURCE_DIR:-$(dirname "$0")/../..}" || exit 1
# What others have, and nothing here calls.
foreign='__errno_location __tls_get_addr _Fork backtrace clone3 mremap uw_identify_context unw_backtrace
	account_user_time do_wp_page force_sig_info_to_task proc_task_getattr ptep_clear_flush save_sw_bytes
	smp_text_poke_batch_finish expand_fdtable sync_runqueues_membarrier_state membarrier'
foreign_files='^(arch/x86/|fs/|include/(linux|uapi)/|kernel/|mm/|sysdeps/|src/rculfhash|unwind-dw2|asm/|string\\.h$)'
sources='\.(c|cpp|h|S|inc|ac|awk|sh|bash|py|pl|sql|pml|md|map|3|7)$|^(check|demo|\.ci/run)$'
scratch=$(mktemp)
trap 'rm -f "$scratch"' EXIT
status=0
if [ -e .git ]; then
	git ls-files -ci --exclude-standard >"$scratch"
	sed 's/$/: tracked, though the build makes it/' "$scratch"
	[ ! -s "$scratch" ] || status=1
	git ls-files >"$scratch"
else # a tarball, which has a script of libtool's beside ours, and perhaps a build
	find . -path ./_build -prune -o -type f ! -path ./build-aux/ltmain.sh -print | sed 's,^\./,,' >"$scratch"
fi
# shellcheck disable=SC2046 # no name has a blank in it
LC_ALL=C awk -v foreign="$foreign" -v foreign_files="$foreign_files" '
	function complain(text) { print text; failed = 1 }
	function there(path) { sub(/\/$/, "", path); return path in tree }
	# In the folder of the file that names it, or in one that paths begin in. Tests are named without their suffix.
	function folder(path) { sub(/[^\/]*$/, "", path); return path }
	function exists(path,    beside) {
		beside = folder(FILENAME)
		sub(/^\.\//, "", path)
		if (path ~ foreign_files || path ~ /(FOLDER|KIND|MODULE|NAME)/ || path in library)
			return 1
		return there(path) || there(beside path) || there("libpatch/" path) || there("tests/" path) ||
		       there("include/" path) || there("include/libpatch/" path) || there("tests/" path ".c") ||
		       there("tests/" path ".cpp") || there("tests/" path ".sh")
	}
	function cite(text,    name) {
		for (; match(text, /[A-Za-z_][A-Za-z0-9_]*\(\)/); text = substr(text, RSTART + RLENGTH)) {
			name = substr(text, RSTART, RLENGTH - 2)
			if (!(name in cited))
				cited[name] = FILENAME ":" FNR
		}
	}
	function cite_paths(text,    path) {
		for (; match(text, /[A-Za-z0-9_][A-Za-z0-9_\/.-]*\.[chS]($|[^A-Za-z0-9_])/);
		     text = substr(text, RSTART + RLENGTH)) {
			path = substr(text, RSTART, RLENGTH)
			sub(/[^chS]$/, "", path)
			if (!exists(path))
				complain(FILENAME ":" FNR ": there is no " path)
		}
	}
	# Code calls or defines what is followed by a parenthesis, or is a label of the assembler.
	function define(code) {
		gsub(/"([^"\\]|\\.)*"/, "", code)
		for (; match(code, /[A-Za-z_][A-Za-z0-9_]*(\)?[ \t]*\(|:)/); code = substr(code, RSTART + RLENGTH)) {
			name = substr(code, RSTART, RLENGTH)
			gsub(/[^A-Za-z0-9_]/, "", name)
			defined[name]
		}
	}
	# The line, in code and comments.
	function split_line(line,    at) {
		while (line != "") {
			at = index(line, in_comment ? "*/" : "/*")
			if (in_comment)
				comment = comment " " (at ? substr(line, 1, at - 1) : line)
			else
				define(at ? substr(line, 1, at - 1) : line)
			if (!at)
				return
			in_comment = !in_comment
			line = substr(line, at + 2)
		}
	}
	function width(line,    n, piece, i, column) {
		gsub(/[\200-\277]/, "", line)
		n = split(line, piece, "\t")
		for (i = 1; i < n; i++)
			column += length(piece[i]) + 8 - (column + length(piece[i])) % 8
		return column + length(piece[n])
	}
	BEGIN {
		for (n = split(foreign, name_of); n; n--)
			defined[name_of[n]]
	}
	NR == FNR && /^libpatch\// { base = $0; sub(/.*\//, "", base); library[base] }
	NR == FNR { for (path = $0; path != ""; sub(/\/?[^\/]*$/, "", path)) tree[path]; next }
	FNR == 1 { in_comment = in_figures = 0 }
	/^<!-- figures: begin/ { in_figures = 1 } # a table that the benchmark writes
	length > 64 && !(FILENAME ~ /\.md$/ && (/^\|/ || in_figures)) && width($0) > 120 {
		complain(FILENAME ":" FNR ": more than 120 columns")
	}
	/(^|[^A-Za-z0-9_.$}*-])\/(work|home|root)\/|\/tmp\/[a-z]*_/ {
		complain(FILENAME ":" FNR ": names a place of some machine")
	}
	FILENAME ~ /\.([chS]|cpp)$/ {
		comment = ""
		split_line($0)
		if (FILENAME ~ /^libpatch\//) {
			cite(comment)
			cite_paths(comment)
		}
		next
	}
	FILENAME ~ /\.md$/ {
		for (n = split($0, piece, "`"); n > 1; n--) {
			if (n % 2)
				continue
			cite(piece[n])
			if (piece[n] ~ /^(\.\/)?[a-z0-9_.-]*\/[A-Za-z0-9_\/.-]*$/ && piece[n] !~ /^(\/|build)/ &&
			    !exists(piece[n]))
				complain(FILENAME ":" FNR ": there is no " piece[n])
			cite_paths(piece[n])
		}
		for (text = $0; match(text, /\]\([^)#:]+[)#]/); text = substr(text, RSTART + RLENGTH)) {
			path = substr(text, RSTART + 2, RLENGTH - 3)
			if (!exists(path) && system("test -e " folder(FILENAME) path))
				complain(FILENAME ":" FNR ": there is no " path)
		}
	}
	END {
		for (name in cited)
			if (!(name in defined)) {
				print cited[name] ": there is no " name "()"
				failed = 1
			}
		exit failed
	}
' "$scratch" $(grep -E "$sources" "$scratch") || status=1
exit $status
