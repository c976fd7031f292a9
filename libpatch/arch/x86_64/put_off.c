/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The C side of put_off_stubs.S: calls of hooks, found by the word that they return to; threads in a stub. No state.
 */
#include "arch/put_off.h"

#include "arch/upcalls.h"
#include "arch/x86_64/flags.h"
#include "arch/x86_64/hook_frame.h"
#include "arch/x86_64/put_off.h"

#include <libpatch/patch.h>

#define PLACE(name) extern const char name[] __attribute__((visibility("hidden")))
#define DECLARE(way) \
	PLACE(arch_put_off_stub_##way); \
	PLACE(arch_put_off_kept_##way); \
	PLACE(arch_put_off_given_back_##way); \
	PLACE(arch_put_off_end_##way)

DECLARE(0);
DECLARE(1);

_Static_assert(PUT_OFF_RETURNS == ARCH_HOOK_FRAME_REGISTERS + 8 * PATCH_X86_64_RBX, "put_off.h");
_Static_assert(PUT_OFF_GUARD_WORD == offsetof(struct hook_guard, put_off), "put_off.h");

static const struct stub {
	const char *begin;
	const char *kept;       /* registers and flags are on the stack from here on */
	const char *given_back; /* flags only */
	const char *end;
} stubs[ARCH_PUT_OFF_WAYS] = {
	{ arch_put_off_stub_0, arch_put_off_kept_0, arch_put_off_given_back_0, arch_put_off_end_0 },
	{ arch_put_off_stub_1, arch_put_off_kept_1, arch_put_off_given_back_1, arch_put_off_end_1 },
};

uintptr_t *arch_put_off_return(uintptr_t base, unsigned int way)
{
	return (uintptr_t *)base - 1 - way;
}

void arch_put_off(uintptr_t base, unsigned int way)
{
	uintptr_t *returns = arch_put_off_return(base, way);

	*(uintptr_t *)(base + PUT_OFF_RETURNS) = *returns;
	*returns = (uintptr_t)stubs[way].begin;
}

bool arch_put_off_is_done(uintptr_t base, unsigned int way)
{
	return *arch_put_off_return(base, way) == (uintptr_t)stubs[way].begin;
}

static const uint8_t kept[] = { REG_RAX, REG_RCX, REG_RDX, REG_RSI, REG_RDI, REG_R10, REG_R11 };
_Static_assert(sizeof(kept) * 8 == PUT_OFF_SAVED, "put_off.h");

/* pushfq, lea: the stack pointer is what it was, a word less, and all of it less. */
#define PUSHFQ_SIZE 1
#define LEA_SIZE 5

bool arch_put_off_finish(greg_t *registers)
{
	const char *pc = (const char *)registers[REG_RIP];
	const greg_t *stack = (const greg_t *)registers[REG_RSP];
	const struct stub *stub = stubs;

	while (stub < stubs + ARCH_PUT_OFF_WAYS && (pc < stub->begin || pc >= stub->end))
		++stub;
	if (stub == stubs + ARCH_PUT_OFF_WAYS)
		return false;
	if (pc >= stub->kept && pc < stub->given_back)
		for (size_t i = 0; i < sizeof(kept); ++i)
			registers[kept[i]] = stack[i];
	if (pc >= stub->begin + PUSHFQ_SIZE + LEA_SIZE && pc < stub->given_back)
		stack += sizeof(kept);
	if (pc >= stub->begin + PUSHFQ_SIZE && pc <= stub->given_back) {
		if (pc >= stub->kept)
			registers[REG_EFL] = (greg_t)flags_put_back((uint64_t)registers[REG_EFL],
								    (uint64_t)*stack);
		++stack;
	}
	registers[REG_RSP] = (greg_t)stack;
	registers[REG_RIP] = *(const greg_t *)((uintptr_t)stack + PUT_OFF_RETURNS + 8U * (unsigned int)(stub - stubs));
	return true;
}
