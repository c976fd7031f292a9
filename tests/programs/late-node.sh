#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# node: an HTTP server and its clients in one process, compression in other threads, and a worker.
program=node package=nodejs rounds=3

prepare()
{
	cat >load.js <<-'END'
		const http = require('http'), zlib = require('zlib'), crypto = require('crypto');
		const { Worker, isMainThread, parentPort } = require('worker_threads');
		const wanted = 2000;
		function work() {
			const hash = crypto.createHash('sha1');
			for (let i = 0; i < 2000; i++)
				hash.update(JSON.stringify(Array.from({ length: 50 }, (_, k) => [k, String(k * i)])));
			parentPort.postMessage(hash.digest('hex'));
		}
		function serve() {
			let sum = 0, answered = 0;
			const server = http.createServer((request, reply) =>
				zlib.gzip(request.url.repeat(200), (error, data) => reply.end(data)));
			const agent = new http.Agent({ keepAlive: true, maxSockets: 8 });
			function ask(i) {
				if (i >= wanted)
					return;
				http.get({ port: server.address().port, path: '/x' + i, agent }, reply => {
					const parts = [];
					reply.on('data', part => parts.push(part));
					reply.on('end', () => {
						sum += zlib.gunzipSync(Buffer.concat(parts)).toString().length + i;
						if (++answered === wanted) {
							console.log(sum);
							agent.destroy();
							server.close();
						}
						ask(i + 8);
					});
				});
			}
			server.listen(0, '127.0.0.1', () => { for (let i = 0; i < 8; i++) ask(i); });
			new Worker(__filename).on('message', text => console.error(text));
		}
		isMainThread ? serve() : work();
	END
}

workload()
{
	(late node load.js)
}

. "$(dirname "$0")/late-driver.sh"
