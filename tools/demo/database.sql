-- SPDX-License-Identifier: MIT
-- The demo's database: a small shop, always the same. ROWS is replaced by the number of order lines.
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
BEGIN;

CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT, city TEXT, joined TEXT, notes TEXT);
CREATE TABLE product (id INTEGER PRIMARY KEY, name TEXT, category TEXT, price REAL, attributes TEXT);
CREATE TABLE purchase (id INTEGER PRIMARY KEY, customer INTEGER REFERENCES customer, day TEXT, channel TEXT);
CREATE TABLE line (
	purchase INTEGER REFERENCES purchase, product INTEGER REFERENCES product, quantity INTEGER,
	price REAL, note TEXT);

-- n, and three scrambles of it that look random enough.
CREATE TEMP TABLE number AS
	WITH RECURSIVE count(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count WHERE n < ROWS)
	SELECT n, (n * 2654435761) % 1000003 AS a, (n * 40503 + 12345) % 999983 AS b,
	(n * n + 7 * n) % 99991 AS c FROM count;

INSERT INTO customer
	SELECT n, 'Customer ' || substr('AEIOUYBCDFG', 1 + a % 11, 1) || printf('%06d', b),
		'City ' || (a % 97), date('2015-01-01', '+' || (b % 3000) || ' days'),
		printf('likes %s and %s', hex(a), hex(b * 31 + c))
	FROM number WHERE n <= ROWS / 20;
INSERT INTO product
	SELECT n, printf('Product %s-%d', char(65 + a % 26, 65 + b % 26, 65 + c % 26), n), 'category ' || (c % 23),
		round(1 + a % 9973 / 10.0, 2),
		json_object('weight', a % 5000, 'colour', substr('redgrnblublkwht', 1 + 3 * (b % 5), 3),
			'tags', json_array('t' || (a % 7), 't' || (b % 11), 't' || (c % 13)))
	FROM number WHERE n <= ROWS / 50;
INSERT INTO purchase
	SELECT n, 1 + a % (ROWS / 20), date('2020-01-01', '+' || (b % 1461) || ' days'),
		CASE c % 3 WHEN 0 THEN 'web' WHEN 1 THEN 'shop' ELSE 'phone' END
	FROM number WHERE n <= ROWS / 4;
INSERT INTO line
	SELECT 1 + a % (ROWS / 4), 1 + b % (ROWS / 50), 1 + c % 9, round(1 + (a + c) % 9973 / 10.0, 2),
		printf('%x.%x', a * 7919, c * b)
	FROM number;

CREATE INDEX purchase_customer ON purchase (customer);
CREATE INDEX line_purchase ON line (purchase);
COMMIT;
ANALYZE;
