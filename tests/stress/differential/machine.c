/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The machine of the differential test: memory, code and the way in and out.
 *
 * Two arenas, one below 2 GiB, one far above. Each has native instructions in slots of 256 bytes, copies of single ones
 * elsewhere (those of windows are where libpatch puts them), a page of data with nothing around it, and exits that note
 * which one was taken.
 */
#include "arch/trap_bytes.h"
#include "differential.h"

#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#define ARENA_SIZE 0x60000000UL
/* Where stray pointers do not lead, not from one to the other either; nothing else is within 32-bit offsets. */
#define ARENA_LOW 0x12340000UL
#define ARENA_HIGH 0x6A1200000000UL
#define NATIVE_AT 0x00100000UL
#define WINDOWS_AT 0x20000000UL
#define DATA_AT 0x30000000UL
#define CONTROL_AT 0x3A5A0000UL /* where neither displacements nor bit offsets lead from the data */
#define COPY_AT 0x40000000UL
#define EXITS_AT 0x5FFF0000UL
#define NATIVE_SLOT 256UL
#define NATIVE_START 112 /* in its slot; around it is what short branches lead to */
#define COPY_SLOT 256UL
#define COPY_ODD 37UL /* copies are not aligned as their originals are */
#define MAX_SLOTS 300000UL
#define TICK_MICROSECONDS 4000

struct arena {
	uintptr_t base;
	size_t slots;
	uintptr_t exits[EXITS];
	uintptr_t recorders[2][2]; /* for holes: that change registers, and that read the word on the stack */
};

/* On the page at CONTROL_AT. */
struct control {
	uint32_t taken;
	uint32_t hole;
	uint64_t back; /* where the hole goes on */
	uint64_t gpr[REGISTERS];
	uint64_t top;
};

uint64_t machine_components;
size_t machine_xsave_size;
bool machine_far;
static struct arena arenas[2];
static bool has_fsgsbase;
static volatile sig_atomic_t running;
static volatile struct outcome fault;
static volatile uint64_t runs;
static volatile unsigned int patience_left;
static const struct subject *volatile trapped;
static uint8_t *windows_alias[2]; /* the same memory, writable */

/* gcc 11 has it, and clang. */
#if __has_attribute(no_stack_protector)
#define NO_STACK_PROTECTOR __attribute__((no_stack_protector))
#else
#define NO_STACK_PROTECTOR __attribute__((optimize("no-stack-protector")))
#endif

/* With the stack pointer of the host: the kernel may be unable to return to the run's (compare.c). */
static NO_STACK_PROTECTOR void leave(ucontext_t *uc)
{
	fault.stack = (uint64_t)uc->uc_mcontext.gregs[REG_RSP];
	uc->uc_mcontext.gregs[REG_RSP] = (greg_t)run_host_stack;
	uc->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)run_leave;
	uc->uc_mcontext.gregs[REG_EFL] &= ~0x100LL; /* TF */
}

/* An int3 of machine_trap(): on in the copy. FS is the run's, so nothing of the program's own may be used. */
static NO_STACK_PROTECTOR bool returns(const siginfo_t *info, ucontext_t *uc)
{
	const struct subject *subject = trapped;
	const uintptr_t at = (uintptr_t)uc->uc_mcontext.gregs[REG_RIP] - 1;
	unsigned int i;

	if (!subject || info->si_signo != SIGTRAP || info->si_code != SI_KERNEL)
		return false;
	for (i = 0; i < subject->count; i++) {
		if (at == subject->native + subject->steps[i].offset) {
			uc->uc_mcontext.gregs[REG_RIP] = (greg_t)subject->entries[i];
			fault.traps++;
			return true;
		}
	}
	return false;
}

/* Note it, and go on at the exit with everything else as it was. FS first: the program's own may be needed. */
static NO_STACK_PROTECTOR void on_fault(int signal, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	if (!running) {
		struct sigaction action = { .sa_handler = SIG_DFL };

		sigaction(signal, &action, NULL);
		return;
	}
	if (returns(info, uc))
		return;
	if (run_state.fs != 0)
		__asm__ volatile("wrfsbase %0" : : "r"(run_host_fs));
	fault.exit = EXIT_FAULT;
	fault.signal = signal;
	fault.code = info->si_code;
	fault.address = (uintptr_t)info->si_addr;
	fault.pc = (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];
	leave(uc);
}

