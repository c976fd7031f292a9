/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A signal handler that interrupts generated code anywhere sees the instruction that the code stands for, the function
 * that called, and its caller, as it does without patches: at each instruction of pads, hooks and copies, with each
 * unwinder that there is.
 */
#include "targets.h"

#include <dlfcn.h>
#include <execinfo.h>
#include <ucontext.h>
#include <unwind.h>

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

static void look(uintptr_t pc, uintptr_t rsp)
{
	uintptr_t original = pc;
	uintptr_t needs = site;

	/* The first step in the function is at its entry. */
	if (returns_to == 0) {
		if (!in_target(pc) && (patch_olx_original_pc(pc, &original) != PATCH_OK || !in_target(original)))
			return;
		returns_to = *(const uintptr_t *)rsp;
	}
	if (!in_target(original) && (patch_olx_original_pc(pc, &original) != PATCH_OK || !in_target(original)))
		original = 0;
	if (original != 0)
		needs = original;
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

static void on_step(int signo, siginfo_t *info, void *data)
{
	ucontext_t *context = data;
	uintptr_t pc = (uintptr_t)context->uc_mcontext.gregs[REG_RIP];
	int saved = errno;

	(void)signo;
	(void)info;
	if (returns_to != 0 && pc == returns_to) {
		context->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
		returns_to = outer_returns_to = 0;
	} else {
		look(pc, (uintptr_t)context->uc_mcontext.gregs[REG_RSP]);
	}
	errno = saved;
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
			CHECK_EQ(outer(5, 7), target->model(5, 7));
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
	target = argument;
	REQUIRE_OK(patch_init(NULL, 0));
	memset(seen_before, 0, sizeof(seen_before));
	before = true;
	CHECK_EQ(outer(5, 7), target->model(5, 7));
	before = false;
	with_patches(PATCH_EXEC_MODEL_PROBE, PATCH_TRAP_POLICY_ALLOW, PATCH_REGS_GP_ONLY, 1);
	with_patches(PATCH_EXEC_MODEL_PROBE, PATCH_TRAP_POLICY_FORCE, PATCH_REGS_ALL, 2);
	with_patches(PATCH_EXEC_MODEL_PROBE_AROUND, PATCH_TRAP_POLICY_ALLOW, PATCH_REGS_ALL, 1);
	for (size_t i = 0; i < unwinder_count; i++)
		CHECK_MSG(unwinders[i].checked > 1000, "%s: %u times", unwinders[i].name, unwinders[i].checked);
	CHECK_OK(patch_fini());
}

int main(void)
{
	static const char *const names[] = { "t_push_push", "t_2_2_1", "t_1_4", "t_loop_to_second",
					     "t_call_last", "t_call_twice",   "t_call_indirect", "t_call_memory",
					     "t_call_stack_operand", "t_recurse", "t_redzone", "t_endbr_long",
					     "t_rip_load", "t_jmp_near", "t_tail_jmp", "t_switch", "t_jrcxz" };
	struct sigaction action = { .sa_sigaction = on_step, .sa_flags = SA_SIGINFO };
	void *libunwind = dlopen("libunwind.so.8", RTLD_NOW);
	struct frames frames;

	harness_start();
	if (libunwind != NULL) {
		unwinders[unwinder_count].name = "libunwind";
		unwinders[unwinder_count].walk =
			(int (*)(void **, int))(uintptr_t)dlsym(libunwind, "unw_backtrace");
		if (unwinders[unwinder_count].walk != NULL)
			unwinder_count++;
	}
	/* They load what they need. */
	for (size_t i = 0; i < unwinder_count; i++)
		unwinders[i].walk(frames.pc, FRAMES);
	sigaction(SIGTRAP, &action, NULL);
	for (size_t n = 0; n < sizeof(names) / sizeof(names[0]); n++)
		harness_isolated(names[n], with_target, (void *)target_named(names[n]));
	return harness_end();
}
