/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Descriptions of generated code (arch/unwind.h), and their registration: with libgcc's unwinder, with libunwind and
 * LLVM's unwinder where the program has them, and for gdb. A description is written whole before anybody is told of it,
 * and is never changed nor taken away, as other threads, or a debugger that has stopped the process anywhere, may be
 * reading it. No lock is held while unwinders are told.
 */
#include "code/unwinders.h"

#include "arch/unwind.h"
#include "base/heap.h"
#include "code/symfile.h"
#include "elf/dependency.h"
#include "elf/module.h"
#include "sys/mem_read.h"

#include <stdatomic.h>

/* libgcc's `struct object` (unwind-dw2-fde.h) has seven words; it is only ever passed around. */
struct unwinders_object {
	uintptr_t words[8];
};

/*
 * One for each range, of which libgcc fills in what it allocates at the first throw, for good. Static, as that is where
 * leak detectors look for what is in use; they do not see the library's heap.
 */
static struct unwinders_object objects[CODE_RANGES_MAX];

/*
 * libunwind's unw_dyn_info_t for a table of functions. Their program counters and FDEs are relative to `base`, by 32
 * bits. Versions before 1.4 have no `load_offset`.
 */
struct unwinders_info {
	struct unwinders_info *next;
	struct unwinders_info *previous;
	uintptr_t lower;
	uintptr_t upper;
	uintptr_t gp;
	int32_t format;
	int32_t padding;
	uintptr_t load_offset;
	const char *name;
	uintptr_t base;
	uintptr_t table_words;
	const void *table;
};
#define INFO_DYNAMIC 0      /* UNW_INFO_FORMAT_DYNAMIC: a procedure, whose handler is where a table has `base` */
#define INFO_REMOTE_TABLE 2 /* UNW_INFO_FORMAT_REMOTE_TABLE */

struct unwinders_function {
	int32_t pc;
	int32_t fde;
};

/* libunwind's unw_proc_info_t, the part that is looked at. */
struct unwinders_procedure {
	uintptr_t lower;
	uintptr_t upper;
	uintptr_t data;
	uintptr_t handler;
	uintptr_t others[12];
};

struct unwinders_range {
	struct unwinders_range *next;
	struct unwinders_object *libgcc;
	struct arch_debugger_entry debugger;
	struct unwinders_info libunwind;
	struct unwinders_function function;
	uint8_t *eh_frame; /* for libgcc */
	uintptr_t fde;     /* for the others, in the debugger's object */
};

#define LIBUNWIND "libunwind.so.8"

static struct unwinders_range *due GUARDED_BY(library_lock);
/* Taken, but not registered, as the thread was inside libgcc. */
static struct unwinders_range *_Atomic left;
/* This thread registers; and what calls that interrupted it leave to it. */
static TLS_INITIAL_EXEC bool busy;
static TLS_INITIAL_EXEC struct unwinders_range *_Atomic pending;
/* libgcc's code; empty where it is not a module of its own. */
static uintptr_t libgcc_lower, libgcc_upper;
/* Set in patch_init(), alone; NULL: the program does not have it. */
static void (*libunwind_register)(struct unwinders_info *info);
static void (*llvm_register)(uintptr_t fde);

void __register_frame_info(const void *begin, struct unwinders_object *object);

/*
 * All versions have one name, and a struct with or without `load_offset`: libunwind is asked for the handler of a
 * procedure that does not exist, and what it answers says where it looked.
 */
static bool unwinders_know_info(void (*add)(struct unwinders_info *))
{
	static struct unwinders_info probe = { .lower = 1, .upper = 2, .format = INFO_DYNAMIC, .base = 1 };
	struct unwinders_procedure procedure = { .handler = 0 };
	void (*cancel)(struct unwinders_info *);
	int (*look)(void *space, uintptr_t pc, struct unwinders_procedure *out, void *argument);
	void **space;

	cancel = dependency_find_loaded(LIBUNWIND, "_U_dyn_cancel");
	look = dependency_find_loaded(LIBUNWIND, ARCH_LIBUNWIND_PREFIX "get_proc_info_by_ip");
	space = dependency_find_loaded(LIBUNWIND, ARCH_LIBUNWIND_PREFIX "local_addr_space");
	if (cancel == NULL || look == NULL || space == NULL)
		return false;
	add(&probe);
	if (look(*space, probe.lower, &procedure, NULL) != 0)
		procedure.handler = 0;
	cancel(&probe);
	return procedure.handler == probe.base;
}

static void unwinders_find_libgcc(void)
{
	struct module module;
	size_t count;
	uintptr_t program = (uintptr_t)module_program_headers(&count);

	if (module_find((uintptr_t)&__register_frame_info, &module) &&
	    program - module.lower >= module.upper - module.lower) {
		libgcc_lower = module.lower;
		libgcc_upper = module.upper;
	}
}

