/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A program that is busy in the ways sanitizers and translators look at, without a race, leak or error of its own:
 * threads with locks and condition variables, memory, exceptions, signals of timers and threads, masks, children. It
 * does the same, with new threads, until there is a file. What it prints depends on the number of rounds only. It must
 * not know of libpatch.
 *
 * busy ROUNDS FILE
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

/* Where no other thread runs, ThreadSanitizer takes those that have not been joined for leaks of a child. */
static std::mutex children_lock;
static std::condition_variable children_gone;
static bool has_children;

static void wait_for_children()
{
	std::unique_lock<std::mutex> guard(children_lock);

	children_gone.wait(guard, [] { return !has_children; });
}

static void set_children(bool has)
{
	std::lock_guard<std::mutex> guard(children_lock);

	has_children = has;
	children_gone.notify_all();
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
	wait_for_children();
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

static void do_all(unsigned long rounds, unsigned long *results)
{
	queue queues[THREADS];
	std::vector<std::thread> threads;

	set_children(true);
	for (int i = 0; i < THREADS; i++)
		threads.emplace_back(work, &queues[i], &queues[(i + 1) % THREADS], rounds, &results[i]);
	for (int i = 0; i < 3; i++)
		run_child();
	set_children(false);
	for (auto &thread : threads)
		thread.join();
}

int main(int, char **argv)
{
	const struct itimerval often = {{0, 3000}, {0, 3000}}, never = {{0, 0}, {0, 0}};
	unsigned long rounds = strtoul(argv[1], nullptr, 0), results[THREADS], again[THREADS];
	struct sigaction action = {};

	action.sa_handler = on_signal;
	action.sa_flags = SA_RESTART;
	sigaction(SIGUSR1, &action, nullptr);
	sigaction(SIGALRM, &action, nullptr);
	setitimer(ITIMER_REAL, &often, nullptr);
	do_all(rounds, results);
	while (access(argv[2], F_OK) != 0) {
		do_all(rounds, again);
		for (int i = 0; i < THREADS; i++)
			if (again[i] != results[i])
				printf("%lu, was %lu\n", again[i], results[i]);
	}
	setitimer(ITIMER_REAL, &never, nullptr);
	for (unsigned long result : results)
		printf("%lu\n", result);
	printf("%s\n", handled ? "handled" : "no signal");
	return 0;
}
