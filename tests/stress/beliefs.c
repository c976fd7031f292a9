/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A random program that makes every call about signals, without the library, with it from the start, and with it from
 * a random moment on. What the program sees is the same: results, masks, the masks in the frames of its handlers, the
 * order of handlers, what is pending, what it inherits and leaves behind. Handlers change their masks, edit their
 * frames, wait, leave by siglongjmp(), with the mask and without, and do all of that in one another.
 *
 * beliefs [programs [first]]
 */
#include "harness.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <ucontext.h>

#define ACTS 40
#define MOST_ACTS 3000
#define DEPTH 6
#define LOG_SIZE (1 << 20)
#define JUMPS 60

enum start { NEVER, AT_ONCE, LATE };

/* What the program has seen so far: shared with the parent, as it may be killed. */
static struct log {
	size_t size;
	char text[LOG_SIZE];
} *log_;

static uint64_t seed;
static int depth, acts, jump_count, init_at;
static sigjmp_buf jumps[JUMPS];
static struct landing {
	int depth;
	bool has_mask;
} landings[JUMPS];
static bool is_started;

static const int numbers[] = { SIGUSR1, SIGUSR2, SIGHUP, SIGTERM, SIGALRM, SIGTRAP, SIGILL, 40 };
#define NUMBERS (int)(sizeof(numbers) / sizeof(*numbers))

static unsigned int pick(unsigned int count)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return (unsigned int)(seed >> 33) % count;
}

static int pick_signal(void)
{
	return numbers[pick((unsigned int)NUMBERS)];
}

__attribute__((format(printf, 1, 2))) static void tell(const char *format, ...)
{
	va_list arguments;
	int length;

	if (log_->size >= LOG_SIZE - 256)
		return;
	va_start(arguments, format);
	length = snprintf(log_->text + log_->size, 240, "%*s", 2 * depth, "");
	length += vsnprintf(log_->text + log_->size + length, (size_t)(240 - length), format, arguments);
	va_end(arguments);
	log_->text[log_->size + (size_t)length] = '\n';
	log_->size += (size_t)length + 1;
}

/* Which of the signals that this is about. */
static unsigned int bits(const sigset_t *set)
{
	unsigned int result = 0;

	for (int i = 0; i < NUMBERS; i++)
		result |= (unsigned int)(sigismember(set, numbers[i]) == 1) << i;
	return result;
}

static void pick_set(sigset_t *set)
{
	sigemptyset(set);
	for (int i = 0; i < NUMBERS; i++)
		if (pick(2))
			sigaddset(set, numbers[i]);
}

static void look(const char *what)
{
	sigset_t mask, pending;

	sigprocmask(SIG_BLOCK, NULL, &mask);
	sigpending(&pending);
	tell("%s: mask %x pending %x", what, bits(&mask), bits(&pending));
}

static void act(void);

static NOINLINE void handler(int signo, siginfo_t *info, void *data)
{
	ucontext_t *context = data;

	depth++;
	tell("handler %d code %d value %d frame %x", signo, info->si_code,
	     info->si_code == SI_QUEUE ? info->si_value.sival_int : 0, bits(&context->uc_sigmask));
	look("in it");
	for (unsigned int n = depth < DEPTH ? pick(3) : 0; n > 0; n--)
		act();
	if (pick(4) == 0) {
		for (int i = 0; i < NUMBERS; i++)
			(pick(2) ? sigaddset : sigdelset)(&context->uc_sigmask, numbers[i]);
		tell("edited %x", bits(&context->uc_sigmask));
	}
	if (pick(6) == 0 && jump_count > 0) {
		tell("jump");
		siglongjmp(jumps[jump_count - 1], 1);
	}
	depth--;
}

static void set_action(void)
{
	struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO }, old;
	int signo = pick_signal(), result;

	if (pick(2))
		action.sa_flags |= SA_NODEFER;
	if (pick(3) == 0)
		action.sa_flags |= SA_RESETHAND;
	if (pick(2))
		action.sa_flags |= SA_RESTART;
	if (pick(8) == 0)
		action.sa_handler = SIG_IGN;
	pick_set(&action.sa_mask);
	result = sigaction(signo, &action, &old);
	tell("action %d: %d, was %d flags %x mask %x", signo, result,
	     old.sa_handler == SIG_DFL ? 0 : old.sa_handler == SIG_IGN ? 1 : old.sa_sigaction == handler ? 2 : 3,
	     (unsigned int)old.sa_flags, bits(&old.sa_mask));
}

