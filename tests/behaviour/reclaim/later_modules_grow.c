/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Modules that are loaded behind patch_init() have a system call that is mediated. What is kept of those that went is
 * bounded; and what loading one reads does not depend on how much else is mapped.
 */
#include "targets.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

static const char *module_path;

static struct patch_statistics numbers(void)
{
	struct patch_statistics statistics = { 0 };

	CHECK_OK(patch_statistics(&statistics, sizeof(statistics)));
	return statistics;
}

static void *load(void)
{
	const uint64_t before = numbers().mediated;
	void *module = dlopen(module_path, RTLD_NOW | RTLD_LOCAL);

	REQUIRE(module != NULL);
	CHECK_EQ(numbers().mediated, before + 1);
	return module;
}

static void cycle(unsigned int rounds)
{
	for (unsigned int i = 0; i < rounds; i++)
		CHECK_EQ(dlclose(load()), 0);
}

static void in_memory(void *unused)
{
	struct patch_statistics before, after;

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	cycle(200);
	before = numbers();
	cycle(1000);
	after = numbers();
	harness_say("1000 modules: code grows by %lld, the heap by %lld\n",
		    (long long)(after.code_bytes + after.retired_bytes - before.code_bytes - before.retired_bytes),
		    (long long)(after.heap_bytes - before.heap_bytes));
	CHECK(after.code_bytes + after.retired_bytes < before.code_bytes + before.retired_bytes + 100000);
	CHECK(after.heap_bytes < before.heap_bytes + 200000);
	CHECK_OK(patch_fini());
}

/* Linux 6.11: struct procmap_query of include/uapi/linux/fs.h. Without it, what is at an address is read from above. */
static bool can_ask_for_one_mapping(void)
{
	uint64_t query[13] = { sizeof(query), 0, (uintptr_t)&query };
	int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	int result = ioctl(maps, _IOC(_IOC_READ | _IOC_WRITE, 'f', 17, sizeof(query)), query);

	close(maps);
	return result == 0;
}

/* By this process, as the kernel counts. */
static unsigned long long bytes_read(void)
{
	FILE *file = fopen("/proc/self/io", "r");
	unsigned long long bytes = 0;

	if (file == NULL || fscanf(file, "rchar: %llu", &bytes) != 1)
		harness_skip("/proc/self/io does not tell what a process reads");
	fclose(file);
	return bytes;
}

static unsigned long long bytes_read_by_loading(void)
{
	const unsigned long long before = bytes_read();
	void *module = load();
	const unsigned long long after = bytes_read();

	CHECK_EQ(dlclose(module), 0);
	return after - before;
}

#define PAGES 4000

static void in_time(void *unused)
{
	unsigned long long few, many;
	char *pages;

	(void)unused;
	if (!can_ask_for_one_mapping())
		harness_skip("the kernel does not tell of one mapping");
	REQUIRE_OK(patch_init(NULL, 0));
	cycle(1);
	few = bytes_read_by_loading();
	pages = mmap(NULL, PAGES * 4096UL, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(pages != MAP_FAILED);
	for (size_t i = 0; i < PAGES; i += 2)
		REQUIRE(mprotect(pages + i * 4096, 4096, PROT_READ) == 0);
	many = bytes_read_by_loading();
	harness_say("loading a module reads %llu bytes, and among %d mappings more %llu\n", few, PAGES, many);
	CHECK(many < few + 20000);
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	module_path = harness_module();
	harness_isolated("in memory", in_memory, NULL);
	harness_isolated("in time", in_time, NULL);
	return harness_end();
}
