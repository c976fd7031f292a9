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
#include "interpose/interpose.h"
#include "interpose/mask_audit.h"
#include "runtime/lock.h"
#include "sys/maps.h"
#include "sys/tls.h"

#include <stdatomic.h>
#include <sys/mman.h>

/* Code of the module that is being mapped; 0: none. */
static _Atomic uintptr_t mapped;

bool load_mmap(struct arch_call *call)
{
	if (!(call->rdx & PROT_EXEC) || (call->r10 & MAP_ANONYMOUS))
		return false;
	call->rax = raw_syscall(SYS_mmap, call->rdi, call->rsi, call->rdx, call->r10, call->r8, call->r9);
	if (call->rax > 0)
		atomic_store_explicit(&mapped, (uintptr_t)call->rax, memory_order_relaxed);
	return true;
}

/* The module is not in the linker's lists yet. */
static bool load_find(uintptr_t code, struct module *module) REQUIRES(library_lock)
{
	struct maps_mapping mapping;
	struct module known;
	bool readable;

	/* What was there before may have been kept. */
	module_forget_mapped();
	return maps_mapping(code, &mapping, &readable) && module_find_mapped(code, &mapping, &known) &&
	       module_of_header(code, known.identity, module);
}

static void load_mediate(uintptr_t code, int file)
{
	char path[sizeof("/proc/thread-self/fd/") + 20];
	struct loaded loaded = { .path = path };
	struct lock_scope scope;

	*format_number(format_string(path, "/proc/thread-self/fd/"), (unsigned int)file, 10) = '\0';
	if (!tls_is_own_libcs() || !lock_acquire(&scope)) {
		mask_audit_incomplete();
		return;
	}
	if (load_find(code, &loaded.module))
		interpose_module(&loaded);
	else
		mask_audit_incomplete();
	lock_release_and_register_unwind(&scope);
}

bool load_close(struct arch_call *call)
{
	uintptr_t code = atomic_exchange_explicit(&mapped, 0, memory_order_relaxed);

	if (code != 0)
		load_mediate(code, (int)call->rdi);
	return false;
}
