/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Every form of a name, for every kind of symbol, in a module, in the program and in what the kernel maps: each stands
 * for one address, or is refused for a reason of its own.
 */
#include "locate.h"

#include <dlfcn.h>
#include <link.h>

#define MISSING "the module does not define the symbol"
#define NOWHERE "no module defines the symbol"
#define OTHER_VERSION "the symbol has other versions only"
#define NO_MODULE "no loaded module has this name"
#define SEVERAL "the name stands for several functions"
#define DATA "the symbol is data"
#define INDIRECT "the symbol is an indirect function that is not exported: name its implementation"
#define SYNTAX "the symbol is not written as [MODULE:]NAME[@VERSION]"

NOINLINE static int program_static(int number)
{
	__asm__ volatile("nop" : "+r"(number));
	return number + 1;
}

NOINLINE int program_global(int number)
{
	__asm__ volatile("nop" : "+r"(number));
	return number + 2;
}

static struct locate_module module;

/* Each way to name a module that fits. */
static const char *const modules[] = { "liblocate.so.1.2", "liblocate.so.1", "liblocate.so", "liblocate" };

static void in_module(const char *name, enum located_function which)
{
	char text[600];

	for (size_t i = 0; i < sizeof(modules) / sizeof(modules[0]); i++) {
		snprintf(text, sizeof(text), "%s:%s", modules[i], name);
		locate_expect(text, module.address(which));
	}
	snprintf(text, sizeof(text), "%s:%s", locate_path("liblocate.so.1.2"), name);
	locate_expect(text, module.address(which));
	/* another path to the same file */
	snprintf(text, sizeof(text), "%s/../%s:%s", locate_directory(),
		 strrchr(locate_path("liblocate.so.1.2"), '/') + 1, name);
	locate_refused(text, PATCH_ENEXIST, NO_MODULE);
	snprintf(text, sizeof(text), "%s/./liblocate.so.1.2:%s", locate_directory(), name);
	locate_expect(text, module.address(which));
	/* no other module has it */
	locate_expect(name, module.address(which));
}

static void functions(void)
{
	in_module("located_static", LOCATED_STATIC);
	in_module("located_alias", LOCATED_STATIC);
	in_module("located_hidden", LOCATED_HIDDEN);
	in_module("located_exported", LOCATED_EXPORTED);
	in_module("located_exported@V_2", LOCATED_EXPORTED);
	in_module("located_exported@@V_2", LOCATED_EXPORTED);
	in_module("located_versioned", LOCATED_NEW);
	in_module("located_versioned@V_2", LOCATED_NEW);
	in_module("located_versioned@@V_2", LOCATED_NEW);
	in_module("located_versioned@V_1", LOCATED_OLD);
	in_module("located_indirect", LOCATED_CHOSEN);
	in_module("located_chosen", LOCATED_CHOSEN);
	in_module("located_label", LOCATED_LABEL);
	in_module("located_both", LOCATED_BOTH);
}

static void refusals(void)
{
	locate_refused("liblocate:located_double", PATCH_EAMBIGUOUS, SEVERAL);
	locate_refused("located_double", PATCH_EAMBIGUOUS, SEVERAL);
	CHECK(harness_chain_has(PATCH_EAMBIGUOUS));
	locate_refused("liblocate:located_data", PATCH_EFAULT, DATA);
	locate_refused("located_data", PATCH_EFAULT, DATA);
	locate_refused("liblocate:located_local_data", PATCH_EFAULT, DATA);
	locate_refused("liblocate:located_thread_data", PATCH_EFAULT, DATA);
	locate_refused("liblocate:located_own_indirect", PATCH_ENOTSUP, INDIRECT);
	locate_refused("liblocate:located_versioned@@V_1", PATCH_ENEXIST, OTHER_VERSION);
	locate_refused("liblocate:located_versioned@V_3", PATCH_ENEXIST, OTHER_VERSION);
	locate_refused("located_versioned@V_", PATCH_ENEXIST, OTHER_VERSION);
	locate_refused("liblocate:located_hidden@V_2", PATCH_ENEXIST, OTHER_VERSION);

	/* undefined in the module, which calls it */
	locate_refused("liblocate:__cxa_finalize", PATCH_ENEXIST, MISSING);
	locate_chain_says("another module defines it", "libc.so.6");
	locate_refused("main:located_static", PATCH_ENEXIST, MISSING);
	locate_chain_says("another module defines it", "liblocate.so.1.2");
	locate_refused("liblocate:located_statik", PATCH_ENEXIST, MISSING);
	locate_chain_says("a symbol has a similar name", "located_static");
	locate_refused("liblocate:located_exprted", PATCH_ENEXIST, MISSING);
	locate_chain_says("a symbol has a similar name", "located_exported");
	locate_refused("program_globl", PATCH_ENEXIST, NOWHERE);
	locate_chain_says("a symbol has a similar name", "program_global");
	locate_refused("located_static_and_more", PATCH_ENEXIST, NOWHERE);
	/* the names of files and sections are none */
	locate_refused("locate-module.c", PATCH_ENEXIST, NOWHERE);
	locate_refused("liblocate:V_1", PATCH_ENEXIST, MISSING);

	locate_refused("liblocat:located_static", PATCH_ENEXIST, NO_MODULE);
	locate_chain_says("a module has a similar name", "liblocate");
	locate_refused("liblocate.so.1.3:located_static", PATCH_ENEXIST, NO_MODULE);
	locate_refused("iblocate:located_static", PATCH_ENEXIST, NO_MODULE);
	locate_refused("/nowhere/liblocate.so.1.2:located_static", PATCH_ENEXIST, NO_MODULE);
	locate_refused("/dev/null:located_static", PATCH_ENEXIST, NO_MODULE);
	locate_refused("ns::function", PATCH_ENEXIST, NO_MODULE);

	locate_refused("liblocate:", PATCH_EINVAL, SYNTAX);
	locate_refused("@V_2", PATCH_EINVAL, SYNTAX);
	locate_refused("located_exported@", PATCH_EINVAL, SYNTAX);
	locate_refused("located_exported@@", PATCH_EINVAL, SYNTAX);
	locate_refused(":@", PATCH_EINVAL, SYNTAX);
}

