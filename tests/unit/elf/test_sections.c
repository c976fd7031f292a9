/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Where a module has no code, as its file says; and that no other file is believed. */
#include "elf/sections.h"

#include <criterion/criterion.h>

static const int constant = 1;

static void code(void)
{
}

struct own {
	uintptr_t bias;
	const ElfW(Phdr) *headers;
	size_t count;
};

/* The program comes first. */
static int first(struct dl_phdr_info *info, size_t size, void *data)
{
	(void)size;
	*(struct own *)data = (struct own){ info->dlpi_addr, info->dlpi_phdr, info->dlpi_phnum };
	return 1;
}

static bool have_no_code(const char *path, const void *address)
{
	uintptr_t lower, upper;
	struct own own;

	dl_iterate_phdr(first, &own);
	return sections_of_code(path, own.bias, own.headers, own.count, &lower, &upper) &&
	       ((uintptr_t)address < lower || (uintptr_t)address >= upper);
}

Test(sections, own_file)
{
	cr_assert(have_no_code("", &constant));
	cr_assert(have_no_code("/proc/self/exe", &constant));
	cr_assert_not(have_no_code("", code));
}

Test(sections, another_file)
{
	cr_assert_not(have_no_code("/bin/true", &constant));
	cr_assert_not(have_no_code("/bin/true", code));
	cr_assert_not(have_no_code("/dev/null", &constant));
	cr_assert_not(have_no_code("/nowhere", &constant));
}
