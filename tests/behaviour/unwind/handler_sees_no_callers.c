/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A signal handler that interrupts generated code anywhere sees the instruction that the code stands for, the function
 * that called, and its caller, as it does without patches: at each instruction of pads, hooks and copies, with each
 * unwinder that there is.
 *
 * The thread steps by TF. A handler of SIGTRAP that the library knows nothing of sends SIGUSR1 at each step, which
 * comes when it returns: there, in generated code. The handler of SIGUSR1, which the library knows, looks.
 */
#include "targets.h"

#include <dlfcn.h>
#include <execinfo.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unwind.h>

#include <libpatch/trap_handler.h>

#define FRAMES 64
#define TRAP_FLAG 0x100

struct frames {
	int count;
	void *pc[FRAMES];
};

/* ---- unwinders: fill in return addresses, as backtrace() does --------------------------------------------------- */

static _Unwind_Reason_Code on_frame(struct _Unwind_Context *context, void *data)
{
	struct frames *frames = data;

	if (frames->count < FRAMES)
		frames->pc[frames->count++] = (void *)_Unwind_GetIP(context);
	return _URC_NO_REASON;
}

static int by_libgcc(void **pc, int size)
{
	struct frames frames = { .count = 0 };

	_Unwind_Backtrace(on_frame, &frames);
	memcpy(pc, frames.pc, (size_t)(frames.count < size ? frames.count : size) * sizeof(*pc));
	return frames.count;
}

static struct unwinder {
	const char *name;
	int (*walk)(void **pc, int size);
	unsigned int checked;
} unwinders[3] = { { "libgcc", by_libgcc, 0 }, { "backtrace()", backtrace, 0 } };
static size_t unwinder_count = 2;

/* ---- what is under test ------------------------------------------------------------------------------------------ */

static const struct target *target;
static uintptr_t site;
static uintptr_t returns_to, outer_returns_to;
/* By unwinder: the function's instructions from which the frames are seen without patches. */
static uint8_t seen_before[3][512];
static bool before;
static unsigned int reported;

static int find(const struct frames *frames, int from, uintptr_t pc)
{
	while (from < frames->count && (uintptr_t)frames->pc[from] != pc)
		from++;
	return from;
}

/* `original`: 0 where the thread is not in the target's own code. */
static bool sees_all(const struct unwinder *unwinder, uintptr_t original)
{
	struct frames frames;
	int at = 0;

	frames.count = unwinder->walk(frames.pc, FRAMES);
	if (original != 0)
		at = find(&frames, 0, original);
	at = find(&frames, at, returns_to);
	return at + 1 < frames.count && find(&frames, at, outer_returns_to) < frames.count;
}

static bool in_target(uintptr_t pc)
{
	return pc >= target_start(target) && pc < (uintptr_t)target->end;
}

/* Returns whether the pc stands for one of the target's instructions. */
static bool find_original(uintptr_t pc, uintptr_t *original)
{
	*original = pc;
	return in_target(pc) || (patch_olx_original_pc(pc, original) == PATCH_OK && in_target(*original));
}

static void look(uintptr_t pc)
{
	uintptr_t original, needs = site;

	if (find_original(pc, &original))
		needs = original;
	else
		original = 0;
	for (size_t i = 0; i < unwinder_count; i++) {
		uint8_t *seen = &seen_before[i][needs - target_start(target)];

		if (before) {
			if (original != 0)
				*seen = sees_all(&unwinders[i], original);
		} else if (*seen) {
			unwinders[i].checked++;
			if (!sees_all(&unwinders[i], original) && reported++ < 20)
				FAIL("%s stops, pc %#zx, for %#zx", unwinders[i].name, (size_t)pc, (size_t)original);
		}
	}
}

static unsigned int looks;

/* Sent where the thread is about to execute the instruction at the handler's pc, or what stands for it. */
static void on_signal(int signo, siginfo_t *info, void *data)
{
	int saved = errno;

	(void)signo;
	(void)info;
	looks++;
	look((uintptr_t)((ucontext_t *)data)->uc_mcontext.gregs[REG_RIP]);
	errno = saved;
}

/* ---- steps ------------------------------------------------------------------------------------------------------ */

