/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which steps are the program's. An instruction that has generated code is come to more than once: in the text, where
 * its jump is, at a pad, and in its block, behind the one in front of it.
 */
#include "trap/step.h"

#include "arch/trap_bytes.h"
#include "base/thread_block.h"
#include "code/pc_map.h"
#include "elf/module.h"
#include "trap/put_off.h"

#define FLAG_TF 0x100

bool step_is_made(const siginfo_t *info, const ucontext_t *context)
{
	return info->si_signo == SIGTRAP && info->si_code == TRAP_TRACE &&
	       arch_is_raised(info, (uintptr_t)context->uc_mcontext.gregs[REG_RIP]);
}

/*
 * It is shown, unless it was: then it is the same execution, but for an instruction that leads to itself, which begins
 * where it has begun, or that is executed step by step (REP), where it was.
 */
static bool step_is_shown(struct step_note *note, uintptr_t shown, uintptr_t pc, bool begins)
{
	const bool is_new = note->shown != shown || note->pc == pc || (begins && note->begun == pc);

	note->shown = shown;
	note->pc = pc;
	if (begins)
		note->begun = pc;
	else if (is_new)
		note->begun = 0;
	return is_new;
}

void step_has_begun(const ucontext_t *context)
{
	const greg_t *registers = context->uc_mcontext.gregs;
	struct thread_block *block = thread_block_known();
	uintptr_t shown;
	bool begins;

	if ((registers[REG_EFL] & FLAG_TF) != 0 && block != NULL && code_shown(registers, &shown, &begins) && begins &&
	    block->step.shown == shown)
		block->step.begun = (uintptr_t)registers[REG_RIP];
}

bool step_is_inner(const ucontext_t *context)
{
	const greg_t *registers = context->uc_mcontext.gregs;
	const uintptr_t pc = (uintptr_t)registers[REG_RIP];
	const bool is_generated = pc_map_contains(pc);
	struct thread_block *block;
	uintptr_t shown = pc;
	bool begins = true;

	if (is_generated && !code_shown(registers, &shown, &begins))
		return true;
	if (!is_generated && (put_off_is_called((uintptr_t)registers[REG_RSP]) || module_is_librarys(pc)))
		return true;
	block = thread_block();
	return block != NULL ? !step_is_shown(&block->step, shown, pc, begins) : is_generated;
}
