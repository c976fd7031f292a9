#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# The sqlite3 shell, its library and zlib, with a probe on every k-th instruction: the demo's database and queries, and
# what they leave out.
name=sqlite3 package=sqlite3 modules=main,libsqlite3.so.0,libz.so.1

prepare()
{
	sed 's/ROWS/2000/g' "$source/tools/demo/database.sql" >database.sql
	cp "$source/tools/demo/queries.sql" "$source/tests/programs/sqlite3.sql" .
	seq 1 3000 | awk '{ print $1 "," $1 * 7 % 1009 ",\"name " $1 % 13 "\"," $1 / 8 }' >table.csv
}

workload()
{
	probed shop.db <../input/database.sql
	probed shop.db <../input/queries.sql
	probed work.db <../input/sqlite3.sql
	probed work.db .dump
	probed -json work.db 'SELECT * FROM imported LIMIT 7; SELECT typeof(1.5e300 * 1e300)'
	probed work.db 'SELECT nothing FROM nowhere'
	probed archive.db -A -c ../input/table.csv ../input/database.sql
	probed archive.db -A -t
	probed archive.db 'SELECT name, mode, sz, hex(substr(data, 1, 40)) FROM sqlar'
	probed archive.db 'UPDATE sqlar SET mtime = 0; VACUUM'
	probed nowhere/none.db 'SELECT 1'
	probed -version
}

quick='
64 5 allow gp probe
61 19 forbid gp probe
67 40 allow all probe
61 29 allow gp around
64 33 allow gp toggle
'
full='
16 all allow gp probe
64 3,19,35,51 forbid all probe
512 1,100,300 force gp probe
1 0 allow gp probe
16 3,11 allow all around
32 7,23 forbid gp toggle
'
. "$(dirname "$0")/driver.sh"
