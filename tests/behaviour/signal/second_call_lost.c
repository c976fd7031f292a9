/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A signal comes at every few instructions of generated code in turn, the handler returns, and every call has come
 * once: where the instruction behind a displaced one, the function that it calls, or where it jumps to, has patches of
 * its own, which is what the program is shown while a second call is owed; and where the handler makes and commits a
 * patch, so that there is other code for the instruction.
 */
#include "harness.h"
#include "traced.h"

#include <sys/ptrace.h>
#include <sys/user.h>

/* All instructions are as long as a jump, so that each has code of its own. */
__asm__(".text\n.balign 16\n.type site, @function\nsite:\n.cfi_startproc\n"
	"site_0: .byte 0x0f, 0x1f, 0x44, 0, 0\n"
	"site_1: mov $7, %eax\n"
	"site_2: call site_callee\n"
	"site_3: add $0x100, %eax\n"
	"site_4: .byte 0x0f, 0x84\n.long 1f - . - 4\n"
	"site_5: .byte 0x0f, 0x85\n.long site_leaves_to - . - 4\n"
	"1:	ud2\n.cfi_endproc\n.size site, . - site\n"
	".balign 16\n.type site_callee, @function\nsite_callee:\n.cfi_startproc\n"
	"mov $8, %eax\nret\n.cfi_endproc\n.size site_callee, . - site_callee\n"
	".balign 16\n.type site_leaves_to, @function\nsite_leaves_to:\n.cfi_startproc\n"
	"add $0x100, %eax\nret\n.cfi_endproc\n.size site_leaves_to, . - site_leaves_to\n");
extern uint8_t site[], site_1[], site_2[], site_3[], site_4[], site_5[], site_callee[], site_leaves_to[];
#define RESULT 0x208
/* Each needs the steps before it. No stretch of a hook that matters is as short in all of them. */
#define STRIDE 17

static uint8_t *const places[] = { site, site_1, site_2, site_3, site_4, site_5, site_callee, site_leaves_to };
#define PLACES (sizeof(places) / sizeof(places[0]))
enum { CALLEE = 6, LEAVES_TO };

/* Patches that meet: at these places, and, with that, of the function and a counter at the first one. */
struct part {
	unsigned int places[2];
	bool function;
	int stack;
	bool changes; /* the handler makes other patches there */
};

struct calls {
	uint64_t number[PLACES][2];
	uint64_t returns[2], counted, handled, result;
};
static struct calls *calls; /* shared */

static GP_ONLY void around(struct patch_exec_context *context, uint8_t post)
{
	calls->number[(uintptr_t)context->user_data][post]++;
}

static GP_ONLY void returns(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	calls->returns[post]++;
}

static const struct part *part;

static patch_status make(uint8_t *place, struct patch_exec_model *model, int stack, patch_t *patch)
{
	struct patch_location location = location_at((uintptr_t)place);
	patch_attr attr = attr_of(PATCH_TRAP_POLICY_FORBID, PATCH_ENABLED);

	patch_attr_set_stack(&attr, stack);
	if (model->type != PATCH_EXEC_MODEL_COUNT)
		model->probe.clobber_registers = PATCH_REGS_NO_STATE;
	return patch_make(&location, model, &attr, patch, NULL);
}

/* Code is made anew, with one counter more. */
static void handler(int signo)
{
	(void)signo;
	calls->handled++;
	for (int i = 0; i < 2 && part->changes; i++) {
		static uint64_t unused;
		struct patch_exec_model model = { .type = PATCH_EXEC_MODEL_COUNT };
		patch_t patch;

		model.count.counter = &unused;
		make(places[part->places[i]], &model, PATCH_STACK_PROGRAM, &patch);
	}
	patch_commit();
}

static void prepare(void)
{
	struct patch_exec_model model;
	patch_t patch;

	REQUIRE_OK(patch_init(NULL, 0));
	signal(SIGUSR1, handler);
	for (int i = 0; i < 2; i++) {
		model = model_of(PATCH_EXEC_MODEL_PROBE_AROUND, around, (void *)(uintptr_t)part->places[i]);
		REQUIRE_OK(make(places[part->places[i]], &model, part->stack, &patch));
	}
	if (part->function) {
		model = model_of(PATCH_EXEC_MODEL_PROBE_RETURN, returns, NULL);
		REQUIRE_OK(make(site, &model, part->stack, &patch));
		model = (struct patch_exec_model){ .type = PATCH_EXEC_MODEL_COUNT };
		model.count.counter = &calls->counted;
		REQUIRE_OK(make(places[part->places[0]], &model, PATCH_STACK_PROGRAM, &patch));
	}
	REQUIRE_OK(patch_commit());
}

