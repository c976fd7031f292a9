/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * In the middle of a commit, between two of its writes, the program closes descriptors that it does not own, and gets
 * their numbers for files of its own. Not a byte is written to those, and the commit does what it was to.
 */
#include "targets.h"

#include "base/inject.h"
#include "sys/text.h"

#include <fcntl.h>

/* Each on pages of its own, so that each is a write of its own. */
#define SITES 4
#define STRIDE (3 * 4096)
#define FILES 1100

static uint8_t *code;
static unsigned int hits, swaps;
static int file;
static bool swapped[FILES];
static char name[64], link_of[512];

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

/* Is it /proc/TID/mem? */
static bool is_memory(int fd)
{
	ssize_t length;

	snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	length = readlink(name, link_of, sizeof(link_of) - 1);
	return length > 4 && !memcmp(link_of, "/proc", 5) && !memcmp(link_of + length - 4, "/mem", 4);
}

static int swap(enum inject_point point)
{
	if (point != INJECT_TEXT_WRITE)
		return 0;
	for (int fd = 3; fd < FILES; fd++) {
		if (fcntl(fd, F_GETFD) < 0 || !is_memory(fd))
			continue;
		REQUIRE(dup2(file, fd) == fd);
		swapped[fd] = true;
		swaps++;
	}
	return 0;
}

int main(void)
{
	static const uint8_t body[] = { 0xb8, 0x2a, 0, 0, 0, 0x90, 0x90, 0xc3 };
	patch_t patches[SITES];
	FILE *stream;

	harness_start();
	stream = tmpfile();
	if (!stream)
		SKIP("no temporary file");
	file = fileno(stream);
	code = mmap(NULL, SITES * STRIDE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(code != MAP_FAILED);
	for (size_t n = 0; n < SITES; n++)
		memcpy(code + n * STRIDE, body, sizeof(body));
	REQUIRE(mprotect(code, SITES * STRIDE, PROT_READ | PROT_EXEC) == 0);
	REQUIRE_OK(patch_init(NULL, 0));
	if (text_way() != TEXT_PROC_MEM)
		SKIP("/proc/self/mem cannot be written here");
	for (size_t n = 0; n < SITES; n++)
		REQUIRE_OK(make_probe((uintptr_t)code + n * STRIDE, procedure, NULL, PATCH_TRAP_POLICY_ALLOW,
				      PATCH_DISABLED, &patches[n]));
	libpatch_inject = swap;
	for (int round = 0; round < 10; round++) {
		for (size_t n = 0; n < SITES; n++)
			CHECK_OK(round % 2 ? patch_disable(patches[n]) : patch_enable(patches[n]));
		CHECK_OK(patch_commit());
		hits = 0;
		for (size_t n = 0; n < SITES; n++)
			CHECK_EQ(call_code(code + n * STRIDE), 42);
		CHECK_EQ(hits, round % 2 ? 0 : SITES);
	}
	CHECK(swaps > 10);
	CHECK_EQ(lseek(file, 0, SEEK_END), 0);
	for (int fd = 0; fd < FILES; fd++)
		CHECK(!swapped[fd] || fcntl(fd, F_GETFD) >= 0);
	libpatch_inject = NULL;
	CHECK_OK(patch_fini());
	for (size_t n = 0; n < SITES; n++)
		CHECK(!memcmp(code + n * STRIDE, body, sizeof(body)));
	return harness_end();
}