/* A run that has lasted for so many ticks, and is not on its way in or out, ends here. */
static NO_STACK_PROTECTOR void on_tick(int signal, siginfo_t *info, void *context)
{
	static uint64_t last;
	ucontext_t *uc = context;
	const uintptr_t pc = (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];

	(void)signal;
	(void)info;
	if (!running || (pc >= (uintptr_t)run_code && pc < (uintptr_t)run_end))
		return;
	if (last != runs) {
		last = runs;
		return;
	}
	if (patience_left-- > 1)
		return;
	fault.exit = EXIT_TIMEOUT;
	leave(uc);
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void make_writable(uintptr_t at, size_t size)
{
	if (mprotect((void *)at, size, PROT_READ | PROT_WRITE) != 0)
		die("mprotect");
}

/* Memory to be executed at `at`; returns where it can be written. */
static uint8_t *map_twice(uintptr_t at, size_t size)
{
	const int fd = memfd_create("windows", MFD_CLOEXEC);
	void *alias = MAP_FAILED;

	if (fd >= 0 && ftruncate(fd, (off_t)size) == 0 &&
	    mmap((void *)at, size, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, fd, 0) != MAP_FAILED)
		alias = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (alias == MAP_FAILED)
		die("memfd");
	close(fd);
	return alias;
}

static struct control *control_of(const struct arena *arena)
{
	return (struct control *)(arena->base + CONTROL_AT);
}

/* mov dword [rip + rel32], value */
static void emit_note(struct arch_code *code, const void *at, uint32_t value)
{
	arch_emit_bytes(code, "\xC7\x05", 2);
	arch_emit_rel32(code, (uintptr_t)at, 4);
	arch_emit_u32(code, value);
}

/* Notes the registers, and may change them; no flag and no memory of the program's. */
static uintptr_t emit_recorder(struct arch_code *code, const struct arena *arena, bool changes, bool reads)
{
	static const uint8_t load[] = { 0x48, 0x8B, 0x04, 0x24 }; /* mov rax, [rsp] */
	static const uint8_t store[] = { 0x48, 0x89, 0x05 };      /* mov [rip + rel32], rax */
	static const uint8_t restore[] = { 0x48, 0x8B, 0x05 };    /* mov rax, [rip + rel32] */
	const uintptr_t start = arch_code_here(code);
	unsigned int reg;

	for (reg = 0; reg < REGISTERS; reg++) {
		arch_emit_u8(code, reg < R8 ? 0x48 : 0x4C); /* mov [rip + rel32], reg */
		arch_emit_u8(code, 0x89);
		arch_emit_u8(code, (uint8_t)(5 | (reg & 7) << 3));
		arch_emit_rel32(code, (uintptr_t)&control_of(arena)->gpr[reg], 0);
	}
	if (reads) {
		arch_emit_bytes(code, load, sizeof(load));
		arch_emit_bytes(code, store, sizeof(store));
		arch_emit_rel32(code, (uintptr_t)&control_of(arena)->top, 0);
		arch_emit_bytes(code, restore, sizeof(restore));
		arch_emit_rel32(code, (uintptr_t)&control_of(arena)->gpr[RAX], 0);
	}
	for (reg = 0; changes && reg < REGISTERS; reg++) {
		if (reg == RSP)
			continue;
		arch_emit_u8(code, reg < R8 ? 0x48 : 0x4D); /* lea reg, [reg + disp32] */
		arch_emit_u8(code, 0x8D);
		arch_emit_u8(code, (uint8_t)(0x80 | (reg & 7) << 3 | (reg & 7)));
		if (reg == R12)
			arch_emit_u8(code, 0x24);
		arch_emit_u32(code, HOLE_ADDS);
	}
	arch_emit_bytes(code, "\xFF\x25", 2); /* jmp [rip + rel32] */
	arch_emit_rel32(code, (uintptr_t)&control_of(arena)->back, 0);
	return start;
}

static void prepare_arena(struct arena *arena, uintptr_t at)
{
	struct arch_code code;
	unsigned int i;
	void *memory = mmap((void *)at, ARENA_SIZE, PROT_NONE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

	if (memory == MAP_FAILED)
		die("mmap");
	arena->base = (uintptr_t)memory;
	make_writable(arena->base + NATIVE_AT, MAX_SLOTS * NATIVE_SLOT);
	make_writable(arena->base + COPY_AT, MAX_SLOTS * COPY_SLOT);
	windows_alias[arena - arenas] = map_twice(arena->base + WINDOWS_AT, WINDOWS_MAX * NATIVE_SLOT);
	make_writable(arena->base + DATA_AT, DATA_SIZE);
	make_writable(arena->base + CONTROL_AT, 4096);
	make_writable(arena->base + EXITS_AT, 4096);
	code = (struct arch_code){ .bytes = (uint8_t *)arena->base + EXITS_AT, .capacity = 4096 };
	code.base = arena->base + EXITS_AT;
	for (i = 0; i < EXITS; i++) {
		arena->exits[i] = arch_code_here(&code);
		emit_note(&code, &control_of(arena)->taken, i);
		arch_emit_bytes(&code, "\xFF\x25\0\0\0\0", 6); /* jmp [rip] */
		arch_emit_u64(&code, (uintptr_t)run_leave);
	}
	for (i = 0; i < 4; i++)
		arena->recorders[i / 2][i % 2] = emit_recorder(&code, arena, i / 2, i % 2);
	mprotect((void *)(arena->base + EXITS_AT), 4096, PROT_READ | PROT_EXEC);
}

void machine_prepare(void)
{
	static const int signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP };
	static uint8_t alternate[1 << 16];
	const stack_t stack = { .ss_sp = alternate, .ss_size = sizeof(alternate) };
	const struct itimerval tick = { { 0, TICK_MICROSECONDS }, { 0, TICK_MICROSECONDS } };
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART };
	uint32_t eax, edx;
	size_t i;

	prepare_arena(&arenas[0], ARENA_LOW);
	prepare_arena(&arenas[1], ARENA_HIGH);
	has_fsgsbase = getauxval(AT_HWCAP2) & 2;
	if (has_fsgsbase)
		__asm__ volatile("wrgsbase %0" : : "r"(SEGMENT_BASE));
	__asm__("xgetbv" : "=a"(eax), "=d"(edx) : "c"(0));
	machine_components = eax & 0xE7; /* x87, SSE, AVX, AVX-512 */
	__asm__("cpuid" : "=b"(eax) : "a"(0xD), "c"(0) : "edx");
	machine_xsave_size = eax < STATE_XSAVE ? eax : STATE_XSAVE;
	sigaltstack(&stack, NULL);
	sigaddset(&action.sa_mask, SIGVTALRM);
	for (i = 0; i < ARRAY_SIZE(signals); i++)
		sigaction(signals[i], &action, NULL);
	action.sa_sigaction = on_tick;
	sigaction(SIGVTALRM, &action, NULL);
	setitimer(ITIMER_VIRTUAL, &tick, NULL);
}

