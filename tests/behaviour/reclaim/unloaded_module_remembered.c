/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A patched module is unmapped, and other code comes to the same addresses: none of it is taken for ours. The patches
 * are over, say so, and can be released; an int3 of the new code where a trap of ours was is the new code's, once; the
 * new code can be patched; an int3 of two bytes behind such a place is not executed again. Memory stays the same over
 * thousands of such cycles, with jumps, pads, traps, gates and calls patched around.
 */
#include "harness.h"

#include <ucontext.h>

#include "patch/unmapped.h"
#include "runtime/lock.h"

#define SIZE 4096
#define CYCLES 600

/*
 * 0: lea 0x10(%rdi), %rax; add $1, %rax; ret      jump over several
 * 32: push %rbx; mov %edi, %ebx; call 64; pop %rbx; ret   patched around
 * 64: lea 1(%rdi), %rax; ret
 * 96: push %rbp; pop %rbp; mov %rdi, %rax; ret   trap
 */
static const struct {
	unsigned int at;
	const char *code;
	size_t size;
} code[] = {
	{ 0, "\x48\x8D\x47\x10\x48\x83\xC0\x01\xC3", 9 },
	{ 32, "\x53\x89\xFB\xE8\x18\x00\x00\x00\x5B\xC3", 10 },
	{ 64, "\x48\x8D\x47\x01\xC3", 5 },
	{ 96, "\x55\x5D\x48\x89\xF8\xC3", 6 },
};

static uint8_t *memory;
static volatile uint64_t hits;
static volatile unsigned int traps;
static volatile uintptr_t trapped_at;

GP_ONLY static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	++hits;
}

