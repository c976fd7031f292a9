#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# java: compiled code, null pointers and overflows that are found by faults, and a collection.
program="java javac" package=openjdk-17-jdk-headless

prepare()
{
	cat >Load.java <<-'END'
		import java.io.File;
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

			static long workAll(ExecutorService threads) throws Exception {
				List<Future<Long>> results = new ArrayList<>();
				for (int i = 0; i < 100; i++) {
					final int seed = i;
					results.add(threads.submit(() -> work(seed)));
				}
				long sum = 0;
				for (Future<Long> result : results)
					sum += result.get();
				System.gc();
				return sum;
			}

			public static void main(String[] arguments) throws Exception {
				ExecutorService threads = Executors.newFixedThreadPool(4);
				File over = new File("report.over");
				long first = workAll(threads);
				while (!over.exists()) {
					long again = workAll(threads);
					if (again != first)
						System.out.println(again);
				}
				threads.shutdown();
				System.out.println(first);
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
