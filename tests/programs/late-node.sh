#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# node: an HTTP server and its clients in one process, compression in other threads, and a worker.
program=node package=nodejs rounds=3

prepare()
{
	cat >load.js <<-'END'
		const http = require('http'), zlib = require('zlib'), crypto = require('crypto');
		const fs = require('fs');
		const { Worker, isMainThread, parentPort } = require('worker_threads');
		const wanted = 200;
		const is_over = () => fs.existsSync('report.over');
		function work() {
			const hash = crypto.createHash('sha1');
			for (let i = 0; i < 200; i++)
				hash.update(JSON.stringify(Array.from({ length: 50 }, (_, k) => [k, String(k * i)])));
			parentPort.postMessage(hash.digest('hex'));
		}
		function serve() {
			let asked = 0, asking = 8, digest = null;
			const server = http.createServer((request, reply) =>
				zlib.gzip(request.url.repeat(200), (error, data) => reply.end(data)));
			const agent = new http.Agent({ keepAlive: true, maxSockets: 8 });
			function ask() {
				const i = asked++ % wanted;
				const address = { host: '127.0.0.1', port: server.address().port };
				http.get({ ...address, path: '/x' + i, agent }, reply => {
					const parts = [];
					reply.on('data', part => parts.push(part));
					reply.on('end', () => {
						const length = zlib.gunzipSync(Buffer.concat(parts)).toString().length;
						if (length !== 200 * ('/x' + i).length)
							console.log(i, length);
						if (asked < wanted || !is_over())
							return ask();
						if (--asking === 0) {
							agent.destroy();
							server.close();
						}
					});
				});
			}
			server.listen(0, '127.0.0.1', () => { for (let i = 0; i < asking; i++) ask(); });
			const start = () => new Worker(__filename).on('message', text => {
				if (digest === null || digest !== text)
					console.log(digest = text);
				if (!is_over())
					start();
			});
			start();
		}
		isMainThread ? serve() : work();
	END
}

workload()
{
	(late node load.js)
}

. "$(dirname "$0")/late-driver.sh"
