/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * /tmp/jit-PID.dump: what an arena gave out since the last time is one piece of code, of which perf makes an ELF file,
 * with the unwind description behind the code. perf takes that for mapped, and reads it at addresses behind the code:
 * nothing else may ever be there. perf knows of the dump by a mapping of it, and has to record with the clock that the
 * dump's times are of.
 */
#include "code/perf_files.h"

#include "arch/unwind.h"
#include "base/heap.h"
#include "base/syscall.h"
#include "code/arena.h"
#include "code/code_ranges.h"
#include "sys/output_file.h"

struct dump_header {
	uint32_t magic;
	uint32_t version;
	uint32_t size;
	uint32_t machine;
	uint32_t reserved;
	uint32_t process;
	uint64_t time;
	uint64_t flags;
};
#define DUMP_MAGIC 0x4a695444
#define DUMP_VERSION 1

enum dump_record_type { DUMP_CODE_LOAD = 0, DUMP_UNWINDING_INFO = 4 };

struct dump_record {
	uint32_t type;
	uint32_t size;
	uint64_t time;
};

struct dump_unwinding {
	struct dump_record record;
	uint64_t size;        /* of what follows */
	uint64_t header_size; /* of .eh_frame_hdr, at its end */
	uint64_t mapped_size; /* of it, in memory */
};

struct dump_code {
	struct dump_record record;
	uint32_t process;
	uint32_t thread;
	uint64_t address; /* twice: where it is, and where it is run */
	uint64_t run_address;
	uint64_t size;
	uint64_t index; /* different for each piece */
	char name[sizeof("libpatch:generated code")];
} __attribute__((packed));

static struct output_file perf_dump_file;
static struct arch_unwind_file *description GUARDED_BY(library_lock);
static uint64_t pieces;
static bool broken;

long perf_dump_begin(const char **path)
{
	struct dump_header header = { .magic = DUMP_MAGIC,
				      .version = DUMP_VERSION,
				      .size = sizeof(header),
				      .machine = ARCH_ELF_MACHINE,
				      .process = (uint32_t)raw_syscall(SYS_getpid),
				      .time = (uint64_t)raw_clock(CLOCK_MONOTONIC) };
	const struct iovec part = { &header, sizeof(header) };
	long error;

	*path = perf_dump_file.path;
	pieces = 0;
	error = output_file_create(&perf_dump_file, "jit", "dump", false);
	if (error == 0) {
		error = output_file_append(&perf_dump_file, &part, 1);
		if (error == 0)
			error = output_file_show(&perf_dump_file);
		if (error != 0)
			output_file_remove(&perf_dump_file);
	}
	broken = error != 0;
	if (error == 0)
		arena_leave_room();
	return error;
}

static void perf_dump_describe(uintptr_t lower, uintptr_t upper) REQUIRES(library_lock)
{
	const struct code_range *range = code_ranges_find(lower);
	size_t first = (lower - range->lower) / ARENA_GRANULE, size;
	uintptr_t block;

	arch_unwind_file_begin(description);
	while ((block = perf_next_block(range, &first, (upper - range->lower) / ARENA_GRANULE, &size)) != 0)
		(void)arch_unwind_file_add(description, block, size);
	arch_unwind_file_end(description, lower, upper);
}

/*
 * The description of a piece is in front of it. Without room it is left out. Behind half of a record nothing can be
 * read: that was the last one.
 */
static size_t perf_dump_add_piece(uintptr_t lower, uintptr_t upper, size_t room) NO_THREAD_SAFETY_ANALYSIS
{
	static const char padding[8];
	const uint64_t time = (uint64_t)raw_clock(CLOCK_MONOTONIC);
	struct dump_unwinding unwinding = { .record = { .type = DUMP_UNWINDING_INFO, .time = time } };
	struct dump_code code = { .record = { .type = DUMP_CODE_LOAD, .time = time },
				  .process = (uint32_t)raw_syscall(SYS_getpid),
				  .thread = (uint32_t)raw_syscall(SYS_gettid),
				  .address = lower,
				  .run_address = lower,
				  .size = upper - lower,
				  .index = ++pieces,
				  .name = "libpatch:generated code" };
	struct iovec parts[5];
	size_t padded, skipped = 3;

	if (broken)
		return 0;
	perf_dump_describe(lower, upper);
	padded = ALIGN_UP(description->size, sizeof(padding));
	if (padded <= room)
		skipped = 0;
	unwinding.size = description->size;
	unwinding.header_size = description->header;
	unwinding.mapped_size = description->size;
	unwinding.record.size = (uint32_t)(sizeof(unwinding) + padded);
	code.record.size = (uint32_t)(sizeof(code) + code.size);
	parts[0] = (struct iovec){ &unwinding, sizeof(unwinding) };
	parts[1] = (struct iovec){ description->bytes, description->size };
	parts[2] = (struct iovec){ (void *)padding, padded - description->size };
	parts[3] = (struct iovec){ &code, sizeof(code) };
	parts[4] = (struct iovec){ (void *)lower, code.size };
	broken = output_file_append(&perf_dump_file, parts + skipped, ARRAY_SIZE(parts) - skipped) != 0;
	return skipped == 0 ? padded : 0;
}

void perf_dump_add_new(void)
{
	if (description == NULL)
		description = heap_map(sizeof(*description));
	if (description != NULL)
		arena_visit_new(perf_dump_add_piece);
}
