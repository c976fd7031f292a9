/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The C side of signal_thunks.S: which thunk an address is, and what a frame of the kernel holds. No state.
 */
#include "arch/signal_entry.h"

#include "base/syscall.h"

#include <string.h>
#include "arch/x86_64/signal_leave.h"

extern const char arch_signal_thunks[] __attribute__((visibility("hidden")));
extern const char arch_signal_restorers[] __attribute__((visibility("hidden")));
extern const char arch_signal_entered[] __attribute__((visibility("hidden")));
extern const char arch_signal_entry_end[] __attribute__((visibility("hidden")));
extern const char arch_signal_leave_begins[] __attribute__((visibility("hidden")));
extern const char arch_signal_leave_blocked[] __attribute__((visibility("hidden")));
extern const char arch_signal_sigreturn[] __attribute__((visibility("hidden")));

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

void arch_signal_return_at_once(struct arch_signal_entry *entry)
{
	entry->restorer = (uintptr_t)arch_signal_sigreturn;
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
	       SIGNAL_CONTEXT_MASK == offsetof(ucontext_t, uc_sigmask) &&
	       SIGNAL_CONTEXT_STORAGE == SIGNAL_CONTEXT_WORDS + 8 * ARCH_SIGNAL_STORAGE &&
	       8 * ARCH_SIGNAL_WORDS <= sizeof(((ucontext_t *)0)->uc_mcontext.__reserved1) &&
	       offsetof(struct signal_storage, known) == 0 &&
	       SIGNAL_STORAGE_GUARDS == offsetof(struct signal_storage, stack_guard) &&
	       SIGNAL_STORAGE_GUARDS + 8 == offsetof(struct signal_storage, pointer_guard),
	       "signal_leave.h");

/* ---- another stack ---------------------------------------------------------------------------------------------- */

#define RED_ZONE 128
#define XSAVE_ALIGNMENT 64
/* struct _fpx_sw_bytes of the kernel, in the part of the state that the processor leaves alone. */
#define XSTATE_WORDS 464
#define XSTATE_MAGIC 0x46505853

static uintptr_t signal_entry_end(const struct arch_signal_entry *entry)
{
	const uintptr_t state = (uintptr_t)entry->context->uc_mcontext.fpregs;
	const uintptr_t end = (uintptr_t)(entry->info + 1);
	const uint32_t *words = (const uint32_t *)(state + XSTATE_WORDS);

	if (state == 0)
		return end;
	return MAX(end, state + (words[0] == XSTATE_MAGIC ? words[1] : sizeof(struct _libc_fpstate)));
}

/* Stacks grow by that, too, and where there is none it is an error and no fault. From the upper end. */
static bool signal_entry_can_write(uintptr_t lower, uintptr_t upper)
{
	for (uintptr_t at = ALIGN_DOWN(upper - sizeof(uint64_t), sizeof(uint64_t));;
	     at = MAX(ALIGN_DOWN(at - PAGE_SIZE, sizeof(uint64_t)), lower)) {
		if (raw_syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, at, sizeof(uint64_t)) != 0)
			return false;
		if (at == lower)
			return true;
	}
}

ucontext_t *arch_signal_move(struct arch_signal_entry *entry, uintptr_t stack_pointer)
{
	const size_t size = signal_entry_end(entry) - (uintptr_t)entry;
	const uintptr_t moved =
		ALIGN_DOWN(stack_pointer - RED_ZONE - size - (uintptr_t)entry, (uintptr_t)XSAVE_ALIGNMENT);
	struct arch_signal_entry *to = (struct arch_signal_entry *)((uintptr_t)entry + moved);

	if (!signal_entry_can_write((uintptr_t)to, (uintptr_t)to + size))
		return NULL;
	entry->moved = moved;
	memcpy(to, entry, size);
	to->context = (ucontext_t *)((uintptr_t)to->context + moved);
	to->info = (siginfo_t *)((uintptr_t)to->info + moved);
	if (to->context->uc_mcontext.fpregs != NULL)
		to->context->uc_mcontext.fpregs =
			(fpregset_t)((uintptr_t)to->context->uc_mcontext.fpregs + moved);
	return to->context;
}

uint64_t *arch_signal_words(ucontext_t *context)
{
	return (uint64_t *)context->uc_mcontext.__reserved1;
}

/* ---- masks set by a return -------------------------------------------------------------------------------------- */

void arch_signal_frame_to_handler(const struct arch_signal_entry *entry, ucontext_t *frame, uintptr_t handler)
	__attribute__((visibility("hidden"), used));
void arch_signal_frame_to_leave(ucontext_t *context, ucontext_t *frame, const uint64_t *mask, uintptr_t pc)
	__attribute__((visibility("hidden"), used));

#define STACK_AUTODISARM (1U << 31) /* SS_AUTODISARM of Linux 4.7 */
#define FLAG_ALIGNMENT_CHECK 0x40000 /* AC */
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

void arch_signal_frame_to_handler(const struct arch_signal_entry *entry, ucontext_t *frame, uintptr_t handler)
{
	greg_t *registers = frame->uc_mcontext.gregs;

	signal_entry_lead_to(frame, entry->context, handler, &entry->restorer, entry->mask);
	/* The kernel has taken it away until the handler returns. */
	if ((unsigned int)frame->uc_stack.ss_flags & STACK_AUTODISARM)
		frame->uc_stack = (stack_t){ .ss_flags = SS_DISABLE };
	registers[REG_EFL] |= entry->context->uc_mcontext.gregs[REG_EFL] & FLAG_ALIGNMENT_CHECK;
	registers[REG_RDX] = (greg_t)entry->context;
	registers[REG_RSI] = (greg_t)entry->info;
	registers[REG_RDI] = (greg_t)entry->signo;
}

void arch_signal_frame_to_leave(ucontext_t *context, ucontext_t *frame, const uint64_t *mask, uintptr_t pc)
{
	signal_entry_lead_to(frame, context, pc, context, *mask);
}
