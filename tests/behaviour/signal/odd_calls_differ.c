/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * System calls about signals with odd arguments are answered as the kernel answers them, and leave what it leaves: the
 * same calls are made in a process without the library and in one that it is in, and compared.
 */
#include "targets.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>

/* Linux 5.11 */
#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

#define NOTES 131072

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

/* ---- every combination of good and bad arguments ----------------------------------------------------------------- */

/* The kernel has the lower half of these: a number, `how`, a signal's number. */
#define WITH_UPPER(number) ((long)(number) | 0x500000000)

static const long sizes[] = { 0, 4, 8, 9, 16, WITH_UPPER(8) };

#define SIZES (sizeof(sizes) / sizeof(sizes[0]))

/* Eight bytes of which the last four are not there. */
static uint64_t *at_end(void)
{
	static char *pages;

	if (pages == NULL) {
		pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		REQUIRE(pages != MAP_FAILED && munmap(pages + 4096, 4096) == 0);
	}
	return (uint64_t *)(pages + 4092);
}

/* What is given to a call, fresh each time; and what the call leaves of it. */
static struct given {
	struct timespec time;
	uint64_t mask;
	struct pollfd poll;
	uint64_t set[16];
	struct epoll_event events[2];
	siginfo_t info;
	struct {
		void *mask;
		long size;
	} sixth;
	struct {
		uint64_t mask;
		uint32_t size;
		uint32_t unused;
		uint64_t time;
	} argument;
} given;

static void give(const struct timespec *time, uint64_t mask)
{
	memset(&given, 0xA5, sizeof(given));
	given.time = *time;
	given.mask = mask;
	given.poll = (struct pollfd){ .fd = 0, .events = 0, .revents = 0x55 };
	memset(given.set, 0, sizeof(given.set));
}

static uint64_t sum_of(const void *bytes, size_t size)
{
	uint64_t sum = 14695981039346656037UL;

	for (size_t i = 0; i < size; ++i)
		sum = (sum ^ ((const uint8_t *)bytes)[i]) * 1099511628211UL;
	return sum;
}

/* Without addresses. */
#define NOTE_GIVEN()                                                                                                   \
	do {                                                                                                           \
		memset(&given.sixth, 0, sizeof(given.sixth));                                                          \
		memset(&given.argument, 0, sizeof(given.argument));                                                    \
		NOTE(sum_of(&given, sizeof(given)));                                                                   \
	} while (0)

static const struct timespec times[] = { { 0, 0 }, { 0, -1 }, { -1, 0 }, { 0, 1000000000 } };

/* Of a wait: which time, none of them for ever; which mask; which size. */
#define WAYS (5 * 5 * SIZES)

static struct timespec *time_of(size_t way)
{
	return way % 5 == 4 ? NOWHERE : &given.time;
}

static void *mask_of(size_t way)
{
	void *const masks[] = { NULL, NOWHERE, at_end(), &given.mask, &given.mask };

	return masks[way / 5 % 5];
}

static long size_of(size_t way)
{
	return sizes[way / 25];
}

static void give_for(size_t way)
{
	give(&times[way % 5 % 4], way / 5 % 5 == 3 ? BIT(SIGTRAP) | BIT(SIGUSR1) : ~(uint64_t)0);
}

static void bad_waits(void)
{
	const int epoll = epoll_create1(0);
	uint8_t parameters[120] = { 0 };
	const int ring = (int)syscall(SYS_io_uring_setup, 4, parameters);
	unsigned long context = 0;

	CALL(SYS_io_setup, 4, &context);
	for (size_t way = 0; way < WAYS; ++way) {
		/* Beside them, one of the call's other arguments is bad, too, or none. */
		for (int bad = 0; bad < 3; ++bad) {
			give_for(way);
			CALL(SYS_ppoll, bad == 1 ? NOWHERE : &given.poll, bad == 2 ? -1L : 1, time_of(way),
			     mask_of(way), size_of(way));
			NOTE_GIVEN();
			give_for(way);
			CALL(SYS_epoll_pwait, bad == 1 ? -1 : epoll, &given.events, bad == 2 ? 0 : 1, 0, mask_of(way),
			     size_of(way));
			NOTE_GIVEN();
			give_for(way);
			CALL(SYS_epoll_pwait2, bad == 1 ? -1 : epoll, &given.events, bad == 2 ? 0 : 1, time_of(way),
			     mask_of(way), size_of(way));
			NOTE_GIVEN();
			give_for(way);
			given.sixth.mask = mask_of(way);
			given.sixth.size = size_of(way);
			CALL(SYS_pselect6, bad == 1 ? -1 : 1, bad == 2 ? NOWHERE : &given.set, NULL, NULL, time_of(way),
			     &given.sixth);
			NOTE_GIVEN();
			give_for(way);
			given.sixth.mask = mask_of(way);
			given.sixth.size = size_of(way);
			CALL(SYS_io_pgetevents, bad == 1 ? 0 : context, 0L, bad == 2 ? -1L : 1L, NULL, time_of(way),
			     &given.sixth);
			NOTE_GIVEN();
			/* Nothing is waited for. */
			give_for(way);
			CALL(SYS_io_uring_enter, bad == 1 ? -1 : ring, 0, 0, bad == 2 ? 1 | 1 << 20 : 1, mask_of(way),
			     size_of(way));
			give_for(way);
			given.argument.mask = (uintptr_t)mask_of(way);
			given.argument.size = (uint32_t)size_of(way);
			given.argument.unused = 0;
			given.argument.time = (uintptr_t)time_of(way);
			/* This one takes it for a second. */
			given.time.tv_nsec %= 1000000000;
			CALL(SYS_io_uring_enter, bad == 1 ? -1 : ring, 0, 1, 1 | 8,
			     bad == 2 ? at_end() : (void *)&given.argument, sizeof(given.argument));
		}
		give_for(way);
		CALL(SYS_pselect6, 0, NULL, NULL, NULL, time_of(way), way % 2 ? NOWHERE : at_end());
		if (mask_of(way) != &given.mask || size_of(way) != 8)
			CALL(SYS_rt_sigsuspend, mask_of(way), size_of(way));
		NOTE_GIVEN();
		note_mask();
	}
	close(epoll);
	close(ring);
}

