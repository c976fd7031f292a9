-- SPDX-License-Identifier: MIT
-- What the demo asks: the sort of thing that people run on such a database. Nothing here depends on the time of day.
PRAGMA threads = 2;
PRAGMA cache_size = -4000;
PRAGMA temp.cache_size = -1000;

.print == turnover by channel and year
SELECT channel, strftime('%Y', day) AS year, count(DISTINCT purchase.id), sum(quantity), round(sum(quantity * price), 2)
FROM purchase JOIN line ON line.purchase = purchase.id
GROUP BY channel, year ORDER BY channel, year;

.print == the best customers, with their rank in their city
WITH spent AS (
	SELECT customer, sum(quantity * price) AS amount, count(*) AS items
	FROM purchase JOIN line ON line.purchase = purchase.id GROUP BY customer)
SELECT name, city, round(amount, 2), items, rank() OVER (PARTITION BY city ORDER BY amount DESC) AS place
FROM spent JOIN customer ON customer.id = spent.customer
ORDER BY amount DESC, name LIMIT 25;

.print == running total and moving average by day
SELECT day, total, round(sum(total) OVER (ORDER BY day), 2),
	round(avg(total) OVER (ORDER BY day ROWS BETWEEN 6 PRECEDING AND CURRENT ROW), 2)
FROM (SELECT day, round(sum(quantity * price), 2) AS total
	FROM purchase JOIN line ON line.purchase = purchase.id GROUP BY day)
ORDER BY day;

.print == words
SELECT count(*) FROM line WHERE note LIKE '%dead%' OR note LIKE 'a_c%f';
SELECT count(*) FROM line WHERE note GLOB '*[0-9][a-f][0-9][a-f]*';
SELECT count(*), min(name), max(name) FROM customer WHERE notes LIKE '%7%7%' AND upper(city) LIKE 'CITY 1%';
SELECT substr(note, 1, 2) AS head, count(*), group_concat(DISTINCT quantity)
FROM (SELECT * FROM line ORDER BY note, rowid)
GROUP BY head ORDER BY count(*) DESC, head LIMIT 20;

.print == large sorts, with worker threads
CREATE TEMP TABLE sorted AS SELECT rowid AS source, note, price, quantity FROM line ORDER BY note DESC, price, rowid;
SELECT count(*), sum(rowid * length(note)) FROM sorted;
SELECT count(*), sum(position * source) FROM
	(SELECT source, row_number() OVER (ORDER BY price DESC, note, source) AS position FROM sorted);

.print == indexes of a copy
CREATE TEMP TABLE copy AS SELECT line.rowid AS id, line.*, day, channel
FROM line JOIN purchase ON line.purchase = purchase.id;
CREATE INDEX temp.copy_note ON copy (note);
CREATE INDEX temp.copy_price ON copy (price, quantity);
CREATE UNIQUE INDEX temp.copy_id ON copy (day, id);
SELECT count(*) FROM copy WHERE note BETWEEN '4' AND '5';
SELECT round(sum(price), 2) FROM copy INDEXED BY copy_price WHERE price BETWEEN 100 AND 200 AND quantity = 5;
UPDATE copy SET price = round(price * 1.07, 2), note = note || '!' WHERE quantity > 6;
DELETE FROM copy WHERE id % 3 = 0;
SELECT count(*), round(sum(price * quantity), 2), count(DISTINCT note) FROM copy;
PRAGMA temp.integrity_check;

.print == JSON
SELECT json_extract(attributes, '$.colour') AS colour, count(*), sum(json_extract(attributes, '$.weight'))
FROM product GROUP BY colour ORDER BY colour;
SELECT tag.value, count(*), round(avg(price), 3) FROM product, json_each(attributes, '$.tags') AS tag
GROUP BY tag.value ORDER BY tag.value;
SELECT sum(length(json_set(attributes, '$.price', price, '$.tags[3]', json_array(id, name)))) FROM product;

.print == recursion
WITH RECURSIVE
	x(x) AS (SELECT -2.0 UNION ALL SELECT x + 0.05 FROM x WHERE x < 1.2),
	y(y) AS (SELECT -1.0 UNION ALL SELECT y + 0.1 FROM y WHERE y < 1.0),
	mandelbrot(n, cx, cy, x, y) AS (
		SELECT 0, x, y, 0.0, 0.0 FROM x, y
		UNION ALL
		SELECT n + 1, cx, cy, x * x - y * y + cx, 2.0 * x * y + cy
	FROM mandelbrot WHERE x * x + y * y < 4.0 AND n < 28),
	iterations(n, cx, cy) AS (SELECT max(n), cx, cy FROM mandelbrot GROUP BY cx, cy),
	picture(t) AS (
		SELECT group_concat(substr(' .+*#', 1 + min(n / 7, 4), 1), '')
FROM (SELECT * FROM iterations ORDER BY cy, cx)
		GROUP BY cy)
SELECT group_concat(rtrim(t), x'0a') FROM picture;
WITH RECURSIVE walk(step, customer) AS (
	SELECT 0, 1 UNION ALL
	SELECT step + 1, (SELECT 1 + (customer.id * 7919 + length(notes)) % (SELECT max(id) FROM customer)
		FROM customer WHERE customer.id = walk.customer) FROM walk WHERE step < 5000)
SELECT count(DISTINCT customer), sum(customer * step) FROM walk;

.print == correlated subqueries, set operations, a query plan
SELECT count(*) FROM customer WHERE NOT EXISTS (
	SELECT 1 FROM purchase WHERE purchase.customer = customer.id AND day >= '2023-01-01');
SELECT count(*) FROM (
	SELECT product FROM line WHERE quantity = 9 INTERSECT SELECT product FROM line WHERE quantity = 1
	EXCEPT SELECT id FROM product WHERE price < 50);
SELECT category, count(*), round(avg(dearer), 4) FROM (
	SELECT category, (SELECT count(*) FROM product AS other WHERE other.category = product.category
		AND other.price > product.price) AS dearer FROM product WHERE id <= 4000)
GROUP BY category ORDER BY category;
EXPLAIN QUERY PLAN SELECT name FROM customer JOIN purchase ON purchase.customer = customer.id WHERE channel = 'web';

.print == error messages are output too
SELECT no_such_column FROM customer;
SELECT json_extract('{broken', '$');