static void program(void)
{
	char path[512], text[600];
	ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - 1);

	REQUIRE(length > 0);
	path[length] = '\0';
	for (int kind = 0; kind < 6; kind++) {
		static const char *const forms[] = { "%0.0s", "%0.0s:", "%0.0smain:", "%0.0sname_misread:", "%s:",
						     "%0.0s/proc/self/exe:" };

		snprintf(text, sizeof(text), forms[kind], path);
		strcat(text, "program_static");
		locate_expect(text, (const void *)program_static);
		*strstr(text, "program_static") = '\0';
		strcat(text, "program_global");
		locate_expect(text, (const void *)program_global);
	}
	locate_refused("main:program_absent", PATCH_ENEXIST, MISSING);
	locate_refused("main:module", PATCH_EFAULT, DATA);
}

static int find_vdso(struct dl_phdr_info *info, size_t size, void *data)
{
	(void)size;
	if (strcmp(info->dlpi_name, "linux-vdso.so.1") == 0)
		*(bool *)data = true;
	return 0;
}

/* libc, its versions, what the linker resolves, and what the kernel maps. */
static void system_modules(void)
{
	const void *chosen = dlsym(RTLD_DEFAULT, "memcpy");
	bool vdso = false;

	locate_expect("a64l", dlsym(RTLD_DEFAULT, "a64l"));
	locate_expect("libc:a64l", dlsym(RTLD_DEFAULT, "a64l"));
	locate_expect("libc.so.6:a64l@GLIBC_2.2.5", dlsym(RTLD_DEFAULT, "a64l"));
	locate_expect("memcpy", chosen);
	locate_expect("libc:memcpy", chosen);
	locate_expect("libc:memcpy@GLIBC_2.14", chosen);
	locate_expect("libc:memcpy@GLIBC_2.2.5", dlvsym(RTLD_DEFAULT, "memcpy", "GLIBC_2.2.5"));
	locate_expect("realpath@GLIBC_2.3", dlvsym(RTLD_DEFAULT, "realpath", "GLIBC_2.3"));
	locate_expect("realpath@GLIBC_2.2.5", dlvsym(RTLD_DEFAULT, "realpath", "GLIBC_2.2.5"));
	/* libc has it and the vDSO */
	locate_expect("clock_gettime", dlsym(RTLD_DEFAULT, "clock_gettime"));
	locate_refused("libc:environ", PATCH_EFAULT, DATA);
	dl_iterate_phdr(find_vdso, &vdso);
	if (!vdso)
		return;
	locate_refused("linux-vdso:__vdso_getcpu", PATCH_ENOTSUP,
		       "the kernel maps this code, and does not let it be written");
	locate_refused("linux-vdso:__vdso_absent", PATCH_ENEXIST, MISSING);
	locate_chain_says("the module has dynamic symbols only, and no file of debug information was found",
			  "linux-vdso.so.1");
}

/* Two modules export it, and the linker would take neither: they were loaded for their users alone. */
static void exported_twice(void)
{
	struct locate_module other = locate_load(locate_copy("libother.so"), RTLD_LOCAL);

	locate_refused("located_exported", PATCH_EAMBIGUOUS, SEVERAL);
	locate_refused("located_static", PATCH_EAMBIGUOUS, SEVERAL);
	locate_expect("libother:located_exported", other.address(LOCATED_EXPORTED));
	locate_expect("libother:located_static", other.address(LOCATED_STATIC));
	locate_expect("liblocate:located_static", module.address(LOCATED_STATIC));
	CHECK(dlclose(other.handle) == 0);
	locate_expect("located_static", module.address(LOCATED_STATIC));
	/* The first one that others are bound to. */
	other = locate_load(locate_path("libother.so"), RTLD_GLOBAL);
	locate_expect("located_exported", other.address(LOCATED_EXPORTED));
	locate_refused("located_static", PATCH_EAMBIGUOUS, SEVERAL);
	CHECK(dlclose(other.handle) == 0);
}

int main(void)
{
	harness_start();
	module = locate_load(locate_copy("liblocate.so.1.2"), RTLD_LOCAL);
	REQUIRE_OK(patch_init(NULL, 0));
	functions();
	refusals();
	program();
	system_modules();
	exported_twice();
	CHECK_EQ(module.call(LOCATED_STATIC), LOCATED_STATIC);
	CHECK_EQ(program_static(1) + program_global(1), 5);
	CHECK_OK(patch_fini());
	return harness_end();
}
