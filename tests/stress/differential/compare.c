/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * In place and as a copy, from the same state: everything they leave must be the same, faults as seen through the rows
 * that map the copy back.
 */
#include "differential.h"

#include "code/pc_map.h"

#include <signal.h>

#define FLAGS 0x244DD5UL /* CF PF AF ZF SF DF OF NT AC ID; TF is taken back by the fault handler */
#define BELOW 144        /* from the stack pointer down to what is used below the red zone */
/* Timer ticks: a copy is given more time than it can possibly need for what took the original one. */
#define NATIVE_PATIENCE 1
#define COPY_PATIENCE 64

struct result {
	struct state state;
	struct outcome outcome;
	bool wrote;
	uint8_t memory[DATA_SIZE];
};

bool known_differences;
static struct result native, copy;

static void run(const struct subject *subject, uintptr_t code, unsigned int patience, struct result *result)
{
	uint8_t *const data = (uint8_t *)subject->data;

	memcpy(&run_state, &start, offsetof(struct state, xsave));
	if (start.components != 0)
		memcpy(run_state.xsave, start.xsave, machine_xsave_size);
	result->outcome = machine_run(subject, code, patience);
	memcpy(&result->state, &run_state, offsetof(struct state, xsave));
	if (start.components != 0)
		memcpy(result->state.xsave, run_state.xsave, machine_xsave_size);
	result->wrote = memcmp(data, start_memory, DATA_SIZE) != 0;
	if (result->wrote) {
		memcpy(result->memory, data, DATA_SIZE);
		memcpy(data, start_memory, DATA_SIZE);
	}
}

/* The original of an address in the copy, and how many words the copy has on the stack that the original has not. */
static uintptr_t map_back(const struct subject *subject, uintptr_t pc, unsigned int *pushed)
{
	unsigned int i, row = 0;

	*pushed = 0;
	if (pc < subject->copy || pc > subject->copy_end)
		return pc;
	for (i = 1; i < subject->row_count && subject->rows[i].code <= pc - subject->copy; i++)
		row = i;
	*pushed = subject->rows[row].cfa;
	return subject->native + subject->rows[row].original;
}

/* What the library says of a pc in a window's copy. */
static bool library_agrees(const struct subject *subject, uintptr_t pc)
{
	unsigned int pushed;
	uintptr_t original;

	if (subject->count == 1 || pc < subject->copy || pc >= subject->copy_end)
		return true;
	return pc_map_contains(pc) && pc_map_original(pc, &original) && original == map_back(subject, pc, &pushed);
}

/* Some copies use 16 bytes below the red zone (relocate.c): their rows say more than a return address. */
static bool uses_below(const struct subject *subject)
{
	unsigned int i;

	for (i = 0; i < subject->row_count; i++)
		if (subject->rows[i].cfa > 1)
			return true;
	return false;
}

/* Is there no such memory, or do alignment checks keep the copy from using it? */
static bool nothing_below(const struct subject *subject)
{
	return start.gpr[RSP] < subject->data + BELOW || start.gpr[RSP] > subject->data + DATA_SIZE ||
	       (start.flags & 0x40000 && start.gpr[RSP] % 8 != 0);
}

/* Memory that the copy may have written. */
static void forgive(const struct subject *subject, struct result *result, uint64_t address, size_t size)
{
	const uint8_t *kept = native.wrote ? native.memory : start_memory;
	const uint64_t at = address - subject->data;

	if (!result->wrote || at > DATA_SIZE - size)
		return;
	memcpy(result->memory + at, kept + at, size);
	result->wrote = memcmp(result->memory, start_memory, DATA_SIZE) != 0;
}

/* The register that a far copy borrows: what it was is below the red zone. */
static void restore_borrowed(const struct subject *subject, struct result *result)
{
	static const uint8_t borrowed[] = { RAX, RCX, RDX, RSI, RDI };
	const uint8_t *memory = result->wrote ? result->memory : start_memory;
	size_t i;

	for (i = 0; i < sizeof(borrowed) && result->state.gpr[borrowed[i]] == native.state.gpr[borrowed[i]]; i++)
		;
	if (i < sizeof(borrowed))
		memcpy(&result->state.gpr[borrowed[i]], memory + (start.gpr[RSP] - BELOW + 8 - subject->data), 8);
}

