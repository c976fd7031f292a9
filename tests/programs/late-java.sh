#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# java: compiled code, null pointers and overflows that are found by faults, and a collection.
program="java javac" package=openjdk-17-jdk-headless

prepare()
{
	cat >Load.java <<-'END'
		import java.util.*;
		import java.util.concurrent.*;

		public class Load {
			static int deep(int n) { return deep(n + 1) + 1; }

			static long work(int seed) {
				Map<String, Integer> map = new HashMap<>();
				long sum = 0;
				for (int i = 0; i < 3000; i++) {
					String text = i % 5 == 0 ? null : "k" + i * seed;
					try {
						sum += text.length();
						map.put(text, i);
					} catch (NullPointerException error) {
						sum++;
					}
				}
				try {
					deep(0);
				} catch (StackOverflowError error) {
					sum += 7;
				}
				return sum + map.size();
			}

			public static void main(String[] arguments) throws Exception {
				ExecutorService threads = Executors.newFixedThreadPool(4);
				List<Future<Long>> results = new ArrayList<>();
				for (int i = 0; i < 400; i++) {
					final int seed = i;
					results.add(threads.submit(() -> work(seed)));
				}
				long sum = 0;
				for (Future<Long> result : results)
					sum += result.get();
				threads.shutdown();
				System.gc();
				System.out.println(sum);
			}
		}
	END
	javac Load.java
}

workload()
{
	(late java -cp . Load)
}

. "$(dirname "$0")/late-driver.sh"
