/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A program that is busy in the ways sanitizers and translators look at, without a race, leak or error of its own:
 * threads with locks and condition variables, memory, exceptions, signals of timers and threads, masks, children. What
 * it prints depends on its argument only, the number of rounds. It must not know of libpatch.
 */
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <pthread.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 3

static std::atomic<unsigned long> handled;

static void on_signal(int)
{
	int saved = errno;

	handled.fetch_add(1, std::memory_order_relaxed);
	errno = saved;
}

struct queue {
	std::mutex lock;
	std::condition_variable filled;
	std::vector<std::unique_ptr<std::string>> items;
};

static __attribute__((noinline)) unsigned long thrower(unsigned long number)
{
	std::string guard(number % 50, 'x');

	if (number % 3 == 0)
		throw std::runtime_error(guard + std::to_string(number));
	return guard.size();
}

static unsigned long chew(unsigned long number)
{
	std::map<std::string, unsigned long> table;
	unsigned long sum = 0;

	for (unsigned long i = 0; i < 20; i++)
		table[std::to_string((number * 2654435761u + i * i) % 1000)] += i;
	for (const auto &entry : table)
		sum = sum * 31 + entry.second + entry.first.size();
	try {
		sum += thrower(number);
	} catch (const std::exception &error) {
		sum += std::string(error.what()).size();
	}
	return sum;
}

static void block_for_a_moment()
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	free(malloc(100));
	pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

/* Some other thread takes out what this one puts in. */
static void work(queue *in, queue *out, unsigned long rounds, unsigned long *result)
{
	unsigned long sum = 0;

	for (unsigned long i = 0; i < rounds; i++) {
		std::unique_ptr<std::string> item;

		sum += chew(i);
		{
			std::lock_guard<std::mutex> guard(out->lock);
			out->items.push_back(std::make_unique<std::string>(std::to_string(i)));
		}
		out->filled.notify_one();
		{
			std::unique_lock<std::mutex> guard(in->lock);
			in->filled.wait(guard, [in] { return !in->items.empty(); });
			item = std::move(in->items.back());
			in->items.pop_back();
		}
		sum += item->size() > 0;
		if (i % 16 == 0)
			block_for_a_moment();
		if (i % 32 == 0)
			pthread_kill(pthread_self(), SIGUSR1);
	}
	*result = sum;
}

static void run_child()
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0)
		_exit(3);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 3)
		printf("the child ended with %#x\n", status);
}

int main(int, char **argv)
{
	static queue queues[THREADS];
	const struct itimerval often = {{0, 3000}, {0, 3000}}, never = {{0, 0}, {0, 0}};
	unsigned long rounds = strtoul(argv[1], nullptr, 0), results[THREADS];
	struct sigaction action = {};
	std::vector<std::thread> threads;

	action.sa_handler = on_signal;
	action.sa_flags = SA_RESTART;
	sigaction(SIGUSR1, &action, nullptr);
	sigaction(SIGALRM, &action, nullptr);
	setitimer(ITIMER_REAL, &often, nullptr);
	for (int i = 0; i < THREADS; i++)
		threads.emplace_back(work, &queues[i], &queues[(i + 1) % THREADS], rounds, &results[i]);
	for (int i = 0; i < 20; i++) {
		run_child();
		usleep(20000);
	}
	for (auto &thread : threads)
		thread.join();
	setitimer(ITIMER_REAL, &never, nullptr);
	for (unsigned long result : results)
		printf("%lu\n", result);
	printf("%s\n", handled ? "handled" : "no signal");
	return 0;
}