/* What the hole has changed on purpose. */
static void undo_hole(const struct subject *subject, struct result *result)
{
	unsigned int reg;

	for (reg = 0; subject->flags & P_WRITTEN && result->outcome.hole != 0 && reg < REGISTERS; reg++)
		if (reg != RSP)
			result->state.gpr[reg] -= HOLE_ADDS;
}

/*
 * What is in the hole sees the program as the instruction leaves it: what differs, or NULL. Not where the instruction
 * has failed in place.
 */
static const char *hole_difference(const struct subject *subject, struct tally *tally)
{
	const struct step *step = &subject->steps[0];
	const uintptr_t exit = machine_exit(subject, native.outcome.exit), behind = subject->native + subject->length;
	struct seen seen;

	if (!(subject->flags & P_AROUND) || native.outcome.exit == EXIT_FAULT)
		return NULL;
	if (copy.outcome.hole == 0)
		return "hole: none was passed";
	tally->holes++;
	seen = machine_seen(subject, copy.outcome.hole);
	if (seen.way.next != 0) {
		if (seen.way.next != (step_is_call(step) || native.outcome.exit == 0 ? behind : step->insn.target))
			return "hole: where it leads";
	} else if (seen.way.held != ARCH_HELD_ON_TOP) {
		if (seen.gpr[seen.way.held] != exit)
			return "hole: where the register leads";
	} else if (step->insn.kind != ARCH_RET && seen.top != exit) {
		return "hole: where the word on the stack leads";
	}
	if (step_is_call(step) && seen.top != behind)
		return "hole: return address";
	seen.gpr[RSP] += (uint64_t)(int64_t)seen.way.above;
	if (memcmp(seen.gpr, native.state.gpr, sizeof(seen.gpr)) != 0)
		return "hole: registers";
	return NULL;
}

/* What a fault in the copy would be in place. */
static void map_fault(const struct subject *subject, struct result *result, struct tally *tally)
{
	struct outcome *outcome = &result->outcome;
	const uintptr_t pc = outcome->pc;
	unsigned int pushed;

	outcome->pc = map_back(subject, pc, &pushed);
	if (outcome->address == pc)
		outcome->address = outcome->pc;
	if (pushed == 0)
		return;
	/* Below the stack pointer that the fault handler of the program sees, the return address was written. */
	tally->late_call_faults++;
	result->state.gpr[RSP] += 8UL * pushed;
	if (pushed > 1 && subject->count == 1)
		restore_borrowed(subject, result);
	forgive(subject, result, result->state.gpr[RSP] - 8, 8);
}

static bool same_xsave(const struct subject *subject, const uint8_t *a, uint8_t *b)
{
	unsigned int pushed;
	uint64_t pc;

	memcpy(&pc, b + 8, sizeof(pc)); /* of the last x87 instruction */
	pc = map_back(subject, pc, &pushed);
	memcpy(b + 8, &pc, sizeof(pc));
	/* Its opcode has a ModRM byte, which is another one in a far copy. */
	if (machine_far)
		b[6] = (uint8_t)((b[6] & ~7U) | (a[6] & 7));
	/* between them the header: whether a component is tracked as unused is up to the processor */
	return memcmp(a, b, 464) == 0 && memcmp(a + 576, b + 576, machine_xsave_size - 576) == 0;
}

/* ---- what is known to differ ------------------------------------------------------------------------------------- */

/*
 * A call through a pointer that overlaps its own return address, by the values of registers but RSP. `stack`: RSP
 * before it.
 */
static bool overwrites_pointer(const struct subject *subject, uint64_t stack)
{
	const struct operand *operand;
	uint64_t gpr[REGISTERS], at;
	unsigned int i;

	memcpy(gpr, native.state.gpr, sizeof(gpr));
	gpr[RSP] = stack;
	for (i = 0; i < subject->count; i++) {
		operand = &subject->steps[i].operands[0];
		if (subject->steps[i].insn.kind != ARCH_CALL_IND || subject->steps[i].operand_count == 0 ||
		    operand->base == RSP)
			continue;
		at = (uint64_t)operand->disp + (operand->base == NONE ? 0 : gpr[operand->base]) +
		     (operand->index == NONE ? 0 : gpr[operand->index] * operand->scale);
		if (at - (stack - 15) < 15)
			return true;
	}
	return false;
}

