-- SPDX-License-Identifier: LGPL-2.1-or-later
-- For sqlite3.sh: nothing here depends on the time of day or on chance.
.bail off
PRAGMA page_size = 1024;
.mode csv
.import ../input/table.csv imported
.mode list
SELECT count(*) FROM imported;

CREATE TABLE word (id INTEGER PRIMARY KEY, text TEXT COLLATE NOCASE UNIQUE, weight REAL CHECK (weight >= 0), made BLOB);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
INSERT INTO word SELECT i, printf('w%x-%o', i * 2654435761 % 65521, i), i / 7.0, zeroblob(i % 50) FROM n;
CREATE INDEX word_weight ON word (weight DESC) WHERE id % 3 = 0;
CREATE VIEW heavy AS SELECT * FROM word WHERE weight > 200;
CREATE TABLE log (what TEXT, id INTEGER, at INTEGER GENERATED ALWAYS AS (id * 2) STORED);
CREATE TRIGGER gone AFTER DELETE ON word BEGIN INSERT INTO log (what, id) VALUES ('gone', old.id); END;
CREATE TRIGGER moved AFTER UPDATE OF weight ON word WHEN new.weight > old.weight
	BEGIN INSERT INTO log (what, id) VALUES ('moved', new.id); END;

BEGIN;
DELETE FROM word WHERE id % 10 = 3;
UPDATE word SET weight = weight * 1.5 WHERE id % 10 = 4;
SAVEPOINT here;
DELETE FROM word;
SELECT count(*) FROM log;
ROLLBACK TO here;
COMMIT;
SELECT what, count(*), sum(at) FROM log GROUP BY what;
INSERT INTO word (text, weight) VALUES ('W1-1', -1);
INSERT OR REPLACE INTO word (text, weight) SELECT text, weight + 1 FROM word WHERE id < 20;
INSERT INTO word (id, text, weight) VALUES (30, 'again',
	1) ON CONFLICT (id) DO UPDATE SET text = 'conflict' RETURNING *;
SELECT count(*), round(total(weight), 3), min(text), max(text) FROM heavy;
EXPLAIN QUERY PLAN SELECT * FROM word WHERE weight > 10 AND id % 3 = 0 ORDER BY weight DESC;
EXPLAIN SELECT a.id FROM word a, word b WHERE a.id = b.id + 1 AND a.text LIKE 'w1%';

-- Windows, recursion, sets
WITH RECURSIVE
	axis(x) AS (VALUES (-2.0) UNION ALL SELECT x + 0.1 FROM axis WHERE x < 0.7),
	other(y) AS (VALUES (-1.0) UNION ALL SELECT y + 0.1 FROM other WHERE y < 1.0),
	m(iter, cx, cy, x, y) AS (
		SELECT 0, x, y, 0.0, 0.0 FROM axis, other
		UNION ALL SELECT iter + 1, cx, cy, x * x - y * y + cx,
			2.0 * x * y + cy FROM m WHERE x * x + y * y < 4.0 AND iter < 20),
	m2(iter, cx, cy) AS (SELECT max(iter), cx, cy FROM m GROUP BY cx, cy),
	a(t) AS (SELECT group_concat(substr(' .+*#', 1 + min(iter / 5, 4), 1), '') FROM m2 GROUP BY cy)
SELECT group_concat(rtrim(t), char(10)) FROM a;
SELECT id, ntile(4) OVER w, lag(weight, 2, -1) OVER w, dense_rank() OVER (ORDER BY id % 7), percent_rank() OVER w,
	group_concat(id, '.') OVER (ORDER BY id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW EXCLUDE TIES)
FROM word WHERE id < 40 WINDOW w AS (PARTITION BY id % 5 ORDER BY weight);
SELECT id FROM word WHERE id < 50 EXCEPT SELECT id FROM word WHERE id % 2
	INTERSECT SELECT id + 1 FROM word ORDER BY 1 DESC;
SELECT * FROM (SELECT 1 AS a, 2 AS b) LEFT JOIN (SELECT 2 AS a, 3 AS c) USING (a) FULL JOIN (SELECT 5 AS z) ON z = a;

-- Functions
SELECT quote(1e308 * 10), quote(-0.0), 9223372036854775807 + 1, 7 / 0, 5 % 3.7, 1 << 62, ~5, '12abc' + 1,
	0x7fffffffffffffff;
