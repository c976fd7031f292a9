#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# python3, zlib, expat and libm with a probe on every k-th instruction: a tour of the standard library, and parts of
# Python's own tests where libpython3.N-testsuite is installed.
name=$(basename "$(readlink -f /usr/bin/python3)") package=python3 modules=main,libz.so.1,libexpat.so.1,libm.so.6

# Short ones; none prints times, addresses or what it finds on the machine.
tests='test_array test_augassign test_base64 test_binascii test_binop test_bisect test_bool test_builtin test_call
test_cmath test_class test_codecs test_colorsys test_complex test_contains test_context test_copy test_csv
test_dataclasses test_defaultdict test_deque test_descr test_dict test_enum test_exceptions test_extcall
test_float test_fractions test_fstring test_funcattrs test_functools test_generators test_grammar test_hash
test_heapq test_int test_iter test_itertools test_json test_keywordonlyarg test_list test_long test_math
test_memoryview test_minidom test_operator test_ordered_dict test_patma test_pow test_property test_pyexpat
test_random test_re test_richcmp test_sax test_scope test_slice test_sort test_string test_struct test_super
test_syntax test_textwrap test_thread test_threadedtempfile test_tuple test_types test_typing test_unpack
test_userdict test_with test_zlib test_xml_etree_c'
few='test_binop test_call test_float test_generators test_heapq test_memoryview test_patma test_pyexpat test_struct'

prepare()
{
	cp "$source"/tests/programs/*.py .
	if "$program" -c 'import test.test_grammar' 2>/dev/null; then
		test -n "$full_run" || tests=$few
	else
		echo "lib$name-testsuite is not installed: Python's own tests are left out"
		tests=
	fi
}

workload()
{
	# The tool's thread is one that a fork() is warned of.
	probed -W 'ignore:This process:DeprecationWarning' ../input/tour.py
	test -z "$tests" || probed ../input/suite.py $tests
	probed -X importtime -c 'raise SystemExit(3)' 2>/dev/null
	probed -c 'import sys; print("to stderr", file=sys.stderr); 1 / 0' 2>&1
	echo 'print(2 ** 100); raise KeyError("x")' | probed -
	probed -c 'print(' 2>&1
	probed -m json.tool <<-END
		{"a": [1, 2.5, null], "b": {"c": "\u00e9"}}
	END
	probed -m dis ../input/suite.py | sed 's/0x[0-9a-f]*//g'
	probed -c 'import os; os.abort()'
	probed --version
}

quick='
128 11 allow gp probe
127 90 forbid gp probe
251 64 allow gp around
256 33 allow gp toggle
'
full='
16 all allow gp probe
64 5,21,37,53 forbid all probe
512 100,300 force gp probe
1 0 forbid gp probe
16 3,11 allow all around
32 7,23 forbid gp toggle
'
. "$(dirname "$0")/driver.sh"
