/* SPDX-License-Identifier: MIT */
#define _GNU_SOURCE
#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LINE_SIZE 512
#define LOWEST 200 /* programs expect to get the low numbers themselves */

static int output = -1;
static struct stat output_identity;

static int open_high(const char *file)
{
	int low, fd;

	if (!file[0])
		return fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, LOWEST);
	low = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (low < 0)
		return -1;
	fd = fcntl(low, F_DUPFD_CLOEXEC, LOWEST);
	if (fd < 0)
		return low;
	close(low);
	return fd;
}

/* Programs close descriptors they do not know, and may have got the number again for a file of theirs. */
static bool output_is_ours(void)
{
	struct stat now;

	return output >= 0 && fstat(output, &now) == 0 && now.st_dev == output_identity.st_dev &&
	       now.st_ino == output_identity.st_ino;
}

bool output_open(const char *file)
{
	output = open_high(file);
	return output >= 0 && fstat(output, &output_identity) == 0;
}

bool output_reopen(const char *file)
{
	return output_is_ours() || output_open(file);
}

/*
 * A pipe without a reader and a limit to the size of files raise signals that end the program, which knows nothing of
 * this output: they are blocked, and what a write has raised is taken.
 */
static const int raised_by_write[] = {SIGPIPE, SIGXFSZ};

static ssize_t write_quietly(const void *bytes, size_t size)
{
	const struct timespec at_once = {0, 0};
	sigset_t raised, pending, before;
	ssize_t written;
	int error;

	sigemptyset(&raised);
	for (size_t i = 0; i < sizeof(raised_by_write) / sizeof(raised_by_write[0]); i++)
		sigaddset(&raised, raised_by_write[i]);
	pthread_sigmask(SIG_BLOCK, &raised, &before);
	sigpending(&pending);
	/* One that waited before is the program's. */
	for (size_t i = 0; i < sizeof(raised_by_write) / sizeof(raised_by_write[0]); i++)
		if (sigismember(&pending, raised_by_write[i]))
			sigdelset(&raised, raised_by_write[i]);
	written = write(output, bytes, size);
	error = errno;
	if (written < 0 && (error == EPIPE || error == EFBIG))
		while (sigtimedwait(&raised, NULL, &at_once) < 0 && errno == EINTR)
			;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	errno = error;
	return written;
}

void say(const char *format, ...)
{
	char line[LINE_SIZE];
	va_list arguments;
	int length;
	size_t done = 0;

	va_start(arguments, format);
	length = vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	if (length < 0 || !output_is_ours())
		return;
	if ((size_t)length >= sizeof(line))
		length = sizeof(line) - 1;
	while (done < (size_t)length) {
		ssize_t written = write_quietly(line + done, (size_t)length - done);

		if (written < 0 && errno != EINTR)
			return;
		done += written > 0 ? (size_t)written : 0;
	}
}

/* 1234567 -> "1,234,567" */
struct digits grouped(uint64_t value)
{
	struct digits plain, result = {{0}};
	int length = snprintf(plain.text, sizeof(plain.text), "%ju", (uintmax_t)value);
	int at = 0;

	for (int i = 0; i < length; i++) {
		if (i && (length - i) % 3 == 0)
			result.text[at++] = ',';
		result.text[at++] = plain.text[i];
	}
	return result;
}
