/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The process has as many mappings as the kernel lets it have, but for a few. Each time that the library asks for
 * memory it looks for a gap first, among all mappings, which takes long where there are so many. So what was refused is
 * not asked for again in the same call, at no other address and for no other window: a call reads the mappings some
 * times, not some hundred times. In the next call it is asked for again.
 */
#include "targets.h"

#include <fcntl.h>

/* Halves of the largest mapping down to a page, and down to the least for pads; what is looked up of modules. */
#define READ_MOST 40
#define ROOM_MOST 16
#define PAGE 4096UL

static char *filler;
static long filled;
static unsigned int hits;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

static unsigned long number_in(const char *path, const char *name)
{
	unsigned long value = 0;
	char line[128];
	FILE *file = fopen(path, "re");

	while (file && fgets(line, sizeof(line), file))
		if (strncmp(line, name, strlen(name)) == 0 && sscanf(line + strlen(name), "%lu", &value) == 1)
			break;
	if (file)
		fclose(file);
	return value;
}

static unsigned long reads(void)
{
	return number_in("/proc/self/io", "syscr:");
}

/* How many reads it takes to read all mappings once, in pieces of the size that the library reads. */
static unsigned long reads_of_maps(void)
{
	static char piece[8192];
	unsigned long count = 1;
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);

	REQUIRE(fd >= 0);
	while (read(fd, piece, sizeof(piece)) > 0)
		count++;
	close(fd);
	return count;
}

static void fill_up(void)
{
	unsigned long most = number_in("/proc/sys/vm/max_map_count", "");

	if (most == 0 || most > 300000)
		SKIP("the kernel allows %lu mappings, too many to make them all", most);
	filler = mmap(NULL, 2 * PAGE * most, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	REQUIRE(filler != MAP_FAILED);
	for (filled = 1; mprotect(filler + 2 * PAGE * filled, PAGE, PROT_READ) == 0; filled++)
		;
}

static void check_reads(unsigned long before, unsigned long once, const char *what)
{
	unsigned long count = (reads() - before) / once;

	if (count > READ_MOST)
		FAIL("%s read the mappings %lu times", what, count);
}

static void start_at_limit(void *argument)
{
	struct text_copy text = text_of_target(target_named("t_2_2_1"));
	unsigned long once = reads_of_maps(), before;
	int room = *(const int *)argument;
	patch_status status;
	patch_t patch;

	CONTEXT("room for %d times two mappings", room);
	REQUIRE(munmap(filler + 2 * PAGE * (filled - room), 2 * PAGE * (size_t)room) == 0);
	before = reads();
	status = patch_init(NULL, 0);
	check_reads(before, once, "patch_init()");
	if (status == PATCH_OK) {
		before = reads();
		status = make_probe((uintptr_t)t_2_2_1, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_DISABLED,
				    &patch);
		check_reads(before, once, "patch_make()");
	} else {
		CHECK_EQ(status, PATCH_ENOMEM);
	}
	/* What was refused is there for the next call. */
	REQUIRE(munmap(filler, 2 * PAGE * (size_t)(filled - room)) == 0);
	if (status != PATCH_OK) {
		CHECK_EQ(status, PATCH_ENOMEM);
		status = patch_init(NULL, 0);
		CHECK(status == PATCH_OK || status == PATCH_EEXIST);
		REQUIRE_OK(make_probe((uintptr_t)t_2_2_1, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_DISABLED,
				      &patch));
	}
	CHECK_OK(patch_enable(patch));
	CHECK_OK(patch_commit());
	CHECK_EQ(t_2_2_1(5, 6), 3);
	CHECK_EQ(hits, 1);
	CHECK_OK(patch_fini());
	CHECK_TEXT_SAME(&text);
}

int main(void)
{
	harness_start();
	if (reads() == 0)
		SKIP("/proc/self/io does not tell how often the process reads");
	fill_up();
	for (int room = 1; room <= ROOM_MOST; room++)
		harness_isolated("the process is at its limit", start_at_limit, &room);
	return harness_end();
}
