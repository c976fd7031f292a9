/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * System calls about signals with odd arguments are answered as the kernel answers them, and leave what it leaves: the
 * same calls are made in a process without the library and in one that it is in, and compared.
 */
#include "targets.h"

#include <sys/mman.h>
#include <sys/syscall.h>

#define NOTES 16384

struct notes {
	size_t count;
	long words[NOTES];
	int lines[NOTES];
};

static struct notes *notes; /* shared with the processes that make them */

static void note_at(int line, long word)
{
	if (notes->count < NOTES) {
		notes->words[notes->count] = word;
		notes->lines[notes->count++] = line;
	}
}

#define NOTE(word) note_at(__LINE__, (long)(word))

/* The kernel's, which libc's function does not let through. */
struct raw_action {
	void *handler;
	unsigned long flags;
	void *restorer;
	uint64_t mask;
};

#define BIT(signo) ((uint64_t)1 << ((signo)-1))
#define NOWHERE ((void *)8)
#define RESTORER 0x04000000UL

static const int signals[] = { SIGTRAP, SIGILL, SIGUSR1, SIGSEGV, 64 };

#define CALL(...) NOTE(syscall(__VA_ARGS__) == -1 ? -errno : 0)

static void note_mask(void)
{
	uint64_t now = 0;

	CALL(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &now, 8);
	NOTE(now);
}

static void odd_masks(void)
{
	uint64_t set, old = 0;

	for (int how = -1; how <= 3; ++how)
		for (long size = 0; size <= 16; size += 4)
			for (size_t i = 0; i < 16; ++i) {
				/* Both owned signals, one of them, another one; and what no program can block. */
				set = (i & 1 ? BIT(SIGTRAP) : 0) | (i & 2 ? BIT(SIGILL) : 0) |
				      (i & 4 ? BIT(SIGUSR1) : 0) | (i & 8 ? BIT(SIGKILL) | BIT(SIGSTOP) : 0);
				CALL(SYS_rt_sigprocmask, how, &set, &old, size);
				NOTE(old);
				CALL(SYS_rt_sigprocmask, how, &set, &set, size);
				NOTE(set);
				note_mask();
				CALL(SYS_rt_sigprocmask, how, NOWHERE, &old, size);
				note_mask();
				CALL(SYS_rt_sigprocmask, how, NULL, NOWHERE, size);
				/* It is set before the kernel finds that it cannot say what was. */
				set = BIT(signals[i % 3]);
				CALL(SYS_rt_sigprocmask, how, &set, NOWHERE, size);
				note_mask();
			}
	set = 0;
	CALL(SYS_rt_sigprocmask, SIG_SETMASK, &set, NULL, 8);
}

static void note_action(int signo)
{
	struct raw_action now = { 0 };

	CALL(SYS_rt_sigaction, signo, NULL, &now, 8);
	NOTE(now.handler);
	NOTE(now.flags);
	NOTE(now.restorer);
	NOTE(now.mask);
}

static void odd_actions(void)
{
	static const unsigned long flags[] = { 0, RESTORER, ~0UL & ~0x400UL, SA_RESTART, SA_RESETHAND | SA_NODEFER };
	static const uint64_t masks[] = { 0, ~(uint64_t)0, BIT(SIGKILL) | BIT(SIGTRAP) };
	static void *const handlers[] = { NULL, (void *)1, (void *)0x1234 };

	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); ++i)
		for (size_t k = 0; k < 5 * 3 * 3; ++k) {
			struct raw_action action = { handlers[k % 3], flags[k / 3 % 5], (void *)0x5678,
						     masks[k / 15] };
			struct raw_action old = { 0 };

			/* Without one the kernel ends the program at the signal: such a handler is left to it. */
			if (action.handler == handlers[2])
				action.flags |= RESTORER;
			CALL(SYS_rt_sigaction, signals[i], &action, &old, 8);
			NOTE(old.handler);
			note_action(signals[i]);
			CALL(SYS_rt_sigaction, signals[i], &action, &action, 8);
			NOTE(action.flags);
			NOTE(action.mask);
			CALL(SYS_rt_sigaction, signals[i], &action, NOWHERE, 8);
			CALL(SYS_rt_sigaction, signals[i], NOWHERE, NULL, 8);
			CALL(SYS_rt_sigaction, signals[i], &action, NULL, 4);
			note_action(signals[i]);
			action.handler = NULL;
			CALL(SYS_rt_sigaction, signals[i], &action, NULL, 8);
		}
	for (int signo = -1; signo <= 66; ++signo)
		if (signo != 32 && signo != 33)
			note_action(signo);
}

static void odd_waits(void)
{
	uint64_t set = BIT(SIGTRAP) | BIT(SIGUSR1);
	struct timespec times[] = { { 0, 0 }, { 0, -1 }, { -1, 0 }, { 0, 1000000000 }, { 0, 1000000 } };

	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); ++i) {
		CALL(SYS_rt_sigtimedwait, &set, NULL, &times[i], 8);
		CALL(SYS_rt_sigtimedwait, &set, NULL, &times[i], 4);
		CALL(SYS_rt_sigtimedwait, NOWHERE, NULL, &times[i], 8);
		CALL(SYS_ppoll, NULL, 0, &times[i], &set, 8);
		CALL(SYS_ppoll, NULL, 0, &times[i], &set, 4);
		CALL(SYS_ppoll, NULL, 0, &times[0], NOWHERE, 8);
		CALL(SYS_pselect6, 0, NULL, NULL, NULL, &times[0], NOWHERE);
		note_mask();
	}
	CALL(SYS_rt_sigtimedwait, &set, NULL, NOWHERE, 8);
	CALL(SYS_rt_sigsuspend, NOWHERE, 8);
	CALL(SYS_rt_sigsuspend, &set, 4);
	CALL(SYS_rt_sigpending, NOWHERE, 8);
	CALL(SYS_rt_sigpending, &set, 16);
	note_mask();
}

static void make_notes(struct notes *into, bool with_library)
{
	pid_t child;
	int status;

	notes = into;
	child = fork();
	REQUIRE(child >= 0);
	if (child == 0) {
		if (with_library && patch_init(NULL, 0) != PATCH_OK)
			_exit(2);
		odd_masks();
		odd_actions();
		odd_waits();
		_exit(0);
	}
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK_EQ(status, 0);
}

int main(void)
{
	struct notes *both;

	harness_start();
	both = mmap(NULL, 2 * sizeof(*both), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(both != MAP_FAILED);
	make_notes(&both[0], false);
	make_notes(&both[1], true);
	CHECK(both[0].count > 1000 && both[0].count < NOTES);
	CHECK_EQ(both[1].count, both[0].count);
	for (size_t i = 0; i < both[0].count; ++i)
		CHECK_MSG(both[0].words[i] == both[1].words[i], "line %d, note %zu: 0x%lx, without the library 0x%lx",
			  both[0].lines[i], i, both[1].words[i], both[0].words[i]);
	return harness_end();
}