SELECT printf('%08.3f|%-10s|%+d|%x|%e|%g|%!.20g|%c|%q|%w', 3.14159, 'left', 42, 255, 12345.678, 1e-7, 0.1, 'z',
	'it''s', 'a"b');
SELECT abs(-7), round(2.5), round(-1234.5678, 2), hex('abc'), instr('haystack', 'st'), replace('aXbX', 'X', '--'),
	unicode('é'),
	soundex('Robert'), trim('xxaxx', 'x'), substr('hello', -3, 2), upper('straße'), char(8364, 65), likely(1),
		nullif(1, 1);
SELECT date('2024-02-29', '+1 year'), julianday('2000-01-01 12:00'), strftime('%j %W %H:%M:%f', 1700000000.123,
	'unixepoch'),
	time('23:59:59', '+2 seconds'), date('2024-01-31', 'start of month', '+1 month', '-1 day', 'weekday 0');
SELECT json_extract('{"a":[1,{"b":"x\u00e9"}],"c":null}', '$.a[1].b'), json_patch('{"a":1,"b":2}',
	'{"a":null,"d":[true]}'),
	json_group_array(id) FROM word WHERE id < 8;
SELECT key, value, type, fullkey FROM json_tree('{"a":[1,2.5,"s",{"k":false}],"b":{}}');
SELECT sin(1), cos(2), exp(1), ln(10), pow(2, 0.5), atan2(1, 2), degrees(1), mod(17, 5), ceil(-1.5), sqrt(2), log2(10);
SELECT cast('12.5xyz' AS REAL), cast(1e20 AS INTEGER), cast(x'414243' AS TEXT), 'a' || NULL,
	1 IS NOT DISTINCT FROM NULL;

-- Virtual tables
CREATE VIRTUAL TABLE note USING fts5(title, body, tokenize = 'porter unicode61');
INSERT INTO note SELECT 'note ' || id,
	text || ' running ' || (id % 17) || ' jumps over lazy ' || (id % 23) FROM word WHERE id < 700;
SELECT title, snippet(note, 1, '[', ']', '...', 6), round(bm25(note),
	4) FROM note WHERE note MATCH 'run* AND lazy NOT 16'
	ORDER BY rank, title LIMIT 9;
INSERT INTO note (note) VALUES ('optimize');
SELECT count(*) FROM note WHERE note MATCH 'NEAR(jump lazi, 3) OR title : 5*';
CREATE VIRTUAL TABLE old USING fts4(x);
INSERT INTO old SELECT body FROM note WHERE rowid % 5 = 0;
SELECT hex(matchinfo(old, 'pcnalx')), offsets(old) FROM old WHERE old MATCH '"jumps over" run*' LIMIT 5;
CREATE VIRTUAL TABLE box USING rtree(id, x0, x1, y0, y1);
INSERT INTO box SELECT id, id % 37, id % 37 + 2, id % 41, id % 41 + 3 FROM word;
SELECT count(*), sum(id) FROM box WHERE x0 > 5 AND x1 < 12 AND y0 >= 3 AND y1 <= 30;
SELECT * FROM generate_series(5, 50, 9);

ALTER TABLE log ADD COLUMN extra TEXT DEFAULT 'none';
ALTER TABLE log RENAME COLUMN what TO happened;
ALTER TABLE log DROP COLUMN extra;
ANALYZE;
REINDEX;
PRAGMA integrity_check;
PRAGMA foreign_key_check;
PRAGMA journal_mode = WAL;
DELETE FROM word WHERE id > 1500;
PRAGMA wal_checkpoint(TRUNCATE);
PRAGMA journal_mode = DELETE;
ATTACH 'second.db' AS second;
CREATE TABLE second.word AS SELECT * FROM main.word WHERE id % 4 = 0;
SELECT count(*) FROM second.word JOIN main.word USING (id);
DETACH second;
VACUUM;
.schema
.mode box
SELECT id, text, weight FROM word WHERE id BETWEEN 100 AND 105;
.mode markdown
SELECT happened, id FROM log LIMIT 3;
.mode insert word
SELECT id, text, weight, made FROM word WHERE id < 6;
.mode column
.sha3sum
.backup copy.db
SELECT nonsense(;
SELECT * FROM missing;
