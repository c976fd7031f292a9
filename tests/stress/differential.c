/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The relocator, by execution: instructions as they occur in installed binaries are run natively and as relocated
 * copies from the same random registers, flags, extended state and memory, and everything they leave is compared:
 * registers, flags, extended state, memory, where control goes, and faults with the pc mapped back.
 *
 * differential [seconds [seed]]; up to 30 seconds read a part of each binary and keep fewer
 * instructions of an encoding.
 * LIBPATCH_DIFFERENTIAL_FORMS=1 lists what was executed of each form; LIBPATCH_DIFFERENTIAL_KNOWN=1 looks for
 * differences that are known, too.
 */
#include "differential.h"

#include <time.h>

#define FLAGS 0x244DD5UL /* CF PF AF ZF SF DF OF NT AC ID; TF is taken back by the fault handler */
#define BURST 16
#define XSAVE_EVERY 64 /* runs of instructions that do not touch extended state */

struct result {
	struct state state;
	struct outcome outcome;
	bool wrote;
	uint8_t memory[WINDOW];
};

static struct corpus corpus;
static struct state start;
static uint8_t start_memory[WINDOW] __attribute__((aligned(64)));
static struct result native, copy;
static bool known_differences; /* LIBPATCH_DIFFERENTIAL_KNOWN=1: look for them, too */
static uint64_t executions, faults, late_call_faults, double_faults, overwritten, retries;

/* ---- where to start from ----------------------------------------------------------------------------------------- */

static void random_fill(void *memory, size_t size, uint64_t *seed)
{
	uint64_t *words = memory;
	size_t i;

	for (i = 0; i < size / sizeof(*words); i++)
		words[i] = random_next(seed);
}

/* Memory and extended state, once for a burst. */
static void start_burst(const struct pattern *pattern, uint64_t *seed)
{
	uint64_t word;
	uint32_t field;
	size_t i;

	random_fill(start_memory, sizeof(start_memory), seed);
	if (pattern->flags & P_POINTERS) {
		for (i = 0; i < WINDOW; i += sizeof(word)) {
			word = machine_exit(pattern, 1 + random_next(seed) % (EXITS - 1));
			memcpy(start_memory + i, &word, sizeof(word));
		}
	}
	random_fill(start.xsave, sizeof(start.xsave), seed);
	for (i = 160; pattern->flags & P_VSIB && i < sizeof(start.xsave); i += sizeof(word)) {
		word = random_next(seed) % 32;
		memcpy(start.xsave + i, &word, sizeof(word));
	}
	/* control and status of a valid image (Intel SDM vol. 1, 13.4): exceptions unmasked in one of 16 */
	word = random_next(seed);
	start.xsave[0] = (uint8_t)(word % 16 ? 0x7F : 0x40 | (word >> 8 & 0x3F));
	start.xsave[1] = word >> 16 & 0x0F;
	start.xsave[5] = 0;
	field = (uint32_t)(word >> 32 & 0xE07F) | (uint32_t)((word >> 20) % 16 ? 0x1F80 : word >> 8 & 0x1F80);
	memcpy(start.xsave + 24, &field, sizeof(field));
	memset(start.xsave + 512, 0, 64);
	memcpy(start.xsave + 512, &machine_components, 8);
}

/* Registers that make the operand's address `target`. */
static void steer(const struct operand *operand, uint64_t target)
{
	uint64_t *gpr = start.gpr;

	target -= (uint64_t)operand->disp;
	if (operand->base == NONE) {
		if (operand->index != NONE && operand->scale != 0)
			gpr[operand->index] = target / operand->scale;
	} else if (operand->base == operand->index) {
		gpr[operand->base] = target / (operand->scale + 1U);
	} else {
		if (operand->base == RSP && operand->index != NONE)
			gpr[operand->index] %= 8;
		gpr[operand->base] = target - (operand->index == NONE ? 0 : gpr[operand->index] * operand->scale);
	}
}