static void send(int how)
{
	const union sigval value = { .sival_int = 77 };

	if (how == 1 || how == 4)
		REQUIRE(syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGTRAP) == 0);
	if (how == 2)
		REQUIRE(kill(getpid(), SIGTRAP) == 0);
	if (how == 3)
		REQUIRE(sigqueue(getpid(), SIGTRAP, value) == 0);
	if (how >= 4)
		REQUIRE(kill(getpid(), SIGUSR1) == 0);
}

static void note_pending(void)
{
	for (long size = 0; size <= 9; ++size) {
		uint64_t pending = ~(uint64_t)0;

		CALL(SYS_rt_sigpending, &pending, size);
		NOTE(pending);
	}
	CALL(SYS_rt_sigpending, at_end(), 4);
	CALL(SYS_rt_sigpending, at_end(), 8);
}

/* With each kind of signal that may be pending; what is left is taken. */
static void bad_takes(void)
{
	uint64_t blocked = BIT(SIGTRAP) | BIT(SIGUSR1);
	const uint64_t sets[] = { BIT(SIGTRAP), BIT(SIGUSR1), BIT(SIGTRAP) | BIT(SIGUSR1) | BIT(SIGKILL) };

	CALL(SYS_rt_sigprocmask, SIG_SETMASK, &blocked, NULL, 8);
	for (size_t way = 0; way < WAYS; ++way)
		for (size_t set = 0; set < 3; ++set)
			for (int sent = 0; sent <= 5; ++sent)
				for (int bad = 0; bad < 4; ++bad) {
					void *const infos[] = { &given.info, NULL, NOWHERE, at_end() };

					/* An order of its own for each of many, as they are: the mask is the set. */
					if ((way + set + (size_t)sent) % 4 != (size_t)bad)
						continue;
					send(sent);
					give(&times[way % 5 % 4], sets[set]);
					CALL(SYS_rt_sigtimedwait, mask_of(way), infos[bad], time_of(way), size_of(way));
					/* The sender's number is another one. */
					if (given.info.si_signo == SIGTRAP || given.info.si_signo == SIGUSR1)
						given.info.si_pid = 0;
					NOTE_GIVEN();
					note_pending();
					give(&times[0], ~(uint64_t)0);
					while (syscall(SYS_rt_sigtimedwait, &given.mask, NULL, &given.time, 8) > 0)
						continue;
				}
	for (size_t size = 0; size < SIZES; ++size)
		for (int flags = 0; flags < 2; ++flags)
			for (int way = 0; way < 3; ++way) {
				void *const masks[] = { &blocked, NOWHERE, at_end() };
				long fd = syscall(SYS_signalfd4, -1, masks[way], sizes[size], flags ? 1 : SFD_NONBLOCK);

				NOTE(fd >= 0 ? 0 : -errno);
				if (fd >= 0)
					close((int)fd);
			}
	blocked = 0;
	CALL(SYS_rt_sigprocmask, SIG_SETMASK, &blocked, NULL, 8);
}

/* With numbers of which the kernel has only the lower half. */
static void upper_halves(void)
{
	for (int i = 0; i < 8; ++i) {
		uint64_t set = BIT(SIGTRAP) | BIT(SIGUSR1);
		struct raw_action action = { (void *)1, 0, NULL, 0 }, old = { 0 };
		const struct timespec none = { 0, 0 };
		const bool number = i & 1, argument = i & 2;

#define NUMBER(call) (number ? WITH_UPPER(call) : (call))
#define ARGUMENT(value) (argument ? WITH_UPPER(value) : (value))
		CALL(NUMBER(SYS_rt_sigprocmask), ARGUMENT(i & 4 ? SIG_BLOCK : SIG_SETMASK), &set, NULL, 8);
		/* Here is a trap of the library's. */
		NOTE(t_push_push(1, 2));
		note_mask();
		send(1);
		note_pending();
		CALL(NUMBER(SYS_rt_sigtimedwait), &set, NULL, &none, 8);
		note_pending();
		CALL(NUMBER(SYS_ppoll), NULL, ARGUMENT(0), &none, &set, 8);
		CALL(NUMBER(SYS_rt_sigprocmask), ARGUMENT(SIG_UNBLOCK), &set, NULL, 8);
		note_mask();
		CALL(NUMBER(SYS_rt_sigaction), ARGUMENT(SIGTRAP), &action, &old, 8);
		NOTE(old.handler);
		note_action(SIGTRAP);
		action.handler = NULL;
		CALL(NUMBER(SYS_rt_sigaction), ARGUMENT(SIGTRAP), &action, &old, 8);
		NOTE(old.handler);
	}
}

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static void begin(void)
{
	patch_t patch;

	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	REQUIRE_OK(patch_commit());
}

static void make_notes(struct notes *into, bool with_library)
{
	pid_t child;
	int status;

	notes = into;
	child = fork();
	REQUIRE(child >= 0);
	if (child == 0) {
		if (with_library)
			begin();
		odd_masks();
		odd_actions();
		odd_waits();
		bad_waits();
		bad_takes();
		upper_halves();
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
