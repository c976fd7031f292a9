#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# nginx, which answers requests, compressed and not, in one process.
program="nginx curl" package="nginx-light curl"

prepare()
{
	mkdir html
	seq 5000 >html/numbers.txt
	cat >configuration <<-END
		daemon off; master_process off; pid $scratch/pid; error_log $scratch/errors;
		events { worker_connections 64; }
		http {
			access_log off; gzip on; gzip_types text/plain;
			client_body_temp_path $scratch/body; proxy_temp_path $scratch/proxy;
			fastcgi_temp_path $scratch/fastcgi; uwsgi_temp_path $scratch/uwsgi;
			scgi_temp_path $scratch/scgi;
			types { text/plain txt; }
			server { listen unix:$scratch/socket; root $scratch/html; }
		}
	END
}

ask()
{
	curl -s --unix-socket socket "$@"
}

workload()
{
	rm -f socket
	late nginx -c "$scratch/configuration" -p "$scratch" 2>log &
	server=$!
	until ask -o answer http://localhost/numbers.txt; do
		kill -0 $server || exit 1
		sleep 0.05
	done
	until test -e "$report.over"; do
		ask --compressed -o answer http://localhost/numbers.txt && cmp answer html/numbers.txt || exit 1
		ask -o answer http://localhost/numbers.txt && cmp answer html/numbers.txt || exit 1
	done
	ask --compressed http://localhost/numbers.txt | cksum
	ask -o answer -w '%{http_code}\n' http://localhost/none
	kill -QUIT $server
	wait $server
}

. "$(dirname "$0")/late-driver.sh"