static void start_registers(const struct pattern *pattern, uint64_t *seed)
{
	static const uint64_t special[] = { 0, 1, ~0UL, 1UL << 63, ~0UL >> 1, 0x80000000, 0x7FFFFFFF, 1UL << 32 };
	uint64_t word, at;
	size_t i;

	for (i = 0; i < REGISTERS; i++) {
		word = random_next(seed);
		if (pattern->flags & P_POINTERS && word & 0x100)
			word = machine_exit(pattern, 1 + (word >> 16) % (EXITS - 1));
		else if ((word & 7) == 0)
			word = special[word >> 3 & 7];
		else if ((word & 7) < 3)
			word = (uint64_t)((int64_t)word >> 58);
		start.gpr[i] = word;
	}
	word = random_next(seed);
	start.flags = 0x202 | (word & 0xCD5) | (word >> 20 & 0x3F ? 0 : 0x40000);
	/* known: a copy's return address is a constant that is not aligned, which an alignment check (AC) faults on */
	if (pattern->insn.kind == ARCH_CALL || pattern->insn.kind == ARCH_CALL_IND)
		start.flags &= ~(known_differences ? 0 : 0x40000UL);
	start.gpr[RSP] = pattern->window + 2560 + (word >> 32) % 64 * 8 + (word >> 48 & 31 ? 0 : word >> 56 & 7);
	if ((word >> 53 & 127) == 0)
		start.gpr[RSP] = pattern->window + (word >> 61 & 1 ? WINDOW - 8 : 0);
	word = random_next(seed);
	if (pattern->insn.kind == ARCH_LOOP && word & 7)
		start.gpr[RCX] = (word >> 8 & 3) | (word >> 10 & 1) << 32;
	if (pattern->flags & P_STRING)
		start.gpr[RCX] = word & 31;
	if (pattern->bit != NONE)
		start.gpr[pattern->bit] = (uint64_t)((int64_t)word >> 55);
	if (pattern->flags & P_DIVIDE && word >> 8 & 7)
		start.gpr[RDX] = word >> 16 & 3;
	if (pattern->flags & P_FRAME)
		start.gpr[RBP] = pattern->window + 2048 + (word >> 32 & 0xF8);
	for (i = 0; i < pattern->operand_count; i++) {
		word = random_next(seed);
		at = 512 + (word & 1023);
		if (pattern->flags & (P_ALIGNED | P_POINTERS) || word >> 16 & 3)
			at &= ~63UL;
		if ((word >> 20 & 63) == 0)
			at = word >> 26 & 1 ? WINDOW + 64 :
			     pattern->flags & P_ALIGNED ? WINDOW - 64 : WINDOW - 64 + (word >> 27 & 63);
		if (pattern->flags & (P_FS | P_GS) && i == 0)
			at -= SEGMENT_BASE;
		steer(&pattern->operands[i], pattern->window + at);
	}
}

/* Known: a call through a pointer that overlaps its own return address, by the values of registers. */
static bool overwrites_pointer(const struct pattern *pattern)
{
	const struct operand *operand = &pattern->operands[0];
	uint64_t at;

	if (known_differences || pattern->insn.kind != ARCH_CALL_IND || pattern->operand_count == 0)
		return false;
	at = (uint64_t)operand->disp + (operand->base == NONE ? 0 : start.gpr[operand->base]) +
	     (operand->index == NONE ? 0 : start.gpr[operand->index] * operand->scale);
	return at - (start.gpr[RSP] - 15) < 15;
}

/* ---- running and comparing --------------------------------------------------------------------------------------- */

static void run(const struct pattern *pattern, uintptr_t code, struct result *result)
{
	uint8_t *const window = (uint8_t *)pattern->window;

	memcpy(&run_state, &start, offsetof(struct state, xsave));
	if (start.components != 0)
		memcpy(run_state.xsave, start.xsave, machine_xsave_size);
	result->outcome = machine_run(pattern, code);
	memcpy(&result->state, &run_state, offsetof(struct state, xsave));
	if (start.components != 0)
		memcpy(result->state.xsave, run_state.xsave, machine_xsave_size);
	result->wrote = memcmp(window, start_memory, WINDOW) != 0;
	if (result->wrote) {
		memcpy(result->memory, window, WINDOW);
		memcpy(window, start_memory, WINDOW);
	}
	executions++;
}

static uintptr_t map_back(const struct pattern *pattern, uintptr_t pc, unsigned int *pushed)
{
	unsigned int i, row = 0;

	*pushed = 0;
	if (pc < pattern->copy || pc > pattern->copy_end)
		return pc;
	if (pc == pattern->copy_end)
		return pattern->native + pattern->insn.length;
	for (i = 1; i < pattern->row_count && pattern->rows[i].code <= pc - pattern->copy; i++)
		row = i;
	*pushed = pattern->rows[row].cfa;
	return pattern->native + pattern->rows[row].original;
}

