#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# guile: exceptions and garbage, which Boehm's collector looks for with threads that block every signal.
program=guile package=guile-3.0 modules=main,libc.so.6,libguile-3.0.so.1

prepare()
{
	cat >load.scm <<-'END'
		(define (work n)
		  (let loop ((i 0) (sum 0))
		    (if (< i 400)
		        (loop (+ i 1)
		              (+ sum
		                 (catch #t (lambda () (if (zero? (modulo i 5)) (car '()) i)) (lambda _ 1))
		                 (string-length (string-append (number->string (* i i i n)) "x"))
		                 (apply + (map (lambda (x) (* x i)) (iota 200 n)))))
		        sum)))
		(define (all)
		  (let loop ((k 0) (sum 0)) (if (< k 7) (loop (+ k 1) (+ sum (work k))) sum)))
		(define first (all))
		(let loop ()
		  (if (not (file-exists? "report.over"))
		      (let ((again (all)))
		        (if (not (= again first)) (begin (display again) (newline)))
		        (loop))))
		(display first)
		(newline)
	END
}

workload()
{
	(late guile --no-auto-compile load.scm)
}

. "$(dirname "$0")/late-driver.sh"