static struct arena *arena_of(const struct subject *subject)
{
	return &arenas[!(subject->flags & P_LOW)];
}

uintptr_t machine_exit(const struct subject *subject, unsigned int exit)
{
	return arena_of(subject)->exits[exit];
}

/* ---- native code ------------------------------------------------------------------------------------------------- */

/* A displacement that leads a RIP-relative or an absolute operand into the data. */
static void patch_operand(const struct subject *subject, struct step *step, uint64_t at)
{
	const uintptr_t after = subject->native + step->offset + step->insn.length;
	ZydisDecodedInstruction zydis;
	uint64_t target = subject->data + at;
	uint32_t field;

	if (step->flags & (P_FS | P_GS))
		target -= SEGMENT_BASE;
	if (step->insn.disp_offset != 0) {
		field = (uint32_t)(target - after);
		memcpy(step->bytes + step->insn.disp_offset, &field, sizeof(field));
	} else if (step->operand_count > 0 && step->operands[0].base == NONE && step->operands[0].index == NONE &&
		   ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(step_decoder(), NULL, step->bytes, step->insn.length,
							      &zydis)) &&
		   zydis.raw.disp.size >= 32) {
		memcpy(step->bytes + zydis.raw.disp.offset, &target, zydis.raw.disp.size / 8);
		step->operands[0].disp = (int64_t)target;
	}
}

static bool is_boundary(const struct subject *subject, int64_t offset)
{
	unsigned int i;

	for (i = 0; i < subject->count; i++)
		if (subject->steps[i].offset == offset)
			return true;
	return offset == subject->length;
}

/*
 * How far from its end a rel8 leads: to where a jump has room. For a single instruction anywhere, for a window to one
 * of as many places in front of it and behind it as it may have instructions.
 */
static int short_distance(const struct subject *subject, unsigned int index, uint64_t random)
{
	const struct step *step = &subject->steps[index];
	const int after = step->offset + step->insn.length, room = 8 + ARCH_JMP_SIZE * (int)index;

	if (subject->count == 1)
		return random & 1 ? ARCH_JMP_SIZE + (int)((random >> 1) % 100) : -24 - (int)((random >> 1) % 80);
	return random & 1 ? subject->length + room - after : -room - ARCH_JMP_SIZE - after;
}