struct raw_sigaction {
	void (*handler)(int signo, siginfo_t *info, void *data);
	unsigned long flags;
	void (*restorer)(void);
	uint64_t mask;
};

/* In memory of no module, so that the library does not find the instruction. */
static long (*direct_call)(long number, long a, long b, long c, long d);
static void (*step_return)(void);

static void make_calls(void)
{
	static const uint8_t call[] = { 0x48, 0x89, 0xf8, 0x48, 0x89, 0xf7, 0x48, 0x89, 0xd6, /* mov: rax, rdi, rsi */
					0x48, 0x89, 0xca, 0x4d, 0x89, 0xc2, 0x0f, 0x05, 0xc3 };
	static const uint8_t end[] = { 0xb8, 0x0f, 0x00, 0x00, 0x00, 0x0f, 0x05 };
	uint8_t *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	REQUIRE(page != MAP_FAILED);
	memcpy(page, call, sizeof(call));
	memcpy(page + 64, end, sizeof(end));
	direct_call = (long (*)(long, long, long, long, long))(uintptr_t)page;
	step_return = (void (*)(void))(uintptr_t)(page + 64);
}

/*
 * Where a signal was sent in this call. What is interrupted in the middle of a hook may begin anew, so that a signal at
 * each step would be for ever.
 */
static uintptr_t visited[2048];
static size_t visited_count;

static bool visit(uintptr_t pc)
{
	for (size_t i = 0; i < visited_count; i++)
		if (visited[i] == pc)
			return false;
	REQUIRE(visited_count < sizeof(visited) / sizeof(visited[0]));
	visited[visited_count++] = pc;
	return true;
}

static void on_step(int signo, siginfo_t *info, void *data)
{
	greg_t *registers = ((ucontext_t *)data)->uc_mcontext.gregs;
	uintptr_t pc = (uintptr_t)registers[REG_RIP];
	uintptr_t original;

	if (info->si_code != TRAP_TRACE) {
		libpatch_on_trap(signo, info, data);
		return;
	}
	/* The first step in the function is at its entry. */
	if (returns_to == 0 && find_original(pc, &original))
		returns_to = *(const uintptr_t *)registers[REG_RSP];
	if (returns_to == 0)
		return;
	if (pc == returns_to)
		registers[REG_EFL] &= ~TRAP_FLAG;
	else if (visit(pc))
		direct_call(SYS_tgkill, direct_call(SYS_getpid, 0, 0, 0, 0), direct_call(SYS_gettid, 0, 0, 0, 0),
			    SIGUSR1, 0);
}

static void take_sigtrap(struct raw_sigaction *before_it)
{
	const struct raw_sigaction action = { on_step, SA_SIGINFO | 0x04000000, step_return, ~UINT64_C(0) };

	REQUIRE(direct_call(SYS_rt_sigaction, SIGTRAP, (long)&action, (long)before_it, 8) == 0);
}

static void give_sigtrap_back(const struct raw_sigaction *before_it)
{
	REQUIRE(direct_call(SYS_rt_sigaction, SIGTRAP, (long)before_it, 0, 8) == 0);
}

static NOINLINE uint64_t caller(uint64_t a, uint64_t b)
{
	target_function function = target->function;
	uint64_t value;

	outer_returns_to = (uintptr_t)__builtin_return_address(0);
	__asm__ volatile("pushfq; orl %0, (%%rsp); popfq" : : "i"(TRAP_FLAG) : "memory", "cc");
	value = function(a, b);
	__asm__ volatile("" : "+r"(value));
	return value;
}

static NOINLINE uint64_t outer(uint64_t a, uint64_t b)
{
	uint64_t value = caller(a, b);

	__asm__ volatile("" : "+r"(value));
	return value;
}

static void call_with_signals(void)
{
	unsigned int looks_before = looks;

	visited_count = 0;
	returns_to = outer_returns_to = 0;
	CHECK_EQ(outer(5, 7), target->model(5, 7));
	/* Those that come in a procedure merge, and come at its end (S10). */
	CHECK_MSG(visited_count > 1 && looks > looks_before && looks - looks_before <= visited_count,
		  "%zu steps, seen %u times", visited_count, looks - looks_before);
}

