/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tool_output.h"

#include "harness.h"

#include <fcntl.h>

int tool_output(const char *const *arguments, bool errors, char *text, size_t size)
{
	int output[2], status;
	size_t length = 0;
	ssize_t got;
	pid_t child;

	REQUIRE(pipe(output) == 0);
	child = fork();
	REQUIRE(child >= 0);
	if (child == 0) {
		dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
		dup2(output[1], STDOUT_FILENO);
		dup2(errors ? output[1] : open("/dev/null", O_WRONLY), STDERR_FILENO);
		execvp(arguments[0], (char *const *)arguments);
		_exit(127);
	}
	close(output[1]);
	while (length < size - 1 && (got = read(output[0], text + length, size - 1 - length)) > 0)
		length += (size_t)got;
	text[length] = '\0';
	close(output[0]);
	REQUIRE(waitpid(child, &status, 0) == child);
	return status;
}