/* Where native code is written. */
static uint8_t *writable(const struct subject *subject, uintptr_t native)
{
	const struct arena *arena = arena_of(subject);

	if (subject->count == 1)
		return (uint8_t *)native;
	return windows_alias[arena - arenas] + (native - arena->base - WINDOWS_AT);
}

/* Branches within the window stay as they are, others lead to an exit: rel32 at once, rel8 by a jump in the slot. */
static const char *patch_branch(const struct subject *subject, unsigned int index, uint64_t random)
{
	struct step *step = &subject->steps[index];
	const uintptr_t after = subject->native + step->offset + step->insn.length;
	const uintptr_t exit = machine_exit(subject, 1 + random % (EXITS - 1));
	struct arch_code code;
	uint32_t field;
	int64_t inside;
	int distance;

	if (step->insn.rel_size == 0)
		return NULL;
	inside = (int64_t)(step->insn.target - STEP_ADDRESS) + step->offset;
	if (subject->count > 1 && inside >= 0 && inside <= subject->length)
		return is_boundary(subject, inside) ? NULL : "branches into the middle of an instruction";
	if (step->insn.rel_size == 4) {
		field = (uint32_t)(exit - after);
		memcpy(step->bytes + step->insn.rel_offset, &field, sizeof(field));
	} else {
		distance = short_distance(subject, index, random >> 8);
		step->bytes[step->insn.rel_offset] = (uint8_t)distance;
		code = (struct arch_code){ .capacity = ARCH_JMP_SIZE, .base = after + (uintptr_t)distance };
		code.bytes = writable(subject, code.base);
		arch_emit_jmp(&code, exit);
	}
	return NULL;
}

/* The steps come as decoded at STEP_ADDRESS, and become what they are at `native`. */
static const char *place(struct subject *subject, uintptr_t native, uint64_t *seed)
{
	struct arch_code code = { .capacity = WINDOW_BYTES + ARCH_JMP_SIZE, .base = native };
	struct step *step;
	const char *why;
	uint64_t random;
	unsigned int i;

	code.bytes = writable(subject, native);
	subject->native = native;
	subject->data = arena_of(subject)->base + DATA_AT;
	if (subject->flags & (P_FS | P_GS) && !has_fsgsbase)
		return "FS or GS operand without FSGSBASE";
	for (i = 0; i < subject->count; i++) {
		step = &subject->steps[i];
		random = random_next(seed);
		patch_operand(subject, step, 512 + (random >> 20) % 1024 / 64 * 64);
		why = patch_branch(subject, i, random);
		if (why)
			return why;
		if (!arch_decode(step->bytes, step->insn.length, native + step->offset, &step->insn) ||
		    step->insn.flags & ARCH_F_REFUSED)
			return step->insn.why ? step->insn.why : "no longer decodes";
		arch_emit_bytes(&code, step->bytes, step->insn.length);
	}
	arch_emit_jmp(&code, arena_of(subject)->exits[0]);
	return NULL;
}

const char *machine_place_window(struct subject *subject, size_t slot, uint64_t seed)
{
	return place(subject, arena_of(subject)->base + WINDOWS_AT + slot * NATIVE_SLOT + NATIVE_START, &seed);
}

/* ---- single instructions and their copies ------------------------------------------------------------------------ */

/* To the recorder and back. */
static void emit_hole(struct arch_code *code, const struct arch_exit *way, void *data)
{
	struct subject *subject = data;
	const struct arena *arena = arena_of(subject);
	struct control *control = control_of(arena);
	const unsigned int hole = ++subject->way_count;
	const uintptr_t back = arch_code_here(code) + 3 * 10 + ARCH_JMP_SIZE;
	const bool reads = step_is_call(&subject->steps[0]) ||
			   (subject->steps[0].insn.kind == ARCH_JMP_IND && way->held == ARCH_HELD_ON_TOP);
	const uintptr_t recorder = arena->recorders[(subject->flags & P_WRITTEN) != 0][reads];

	subject->ways[hole - 1] = *way;
	emit_note(code, &control->hole, hole);
	emit_note(code, &control->back, (uint32_t)back);
	emit_note(code, (uint8_t *)&control->back + 4, (uint32_t)(back >> 32));
	arch_emit_u8(code, ARCH_JMP_REL32);
	arch_emit_rel32(code, recorder, 0);
}

