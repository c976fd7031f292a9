/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * SIGTRAP and SIGILL that others send, by each means that the kernel has for it, to a thread that handles, blocks or
 * ignores them: what comes is what comes without the library, and the thread still meets traps.
 */
#include "targets.h"

#include <fcntl.h>
#include <mqueue.h>
#include <poll.h>

#ifndef F_OWNER_TID
#define F_OWNER_TID 0
#endif
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#define SYS_pidfd_open 434
#endif
#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

#define VALUE 4711

static const int signals[] = { SIGTRAP, SIGILL, SIGUSR1 };

#define SIGNALS_SENT (sizeof(signals) / sizeof(signals[0]))

static pid_t self(void)
{
	return (pid_t)syscall(SYS_gettid);
}

static siginfo_t queued(int signo)
{
	siginfo_t info;

	memset(&info, 0, sizeof(info));
	info.si_signo = signo;
	info.si_code = SI_QUEUE;
	info.si_pid = getpid();
	info.si_uid = getuid();
	info.si_value.sival_int = VALUE;
	return info;
}

/* ---- means: false where there is none ---------------------------------------------------------------------------- */

static bool by_kill(int signo)
{
	return kill(getpid(), signo) == 0;
}

static bool by_tkill(int signo)
{
	return syscall(SYS_tkill, self(), signo) == 0;
}

static bool by_tgkill(int signo)
{
	return syscall(SYS_tgkill, getpid(), self(), signo) == 0;
}

static bool by_queue(int signo)
{
	const siginfo_t info = queued(signo);

	return syscall(SYS_rt_sigqueueinfo, getpid(), signo, &info) == 0;
}

static bool by_thread_queue(int signo)
{
	const siginfo_t info = queued(signo);

	return syscall(SYS_rt_tgsigqueueinfo, getpid(), self(), signo, &info) == 0;
}

static bool by_pidfd(int signo)
{
	const siginfo_t info = queued(signo);
	int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	bool sent = fd >= 0 && syscall(SYS_pidfd_send_signal, fd, signo, &info, 0) == 0;

	if (fd >= 0)
		close(fd);
	return sent;
}

static bool by_timer_to(int signo, int notify)
{
	struct sigevent event = { .sigev_notify = notify, .sigev_signo = signo };
	struct itimerspec once = { .it_value = { 0, 1 } };
	timer_t timer;

	event.sigev_value.sival_int = VALUE;
	if (notify & SIGEV_THREAD_ID)
		event.sigev_notify_thread_id = self();
	if (timer_create(CLOCK_MONOTONIC, &event, &timer) != 0)
		return false;
	timer_settime(timer, 0, &once, NULL);
	do
		timer_gettime(timer, &once);
	while (once.it_value.tv_nsec != 0);
	return true;
}

static bool by_timer(int signo)
{
	return by_timer_to(signo, SIGEV_SIGNAL);
}

static bool by_thread_timer(int signo)
{
	return by_timer_to(signo, SIGEV_SIGNAL | SIGEV_THREAD_ID);
}

/* SI_SIGIO, as these signals have codes of their own. */
static bool by_file_to(int signo, int type)
{
	const struct {
		int type;
		pid_t pid;
	} owner = { type, type == F_OWNER_TID ? self() : getpid() };
	int ends[2];

	if (pipe(ends) != 0 || fcntl(ends[0], F_SETOWN_EX, &owner) != 0 || fcntl(ends[0], F_SETSIG, signo) != 0 ||
	    fcntl(ends[0], F_SETFL, O_ASYNC) != 0 || write(ends[1], "x", 1) != 1)
		return false;
	close(ends[0]);
	close(ends[1]);
	return true;
}

static bool by_file(int signo)
{
	return by_file_to(signo, 1 /* F_OWNER_PID */);
}

static bool by_thread_file(int signo)
{
	return by_file_to(signo, F_OWNER_TID);
}

static bool by_message(int signo)
{
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = signo };
	struct mq_attr attributes = { .mq_maxmsg = 1, .mq_msgsize = 8 };
	char name[32];
	mqd_t queue;

	snprintf(name, sizeof(name), "/libpatch-%d", (int)getpid());
	event.sigev_value.sival_int = VALUE;
	queue = mq_open(name, O_RDWR | O_CREAT, 0600, &attributes);
	if (queue == (mqd_t)-1)
		return false;
	mq_unlink(name);
	if (mq_notify(queue, &event) != 0 || mq_send(queue, "x", 1, 0) != 0)
		return false;
	mq_close(queue);
	return true;
}