/* What a fault in the copy would be in place. */
static void map_fault(const struct pattern *pattern, struct result *result)
{
	struct outcome *outcome = &result->outcome;
	const uintptr_t pc = outcome->pc;
	const uint8_t *kept = native.wrote ? native.memory : start_memory;
	unsigned int pushed;
	uint64_t at;

	outcome->pc = map_back(pattern, pc, &pushed);
	if (outcome->address == pc)
		outcome->address = outcome->pc;
	if (pushed == 0)
		return;
	/* Below the stack pointer that the fault handler of the program sees, the return address was written. */
	late_call_faults++;
	at = result->state.gpr[RSP] - pattern->window;
	result->state.gpr[RSP] += 8UL * pushed;
	if (!result->wrote || at > WINDOW - 8)
		return;
	memcpy(result->memory + at, kept + at, 8);
	result->wrote = memcmp(result->memory, start_memory, WINDOW) != 0;
}

static bool same_xsave(const struct pattern *pattern, const uint8_t *a, uint8_t *b)
{
	uint64_t pc;

	memcpy(&pc, b + 8, sizeof(pc)); /* of the last x87 instruction */
	if (pc == pattern->copy)
		memcpy(b + 8, &pattern->native, sizeof(pc));
	/* between them the header: whether a component is tracked as unused is up to the processor */
	return memcmp(a, b, 464) == 0 && memcmp(a + 576, b + 576, machine_xsave_size - 576) == 0;
}

/* What differs, or NULL. */
static const char *difference(const struct pattern *pattern)
{
	if (copy.outcome.exit == EXIT_FAULT)
		map_fault(pattern, &copy);
	if (native.outcome.exit != copy.outcome.exit)
		return "way out";
	/* known: a call whose operand and stack cannot be accessed tells of the operand, its copy of the stack */
	if (pattern->insn.kind == ARCH_CALL_IND && !known_differences && copy.outcome.exit == EXIT_FAULT &&
	    native.outcome.pc == copy.outcome.pc && copy.outcome.address != native.outcome.address &&
	    (copy.outcome.address - (start.gpr[RSP] - 8) < 8 || copy.outcome.address == 0)) {
		double_faults++;
		copy.outcome = native.outcome;
	}
	if (native.outcome.signal != copy.outcome.signal || native.outcome.code != copy.outcome.code)
		return "signal";
	if (native.outcome.address != copy.outcome.address || native.outcome.pc != copy.outcome.pc)
		return "address of the fault";
	if (memcmp(native.state.gpr, copy.state.gpr, sizeof(copy.state.gpr)) != 0)
		return "registers";
	if ((native.state.flags ^ copy.state.flags) & FLAGS)
		return "flags";
	if (native.wrote != copy.wrote || (native.wrote && memcmp(native.memory, copy.memory, WINDOW) != 0))
		return "memory";
	if (start.components != 0 && !same_xsave(pattern, native.state.xsave, copy.state.xsave))
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

static void report(const struct pattern *pattern, const char *what)
{
	static const char *const names[] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
					     "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15" };
	static struct result again;
	const struct outcome *outcome;
	char text[128];
	size_t i;

	corpus_describe(pattern, text, sizeof(text));
	printf("DIFFERENCE in %s: %s\n  at %#lx:", what, text, (unsigned long)pattern->native);
	for (i = 0; i < pattern->insn.length; i++)
		printf(" %02x", pattern->bytes[i]);
	printf("\n  copy at %#lx%s:", (unsigned long)pattern->copy, pattern->flags & P_AROUND ? ", around" : "");
	for (i = pattern->copy; i < pattern->copy_end; i++)
		printf(" %02x", *(uint8_t *)i);
	for (i = 0; i < 2; i++) {
		outcome = i ? &copy.outcome : &native.outcome;
		printf("\n  %s: exit %u, signal %d, code %d, address %#lx, pc %#lx", i ? "copy" : "native",
		       outcome->exit, outcome->signal, outcome->code, (unsigned long)outcome->address,
		       (unsigned long)outcome->pc);
	}
	printf("\n  flags: start %#lx, native %#lx, copy %#lx\n", (unsigned long)start.flags,
	       (unsigned long)native.state.flags, (unsigned long)copy.state.flags);
	for (i = 0; i < REGISTERS; i++)
		printf("  %s%s: start %#lx, native %#lx, copy %#lx\n", names[i],
		       native.state.gpr[i] == copy.state.gpr[i] ? "" : " (!)", (unsigned long)start.gpr[i],
		       (unsigned long)native.state.gpr[i], (unsigned long)copy.state.gpr[i]);
	report_bytes("memory", native.wrote ? native.memory : start_memory,
		     copy.wrote ? copy.memory : start_memory, WINDOW);
	if (start.components != 0)
		report_bytes("xsave", native.state.xsave, copy.state.xsave, machine_xsave_size);
	run(pattern, pattern->native, &again);
	copy = again;
	what = difference(pattern);
	printf("  native again: %s%s\n", what ? "differs from itself, this is for the skip list: " : "as before",
	       what ? what : "");
}

