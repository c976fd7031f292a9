/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A module that comes and goes: a function to be patched, and a procedure. */
#include <libpatch/patch.h>

int module_function(int a);
void module_procedure(struct patch_exec_context *context, uint8_t post);

__attribute__((noinline)) int module_function(int a)
{
	__asm__ volatile("" : "+r"(a));
	return a + 1;
}

/* Calls the function that user_data is. */
void module_procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	((void (*)(void))context->user_data)();
}
