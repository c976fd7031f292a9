/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which bytes trap as the first byte of an instruction, and which of them serve as the top byte of a jump's
 * displacement.
 */
#include "arch/trap_bytes.h"

enum arch_trap_class arch_trap_class(uint8_t byte)
{
	static const uint8_t classes[256] = {
		[ARCH_INT3] = ARCH_TRAP_SIGTRAP,
		[0x06] = ARCH_TRAP_SIGILL, [0x07] = ARCH_TRAP_SIGILL, [0x0E] = ARCH_TRAP_SIGILL,
		[0x16] = ARCH_TRAP_SIGILL, [0x17] = ARCH_TRAP_SIGILL, [0x1E] = ARCH_TRAP_SIGILL,
		[0x1F] = ARCH_TRAP_SIGILL, [0x27] = ARCH_TRAP_SIGILL, [0x2F] = ARCH_TRAP_SIGILL,
		[0x37] = ARCH_TRAP_SIGILL, [0x3F] = ARCH_TRAP_SIGILL, [0x60] = ARCH_TRAP_SIGILL,
		[0x61] = ARCH_TRAP_SIGILL, [0x82] = ARCH_TRAP_SIGILL, [0x9A] = ARCH_TRAP_SIGILL,
		[0xCE] = ARCH_TRAP_SIGILL, [0xD4] = ARCH_TRAP_SIGILL, [0xD6] = ARCH_TRAP_SIGILL,
		[0xEA] = ARCH_TRAP_SIGILL,
	};

	return (enum arch_trap_class)classes[byte];
}

bool arch_is_int3(const siginfo_t *info, uintptr_t pc)
{
	const uintptr_t address = (uintptr_t)info->si_addr;

	return info->si_signo == SIGTRAP && ((info->si_code == SI_KERNEL && address == 0) ||
					     (info->si_code == TRAP_BRKPT && (address == pc || address == 0)));
}

bool arch_is_raised(const siginfo_t *info, uintptr_t pc)
{
	const bool is_event = info->si_signo == SIGTRAP && info->si_code == ARCH_TRAP_EVENT;

	return arch_is_int3(info, pc) || (info->si_code > 0 && !is_event && (uintptr_t)info->si_addr == pc);
}

/*
 * As the top byte of a rel32. After int3 (-832 MiB) those of the same direction: below an image there is neither heap
 * nor stack, and position-independent code always has something there. Then, for images at low fixed addresses,
 * upwards, farthest first: brk grows from the image's end.
 */
const uint8_t arch_top_trap_bytes[] = {
	ARCH_INT3,
	0xCE, 0xD4, 0xD6, 0xEA, 0x9A, 0x82,
	0x61, 0x60, 0x3F, 0x37, 0x2F, 0x27, 0x1F, 0x1E, 0x17, 0x16, 0x0E, 0x07, 0x06,
};
const size_t arch_top_trap_byte_count = ARRAY_SIZE(arch_top_trap_bytes);
