/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The C side of signal_thunks.S: which thunk an address is, and what a frame of the kernel holds. No state.
 */
#include "arch/signal_entry.h"
#include "arch/x86_64/signal_leave.h"

extern const char arch_signal_thunks[] __attribute__((visibility("hidden")));
extern const char arch_signal_restorers[] __attribute__((visibility("hidden")));
extern const char arch_signal_entered[] __attribute__((visibility("hidden")));
extern const char arch_signal_entry_end[] __attribute__((visibility("hidden")));
extern const char arch_signal_leave_begins[] __attribute__((visibility("hidden")));
extern const char arch_signal_leave_blocked[] __attribute__((visibility("hidden")));

#define THUNK_SIZE 16
#define RESTORER_SIZE 8

uintptr_t arch_signal_thunk(unsigned int index)
{
	return (uintptr_t)arch_signal_thunks + (uintptr_t)THUNK_SIZE * index;
}

uintptr_t arch_signal_restorer(unsigned int index)
{
	return (uintptr_t)arch_signal_restorers + (uintptr_t)RESTORER_SIZE * index;
}

int arch_signal_index(uintptr_t address)
{
	uintptr_t thunk = address - (uintptr_t)arch_signal_thunks;
	uintptr_t restorer = address - (uintptr_t)arch_signal_restorers;

	if (thunk < THUNK_SIZE * ARCH_SIGNAL_THUNKS && thunk % THUNK_SIZE == 0)
		return (int)(thunk / THUNK_SIZE);
	if (restorer < RESTORER_SIZE * ARCH_SIGNAL_THUNKS && restorer % RESTORER_SIZE == 0)
		return (int)(restorer / RESTORER_SIZE);
	return -1;
}

bool arch_signal_finish_entry(greg_t *registers)
{
	uintptr_t pc = (uintptr_t)registers[REG_RIP];
	const greg_t *stack = (const greg_t *)registers[REG_RSP];

	if (pc < (uintptr_t)arch_signal_entered || pc >= (uintptr_t)arch_signal_entry_end)
		return false;
	/* Three instructions of one byte, which take a register each off the stack. */
	if (pc < (uintptr_t)arch_signal_entered + 1)
		registers[REG_RDX] = *stack++;
	if (pc < (uintptr_t)arch_signal_entered + 2)
		registers[REG_RSI] = *stack++;
	if (pc < (uintptr_t)arch_signal_entered + 3)
		registers[REG_RDI] = *stack++;
	registers[REG_RSP] = (greg_t)stack;
	registers[REG_RAX] = 0;
	registers[REG_RIP] = registers[REG_R9];
	return true;
}

void arch_signal_leave_anew(greg_t *registers)
{
	const uintptr_t begins = (uintptr_t)arch_signal_leave_begins;

	if ((uintptr_t)registers[REG_RIP] - begins < (uintptr_t)arch_signal_leave_blocked - begins)
		registers[REG_RIP] = (greg_t)arch_signal_restorer(0);
}

/* struct ucontext of the kernel, behind which struct rt_sigframe has the information; libc's structure is longer. */
#define KERNEL_CONTEXT_SIZE (offsetof(ucontext_t, uc_sigmask) + 8)

siginfo_t *arch_signal_info(ucontext_t *context)
{
	return (siginfo_t *)((char *)context + KERNEL_CONTEXT_SIZE);
}

_Static_assert(SIGNAL_BELIEF_BLOCKED == offsetof(struct signal_belief, blocked) &&
	       SIGNAL_BELIEF_CHILD == offsetof(struct signal_belief, child) &&
	       SIGNAL_HELD_SIZE == sizeof(struct signal_held) && offsetof(struct signal_held, state) == 0 &&
	       ARCH_SIGNALS_HELD == 2 && SIGNAL_LEAVE_OWNED == (1 << (SIGTRAP - 1) | 1 << (SIGILL - 1)) &&
	       SIGNAL_CONTEXT_LINK == offsetof(ucontext_t, uc_link) &&
	       SIGNAL_CONTEXT_WORDS == offsetof(ucontext_t, uc_mcontext.__reserved1) &&
	       SIGNAL_CONTEXT_MASK == offsetof(ucontext_t, uc_sigmask),
	       "signal_leave.h");

uint64_t *arch_signal_words(ucontext_t *context)
{
	return (uint64_t *)context->uc_mcontext.__reserved1;
}

/* ---- masks set by a return -------------------------------------------------------------------------------------- */

extern const char arch_signal_blocked[] __attribute__((visibility("hidden")));

void arch_signal_frame_to_handler(const uint64_t *entry, ucontext_t *frame, uintptr_t handler)
	__attribute__((visibility("hidden"), used));
void arch_signal_frame_to_leave(ucontext_t *context, ucontext_t *frame, const uint64_t *mask)
	__attribute__((visibility("hidden"), used));

#define FLAG_XSTATE 1 /* UC_FP_XSTATE: what fpregs points to has extended state */

/* A frame that leads to `pc`, with the segments and the signal stack of the kernel's, and initial extended state. */
static void signal_entry_lead_to(ucontext_t *frame, const ucontext_t *from, uintptr_t pc, const void *stack,
				 uint64_t mask)
{
	greg_t *registers = frame->uc_mcontext.gregs;

	frame->uc_flags = from->uc_flags & ~(unsigned long)FLAG_XSTATE;
	frame->uc_link = NULL;
	frame->uc_stack = from->uc_stack;
	frame->uc_mcontext.fpregs = NULL;
	registers[REG_CSGSFS] = from->uc_mcontext.gregs[REG_CSGSFS];
	registers[REG_EFL] = 0x202;
	registers[REG_RIP] = (greg_t)pc;
	registers[REG_RSP] = (greg_t)stack;
	registers[REG_RAX] = 0;
	*(uint64_t *)&frame->uc_sigmask = mask;
}

/* entry: the mask, a word, and the three arguments of the handler, rdx first; above them the frame of the kernel. */
void arch_signal_frame_to_handler(const uint64_t *entry, ucontext_t *frame, uintptr_t handler)
{
	greg_t *registers = frame->uc_mcontext.gregs;

	signal_entry_lead_to(frame, (const ucontext_t *)entry[2], handler, entry + 5, entry[0]);
	registers[REG_RDX] = (greg_t)entry[2];
	registers[REG_RSI] = (greg_t)entry[3];
	registers[REG_RDI] = (greg_t)entry[4];
}

void arch_signal_frame_to_leave(ucontext_t *context, ucontext_t *frame, const uint64_t *mask)
{
	signal_entry_lead_to(frame, context, (uintptr_t)arch_signal_blocked, context, *mask);
}