/* A window set TF: the trap comes behind the next instruction, and the copy has others. */
static bool is_single_step(const struct subject *subject)
{
	return subject->count > 1 && native.outcome.signal == SIGTRAP && native.outcome.code == TRAP_TRACE;
}

/*
 * A stack pointer that is not a canonical address: AMD family 26 has no IRET to it, and the kernel sends SIGSEGV after
 * any interrupt or signal that comes at that time, those of machine_trap() among them.
 */
static bool unreturnable(const struct outcome *outcome)
{
	return outcome->exit == EXIT_FAULT && outcome->signal == SIGSEGV && outcome->code == SI_KERNEL &&
	       (uint64_t)((int64_t)(outcome->stack << 16) >> 16) != outcome->stack;
}

/* ---- comparing --------------------------------------------------------------------------------------------------- */

/* What differs, or NULL. */
static const char *difference(const struct subject *subject, struct tally *tally)
{
	const char *what;

	undo_hole(subject, &copy);
	if (copy.outcome.exit == EXIT_FAULT) {
		if (!library_agrees(subject, copy.outcome.pc))
			return "pc_map_original()";
		map_fault(subject, &copy, tally);
	}
	if (subject->count == 1 && uses_below(subject))
		forgive(subject, &copy, start.gpr[RSP] - BELOW, 16);
	/* The target is kept there (relocate.c). */
	if (subject->flags & P_AROUND && subject->steps[0].insn.kind == ARCH_CALL_IND)
		forgive(subject, &copy, start.gpr[RSP] - 16, 8);
	if (native.outcome.exit != copy.outcome.exit)
		return "way out";
	if (copy.outcome.traps != 0 && subject->direct)
		return "way inside: the copy branches to the original";
	if (native.outcome.signal != copy.outcome.signal || native.outcome.code != copy.outcome.code)
		return "signal";
	if (native.outcome.address != copy.outcome.address || native.outcome.pc != copy.outcome.pc)
		return "address of the fault";
	if (memcmp(native.state.gpr, copy.state.gpr, sizeof(copy.state.gpr)) != 0)
		return "registers";
	if ((native.state.flags ^ copy.state.flags) & FLAGS)
		return "flags";
	what = hole_difference(subject, tally);
	if (what)
		return what;
	if (native.wrote != copy.wrote || (native.wrote && memcmp(native.memory, copy.memory, DATA_SIZE) != 0))
		return "memory";
	if (start.components != 0 && !same_xsave(subject, native.state.xsave, copy.state.xsave))
		return "extended state";
	return NULL;
}

static void report_bytes(const char *what, const uint8_t *a, const uint8_t *b, size_t size)
{
	size_t i, shown = 0;

	for (i = 0; i < size && shown < 16; i++)
		if (a[i] != b[i] && shown++ < 16)
			printf("  %s+%zu: native %02x, copy %02x\n", what, i, a[i], b[i]);
}

static void report_code(const struct subject *subject, unsigned int entry)
{
	const struct step *step;
	char text[128];
	unsigned int i, j;
	uintptr_t at;

	for (i = 0; i < subject->count; i++) {
		step = &subject->steps[i];
		step_describe(step, subject->native + step->offset, text, sizeof(text));
		printf("  %s %#lx: %s:", i == entry ? "->" : "  ", (unsigned long)(subject->native + step->offset),
		       text);
		for (j = 0; j < step->insn.length; j++)
			printf(" %02x", step->bytes[j]);
		printf("\n");
	}
	printf("  copy at %#lx, entered at %#lx%s:", (unsigned long)subject->copy,
	       (unsigned long)subject->entries[entry], subject->flags & P_AROUND ? ", around" : "");
	for (at = subject->entries[0]; at < subject->copy_end; at++)
		printf(" %02x", *(uint8_t *)at);
	printf("\n");
}

