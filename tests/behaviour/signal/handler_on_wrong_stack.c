/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A handler runs on the stack of signals if it has asked for it (SA_ONSTACK), and only then: also one for SIGTRAP or
 * SIGILL, which the kernel hands to the library on that stack. Every way to raise them, and what a handler may do: it
 * sees what was interrupted, changes registers and vectors in its frame, is interrupted by others, leaves by a jump,
 * disarms the stack. The same is seen with the library as without.
 */
#include "targets.h"

#include <pthread.h>
#include <setjmp.h>
#include <ucontext.h>

enum way { SENT, EXECUTED, IN_PROBED, WAYS };
enum deed { RETURNS, CHANGES, NESTS, JUMPS, DEEDS };

#define FLAGS_COUNT 4
static const int flags_of[FLAGS_COUNT] = { 0, SA_SIGINFO, SA_SIGINFO | SA_ONSTACK, SA_SIGINFO | SA_NODEFER };
#define AUTODISARM (1 << 31)

static uint8_t signal_stack[65536] __attribute__((aligned(16)));
static enum deed deed;
static int flags;
static sigjmp_buf out;
static unsigned int handled, nested;
static bool on_signal_stack, nested_on_signal_stack, armed;
static uintptr_t distance; /* from the interrupted stack pointer down to the handler */

static bool is_there(const void *place)
{
	return (uintptr_t)place - (uintptr_t)signal_stack < sizeof(signal_stack);
}

static void on_other(int signo)
{
	char here = 0;

	(void)signo;
	nested++;
	nested_on_signal_stack = is_there(&here);
}

static void on_signal(int signo, siginfo_t *info, void *data)
{
	ucontext_t *context = data;
	stack_t now;
	char here = 0;

	handled++;
	on_signal_stack = is_there(&here);
	sigaltstack(NULL, &now);
	armed = !(now.ss_flags & SS_DISABLE);
	if (flags & SA_SIGINFO) {
		CHECK_EQ(info->si_signo, signo);
		CHECK(is_there(context) == on_signal_stack && is_there(info) == on_signal_stack);
		CHECK(context->uc_stack.ss_sp == signal_stack && context->uc_stack.ss_size == sizeof(signal_stack));
		distance = (uintptr_t)context->uc_mcontext.gregs[REG_RSP] - (uintptr_t)&here;
		if (!on_signal_stack)
			CHECK(distance > 128 && distance < 32768);
	}
	switch (deed) {
	case RETURNS:
		break;
	case CHANGES:
		if (flags & SA_SIGINFO) {
			context->uc_mcontext.gregs[REG_R12] = 0x1234;
			context->uc_mcontext.fpregs->_xmm[7].element[0] = 0x5678;
		}
		break;
	case NESTS:
		raise(SIGUSR2);
		break;
	default:
		siglongjmp(out, 1);
	}
}

/* r12 and the lowest word of xmm7 behind it; both are 1 before. */
static void execute(int signo, uint64_t *r12, uint32_t *xmm7)
{
	uint64_t integer = 1;
	uint32_t word = 1;

	if (signo == SIGTRAP)
		__asm__ volatile("movd %1, %%xmm7\n\tmov %0, %%r12\n\tint3\n\tmov %%r12, %0\n\tmovd %%xmm7, %1"
				 : "+r"(integer), "+r"(word) : : "r12", "xmm7", "memory");
	else
		raise(signo);
	*r12 = integer;
	*xmm7 = word;
}

static void raise_it(int signo, enum way way)
{
	uint64_t r12 = 1;
	uint32_t xmm7 = 1;

	if (sigsetjmp(out, 1) != 0)
		return;
	switch (way) {
	case SENT:
		raise(signo);
		break;
	case EXECUTED:
		execute(signo, &r12, &xmm7);
		if (signo == SIGTRAP) {
			bool changed = deed == CHANGES && (flags & SA_SIGINFO);

			CHECK_EQ(r12, changed ? 0x1234 : 1);
			CHECK_EQ(xmm7, changed ? 0x5678 : 1);
		}
		break;
	default:
		pthread_kill(pthread_self(), signo);
		CHECK_EQ(t_five_bytes(5, 7), target_named("t_five_bytes")->model(5, 7));
		break;
	}
}

static void one(int signo, enum way way, const stack_t *stack)
{
	struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = flags };

	CONTEXT("signal %d, flags %#x, way %d, deed %d, stack's flags %#x", signo, (unsigned int)flags, (int)way,
		(int)deed, (unsigned int)stack->ss_flags);
	REQUIRE(sigaction(signo, &action, NULL) == 0);
	handled = nested = 0;
	raise_it(signo, way);
	CHECK_EQ(handled, 1);
	CHECK(on_signal_stack == ((flags & SA_ONSTACK) != 0));
	/* Wherever the handler runs. */
	CHECK(armed == !(stack->ss_flags & AUTODISARM));
	if (deed == NESTS)
		CHECK(nested == 1 && nested_on_signal_stack == on_signal_stack);
	/* A jump does not arm it again, without the library neither. */
	REQUIRE(sigaltstack(stack, NULL) == 0);
}

static void all(int autodisarm)
{
	static const int signals[] = { SIGTRAP, SIGILL, SIGUSR1 };
	const stack_t stack = { .ss_sp = signal_stack, .ss_size = sizeof(signal_stack), .ss_flags = autodisarm };

	REQUIRE(sigaltstack(&stack, NULL) == 0);
	for (size_t s = 0; s < sizeof(signals) / sizeof(signals[0]); s++) {
		for (unsigned int f = 0; f < FLAGS_COUNT; f++) {
			flags = flags_of[f];
			for (int way = 0; way < WAYS; way++)
				for (deed = 0; deed < DEEDS; deed++)
					one(signals[s], (enum way)way, &stack);
		}
	}
}

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static void *in_thread(void *with)
{
	all(0);
	all(AUTODISARM);
	return with;
}

static void part(void *with)
{
	struct sigaction other = { .sa_handler = on_other };
	pthread_t thread;
	patch_t patch;

	REQUIRE(sigaction(SIGUSR2, &other, NULL) == 0);
	if (with != NULL) {
		REQUIRE_OK(patch_init(NULL, 0));
		REQUIRE_OK(make_probe((uintptr_t)t_five_bytes, procedure, NULL, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED,
				      &patch));
		REQUIRE_OK(patch_commit());
	}
	in_thread(NULL);
	REQUIRE(pthread_create(&thread, NULL, in_thread, NULL) == 0);
	pthread_join(thread, NULL);
	if (with != NULL)
		CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	harness_isolated("without the library", part, NULL);
	harness_isolated("with the library", part, (void *)1);
	return harness_end();
}