void unwinders_find(void)
{
	void (*add)(struct unwinders_info *) = dependency_find_loaded(LIBUNWIND, "_U_dyn_register");

	unwinders_find_libgcc();
	if (add != NULL && unwinders_know_info(add))
		libunwind_register = add;
	llvm_register = dependency_find_loaded("libunwind.so.1", "__unw_add_dynamic_fde");
}

bool unwinders_describe(const struct code_range *range)
{
	const struct arch_unwind_code code = { range->lower, range->upper, (uintptr_t)range->granules };
	size_t libgcc_size = ALIGN_UP(arch_unwind_describe(NULL, 0, &code, ARCH_UNWIND_LIBGCC).all, 8);
	struct arch_unwind_size size = arch_unwind_describe(NULL, 0, &code, ARCH_UNWIND_OTHERS);
	struct unwinders_range *described;
	struct symfile *file;

	described = heap_alloc(sizeof(*described) + libgcc_size + sizeof(*file) + size.all);
	if (described == NULL)
		return false;
	described->libgcc = &objects[code_ranges_count()];
	described->eh_frame = (uint8_t *)(described + 1);
	arch_unwind_describe(described->eh_frame, libgcc_size, &code, ARCH_UNWIND_LIBGCC);
	file = (struct symfile *)(described->eh_frame + libgcc_size);
	symfile_make(file, range, size.all);
	arch_unwind_describe(file->eh_frame, size.all, &code, ARCH_UNWIND_OTHERS);
	described->debugger.object = file;
	described->debugger.size = sizeof(*file) + size.all;
	described->fde = (uintptr_t)file->eh_frame + size.fde;
	/* The one function is found for every distance, of which the lower 32 bits are compared. */
	described->function = (struct unwinders_function){ .pc = INT32_MIN, .fde = 0 };
	described->libunwind = (struct unwinders_info){
		.lower = range->lower,
		.upper = range->upper,
		.format = INFO_REMOTE_TABLE,
		.base = described->fde,
		.table = &described->function,
		.table_words = sizeof(described->function) / sizeof(uintptr_t),
	};
	described->next = due;
	due = described;
	return true;
}

/* A debugger may attach, or dump core, between any two of these: the list is whole at each. */
static void unwinders_tell_debugger(struct arch_debugger_entry *entry)
{
	struct arch_debugger_list *list = &libpatch_debugger_list;

	entry->next = list->first;
	if (entry->next != NULL)
		entry->next->previous = entry;
	__atomic_store_n(&list->first, entry, __ATOMIC_RELEASE);
	list->relevant = entry;
	list->action = 1;
	libpatch_debugger_stop();
	list->action = 0;
}

static void unwinders_add(struct unwinders_range *_Atomic *list, struct unwinders_range *first)
{
	struct unwinders_range *last = first;

	while (last->next != NULL)
		last = last->next;
	last->next = atomic_load(list);
	while (!atomic_compare_exchange_weak(list, &last->next, first))
		;
}

struct unwinders_range *unwinders_take(void)
{
	struct unwinders_range *taken = due;

	for (struct unwinders_range *range = taken; range != NULL; range = range->next)
		unwinders_tell_debugger(&range->debugger);
	due = NULL;
	return taken;
}

/* The stack is looked through that far: it has return addresses of whoever called. */
#define STACK_SEEN (64UL << 10)

/* Was libgcc called by what is on the stack from `at` on, and has not returned? */
static bool unwinders_is_under_libgcc(uintptr_t at)
{
	const uintptr_t end = at + STACK_SEEN;
	uintptr_t words[64];
	size_t got = sizeof(words);
	int error;

	for (; at < end && got == sizeof(words); at += got) {
		got = mem_read(at, words, sizeof(words), &error);
		for (size_t i = 0; i < got / sizeof(words[0]); ++i)
			if (words[i] - libgcc_lower < libgcc_upper - libgcc_lower)
				return true;
	}
	return false;
}

static void unwinders_register_all(struct unwinders_range *range)
{
	while (range != NULL) {
		struct unwinders_range *next = range->next;

		__register_frame_info(range->eh_frame, range->libgcc);
		if (libunwind_register != NULL)
			libunwind_register(&range->libunwind);
		if (llvm_register != NULL)
			llvm_register(range->fde);
		range = next;
	}
}

void unwinders_register(struct unwinders_range *taken, uintptr_t interrupted)
{
	if (taken == NULL && atomic_load_explicit(&left, memory_order_relaxed) == NULL)
		return;
	if (busy || (interrupted != 0 && unwinders_is_under_libgcc(interrupted))) {
		if (taken != NULL)
			unwinders_add(busy ? &pending : &left, taken);
		return;
	}
	do {
		busy = true;
		atomic_signal_fence(memory_order_seq_cst);
		unwinders_register_all(taken);
		unwinders_register_all(atomic_exchange(&left, NULL));
		atomic_signal_fence(memory_order_seq_cst);
		busy = false;
		atomic_signal_fence(memory_order_seq_cst);
		taken = atomic_exchange(&pending, NULL);
	} while (taken != NULL);
}
