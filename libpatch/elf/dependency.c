/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which functions the names of a library are bound to, and a copy of the library of one's own where they are a host's.
 *
 * Linking the library in, hidden, would do without this; but distributions have no static archive of Zydis. What the
 * dynamic linker has bound cannot be bound again, neither ours nor the library's own calls from one function to
 * another, which a host's names take, too. A second copy is bound from the start: it is loaded with RTLD_DEEPBIND,
 * which looks in the copy first. glibc recognises a file that is loaded already by its inode, so that the copy is
 * loaded from a memory file.
 *
 * This calls the dynamic linker, which allocates and locks: never under the library lock.
 */
#include "elf/dependency.h"

#include "base/format.h"
#include "base/syscall.h"
#include "elf/module.h"

#include <dlfcn.h>
#include <libpatch/patch.h>
#include <link.h>
#include <signal.h>
#include <sys/stat.h>

#define DEPENDENCY_MAX 8
#define PATH_SLASHES_MAX 32

/*
 * Linked with libc into one static program: there is no dynamic linker to ask, and the names were bound by the static
 * one.
 */
static bool dependency_is_static(void)
{
	struct module own, libc;

	return module_find((uintptr_t)&patch_init, &own) && module_find((uintptr_t)&sigaction, &libc) &&
	       own.lower == libc.lower;
}

/* False when the library has not all of them. */
static bool dependency_find_all(void *library, const struct dependency *dependency, void *found[])
{
	for (size_t i = 0; i < dependency->count; ++i) {
		found[i] = dlsym(library, dependency->functions[i].name);
		if (found[i] == NULL)
			return false;
	}
	return true;
}

/*
 * The names are bound to functions of a module that has the library's name: the rule, which needs no dynamic linker to
 * be seen.
 */
static bool dependency_is_bound(const struct dependency *dependency)
{
	struct module module;

	for (size_t i = 0; i < dependency->count; ++i)
		if (!module_find((uintptr_t)*dependency->functions[i].function, &module) ||
		    !module_is_named(&module, dependency->library))
			return false;
	return true;
}

/*
 * Its names are looked for in itself first. NULL also where AddressSanitizer is, which ends the process at such a
 * request.
 */
static void *dependency_load(const char *path)
{
	if (dlsym(RTLD_DEFAULT, "__asan_init") != NULL)
		return NULL;
	return dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
}

static bool dependency_copy_file(int from, int to)
{
	struct stat file;
	long copied;

	if (raw_syscall(SYS_fstat, from, &file) != 0)
		return false;
	for (off_t at = 0; at < file.st_size; at += copied) {
		copied = raw_syscall(SYS_sendfile, to, from, NULL, file.st_size - at);
		if (copied <= 0)
			return false;
	}
	return true;
}

/*
 * glibc takes a file of the same path for the same file. Here each path is another one, by the number of its slashes,
 * and none is like that of a file that the program loads in the same way.
 */
static void dependency_path_of(int fd, char *out)
{
	static unsigned int copies;

	out = format_string(out, "/proc/self/fd/");
	copies = copies % PATH_SLASHES_MAX + 1;
	for (unsigned int i = 0; i < copies; ++i)
		*out++ = '/';
	*format_number(out, (uint64_t)fd, 10) = '\0';
}

static void *dependency_load_copy(void *library)
{
	struct link_map *map;
	void *copy = NULL;
	char path[64];
	int from, to;

	if (dlinfo(library, RTLD_DI_LINKMAP, &map) != 0)
		return NULL;
	from = (int)raw_open(map->l_name, O_RDONLY | O_CLOEXEC);
	if (from < 0)
		return NULL;
	to = (int)raw_syscall(SYS_memfd_create, "libpatch:library", 1 /* MFD_CLOEXEC */);
	if (to >= 0) {
		if (dependency_copy_file(from, to)) {
			dependency_path_of(to, path);
			copy = dependency_load(path);
		}
		raw_syscall(SYS_close, to);
	}
	raw_syscall(SYS_close, from);
	return copy;
}

bool dependency_bind(const struct dependency *dependency)
{
	void *found[DEPENDENCY_MAX];
	void *library;

	if (dependency->library[0] == '\0' || dependency_is_bound(dependency) || dependency_is_static())
		return true;
	library = dlopen(dependency->library, RTLD_NOW | RTLD_NOLOAD);
	/*
	 * Where the host was linked with its own functions and libpatch.a, the linker may have found that it needs no
	 * library.
	 */
	library = library != NULL ? dependency_load_copy(library) : dependency_load(dependency->library);
	if (library == NULL || !dependency_find_all(library, dependency, found))
		return false;
	for (size_t i = 0; i < dependency->count; ++i)
		*dependency->functions[i].function = found[i];
	return true;
}

void *dependency_find_loaded(const char *library, const char *function)
{
	void *loaded;

	if (dependency_is_static())
		return NULL;
	loaded = dlopen(library, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
	return loaded != NULL ? dlsym(loaded, function) : NULL;
}