/* The tracer steps it from the first stop on. */
static void run(void)
{
	prepare();
	REQUIRE(((int (*)(void))site)() == RESULT);
	REQUIRE(ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0);
	for (;;) {
		memset(calls, 0, sizeof(*calls));
		raise(SIGSTOP);
		calls->result = ((uint64_t (*)(void))site)();
		raise(SIGSTOP);
	}
}

static uintptr_t pc_of(pid_t pid)
{
	struct user_regs_struct registers;

	REQUIRE(ptrace(PTRACE_GETREGS, pid, NULL, &registers) == 0);
	return registers.rip;
}

/* One instruction. A pushfq stores the flag by which it is stepped: the hook would put that back. */
static void step_one(pid_t pid)
{
	const bool pushes = (ptrace(PTRACE_PEEKTEXT, pid, (void *)pc_of(pid), NULL) & 0xff) == 0x9C;
	struct user_regs_struct registers;

	REQUIRE(go(pid, PTRACE_SINGLESTEP, 0) == SIGTRAP);
	if (pushes) {
		long word;

		REQUIRE(ptrace(PTRACE_GETREGS, pid, NULL, &registers) == 0);
		word = ptrace(PTRACE_PEEKDATA, pid, (void *)(uintptr_t)registers.rsp, NULL);
		REQUIRE(ptrace(PTRACE_POKEDATA, pid, (void *)(uintptr_t)registers.rsp, word & ~0x100L) == 0);
	}
}

/* To the site, and `steps` instructions further; false: it has returned before that. */
static bool step(pid_t pid, unsigned int steps)
{
	struct user_regs_struct registers;
	uintptr_t returns_to;
	uint64_t stack;

	while (pc_of(pid) != (uintptr_t)site)
		step_one(pid);
	REQUIRE(ptrace(PTRACE_GETREGS, pid, NULL, &registers) == 0);
	stack = registers.rsp;
	returns_to = (uintptr_t)ptrace(PTRACE_PEEKDATA, pid, (void *)stack, NULL);
	for (; steps > 0; steps--) {
		step_one(pid);
		if (pc_of(pid) == returns_to)
			return false;
	}
	return true;
}

static void check_calls(void)
{
	CHECK_EQ(calls->handled, 1);
	CHECK_EQ(calls->result, RESULT);
	for (int i = 0; i < 2; i++)
		for (int post = 0; post < 2; post++)
			CHECK_EQ(calls->number[part->places[i]][post], 1);
	if (part->function) {
		CHECK_EQ(calls->counted, 1);
		CHECK_EQ(calls->returns[0], 1);
		CHECK_EQ(calls->returns[1], 1);
	}
}

static pid_t start(void)
{
	pid_t pid = fork();
	int status;

	REQUIRE(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		run();
	}
	REQUIRE(waitpid(pid, &status, 0) == pid);
	REQUIRE(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
	return pid;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void check(void)
{
	unsigned int steps = 0;
	bool in_time = true;
	pid_t pid = start();

	for (; in_time && harness_failures < 10; steps += STRIDE) {
		int signo;

		CONTEXT("places %u and %u, stack %d, the handler %s, %u steps", part->places[0], part->places[1],
			part->stack, part->changes ? "changes patches" : "returns", steps);
		in_time = step(pid, steps);
		signo = go(pid, PTRACE_CONT, in_time ? SIGUSR1 : 0);
		/* It was blocked there, and comes now; or a trap byte is met. */
		while (signo == SIGUSR1 || signo == SIGTRAP || signo == SIGILL)
			signo = go(pid, PTRACE_CONT, signo);
		REQUIRE(signo == SIGSTOP);
		if (in_time)
			check_calls();
		if (part->changes) {
			/* Once there is code for more, it serves for less, too. */
			end(pid);
			pid = start();
		} else {
			REQUIRE(go(pid, PTRACE_CONT, 0) == SIGSTOP);
		}
	}
	CHECK_MSG(steps > 100 || harness_failures != 0, "%u steps", steps);
	end(pid);
}

int main(void)
{
	static const struct part parts[] = {
		{ { 0, 1 }, true, PATCH_STACK_PROGRAM, false },
		{ { 0, 1 }, false, PATCH_STACK_PROGRAM, true },
		{ { 0, 1 }, false, PATCH_STACK_OWN, false },
		{ { 2, CALLEE }, false, PATCH_STACK_PROGRAM, false },
		{ { 2, CALLEE }, false, PATCH_STACK_PROGRAM, true },
		{ { 4, 5 }, false, PATCH_STACK_PROGRAM, false },
		{ { 5, LEAVES_TO }, true, PATCH_STACK_PROGRAM, false },
		{ { 5, LEAVES_TO }, true, PATCH_STACK_PROGRAM, true },
	};

	harness_start();
	calls = mmap(NULL, sizeof(*calls), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	REQUIRE(calls != MAP_FAILED);
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		part = &parts[i];
		check();
	}
	return harness_end();
}