/* A child's end, with a code that an instruction's signal has, too, and its process id where that has an address. */
static bool by_childs_end(int signo)
{
	pid_t child = (pid_t)syscall(SYS_clone, signo, 0, 0, 0, 0);

	if (child == 0)
		_exit(VALUE & 0x7F);
	return child > 0 && waitpid(child, NULL, __WALL) == child;
}

static bool by_killed_child(int signo)
{
	pid_t child = (pid_t)syscall(SYS_clone, signo, 0, 0, 0, 0);

	if (child == 0) {
		raise(SIGKILL);
		_exit(1);
	}
	return child > 0 && waitpid(child, NULL, __WALL) == child;
}

/* A process may say anything to itself. */
static bool by_code(int signo, int code)
{
	siginfo_t info = queued(signo);

	info.si_code = code;
	return syscall(SYS_rt_sigqueueinfo, getpid(), signo, &info) == 0;
}

#define BY_CODE(name, code) \
	static bool name(int signo) \
	{ \
		return by_code(signo, code); \
	}

BY_CODE(by_code_1, 1)
BY_CODE(by_code_2, 2)
BY_CODE(by_code_3, 3)
BY_CODE(by_code_4, 4)
BY_CODE(by_code_5, 5)
BY_CODE(by_code_of_kernel, SI_KERNEL)

/* The parent's end, in a process of its own: all states have been gone through behind it. */
static bool by_parents_end(int signo)
{
	return prctl(PR_SET_PDEATHSIG, signo) == 0;
}

static const struct means {
	const char *name;
	bool (*send)(int signo);
} means[] = {
	{ "kill", by_kill },
	{ "tkill", by_tkill },
	{ "tgkill", by_tgkill },
	{ "rt_sigqueueinfo", by_queue },
	{ "rt_tgsigqueueinfo", by_thread_queue },
	{ "pidfd_send_signal", by_pidfd },
	{ "timer", by_timer },
	{ "a thread's timer", by_thread_timer },
	{ "F_SETSIG", by_file },
	{ "F_SETSIG, of a thread", by_thread_file },
	{ "mq_notify", by_message },
	{ "a child's end", by_childs_end },
	{ "a killed child", by_killed_child },
	{ "the code of TRAP_BRKPT", by_code_1 },
	{ "the code of TRAP_TRACE", by_code_2 },
	{ "the code of TRAP_BRANCH", by_code_3 },
	{ "the code of TRAP_HWBKPT", by_code_4 },
	{ "the code of TRAP_UNK", by_code_5 },
	{ "SI_KERNEL", by_code_of_kernel },
	{ "PR_SET_PDEATHSIG", by_parents_end },
};

#define MEANS (sizeof(means) / sizeof(means[0]))

/* ---- what comes -------------------------------------------------------------------------------------------------- */

enum state { HANDLED, HANDLED_WHEN_UNBLOCKED, TAKEN, IGNORED, IGNORED_WHEN_BLOCKED, STATES };

static struct seen {
	int sent, count, signo, code, value, pending;
	int result; /* of a probe's function */
} *seen; /* shared: without the library, and with it */

static struct seen *now;

static void note(const siginfo_t *info)
{
	now->count++;
	now->signo = info->si_signo;
	now->code = info->si_code;
	/* Where that is, a child's end has its status. */
	now->value = info->si_code == SI_QUEUE || info->si_code == SI_TIMER || info->si_code == SI_MESGQ ||
				     info->si_code > 0 ?
			     info->si_value.sival_int :
			     0;
}

static void on_signal(int signo, siginfo_t *info, void *context)
{
	(void)signo;
	(void)context;
	note(info);
}

static bool is_pending(int signo)
{
	sigset_t pending;

	sigpending(&pending);
	return sigismember(&pending, signo);
}

static void set_state(enum state state, int signo)
{
	struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, signo);
	if (state == IGNORED || state == IGNORED_WHEN_BLOCKED)
		action = (struct sigaction){ .sa_handler = SIG_IGN };
	REQUIRE(sigaction(signo, &action, NULL) == 0);
	REQUIRE(sigprocmask(state == HANDLED || state == IGNORED ? SIG_UNBLOCK : SIG_BLOCK, &set, NULL) == 0);
}