/* The same states whenever it is run with this seed. False: a difference, reported. */
static bool burst(struct pattern *pattern, uint64_t seed, unsigned int count)
{
	struct form *form = &corpus.forms[pattern->form];
	const char *what;
	unsigned int i, tries;

	start_burst(pattern, &seed);
	memcpy((void *)pattern->window, start_memory, WINDOW);
	for (i = 0; i < count; i++) {
		start_registers(pattern, &seed);
		start.components = pattern->flags & P_VECTOR || random_next(&seed) % XSAVE_EVERY == 0 ?
					   machine_components : 0;
		if (overwrites_pointer(pattern)) {
			overwritten++;
			continue;
		}
		/*
		 * AMD restores the x87 instruction and data pointers only while an exception is pending;
		 * else they are what was there, and 0 after a context switch. What persists counts.
		 */
		tries = 0;
		do {
			run(pattern, pattern->native, &native);
			run(pattern, pattern->copy, &copy);
			form->executions += 2;
			what = difference(pattern);
			retries += what != NULL;
		} while (what && start.components != 0 && ++tries < 4);
		if (what) {
			report(pattern, what);
			return false;
		}
		if (native.outcome.exit == EXIT_FAULT) {
			faults += 2;
		} else {
			form->completed += 2;
			pattern->flags &= (uint16_t)~P_FAULTS;
		}
	}
	return true;
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void summary(double reading, double running)
{
	size_t i, run = 0, complete = 0;

	for (i = 0; i < corpus.form_count; i++) {
		run += corpus.forms[i].executions != 0;
		complete += corpus.forms[i].completed != 0;
		if (getenv("LIBPATCH_DIFFERENTIAL_FORMS"))
			printf("%12llu %12llu %s\n", (unsigned long long)corpus.forms[i].executions,
			       (unsigned long long)corpus.forms[i].completed, corpus.forms[i].text);
	}
	for (i = 0; i < corpus.skip_count; i++)
		printf("skipped %llu: %s\n", (unsigned long long)corpus.skips[i].patterns, corpus.skips[i].reason);
	printf("%llu instructions of %zu files read in %.1f s: %zu forms, %zu encodings, %zu different instructions\n",
	       (unsigned long long)corpus.instructions, corpus.files, reading, corpus.form_count, corpus.encoding_count,
	       corpus.pattern_count);
	printf("%llu executions (%.0f/s) of %zu forms, %zu of them without a fault, too; %llu faults, "
	       "%llu late in a call, %llu double; %llu left out, %llu repeated\n",
	       (unsigned long long)executions, (double)executions / running, run, complete, (unsigned long long)faults,
	       (unsigned long long)late_call_faults, (unsigned long long)double_faults,
	       (unsigned long long)overwritten, (unsigned long long)retries);
}

int main(int argc, char **argv)
{
	const char *text = argc > 1 ? argv[1] : getenv("LIBPATCH_STRESS_SECONDS");
	const double seconds = text ? strtod(text, NULL) : 10, begin = now();
	const char *seed_text = argc > 2 ? argv[2] : getenv("LIBPATCH_STRESS_SEED");
	const uint64_t seed = seed_text ? strtoull(seed_text, NULL, 0) : 1;
	unsigned int differences = 0;
	uint64_t round;
	double read;
	size_t i, n;

	known_differences = getenv("LIBPATCH_DIFFERENTIAL_KNOWN");
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("seed %llu\n", (unsigned long long)seed);
	corpus_read(&corpus, mix(seed), seconds > 30 ? SIZE_MAX : 2UL << 20, seconds > 30 ? 16 : 4);
	if (corpus.pattern_count == 0) {
		printf("no binary to take instructions from\n");
		return 77;
	}
	machine_prepare();
	for (i = n = 0; i < corpus.pattern_count; i++) {
		corpus.patterns[n] = corpus.patterns[i];
		corpus.patterns[n].flags |= P_FAULTS;
		n += machine_build(&corpus, &corpus.patterns[n], mix(seed + i));
	}
	corpus.pattern_count = n;
	machine_built();
	read = now();
	for (round = 0; differences < 5 && now() < begin + seconds; round++) {
		for (i = 0; i < n && differences < 5 && now() < begin + seconds; i++) {
			struct pattern *pattern = &corpus.patterns[i];
			const bool few = pattern->flags & P_SLOW || (round != 0 && pattern->flags & P_FAULTS);

			if (few && round % 64 > 1)
				continue;
			differences += !burst(pattern, mix(seed ^ mix(round << 32 | i)), few ? 2 : BURST);
		}
	}
	summary(read - begin, now() - read);
	return differences != 0;
}
