/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What is looked up of a site, and for how long it is believed.
 */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif

#include "plan/site.h"

#include "sys/mem_read.h"

#include <criterion/criterion.h>
#include <sys/mman.h>

/* Alone on its page. */
void alone(void);
__asm__(".pushsection .text\n"
	".balign 4096\n"
	".globl alone\n"
	".type alone, @function\n"
	"alone: .cfi_startproc\n nopl 0(%rax)\n ret\n .cfi_endproc\n .size alone, .-alone\n"
	".balign 4096\n"
	".popsection\n");

/* The code of a site is read without the kernel as long as it is at hand. Later it may have gone. */
Test(site, what_is_forgotten_is_not_trusted)
{
	const uintptr_t page = (uintptr_t)&alone;
	struct refusal refusal;
	struct extent extent;

	cr_assert_eq(site_examine(page, &extent, &refusal), PATCH_OK, "%s", refusal.message);
	cr_assert_eq(mprotect(&alone, PAGE_SIZE, PROT_NONE), 0);
#ifdef HAVE_DL_FIND_OBJECT
	/* Otherwise it always is. */
	cr_assert(mem_is_readable(page, page + PAGE_SIZE), "it is not asked again");
#endif
	site_forget();
	cr_expect_not(mem_is_readable(page, page + PAGE_SIZE));
}
