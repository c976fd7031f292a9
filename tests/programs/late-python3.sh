#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# python3: threads, exceptions, a timer's signals, children.
program=python3 package=python3

prepare()
{
	cat >load.py <<-'END'
		import hashlib, json, os, signal, subprocess, threading, zlib
		signal.signal(signal.SIGALRM, lambda signo, frame: None)
		signal.setitimer(signal.ITIMER_REAL, .001, .003)
		results = {}
		def work(n):
		    digest = hashlib.sha256()
		    for i in range(100):
		        text = json.dumps({str(k): [k * 1.5, k % 7, "x" * (k % 11)] for k in range(40)})
		        digest.update(zlib.compress(text.encode()))
		        try:
		            json.loads(text[:-1])
		        except ValueError as error:
		            digest.update(str(error).encode())
		    results[n] = digest.hexdigest()
		def do_all():
		    said = []
		    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
		    for thread in threads:
		        thread.start()
		    for i in range(5):
		        said.append(subprocess.run(["/bin/echo", str(i)], capture_output=True).stdout)
		        pid = os.fork()
		        if pid == 0:
		            os._exit(i)
		        said.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
		    for thread in threads:
		        thread.join()
		    return str((said, sorted(results.items())))
		first = do_all()
		while not os.path.exists("report.over"):
		    again = do_all()
		    if again != first:
		        print(again)
		signal.setitimer(signal.ITIMER_REAL, 0)
		print(first)
	END
}

workload()
{
	python=/usr/bin/python3
	test -x $python || python=python3
	(late $python load.py)
}

. "$(dirname "$0")/late-driver.sh"
