/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Finding code that works only where it is. Reads a module's data once, and the code around each address that is asked
 * about; symbols and section headers are not needed, and must not be: stripped programs have none.
 */
#include "plan/pinned.h"

#include "base/scratch.h"
#include "base/thread_safety.h"
#include "patch/original.h"
#include "sys/mem_read.h"

#include <elf.h>
#include <string.h>

/* include/uapi/linux/rseq.h; the signature is that of x86 (glibc, sysdeps/unix/sysv/linux/x86/bits/rseq.h). */
struct rseq_descriptor {
	uint32_t version;
	uint32_t flags;
	uint64_t start;
	uint64_t length; /* to behind the instruction that commits */
	uint64_t abort;
};
#define SIGNATURE 0x53053053
/* ud1 signature(%rip), %edi */
#define SIGNATURE_INSN 7

#define RANGES_MAX 1024
/* Descriptors that are read at once. */
#define VIEW 512

/* Ranges of the module scanned last, in no order: a module has few. */
static struct {
	uintptr_t lower;
	uintptr_t upper;
} ranges[RANGES_MAX] GUARDED_BY(library_lock);
static size_t range_count GUARDED_BY(library_lock);
static bool too_many GUARDED_BY(library_lock);
/* The module that the ranges are of. */
static struct module scanned GUARDED_BY(library_lock);

static void pinned_add(uintptr_t lower, uintptr_t upper) REQUIRES(library_lock)
{
	if (range_count == RANGES_MAX) {
		too_many = true;
		return;
	}
	ranges[range_count].lower = lower;
	ranges[range_count].upper = upper;
	++range_count;
}

static bool pinned_is_within(const struct module *module, uint64_t address)
{
	return address >= module->lower && address < module->upper;
}

static void pinned_consider(const struct module *module, const struct rseq_descriptor *descriptor)
	REQUIRES(library_lock)
{
	uint32_t signature;
	int error;

	if (descriptor->version != 0 || descriptor->flags > 7 || !pinned_is_within(module, descriptor->start) ||
	    !pinned_is_within(module, descriptor->abort) || descriptor->length == 0 ||
	    !pinned_is_within(module, descriptor->start + descriptor->length - 1) ||
	    descriptor->abort - descriptor->start < descriptor->length)
		return;
	if (mem_read(descriptor->abort - sizeof(signature), &signature, sizeof(signature), &error) !=
		    sizeof(signature) ||
	    signature != SIGNATURE)
		return;
	/*
	 * With the instruction in front, which as a rule registers the sequence: a thread that is interrupted behind it
	 * must be at the sequence's start, else the kernel takes it for one that has left.
	 */
	pinned_add(descriptor->start - INSN_MAX, descriptor->start + descriptor->length);
	pinned_add(descriptor->abort - SIGNATURE_INSN, descriptor->abort);
}

/* Descriptors are data of the module, aligned to their size, and relocated by now. No section headers are needed. */
static void pinned_scan_segment(const struct module *module, struct rseq_descriptor view[VIEW], uintptr_t lower,
				uintptr_t upper) REQUIRES(library_lock)
{
	lower = ALIGN_UP(lower, sizeof(view[0]));
	while (lower + sizeof(view[0]) <= upper) {
		int error;
		size_t size = mem_read(lower, view, MIN(VIEW * sizeof(view[0]), upper - lower), &error);

		for (size_t i = 0; i < size / sizeof(view[0]); ++i)
			pinned_consider(module, &view[i]);
		lower += MAX(ALIGN_DOWN(size, sizeof(view[0])), sizeof(view[0]));
		/* A page that is not there. */
		if (size == 0)
			lower = ALIGN_UP(lower, PAGE_SIZE);
	}
}

static void pinned_scan_module(const struct module *module) REQUIRES(library_lock)
{
	struct rseq_descriptor *view = scratch_take(VIEW * sizeof(*view));
	const Elf64_Phdr *headers = module->headers;

	range_count = 0;
	too_many = view == NULL;
	scanned = *module;
	if (view == NULL)
		return;
	for (size_t i = 0; i < module->header_count; ++i) {
		uintptr_t lower = module->bias + headers[i].p_vaddr;

		/* Not code, and not what the program fills in: descriptors come from the file. */
		if (headers[i].p_type == PT_LOAD && !(headers[i].p_flags & PF_X) && (headers[i].p_flags & PF_R))
			pinned_scan_segment(module, view, lower, lower + headers[i].p_filesz);
	}
	scratch_give(view, VIEW * sizeof(*view));
}