struct seen machine_seen(const struct subject *subject, unsigned int hole)
{
	const struct control *control = control_of(arena_of(subject));
	struct seen seen = { .top = control->top, .way = subject->ways[hole - 1] };

	memcpy(seen.gpr, control->gpr, sizeof(seen.gpr));
	return seen;
}

const char *machine_build(struct pattern *pattern, uint64_t seed)
{
	struct subject *subject = &pattern->subject;
	const struct step *step = &pattern->step;
	struct arch_code code;
	struct arena *arena;
	const char *why;

	subject->steps = &pattern->step;
	subject->rows = pattern->rows;
	subject->count = 1;
	subject->length = step->insn.length;
	subject->flags = step->flags;
	arena = arena_of(subject);
	if (arena->slots >= MAX_SLOTS)
		return "no room for more";
	why = place(subject, arena->base + NATIVE_AT + arena->slots * NATIVE_SLOT + NATIVE_START, &seed);
	if (why)
		return why;
	why = machine_far ? arch_refuses_far(step->bytes, &step->insn) : NULL;
	if (why)
		return why;
	subject->way_count = 0;
	subject->copy = arena->base + COPY_AT + arena->slots * COPY_SLOT + COPY_ODD;
	subject->entries[0] = subject->copy;
	code = (struct arch_code){ .bytes = (uint8_t *)subject->copy, .capacity = COPY_SLOT - COPY_ODD };
	code.base = subject->copy;
	code.far = machine_far;
	code.rows = pattern->rows;
	code.row_capacity = ARRAY_SIZE(pattern->rows);
	if (step->flags & P_AROUND)
		arch_relocate_around(&code, step->bytes, &step->insn, subject->native, NULL,
				     step->flags & P_WRITTEN ? 0xFFFF & ~(1U << RSP) : 0, emit_hole, subject);
	else
		arch_relocate(&code, step->bytes, &step->insn, subject->native, NULL);
	code.original = step->insn.length;
	arch_emit_row(&code, 0);
	arch_emit_jmp(&code, arena->exits[0]);
	subject->copy_end = arch_code_here(&code);
	subject->row_count = (uint16_t)code.row_count;
	if (code.out_of_range || code.size > code.capacity || code.row_count > code.row_capacity)
		return "copy does not fit or reach";
	arena->slots++;
	return NULL;
}

void machine_built(void)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(arenas); i++) {
		mprotect((void *)(arenas[i].base + NATIVE_AT), MAX_SLOTS * NATIVE_SLOT, PROT_READ | PROT_EXEC);
		mprotect((void *)(arenas[i].base + COPY_AT), MAX_SLOTS * COPY_SLOT, PROT_READ | PROT_EXEC);
	}
}

/* ---- traps ------------------------------------------------------------------------------------------------------- */

/* What was written through another address is executed only behind a serializing instruction. */
static void serialize(void)
{
	__asm__ volatile("mov %%rsp, %%rax; lea -128(%%rsp), %%rsp\n"
			 "mov %%ss, %%edx; push %%rdx; push %%rax; pushfq\n"
			 "mov %%cs, %%edx; push %%rdx; lea 1f(%%rip), %%rdx; push %%rdx; iretq\n"
			 "1:" : : : "rax", "rdx", "memory", "cc");
}

void machine_trap(const struct subject *subject, bool set)
{
	const struct step *step;
	unsigned int i;

	for (i = 0; i < subject->count; i++) {
		step = &subject->steps[i];
		*writable(subject, subject->native + step->offset) = set ? ARCH_INT3 : step->bytes[0];
	}
	serialize();
	trapped = set ? subject : NULL;
}

/* ---- running ----------------------------------------------------------------------------------------------------- */

struct outcome machine_run(const struct subject *subject, uintptr_t code, unsigned int patience)
{
	volatile struct control *control = control_of(arena_of(subject));
	struct outcome outcome = { 0 };

	control->taken = EXIT_FAULT;
	control->hole = 0;
	fault.exit = 0;
	fault.traps = 0;
	run_state.code = code;
	run_state.fs = subject->flags & P_FS ? SEGMENT_BASE : 0;
	patience_left = patience;
	runs++;
	running = 1;
	run_code();
	running = 0;
	if (fault.exit)
		run_state.gpr[RSP] = fault.stack;
	if (fault.exit == EXIT_FAULT)
		outcome = *(struct outcome *)(uintptr_t)&fault;
	else
		outcome.exit = fault.exit ? fault.exit : control->taken;
	outcome.traps = fault.traps;
	outcome.hole = control->hole;
	return outcome;
}
