/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* See locate.h. */
#include "locate.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static patch_status make(const char *name, patch_t *patch)
{
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE, procedure, NULL);
	struct patch_location location;

	memset(&location, 0, sizeof(location));
	location.type = PATCH_LOCATION_SYMBOL;
	location.symbol.name = name;
	return patch_make(&location, &model, NULL, patch, NULL);
}

uintptr_t locate(const char *name)
{
	struct patch_info info;
	patch_status status;
	patch_t patch;

	memset(&info, 0, sizeof(info));
	if (make(name, &patch) != PATCH_OK)
		return 0;
	/* Its module may have gone since. */
	status = patch_info(patch, &info, sizeof(info));
	if (status != PATCH_EFAULT)
		CHECK_EQ(status, PATCH_OK);
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
	return info.address;
}

void locate_expect(const char *name, const void *address)
{
	uintptr_t found;

	CONTEXT("%s", name);
	found = locate(name);
	if (found == 0)
		FAIL("refused: %s", harness_last_error());
	else
		CHECK_EQ(found, (uintptr_t)address);
}

void locate_refused(const char *name, patch_status status, const char *message)
{
	struct patch_error error;
	patch_t patch;

	CONTEXT("%s", name);
	CHECK_STATUS(make(name, &patch), status);
	patch_last_error(&error);
	if (strcmp(error.message, message) != 0)
		FAIL("says \"%s\", not \"%s\"", error.message, message);
	if (error.irritant[0] == '\0')
		FAIL("does not say what it is about");
}

void locate_chain_says(const char *message, const char *irritant)
{
	struct patch_error error, *next = &error;

	patch_last_error(&error);
	for (; next != NULL; next = next->next)
		if (strcmp(next->message, message) == 0 && strcmp(next->irritant, irritant) == 0)
			return;
	FAIL("no error says \"%s\" of \"%s\"", message, irritant);
	patch_last_error(&error);
	for (next = &error; next != NULL; next = next->next)
		harness_say("  %s: %s\n", next->message, next->irritant);
}

static char directory[256];
static pid_t owner;

static void remove_directory(void)
{
	char command[sizeof(directory) + 16];

	if (owner != getpid())
		return;
	snprintf(command, sizeof(command), "rm -rf '%s'", directory);
	if (system(command) != 0)
		harness_say("%s stays\n", directory);
}

const char *locate_directory(void)
{
	const char *parent = getenv("TMPDIR");

	if (directory[0] != '\0')
		return directory;
	snprintf(directory, sizeof(directory), "%s/libpatch-locate-XXXXXX", parent != NULL ? parent : "/tmp");
	REQUIRE(mkdtemp(directory) != NULL);
	owner = getpid();
	atexit(remove_directory);
	return directory;
}

const char *locate_path(const char *file)
{
	static char paths[4][512];
	static unsigned int next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", locate_directory(), file);
	return path;
}

void locate_copy_file(const char *from, const char *to)
{
	int in = open(from, O_RDONLY | O_CLOEXEC), out;
	struct stat status;

	REQUIRE(in >= 0 && fstat(in, &status) == 0);
	unlink(to);
	out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
	REQUIRE(out >= 0);
	for (off_t left = status.st_size; left > 0;) {
		ssize_t got = sendfile(out, in, NULL, (size_t)left);

		REQUIRE(got > 0);
		left -= got;
	}
	close(in);
	close(out);
}

const char *locate_copy(const char *file)
{
	const char *built = getenv("LIBPATCH_BUILD_DIR");
	const char *to = locate_path(file);
	char from[512];

	snprintf(from, sizeof(from), "%s/tests/support/.libs/locate-module.so", built != NULL ? built : ".");
	if (access(from, R_OK) != 0)
		SKIP("%s: %s", from, strerror(errno));
	locate_copy_file(from, to);
	return to;
}

void locate_tool(const char *format, ...)
{
	char command[2048];
	va_list arguments;
	int status;

	va_start(arguments, format);
	vsnprintf(command, sizeof(command), format, arguments);
	va_end(arguments);
	status = system(command);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
		SKIP("no binutils: %s", command);
	REQUIRE(status == 0);
}

struct locate_module locate_load(const char *path, int flags)
{
	struct locate_module module;

	module.handle = dlopen(path, RTLD_NOW | flags);
	if (module.handle == NULL)
		FAIL("%s", dlerror());
	REQUIRE(module.handle != NULL);
	*(void **)&module.address = dlsym(module.handle, "located_address");
	*(void **)&module.call = dlsym(module.handle, "located_call");
	REQUIRE(module.address != NULL && module.call != NULL);
	return module;
}