/* Can it come without ending the program? */
static bool is_handled(int signo)
{
	struct sigaction action;

	return sigaction(signo, NULL, &action) == 0 && action.sa_handler != SIG_DFL;
}

static void send(int signo)
{
	union sigval value = { .sival_int = (int)pick(100) };

	if (!is_handled(signo))
		return;
	switch (pick(3)) {
	case 0:
		tell("raise %d", signo);
		raise(signo);
		break;
	case 1:
		tell("kill %d", signo);
		kill(getpid(), signo);
		break;
	default:
		tell("queue %d", signo);
		sigqueue(getpid(), signo, value);
	}
	look("sent");
}

/* A wait that does not last: no time, or a signal that is pending. */
static void wait_with_mask(void)
{
	struct timespec none = { 0, 1 };
	struct epoll_event event;
	sigset_t mask;
	int result, way = (int)pick(4), poll_fd;

	pick_set(&mask);
	switch (way) {
	case 0:
		result = ppoll(NULL, 0, &none, &mask);
		break;
	case 1:
		result = pselect(0, NULL, NULL, NULL, &none, &mask);
		break;
	case 2:
		poll_fd = epoll_create1(0);
		result = epoll_pwait(poll_fd, &event, 1, 0, &mask);
		close(poll_fd);
		break;
	default: {
		int signo = pick_signal();
		sigset_t one, before;

		if (!is_handled(signo))
			return;
		sigemptyset(&one);
		sigaddset(&one, signo);
		sigprocmask(SIG_BLOCK, &one, &before);
		raise(signo);
		sigdelset(&mask, signo);
		/* An ignored one would not end it. */
		sigpending(&one);
		if (sigismember(&one, signo) && is_handled(signo)) {
			struct sigaction action;

			sigaction(signo, NULL, &action);
			tell("suspend %x", bits(&mask));
			if (action.sa_handler != SIG_IGN) {
				result = sigsuspend(&mask);
				tell("suspended: %d %d", result, errno);
			}
		}
		look("behind it");
		sigprocmask(SIG_SETMASK, &before, NULL);
		return;
	}
	}
	tell("wait %d with %x: %d %d", way, bits(&mask), result, result < 0 ? errno : 0);
	look("behind it");
}

static void take(void)
{
	struct timespec none = { 0, 0 };
	sigset_t wanted, blocked;
	siginfo_t info;
	int result;

	/* Others may be handled instead. */
	sigprocmask(SIG_BLOCK, NULL, &blocked);
	pick_set(&wanted);
	for (int i = 0; i < NUMBERS; i++)
		if (!sigismember(&blocked, numbers[i]))
			sigdelset(&wanted, numbers[i]);
	result = sigtimedwait(&wanted, &info, &none);
	tell("take %x: %d code %d", bits(&wanted), result, result > 0 ? info.si_code : -errno);
}

static void set_jump(void)
{
	const int at = jump_count;

	if (at >= JUMPS)
		return;
	landings[at] = (struct landing){ depth, pick(2) != 0 };
	jump_count++;
	if (sigsetjmp(jumps[at], landings[at].has_mask) == 0) {
		act();
		act();
		if (jump_count > at)
			jump_count = at;
	} else {
		/*
		 * Only now is jumps[at] free for another one: siglongjmp() restores the mask before it reads the rest
		 * of it, and a handler that comes then may make jumps of its own.
		 */
		jump_count = at;
		depth = landings[at].depth;
		look(landings[at].has_mask ? "landed with the mask" : "landed");
	}
}

static void child(void)
{
	int status, before = depth;
	pid_t pid = fork();

	if (pid == 0) {
		depth += 20;
		look("child");
		act();
		_exit(7);
	}
	waitpid(pid, &status, 0);
	depth = before;
	tell("child: %x", status);
}

static void execute(void)
{
	static char name[] = "/no/such/program";
	char *arguments[] = { name, NULL };

	execve(name, arguments, arguments + 1);
	tell("execve: %d", errno);
	look("behind it");
}

