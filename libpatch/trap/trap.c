/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Runs in any thread at any instruction, also inside malloc, the loader or a half-finished commit of another thread.
 * Takes no lock, allocates nothing, calls nothing that could be patched (I9).
 */
#include "trap/trap.h"

#include "arch/signal_entry.h"
#include "arch/trap_bytes.h"
#include "base/inject.h"
#include "code/pc_map.h"
#include "trap/action.h"
#include "trap/forward.h"
#include "trap/registry.h"
#include "trap/step.h"

#include <libpatch/trap_handler.h>
#include <ucontext.h>

static _Atomic uint64_t served;

/* Traps at an instruction before a commit looks whether it can do without: some 10 ms of processor time. */
#define MANY 4096

uint64_t trap_count(void)
{
	return atomic_load_explicit(&served, memory_order_relaxed);
}

enum verdict {
	NOT_OURS,
	GO_TO_TARGET, /* to the code that stands for the instruction */
	RETRY_THERE,  /* the original instruction is back: execute it */
	RETRY_ONCE    /* a trap byte is there, which is not ours, but which the trap need not have come from */
};

/*
 * Where this thread was last sent back to by RETRY_ONCE, 0 once it has trapped anywhere since. A uprobe or a debugger
 * may have come to where our trap byte was: its traps never get here, so the one that did is ours, from before. The
 * trap byte of somebody in the process traps again at once, and is theirs then.
 */
static TLS_INITIAL_EXEC uintptr_t sent_back;

/*
 * What a trap at the entry's address means (I5). The byte is read between two reads of the state, and believed only
 * when they agree: otherwise a removal followed by an install by somebody else in between could be taken for ours, or
 * ours for theirs. Pairs with registry_set_state() in registry.c.
 */
static enum verdict trap_judge(struct registry_entry *entry, enum arch_trap_class class, uintptr_t *target)
{
	for (;;) {
		uint64_t before = atomic_load(&entry->state);
		uint8_t byte = *(volatile const uint8_t *)entry->address;

		*target = atomic_load_explicit(&entry->target, memory_order_acquire);
		if (atomic_load(&entry->state) != before)
			continue;
		if (!(REGISTRY_CLASSES(before) & 1U << class))
			return NOT_OURS;
		switch (REGISTRY_STATE(before)) {
		case REGISTRY_ACTIVE:
			return GO_TO_TARGET;
		case REGISTRY_RETIRED:
			/* An instruction that raises the same signal by itself. */
			if (class == ARCH_TRAP_SIGILL && (arch_trap_class(byte) == class || entry->traps))
				return NOT_OURS;
			return arch_trap_class(byte) == class ? RETRY_ONCE : RETRY_THERE;
		default:
			return NOT_OURS;
		}
	}
}

/* `before`: this thread's sent_back, or NULL. */
static bool trap_serve(uintptr_t address, enum arch_trap_class class, bool merged, greg_t *pc, uintptr_t *before)
{
	registry_token token = registry_read_lock();
	struct registry_entry *entry = registry_lookup(address);
	enum verdict verdict = NOT_OURS;
	uintptr_t target = 0;

	/*
	 * Another's SIGTRAP swallowed ours (hazard 4): with an instruction longer than a byte at `address`, a pc right
	 * behind its first byte can only come from an int3 there.
	 */
	if (entry != NULL && (!merged || entry->length > 1))
		verdict = trap_judge(entry, class, &target);
	if (verdict == RETRY_ONCE && (before == NULL || *before == address))
		verdict = NOT_OURS;
	if (before != NULL)
		*before = verdict == RETRY_ONCE ? address : 0;
	if (verdict != NOT_OURS) {
		*pc = (greg_t)(verdict == GO_TO_TARGET ? target : address);
		if (atomic_fetch_add_explicit(&entry->hits, 1, memory_order_relaxed) % MANY == MANY - 1)
			registry_report(entry);
		atomic_fetch_add_explicit(&served, 1, memory_order_relaxed);
	}
	registry_read_unlock(token);
	return verdict != NOT_OURS;
}

/*
 * A trap of a displaced instruction of the program (int3, ud2): tell its handler where the original is. Going on from
 * there is right: the original's successors are where the displaced ones are.
 */
static void trap_translate(siginfo_t *info, greg_t *pc, uintptr_t trapped)
{
	const uintptr_t at = (uintptr_t)*pc;
	uintptr_t original;

	if (!pc_map_original(trapped, &original))
		return;
	*pc = (greg_t)(original + (at - trapped));
	if ((uintptr_t)info->si_addr == at)
		info->si_addr = (void *)(uintptr_t)*pc;
}

/* Is it ours, and served? A trap of a displaced instruction of the program is translated. */
static bool trap_is_served(int signo, siginfo_t *info, ucontext_t *context, uintptr_t *before)
{
	greg_t *pc = &context->uc_mcontext.gregs[REG_RIP];
	uintptr_t at = (uintptr_t)*pc;

	(void)INJECT(INJECT_TRAP);
	if (arch_is_int3(info, at)) {
		if (trap_serve(at - 1, ARCH_TRAP_SIGTRAP, false, pc, before))
			return true;
		trap_translate(info, pc, at - 1);
	} else if (signo == SIGILL && info->si_code > 0 && (uintptr_t)info->si_addr == at) {
		if (trap_serve(at, ARCH_TRAP_SIGILL, false, pc, before))
			return true;
		trap_translate(info, pc, at);
	} else {
		/*
		 * Theirs; but ours may have been merged into it, and then both are due. Or ours was merged into a
		 * SIGTRAP that they sent, and waits behind a SIGILL that they sent: the kernel delivers that one first.
		 */
		trap_serve(at - 1, ARCH_TRAP_SIGTRAP, true, pc, before);
	}
	return false;
}

/* Of a frame that is, or may be, what the kernel made. */
static bool trap_is_served_raw(int signo, siginfo_t *info, ucontext_t *context, uintptr_t *before)
{
	return (step_is_made(info, context) && pc_map_contains((uintptr_t)context->uc_mcontext.gregs[REG_RIP])) ||
	       trap_is_served(signo, info, context, before);
}

bool trap_enter(int signo, siginfo_t *info, ucontext_t *context, unsigned int index, bool ends_wait)
{
	if (action_at(index)->behind != ACTION_NONE) {
		if (forward_offer(signo, info, context, ends_wait))
			return true;
		/* It sees the signal later, but not a trap of ours that was merged into it. */
		trap_is_served(signo, info, context, &sent_back);
		return false;
	}
	/* No int3's signal is merged into a step's, wherever that has led. */
	if (step_is_made(info, context) || !trap_is_served(signo, info, context, &sent_back))
		return forward_enter(signo, info, context, index, ends_wait);
	step_has_begun(context);
	return false;
}

bool trap_enter_without_storage(int signo, siginfo_t *info, ucontext_t *context, const struct action *action)
{
	return !trap_is_served_raw(signo, info, context, NULL) &&
	       forward_enter_without_storage(&action->program, signo, info, context);
}

void trap_leave(ucontext_t *context)
{
	siginfo_t *info = arch_signal_info(context);

	/* As the program's signals go, that is the end of it, but a trap of ours has to be served. */
	if (forward_end(context))
		trap_is_served_raw(info->si_signo, info, context, &sent_back);
}

EXPORT void libpatch_on_trap(int signo, siginfo_t *info, void *data)
{
	ucontext_t *context = data;

	forward_take(context);
	if (!trap_is_served_raw(signo, info, context, &sent_back))
		forward_hand_on(signo, info, context);
}