/* Until it has come, or is pending; what is ignored does neither. */
static void wait_for(enum state state, int signo)
{
	while (state == HANDLED && now->count == 0)
		poll(NULL, 0, 0);
	while ((state == HANDLED_WHEN_UNBLOCKED || state == TAKEN) && !is_pending(signo))
		poll(NULL, 0, 0);
}

static void finish(enum state state, int signo)
{
	const struct timespec none = { 0, 0 };
	siginfo_t info;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, signo);
	if (state == TAKEN && sigtimedwait(&set, &info, &none) == signo)
		note(&info);
	if (state == HANDLED_WHEN_UNBLOCKED)
		REQUIRE(sigprocmask(SIG_UNBLOCK, &set, NULL) == 0);
	now->pending = state != IGNORED_WHEN_BLOCKED && is_pending(signo);
}

static void go_through(const struct means *by, enum state state, int signo)
{
	int ready[2];
	pid_t child;
	char byte;

	set_state(state, signo);
	if (by->send != by_parents_end) {
		now->sent = by->send(signo);
	} else {
		/* Another parent between the two, which ends. */
		REQUIRE(pipe(ready) == 0);
		child = fork();
		if (child != 0) {
			close(ready[1]);
			REQUIRE(read(ready[0], &byte, 1) <= 1);
			_exit(0);
		}
		now->sent = by->send(signo);
		REQUIRE(write(ready[1], "x", 1) == 1);
		close(ready[0]);
	}
	if (now->sent)
		wait_for(state, signo);
	now->result = (int)t_push_push(5, 7);
	finish(state, signo);
	now->result += (int)t_push_push(5, 7);
}

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

/* Each in a process of its own, whose children count. */
static void all_of(bool with_library, const struct means *by)
{
	size_t index = (size_t)(by - means) * STATES * SIGNALS_SENT;

	for (int state = 0; state < STATES; state++)
		for (size_t i = 0; i < SIGNALS_SENT; i++, index++) {
			int ends[2];
			pid_t child;
			char byte;

			now = &seen[(with_library ? MEANS * STATES * SIGNALS_SENT : 0) + index];
			CONTEXT("%s, state %d, signal %d, %s the library", by->name, state, signals[i],
				with_library ? "with" : "without");
			/* Closed by the last process that has it. */
			REQUIRE(pipe(ends) == 0);
			child = fork();
			if (child == 0) {
				patch_t patch;

				close(ends[0]);
				if (with_library) {
					REQUIRE_OK(patch_init(NULL, 0));
					REQUIRE_OK(make_probe((uintptr_t)t_push_push, procedure, NULL,
							      PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
					REQUIRE_OK(patch_commit());
				}
				go_through(by, (enum state)state, signals[i]);
				_exit(0);
			}
			close(ends[1]);
			REQUIRE(read(ends[0], &byte, 1) == 0);
			close(ends[0]);
			REQUIRE(waitpid(child, NULL, 0) == child);
		}
}

int main(void)
{
	const size_t count = MEANS * STATES * SIGNALS_SENT;

	harness_start();
	seen = mmap(NULL, 2 * count * sizeof(*seen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(seen != MAP_FAILED);
	for (size_t i = 0; i < MEANS; i++) {
		all_of(false, &means[i]);
		all_of(true, &means[i]);
	}
	for (size_t i = 0; i < count; i++) {
		const struct seen *without = &seen[i], *with = &seen[count + i];

		CONTEXT("%s, state %zu, signal %d", means[i / SIGNALS_SENT / STATES].name, i / SIGNALS_SENT % STATES,
			signals[i % SIGNALS_SENT]);
		if (!without->sent)
			harness_skip_part(means[i / SIGNALS_SENT / STATES].name, "not to be had here");
		else
			CHECK_EQ(without->count, i / SIGNALS_SENT % STATES < IGNORED);
		CHECK_MSG(memcmp(without, with, sizeof(*with)) == 0,
			  "sent %d, %d times signal %d, code %d, value %d, pending %d, result %d; "
			  "without the library %d, %d, %d, %d, %d, %d, %d",
			  with->sent, with->count, with->signo, with->code, with->value, with->pending, with->result,
			  without->sent, without->count, without->signo, without->code, without->value,
			  without->pending, without->result);
	}
	return harness_end();
}