static void act(void)
{
	sigset_t set, old;
	int how, result;

	if (++acts > MOST_ACTS)
		return;
	switch (pick(16)) {
	case 0:
	case 1:
	case 2:
		pick_set(&set);
		how = (int)pick(3);
		result = sigprocmask(how, &set, &old);
		tell("mask %d %x: %d, was %x", how, bits(&set), result, bits(&old));
		look("now");
		break;
	case 3:
	case 4:
		set_action();
		break;
	case 5:
	case 6:
	case 7:
		send(pick_signal());
		break;
	case 8:
	case 9:
	case 10:
		wait_with_mask();
		break;
	case 11:
		take();
		break;
	case 12:
	case 13:
		set_jump();
		break;
	case 14:
		if (pick(4) == 0)
			child();
		break;
	default:
		if (pick(3) == 0)
			execute();
		else
			look("look");
	}
}

static void nothing(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

/* Probes on what the program runs through. */
static void start_library(void)
{
	patch_t patch;

	is_started = true;
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make_probe((uintptr_t)handler, nothing, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
	REQUIRE_OK(make_probe((uintptr_t)tell, nothing, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	REQUIRE_OK(make_probe((uintptr_t)sigprocmask, nothing, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &patch));
	REQUIRE_OK(patch_commit());
}

static int run_program(uint64_t number, enum start start)
{
	pid_t pid;
	int status;

	log_->size = 0;
	pid = fork();
	REQUIRE(pid >= 0);
	if (pid == 0) {
		int at;

		seed = number * 7919 + 1;
		init_at = (int)pick(ACTS / 2);
		alarm(60);
		if (start == AT_ONCE)
			start_library();
		for (int i = 0; i < 5; i++)
			set_action();
		for (at = 0; at < ACTS; at++) {
			/* A thread that blocks owned signals by then believes so from then on. */
			if (start == LATE && at == init_at)
				start_library();
			act();
			depth = 0;
			jump_count = 0;
		}
		_exit(harness_failures != 0);
	}
	REQUIRE(waitpid(pid, &status, 0) == pid);
	return status;
}

static char first[LOG_SIZE];

static bool compare(uint64_t number, enum start start, int status, size_t size)
{
	int other = run_program(number, start);
	size_t at = 0;

	if (other == status && log_->size == size && memcmp(first, log_->text, size) == 0)
		return true;
	while (at < size && at < log_->size && first[at] == log_->text[at])
		at++;
	while (at > 0 && first[at - 1] != '\n')
		at--;
	harness_say("program %llu, started %s: status %x, without the library %x\n"
		    "without: %.*s\nwith:    %.*s\nbefore it:\n%.*s\n",
		    (unsigned long long)number, start == LATE ? "late" : "at once", (unsigned int)other,
		    (unsigned int)status, (int)strcspn(first + at, "\n"), first + at,
		    (int)strcspn(log_->text + at, "\n"), log_->text + at, (int)(at < 900 ? at : 900),
		    first + (at < 900 ? 0 : at - 900));
	return false;
}

int main(int argc, char **argv)
{
	const char *seconds = getenv("LIBPATCH_STRESS_SECONDS");
	unsigned long programs = seconds ? strtoul(seconds, NULL, 10) * 100 : 100, from = 1, differ = 0, died = 0;

	if (argc > 1)
		programs = strtoul(argv[1], NULL, 10);
	if (argc > 2)
		from = strtoul(argv[2], NULL, 10);
	harness_start_seconds(120 + (unsigned int)programs);
	log_ = mmap(NULL, sizeof(*log_), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(log_ != MAP_FAILED);
	for (unsigned long number = from; number < from + programs && differ < 5; number++) {
		int status = run_program(number, NEVER);
		size_t size = log_->size;

		memcpy(first, log_->text, size);
		died += status != 0;
		/* Nobody sends it: such a program has an error of its own, and tells nothing. */
		CHECK_MSG(!WIFSIGNALED(status) || WTERMSIG(status) != SIGSEGV, "program %lu is at fault", number);
		differ += !compare(number, AT_ONCE, status, size);
		differ += !compare(number, LATE, status, size);
	}
	CHECK_EQ(differ, 0);
	/* They are ended by a default action now and then, not as a rule. */
	CHECK(programs < 10 || died < programs / 2);
	harness_say("%lu programs, %lu ended by a signal\n", programs, died);
	return harness_end();
}