/*
 * Is it the module scanned last? Its identity alone does not tell: that is an address, which another module may have
 * had.
 */
static bool pinned_is_scanned(const struct module *module) REQUIRES(library_lock)
{
	return scanned.identity == module->identity && scanned.lower == module->lower &&
	       scanned.upper == module->upper && scanned.eh_frame_hdr == module->eh_frame_hdr &&
	       scanned.header_count == module->header_count;
}

/*
 * glibc's __syscall_cancel_arch and musl's __syscall_cp_asm, whose bounds are in no dynamic symbol table:
 *	mov %r9,%r10; mov 8(%rsp),%r8; mov 16(%rsp),%r9; mov %r11,8(%rsp); syscall
 */
static const uint8_t cancellable[] = { 0x4D, 0x89, 0xCA, 0x4C, 0x8B, 0x44, 0x24, 0x08, 0x4C, 0x8B,
				       0x4C, 0x24, 0x10, 0x4C, 0x89, 0x5C, 0x24, 0x08, 0x0F, 0x05 };
/* From the look at the cancellation state to there, at most. */
#define CANCELLABLE_BEFORE 40
/* A window that began behind the address would end before. */
#define AROUND 192
/*
 * How much of what is behind a function matters: an instruction that its last window runs into, and all of the above.
 */
#define BEYOND (INSN_MAX + CANCELLABLE_BEFORE + sizeof(cancellable) + 16)
#define SYSCALL_1 0x0F
#define SYSCALL_2 0x05

static uint64_t pinned_word_at(const uint8_t *bytes)
{
	uint64_t word;

	memcpy(&word, bytes, sizeof(word));
	return word;
}

/* Of the function, what a window could touch: it may run over the function's end, but does not begin in front of it. */
REQUIRES(library_lock)
static uintptr_t pinned_find_cancellable(uintptr_t address, uintptr_t function, uintptr_t end)
{
	uint8_t view[2 * AROUND];
	uintptr_t lower = address - AROUND;
	uintptr_t upper = address + AROUND;
	size_t size;

	if (end != 0) {
		lower = MAX(lower, function);
		upper = MIN(upper, end + BEYOND);
	}
	size = original_read(lower, view, upper - lower);
	if (size <= address - lower) {
		lower = ALIGN_DOWN(address, PAGE_SIZE);
		size = original_read(lower, view, MIN(sizeof(view), upper - lower));
	}
	/* By its last two bytes, which are rare; eight at a time. */
	for (size_t i = sizeof(cancellable); i <= size; ++i) {
		while (i + sizeof(uint64_t) <= size &&
		       !bytes_have_zero((pinned_word_at(view + i - 2) ^ SYSCALL_1 * BYTES_ONE) |
					(pinned_word_at(view + i - 1) ^ SYSCALL_2 * BYTES_ONE)))
			i += sizeof(uint64_t);
		if (view[i - 1] == SYSCALL_2 && view[i - 2] == SYSCALL_1 &&
		    memcmp(view + i - sizeof(cancellable), cancellable, sizeof(cancellable)) == 0)
			return lower + i - sizeof(cancellable);
	}
	return 0;
}

static bool pinned_bound(uintptr_t lower, uintptr_t upper, uintptr_t address, struct pinned *out)
{
	if (address >= lower && address < upper)
		return false;
	if (upper <= address)
		out->floor = MAX(out->floor, upper);
	else
		out->ceiling = MIN(out->ceiling, lower);
	return true;
}

const char *pinned_examine(const struct module *module, uintptr_t address, uintptr_t lower, uintptr_t upper,
			   bool mediated, struct pinned *out)
{
	uintptr_t found;

	out->floor = 0;
	out->ceiling = UINTPTR_MAX;
	if (!pinned_is_scanned(module))
		pinned_scan_module(module);
	if (too_many)
		return "the module has more restartable sequences than can be remembered";
	for (size_t i = 0; i < range_count; ++i)
		if (!pinned_bound(ranges[i].lower, ranges[i].upper, address, out))
			return "the code is a restartable sequence (rseq), which works only where it is";
	if (mediated)
		return NULL;
	found = pinned_find_cancellable(address, lower, upper);
	if (found != 0 && !pinned_bound(found - CANCELLABLE_BEFORE, found + sizeof(cancellable), address, out))
		return "the system call is a cancellation point, which works only where it is";
	return NULL;
}
