/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A module that some other loader than the dynamic linker mapped: its functions are known as those of a loaded one are,
 * so that the same addresses are refused. When it is unmapped without a word, and other code mapped there, nothing of
 * it is believed or read any more. Memory that is not its file's is not read, either: here it is nobody's to give.
 */
#include "harness.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#define PAGE 4096UL
#define ADDRESSES 64

static uintptr_t lower;
static size_t size;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static int protection(uint32_t flags)
{
	return (flags & PF_R ? PROT_READ : 0) | (flags & PF_W ? PROT_WRITE : 0) | (flags & PF_X ? PROT_EXEC : 0);
}

static void map_segments(int fd, const uint8_t *file)
{
	const Elf64_Ehdr *elf = (const void *)file;
	const Elf64_Phdr *segments = (const void *)(file + elf->e_phoff);

	for (size_t i = 0; i < elf->e_phnum; i++)
		if (segments[i].p_type == PT_LOAD)
			size = (segments[i].p_vaddr + segments[i].p_memsz + PAGE - 1) & -PAGE;
	lower = (uintptr_t)mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (size_t i = 0; i < elf->e_phnum; i++) {
		uintptr_t page = segments[i].p_vaddr & -PAGE;
		uintptr_t end = segments[i].p_vaddr + segments[i].p_filesz;

		if (segments[i].p_type == PT_LOAD)
			CHECK(mmap((void *)(lower + page), end - page, protection(segments[i].p_flags),
				   MAP_PRIVATE | MAP_FIXED, fd, (off_t)(segments[i].p_offset & -PAGE)) != MAP_FAILED);
	}
}

/* A second time beside the loaded one. */
static void map_again(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat status;
	void *file;

	CHECK(fd >= 0 && fstat(fd, &status) == 0);
	file = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	CHECK(file != MAP_FAILED);
	map_segments(fd, file);
	munmap(file, (size_t)status.st_size);
	close(fd);
}

/* Whoever reads it waits. Below the module, where its head is looked for. */
static void map_what_cannot_be_read(void)
{
	void *page = mmap((void *)(lower - (64UL << 20)), PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdio_register range = { .range = { (uintptr_t)page, PAGE }, .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_api api = { .api = UFFD_API };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

	if (fd < 0) {
		harness_say("there is no userfaultfd here: %s\n", strerror(errno));
		return;
	}
	REQUIRE(page != MAP_FAILED && ioctl(fd, UFFDIO_API, &api) == 0);
	REQUIRE(ioctl(fd, UFFDIO_REGISTER, &range) == 0);
}

static patch_status try(uintptr_t address)
{
	const struct patch_location location = {.type = PATCH_LOCATION_ADDRESS, .address = address};
	struct patch_exec_model model = {.type = PATCH_EXEC_MODEL_PROBE};
	patch_status status;
	patch_t patch;

	model.probe.procedure = procedure;
	status = patch_make(&location, &model, NULL, &patch, NULL);
	if (status == PATCH_OK)
		CHECK_OK(patch_unmake(patch));
	return status;
}

int main(void)
{
	struct link_map *map = NULL;
	unsigned int refused = 0;
	uintptr_t function, middle = 0;

	harness_start();
	CHECK_EQ(dlinfo(dlopen("libc.so.6", RTLD_NOW), RTLD_DI_LINKMAP, &map), 0);
	map_again(map->l_name);
	map_what_cannot_be_read();
	function = (uintptr_t)dlsym(RTLD_DEFAULT, "qsort_r") - map->l_addr;
	REQUIRE_OK(patch_init(NULL, 0));
	/* Downwards: behind a patched instruction's start, its middle would be known. */
	for (uintptr_t at = function + ADDRESSES; at-- > function;) {
		patch_status loaded = try(map->l_addr + at), mapped = try(lower + at);

		CONTEXT("offset %llu", (unsigned long long)(at - function));
		CHECK_EQ(mapped, loaded);
		if (mapped == PATCH_EBOUNDARY) {
			refused++;
			middle = at;
		}
	}
	harness_say("%u of %d addresses are no instruction's\n", refused, ADDRESSES);
	CHECK(refused > 0);

	/* Nothing is left of the patches, and what it knows of the module comes from after the commit. */
	CHECK_OK(patch_commit());
	CHECK_EQ(try(lower + middle), PATCH_EBOUNDARY);
	CONTEXT("unmapped");
	munmap((void *)lower, size);
	CHECK(try(lower + function) != PATCH_OK);
	CONTEXT("other code");
	CHECK(mmap((void *)lower, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
	      MAP_FAILED);
	memset((void *)lower, 0x90, size);
	CHECK_EQ(mprotect((void *)lower, size, PROT_READ | PROT_EXEC), 0);
	CHECK_OK(try(lower + function + 2 * PAGE + 1));
	CHECK_OK(patch_commit());
	CHECK_OK(patch_fini());
	return harness_end();
}
