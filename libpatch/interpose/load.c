/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Modules that the dynamic linker maps, in all namespaces: it is the same one in each. Runs in the program's thread
 * that called dlopen(), which has the lock of the loader's that lets one thread load at a time, and takes the library
 * lock.
 */
#include "interpose/load.h"

#include "base/format.h"
#include "base/syscall.h"
#include "elf/loaded.h"
#include "elf/segments.h"
#include "interpose/interpose.h"
#include "interpose/mask_audit.h"
#include "runtime/lock.h"
#include "sys/own_proc.h"
#include "sys/tls.h"

#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>

/* The module that is being mapped: its first page, as far as that can be read, and some of its code; 0: none. */
static _Atomic uintptr_t header;
static _Atomic uintptr_t code;

bool load_mmap(struct arch_call *call)
{
	if (call->r10 & MAP_ANONYMOUS)
		return false;
	call->rax = raw_syscall(SYS_mmap, call->rdi, call->rsi, call->rdx, call->r10, call->r8, call->r9);
	/* The linker gives that module up, whose code may be neither whole nor there. */
	if (call->rax <= 0) {
		atomic_store_explicit(&code, 0, memory_order_relaxed);
		return true;
	}
	/*
	 * Where the headers are. Small modules have their data on that page of the file, too: that comes later, to a
	 * fixed place. In a child of fork() there may be one that another thread was at.
	 */
	if (call->r9 == 0 && (call->rdx & PROT_READ) &&
	    (!(call->r10 & MAP_FIXED) || atomic_load_explicit(&header, memory_order_relaxed) == 0))
		atomic_store_explicit(&header, (uintptr_t)call->rax, memory_order_relaxed);
	if (call->rdx & PROT_EXEC)
		atomic_store_explicit(&code, (uintptr_t)call->rax, memory_order_relaxed);
	return true;
}

/* What is mapped behind the end of a file cannot be read. */
static bool load_is_whole(const struct module *module, int file)
{
	struct stat status;

	if (raw_syscall(SYS_fstat, file, &status) != 0)
		return false;
	FOR_EACH_SEGMENT(segment, module->headers, module->header_count, PT_LOAD, 0)
		if (segment->p_offset + segment->p_filesz > (uint64_t)status.st_size)
			return false;
	return true;
}

static void load_mediate(uintptr_t start, uintptr_t address, int file)
{
	char name[sizeof("fd/") + 20], path[OWN_PROC_PATH];
	struct loaded loaded = { 0 };
	struct lock_scope scope;

	*format_number(format_string(name, "fd/"), (unsigned int)file, 10) = '\0';
	loaded.path = own_proc_path(path, name);
	if (!tls_is_own_libcs() || !lock_acquire(&scope)) {
		mask_audit_incomplete();
		return;
	}
	/* It is not in the linker's lists yet; and reading the kernel's takes the longer the more modules there are. */
	if (start != 0 && module_of_header(address, (const void *)start, &loaded.module) &&
	    load_is_whole(&loaded.module, file))
		interpose_module(&loaded);
	else
		mask_audit_incomplete();
	lock_release_and_register_unwind(&scope);
}

bool load_close(struct arch_call *call)
{
	uintptr_t start = atomic_exchange_explicit(&header, 0, memory_order_relaxed);
	uintptr_t address = atomic_exchange_explicit(&code, 0, memory_order_relaxed);

	if (address != 0)
		load_mediate(start, address, (int)call->rdi);
	return false;
}
