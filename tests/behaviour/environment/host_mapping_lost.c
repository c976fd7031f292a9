/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * While the library looks for memory near a site, other threads map memory there, too: the very page where its next
 * mapping was to be, and those right before and behind the ones it has just made. Theirs stay mapped with their
 * contents, whether patch_make() finds another place or gives up.
 */
#include "targets.h"

#include "base/inject.h"

#define PAGES 64
#define MAPPINGS 512
#define PAGE 4096UL

struct mapping {
	uintptr_t lower, upper;
};

static struct mapping before[MAPPINGS], now[MAPPINGS];
static size_t before_count;
static uint32_t *theirs[PAGES];
static unsigned int theirs_count, asked, limit;
static unsigned int hits;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

static size_t read_mappings(struct mapping *mappings)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned long lower, upper;
	size_t count = 0;
	char line[512];

	REQUIRE(maps);
	while (fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx", &lower, &upper) == 2 && count < MAPPINGS)
			mappings[count++] = (struct mapping){ lower, upper };
	fclose(maps);
	return count;
}

static void take(uintptr_t address)
{
	void *page;

	if (theirs_count == PAGES)
		return;
	page = mmap((void *)address, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
		    -1, 0);
	if (page == MAP_FAILED)
		return;
	theirs[theirs_count++] = page;
	*theirs[theirs_count - 1] = 0x600d600d;
}

static bool was_there(uintptr_t lower)
{
	for (size_t n = 0; n < before_count; n++)
		if (before[n].lower == lower)
			return true;
	return false;
}

/* The library has looked at the map and is about to take what it found. */
static int interfere(enum inject_point point)
{
	uintptr_t site = (uintptr_t)t_2_2_1;
	size_t count, at = 0;

	if (point != INJECT_MMAP || asked++ >= limit)
		return 0;
	count = read_mappings(now);
	while (at < count && now[at].upper <= site)
		at++;
	/* down to where the nearest gap ends: what is free there is looked at first */
	while (at > 0 && now[at - 1].upper == now[at].lower)
		at--;
	take(now[at].lower - PAGE);
	for (size_t n = 0; n < count; n++)
		if (!was_there(now[n].lower)) {
			take(now[n].upper);
			take(now[n].lower - PAGE);
		}
	return 0;
}

static void make_in_a_crowd(void *argument)
{
	struct text_copy text = text_of_target(target_named("t_2_2_1"));
	patch_status status;
	patch_t patch;

	limit = *(const unsigned int *)argument;
	/* stdio's buffers are there before */
	read_mappings(before);
	REQUIRE_OK(patch_init(NULL, 0));
	before_count = read_mappings(before);
	libpatch_inject = interfere;
	status = make_probe((uintptr_t)t_2_2_1, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch);
	libpatch_inject = NULL;
	CHECK(theirs_count > 0);
	for (unsigned int n = 0; n < theirs_count; n++) {
		/* a system call first: it tells without dying */
		unsigned char resident;

		if (mincore(theirs[n], PAGE, &resident) != 0)
			FAIL("page %u of %u at %p was unmapped", n, theirs_count, (void *)theirs[n]);
		else
			CHECK_EQ(*theirs[n], 0x600d600d);
		if (harness_failures == 0)
			*theirs[n] = 0; /* still writable */
	}
	if (status != PATCH_OK) {
		CHECK_EQ(status, PATCH_ENOMEM);
		CHECK_OK(make_probe((uintptr_t)t_2_2_1, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED,
				    &patch));
	}
	CHECK_OK(patch_commit());
	CHECK_EQ(t_2_2_1(5, 6), 3);
	CHECK_EQ(hits, 1);
	CHECK_OK(patch_fini());
	CHECK_TEXT_SAME(&text);
}

int main(void)
{
	/* up to how many mappings are interfered with: a few are put up with */
	static const unsigned int limits[] = { 1, 2, 3, 4, 5, 6, 8, PAGES };

	harness_start();
	for (size_t n = 0; n < sizeof(limits) / sizeof(limits[0]); n++)
		harness_isolated("others map memory near the site", make_in_a_crowd, (void *)&limits[n]);
	return harness_end();
}