static void on_trap(int signo, siginfo_t *info, void *context)
{
	(void)signo;
	(void)info;
	++traps;
	trapped_at = (uintptr_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
}

/* As dlopen() and dlclose() do, at an address of the test's choice. */
static void load(const void *extra, size_t size)
{
	memory = mmap(memory, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | (memory ? MAP_FIXED : 0), -1,
		      0);
	REQUIRE(memory != MAP_FAILED);
	memset(memory, 0x90, SIZE);
	for (size_t i = 0; i < sizeof(code) / sizeof(code[0]); ++i)
		memcpy(memory + code[i].at, code[i].code, code[i].size);
	memcpy(memory, extra, size);
	REQUIRE(mprotect(memory, SIZE, PROT_READ | PROT_EXEC) == 0);
}

static void unload(bool told)
{
	struct lock_scope scope;

	if (told) {
		REQUIRE(lock_acquire(&scope));
		unmapped_end((uintptr_t)memory, (uintptr_t)memory + SIZE);
		lock_release(&scope);
	}
	REQUIRE(munmap(memory, SIZE) == 0);
}

static uint64_t call(unsigned int at, uint64_t argument)
{
	return ((uint64_t(*)(uint64_t))(memory + at))(argument);
}

static patch_t make(unsigned int at, int type, int policy)
{
	struct patch_location location = location_at((uintptr_t)memory + at);
	struct patch_exec_model model = model_of(type, procedure, NULL);
	patch_attr attr = attr_of(policy, PATCH_ENABLED);
	patch_t patch;

	model.probe.clobber_registers = PATCH_REGS_GP_ONLY;
	REQUIRE_OK(patch_make(&location, &model, &attr, &patch, NULL));
	return patch;
}

#define PATCHES 5

static void make_all(patch_t patches[PATCHES])
{
	patches[0] = make(0, PATCH_EXEC_MODEL_PROBE, PATCH_TRAP_POLICY_FORBID);
	patches[1] = make(4, PATCH_EXEC_MODEL_PROBE, PATCH_TRAP_POLICY_ALLOW); /* shares its region: gates */
	patches[2] = make(35, PATCH_EXEC_MODEL_PROBE_AROUND, PATCH_TRAP_POLICY_ALLOW);
	patches[3] = make(96, PATCH_EXEC_MODEL_PROBE, PATCH_TRAP_POLICY_FORCE);
	patches[4] = make(97, PATCH_EXEC_MODEL_PROBE, PATCH_TRAP_POLICY_FORCE);
	REQUIRE_OK(patch_commit());
}

static void run_all(void)
{
	hits = 0;
	CHECK_EQ(call(0, 1), 0x12);
	CHECK_EQ(hits, 2);
	CHECK_EQ(call(32, 1), 2);
	CHECK_EQ(hits, 4);
	CHECK_EQ(call(96, 7), 7);
	CHECK_EQ(hits, 6);
}

static void check_over(patch_t patches[PATCHES])
{
	struct patch_info info;

	for (int i = 0; i < PATCHES; ++i) {
		CHECK_STATUS(patch_info(patches[i], &info, sizeof(info)), PATCH_EFAULT);
		CHECK_STATUS(patch_enable(patches[i]), PATCH_EFAULT);
		CHECK_OK(patch_disable(patches[i]));
	}
	CHECK_OK(patch_commit());
	for (int i = 0; i < PATCHES; ++i)
		CHECK_OK(patch_unmake(patches[i]));
	CHECK_OK(patch_commit());
	for (int i = 0; i < PATCHES; ++i)
		CHECK_STATUS(patch_info(patches[i], &info, sizeof(info)), PATCH_ENEXIST);
}

static void test_other_code(void)
{
	patch_t patches[PATCHES], again;

	load("", 0);
	make_all(patches);
	run_all();
	unload(true);
	/* Where our traps and jump were: nop; int3; ret, and int $3. */
	load("\x90\xCC\xC3", 3);
	memory = mmap(memory, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	memcpy(memory, "\xCC\x90\x90\xC3", 4);
	memcpy(memory + 95, "\xCD\x03\xC3", 3); /* its second byte is where a trap of ours was */
	REQUIRE(mprotect(memory, SIZE, PROT_READ | PROT_EXEC) == 0);
	traps = 0;
	hits = 0;
	call(0, 0);
	CHECK_EQ(traps, 1);
	CHECK_EQ(trapped_at, (uintptr_t)memory + 1);
	call(95, 0);
	CHECK_EQ(traps, 2);
	CHECK_EQ(trapped_at, (uintptr_t)memory + 97);
	CHECK_EQ(hits, 0);
	check_over(patches);

	/* The same module again: nothing of it is patched, all of it can be. */
	unload(true);
	load("", 0);
	hits = 0;
	CHECK_EQ(call(0, 1), 0x12);
	CHECK_EQ(hits, 0);
	again = make(0, PATCH_EXEC_MODEL_PROBE, PATCH_TRAP_POLICY_FORBID);
	REQUIRE_OK(patch_commit());
	CHECK_EQ(call(0, 1), 0x12);
	CHECK_EQ(hits, 1);
	CHECK_OK(patch_unmake(again));
	CHECK_OK(patch_commit());
	CHECK_EQ(memory[0], 0x48);
	unload(true);
}

/* Nobody told: a commit that wants to change the site finds out. */
static void test_found_out(void)
{
	struct patch_info info;
	patch_t patches[PATCHES];

	load("", 0);
	make_all(patches);
	unload(false);
	for (int i = 0; i < PATCHES; ++i)
		CHECK_OK(patch_disable(patches[i]));
	CHECK_OK(patch_commit());
	for (int i = 0; i < PATCHES; ++i) {
		CHECK_STATUS(patch_info(patches[i], &info, sizeof(info)), PATCH_EFAULT);
		CHECK_OK(patch_unmake(patches[i]));
	}
	CHECK_OK(patch_commit());
}

static void cycle(bool released_first)
{
	patch_t patches[PATCHES];

	load("", 0);
	make_all(patches);
	run_all();
	for (int i = 0; released_first && i < PATCHES; ++i)
		CHECK_OK(patch_unmake(patches[i]));
	if (released_first)
		CHECK_OK(patch_commit());
	unload(true);
	for (int i = 0; !released_first && i < PATCHES; ++i)
		CHECK_OK(patch_unmake(patches[i]));
	CHECK_OK(patch_commit());
}

static void test_memory(void)
{
	struct patch_statistics before, after;

	for (int i = 0; i < 10; ++i)
		cycle(i & 1);
	CHECK_OK(patch_statistics(&before, sizeof(before)));
	for (int i = 0; i < CYCLES; ++i) {
		CONTEXT("cycle %d", i);
		cycle(i & 1);
	}
	CHECK_OK(patch_statistics(&after, sizeof(after)));
	CHECK_EQ(after.patches, 0);
	CHECK_EQ(after.regions, 0);
	CHECK_EQ(after.retired_bytes, before.retired_bytes);
	CHECK_EQ(after.heap_bytes, before.heap_bytes);
	CHECK_EQ(after.code_bytes, before.code_bytes);
	CHECK_EQ(after.pads, before.pads);
	CHECK_EQ(after.arenas, before.arenas);
}

int main(void)
{
	struct sigaction action = { .sa_sigaction = on_trap, .sa_flags = SA_SIGINFO };

	harness_start();
	REQUIRE(sigaction(SIGTRAP, &action, NULL) == 0);
	REQUIRE_OK(patch_init(NULL, 0));
	test_other_code();
	test_found_out();
	test_memory();
	return harness_end();
}
