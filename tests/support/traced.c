/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "traced.h"

#include "harness.h"

void send_to_itself(int signo)
{
	const long process = getpid();
	long sent;

	__asm__ volatile("mov %1, %%eax\n\tsyscall"
			 : "=&a"(sent)
			 : "i"(SYS_tgkill), "D"(process), "S"(process), "d"((long)signo)
			 : "rcx", "r11", "memory");
	REQUIRE(sent == 0);
}

int go(pid_t pid, enum __ptrace_request request, int signo)
{
	int status;

	REQUIRE(ptrace(request, pid, NULL, (void *)(intptr_t)signo) == 0);
	REQUIRE(waitpid(pid, &status, 0) == pid);
	if (!WIFSTOPPED(status)) {
		FAIL("the program ended with %#x", status);
		exit(1);
	}
	return WSTOPSIG(status);
}