static unsigned int hits;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

/* One procedure, or two, which are called from a list. */
static void with_patches(int model_type, int policy, uint64_t clobber, int number)
{
	struct patch_exec_model model = model_of(model_type, procedure, NULL);
	patch_attr attr = attr_of(policy, PATCH_ENABLED);
	struct instructions list = target_decode(target);
	patch_t patches[2];

	model.probe.clobber_registers = clobber;
	for (unsigned int n = 0; n < list.count; n++) {
		struct patch_location location = location_at(list.address[n]);
		int made = 0;

		site = list.address[n];
		CONTEXT("%s+%#zx, %s, model %d, clobber %#llx, %d patches", target->name,
			(size_t)(site - list.address[0]), policy_name(policy), model_type, (unsigned long long)clobber,
			number);
		while (made < number && patch_make(&location, &model, &attr, &patches[made], NULL) == PATCH_OK)
			made++;
		if (made == number) {
			CHECK_OK(patch_commit());
			hits = 0;
			call_with_signals();
		} else if (model_type == PATCH_EXEC_MODEL_PROBE && policy == PATCH_TRAP_POLICY_ALLOW) {
			FAIL("make: %s", harness_last_error());
		}
		while (made > 0)
			CHECK_OK(patch_unmake(patches[--made]));
		CHECK_OK(patch_commit());
	}
}

static void with_target(void *argument)
{
	struct raw_sigaction before_it;

	target = argument;
	REQUIRE_OK(patch_init(NULL, 0));
	take_sigtrap(&before_it);
	memset(seen_before, 0, sizeof(seen_before));
	before = true;
	call_with_signals();
	before = false;
	with_patches(PATCH_EXEC_MODEL_PROBE, PATCH_TRAP_POLICY_ALLOW, PATCH_REGS_GP_ONLY, 1);
	with_patches(PATCH_EXEC_MODEL_PROBE, PATCH_TRAP_POLICY_FORCE, PATCH_REGS_ALL, 2);
	with_patches(PATCH_EXEC_MODEL_PROBE_AROUND, PATCH_TRAP_POLICY_ALLOW, PATCH_REGS_ALL, 1);
	for (size_t i = 0; i < unwinder_count; i++)
		CHECK_MSG(unwinders[i].checked > 300, "%s: %u times", unwinders[i].name, unwinders[i].checked);
	give_sigtrap_back(&before_it);
	CHECK_OK(patch_fini());
}

/* libunwind before version 1.4 tells addresses that are one less. */
static __attribute__((noinline)) bool tells_where_calls_return(const struct unwinder *unwinder)
{
	struct frames frames;

	frames.count = unwinder->walk(frames.pc, FRAMES);
	return find(&frames, 0, (uintptr_t)__builtin_return_address(0)) < frames.count;
}

int main(void)
{
	static const char *const names[] = { "t_push_push", "t_2_2_1", "t_1_4", "t_loop_to_second",
					     "t_call_last", "t_call_twice",   "t_call_indirect", "t_call_memory",
					     "t_call_stack_operand", "t_recurse", "t_redzone", "t_endbr_long",
					     "t_rip_load", "t_jmp_near", "t_tail_jmp", "t_switch", "t_jrcxz" };
	struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };
	void *libunwind = dlopen("libunwind.so.8", RTLD_NOW);
	struct frames frames;

	harness_start();
	if (libunwind != NULL) {
		unwinders[unwinder_count].name = "libunwind";
		unwinders[unwinder_count].walk =
			(int (*)(void **, int))(uintptr_t)dlsym(libunwind, "unw_backtrace");
		if (unwinders[unwinder_count].walk == NULL || !tells_where_calls_return(&unwinders[unwinder_count]))
			harness_skip_part("libunwind", "it is older than version 1.4");
		else
			unwinder_count++;
	}
	/* They load what they need. */
	for (size_t i = 0; i < unwinder_count; i++)
		unwinders[i].walk(frames.pc, FRAMES);
	make_calls();
	sigaction(SIGUSR1, &action, NULL);
	for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++)
		harness_isolated(names[n], with_target, (void *)target_named(names[n]));
	return harness_end();
}