static void report(const struct subject *subject, unsigned int entry, const char *what, struct tally *tally)
{
	static const char *const names[] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					     "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15" };
	static struct result again;
	const struct outcome *outcome;
	size_t i;

	printf("DIFFERENCE in %s:\n", what);
	report_code(subject, entry);
	for (i = 0; i < 2; i++) {
		outcome = i ? &copy.outcome : &native.outcome;
		printf("  %s: exit %u, signal %d, code %d, address %#lx, pc %#lx\n", i ? "copy" : "native",
		       outcome->exit, outcome->signal, outcome->code, (unsigned long)outcome->address,
		       (unsigned long)outcome->pc);
	}
	printf("  data at %#lx\n", (unsigned long)subject->data);
	printf("  flags: start %#lx, native %#lx, copy %#lx\n", (unsigned long)start.flags,
	       (unsigned long)native.state.flags, (unsigned long)copy.state.flags);
	for (i = 0; i < REGISTERS; i++)
		printf("  %s%s: start %#lx, native %#lx, copy %#lx\n", names[i],
		       native.state.gpr[i] == copy.state.gpr[i] ? "" : " (!)", (unsigned long)start.gpr[i],
		       (unsigned long)native.state.gpr[i], (unsigned long)copy.state.gpr[i]);
	report_bytes("memory", native.wrote ? native.memory : start_memory,
		     copy.wrote ? copy.memory : start_memory, DATA_SIZE);
	if (start.components != 0)
		report_bytes("xsave", native.state.xsave, copy.state.xsave, machine_xsave_size);
	run(subject, subject->native + subject->steps[entry].offset, NATIVE_PATIENCE, &again);
	copy = again;
	what = difference(subject, tally);
	printf("  native again: %s%s\n", what ? "differs from itself, this is for the skip list: " : "as before",
	       what ? what : "");
}

/*
 * Linux does not restore NT with the frame of a signal (FIX_EFLAGS), so that one that comes while it is set, behind a
 * popf, may leave it changed.
 */
static bool differs_in_nested_task(void)
{
	return (native.state.flags ^ copy.state.flags) == 1U << 14;
}

enum verdict compare(const struct subject *subject, unsigned int entry, struct tally *tally)
{
	const uintptr_t code = subject->native + subject->steps[entry].offset;
	unsigned int tries = 0;
	const char *what;
	bool interrupted;

	if (subject->count == 1 && uses_below(subject) && nothing_below(subject)) {
		tally->below++;
		return LEFT_OUT;
	}
	/*
	 * AMD restores the x87 instruction and data pointers only while an exception is pending; else they are what was
	 * there, and 0 after a context switch. What persists counts, also of what an interrupt can change.
	 */
	do {
		run(subject, code, NATIVE_PATIENCE, &native);
		tally->executions++;
		if (native.outcome.exit == EXIT_TIMEOUT) {
			tally->timeouts++;
			return TIMED_OUT;
		}
		if (is_single_step(subject)) {
			tally->single_steps++;
			return LEFT_OUT;
		}
		if (subject->inner_branch)
			machine_trap(subject, true);
		run(subject, subject->entries[entry], COPY_PATIENCE, &copy);
		if (subject->inner_branch)
			machine_trap(subject, false);
		tally->traps += copy.outcome.traps;
		tally->executions++;
		what = difference(subject, tally);
		tally->retries += what != NULL;
		interrupted = unreturnable(&native.outcome) || unreturnable(&copy.outcome);
	} while (what && (start.components != 0 || interrupted || differs_in_nested_task()) && ++tries < 4);
	if (what && interrupted) {
		tally->unreturnable++;
		return LEFT_OUT;
	}
	/* Where in a window the stack pointer is at such an instruction is not known here. */
	if (what && subject->count > 1 && uses_below(subject)) {
		tally->below++;
		return LEFT_OUT;
	}
	if (what && !known_differences && !(subject->flags & P_AROUND) &&
	    (overwrites_pointer(subject, native.state.gpr[RSP]) ||
	     overwrites_pointer(subject, native.state.gpr[RSP] + 8))) {
		tally->overwritten++;
		return LEFT_OUT;
	}
	if (what) {
		report(subject, entry, what, tally);
		return DIFFERENT;
	}
	if (native.outcome.exit != EXIT_FAULT) {
		tally->completed += 2;
		return SAME_EXIT;
	}
	tally->faults += 2;
	return native.outcome.signal == SIGILL ? SAME_ILLEGAL : SAME_FAULT;
}
