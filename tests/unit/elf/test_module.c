/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * module.c, mapped.c and eh_frame.c against an independent reading of the same modules' .eh_frame sections, and against
 * tables made by hand and broken at random.
 */
#include "elf/eh_frame.h"
#include "elf/module.h"

#include <criterion/criterion.h>
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- ground truth ----------------------------------------------------------------------------------------------- */

struct extent {
	uintptr_t lower;
	uintptr_t upper;
};

static int extent_order(const void *a, const void *b)
{
	const struct extent *x = a, *y = b;

	return x->lower < y->lower ? -1 : x->lower > y->lower;
}

static uint64_t read_uleb(const uint8_t **at)
{
	uint64_t value = 0;
	int shift = 0;

	do {
		value |= (uint64_t)(**at & 0x7f) << shift;
		shift += 7;
	} while (*(*at)++ & 0x80);
	return value;
}

/* The 'R' letter of a CIE, which must be pcrel|sdata4 as x86-64 toolchains emit it. */
static void check_cie(const uint8_t *cie)
{
	const char *letter = (const char *)cie + 9;
	const uint8_t *at = cie + 9 + strlen(letter) + 1;

	cr_assert_eq(cie[8], 1);
	cr_assert_eq(*letter++, 'z');
	read_uleb(&at);
	read_uleb(&at);
	at++;
	read_uleb(&at);
	for (; *letter != '\0'; letter++) {
		uint8_t encoding = *at;

		switch (*letter) {
		case 'R':
			cr_assert_eq(encoding, 0x1b);
			return;
		case 'L':
			at++;
			break;
		case 'P':
			at += 1 + ((encoding & 7) == 0 || (encoding & 7) == 4 ? 8 : 4);
			break;
		default:
			break;
		}
	}
	cr_assert_fail("no R");
}

/* Every FDE of the .eh_frame section of the file, by its section header, in a module loaded at `bias`. */
static struct extent *read_extents(const char *path, uintptr_t bias, size_t *count)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat status;
	struct extent *extents = NULL;
	size_t capacity = 0;

	*count = 0;
	cr_assert(fd >= 0 && fstat(fd, &status) == 0, "%s", path);
	const uint8_t *file = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	cr_assert(file != MAP_FAILED);
	const Elf64_Ehdr *elf = (const void *)file;
	const Elf64_Shdr *sections = (const void *)(file + elf->e_shoff);
	const char *names = (const char *)file + sections[elf->e_shstrndx].sh_offset;

	for (size_t i = 0; i < elf->e_shnum; i++) {
		if (strcmp(names + sections[i].sh_name, ".eh_frame") != 0)
			continue;
		const uint8_t *start = file + sections[i].sh_offset;
		const uint8_t *at = start;

		while (at < start + sections[i].sh_size) {
			uint32_t length, id, range;
			int32_t begin;

			memcpy(&length, at, 4);
			if (length == 0)
				break;
			cr_assert_neq(length, 0xffffffff);
			memcpy(&id, at + 4, 4);
			if (id == 0) {
				check_cie(at);
			} else {
				memcpy(&begin, at + 8, 4);
				memcpy(&range, at + 12, 4);
				if (*count == capacity) {
					capacity = capacity * 2 + 64;
					extents = realloc(extents, capacity * sizeof(*extents));
				}
				extents[*count].lower = bias + sections[i].sh_addr + (at + 8 - start) + (int64_t)begin;
				extents[*count].upper = extents[*count].lower + range;
				if (range != 0)
					++*count;
			}
			at += 4 + length;
		}
	}
	munmap((void *)file, status.st_size);
	close(fd);
	qsort(extents, *count, sizeof(*extents), extent_order);
	return extents;
}

static void compare_module(const struct module *module, const char *path, uintptr_t bias)
{
	size_t count;
	struct extent *extents = read_extents(path, bias, &count);

	cr_assert(count > 5, "%s: %zu", path, count);
	for (size_t i = 0; i < count; i++) {
		uintptr_t lower = 0, upper = 0, next = 0;
		uintptr_t middle = (extents[i].lower + extents[i].upper) / 2;
		uintptr_t probes[] = {extents[i].lower, middle, extents[i].upper - 1};
		uintptr_t expected_next = i + 1 < count ? extents[i + 1].lower : UINTPTR_MAX;

		for (size_t j = 0; j < ARRAY_SIZE(probes); j++) {
			if (i + 1 < count && probes[j] >= extents[i + 1].lower)
				continue;
			cr_assert(eh_frame_function(module, probes[j], &lower, &upper, &next), "%s: %zx", path,
				  probes[j] - bias);
			cr_assert_eq(lower, extents[i].lower);
			cr_assert_eq(upper, extents[i].upper);
			cr_assert_eq(next, expected_next);
			cr_assert(eh_frame_function(module, probes[j], &lower, &upper, NULL));
		}
		if (extents[i].upper < expected_next) {
			lower = upper = 1;
			cr_assert_not(eh_frame_function(module, extents[i].upper, &lower, &upper, &next));
			cr_assert_eq(next, expected_next);
			cr_assert(lower == 1 && upper == 1);
		}
	}
	uintptr_t lower, upper, next;

	cr_assert_not(eh_frame_function(module, extents[0].lower - 1, &lower, &upper, &next));
	cr_assert_eq(next, extents[0].lower);
	cr_assert_not(eh_frame_function(module, 0, &lower, &upper, &next));
	cr_assert_eq(next, extents[0].lower);
	cr_assert_not(eh_frame_function(module, UINTPTR_MAX, &lower, &upper, &next));
	cr_assert_eq(next, UINTPTR_MAX);
	free(extents);
}

static int compare_loaded(struct dl_phdr_info *info, size_t size, void *data)
{
	struct module module;
	uintptr_t code = 0;
	const char *path = info->dlpi_name[0] == '\0' ? "/proc/self/exe" : info->dlpi_name;

	(void)size;
	for (size_t i = 0; i < info->dlpi_phnum; i++) {
		if (info->dlpi_phdr[i].p_type == PT_LOAD && (info->dlpi_phdr[i].p_flags & PF_X) != 0)
			code = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
	}
	cr_assert(module_find(code, &module), "%s", path);
	cr_assert(code >= module.lower && code < module.upper);
	for (size_t i = 0; i < info->dlpi_phnum; i++) {
		const Elf64_Phdr *header = &info->dlpi_phdr[i];
		struct module other;

		if (header->p_type == PT_GNU_EH_FRAME)
			cr_assert_eq((uintptr_t)module.eh_frame_hdr, info->dlpi_addr + header->p_vaddr);
		if (header->p_type == PT_LOAD && (header->p_flags & PF_X) != 0) {
			cr_assert(module_find(info->dlpi_addr + header->p_vaddr + header->p_memsz - 1, &other));
			cr_assert_eq(other.identity, module.identity);
			cr_assert(other.lower == module.lower && other.upper == module.upper);
		}
	}
	if (strchr(path, '/') != NULL) {
		compare_module(&module, path, info->dlpi_addr);
		++*(int *)data;
	}
	return 0;
}

Test(module, every_described_function_of_every_loaded_module)
{
	int compared = 0;

	cr_assert_not_null(dlopen("libstdc++.so.6", RTLD_NOW) ?: dlopen("libgcc_s.so.1", RTLD_NOW));
	dl_iterate_phdr(compare_loaded, &compared);
	cr_assert(compared >= 3);
}

Test(module, finds_the_module_of_an_address)
{
	struct module own, libc, again;

	cr_assert(module_find((uintptr_t)compare_loaded, &own));
	cr_assert(module_find((uintptr_t)dlsym(RTLD_DEFAULT, "puts"), &libc));
	cr_assert(module_find((uintptr_t)dlsym(RTLD_DEFAULT, "qsort"), &again));
	cr_assert_neq(own.identity, libc.identity);
	cr_assert_eq(again.identity, libc.identity);
	cr_assert(own.lower <= (uintptr_t)compare_loaded && (uintptr_t)compare_loaded < own.upper);
}

Test(module, memory_that_is_no_module)
{
	struct module module = {.lower = 42};
	int local;
	void *page = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cr_assert_not(module_find(0, &module));
	cr_assert_not(module_find(UINTPTR_MAX, &module));
	cr_assert_not(module_find((uintptr_t)&local, &module));
	cr_assert_not(module_find((uintptr_t)page, &module));
	cr_assert_eq(module.lower, 42);
}

Test(module, vdso_is_harmless)
{
	struct module module;
	uintptr_t lower, upper, next;
	uintptr_t vdso = getauxval(AT_SYSINFO_EHDR);

	for (uintptr_t address = vdso; vdso != 0 && address < vdso + PAGE_SIZE; address += 16) {
		if (module_find(address, &module) && eh_frame_function(&module, address, &lower, &upper, &next))
			cr_assert(lower <= address && address < upper);
	}
}

/* ---- modules that the dynamic linker does not know --------------------------------------------------------------- */

/*
 * A file's segments as a loader of the program's own maps them; `from_file`: as mappings of the file, else as copies.
 */
struct mapped {
	const char *path;
	uintptr_t bias;
	uintptr_t lower;
	size_t size;
	uintptr_t code; /* an executable address */
	uintptr_t tables; /* page of .eh_frame_hdr */
};

static void map_segment(const struct mapped *mapped, const uint8_t *file, int fd, const Elf64_Phdr *segment,
			bool from_file)
{
	uintptr_t start = ALIGN_DOWN(mapped->bias + segment->p_vaddr, PAGE_SIZE);
	size_t offset = ALIGN_DOWN(segment->p_offset, PAGE_SIZE);
	size_t size = segment->p_offset + segment->p_filesz - offset;
	int protection = (segment->p_flags & PF_R ? PROT_READ : 0) | (segment->p_flags & PF_W ? PROT_WRITE : 0) |
			 (segment->p_flags & PF_X ? PROT_EXEC : 0);

	if (from_file) {
		cr_assert_neq(mmap((void *)start, size, protection, MAP_PRIVATE | MAP_FIXED, fd, offset), MAP_FAILED);
		return;
	}
	cr_assert_eq(mprotect((void *)start, ALIGN_UP(size, PAGE_SIZE), PROT_READ | PROT_WRITE), 0);
	memcpy((void *)start, file + offset, size);
	cr_assert_eq(mprotect((void *)start, ALIGN_UP(size, PAGE_SIZE), protection), 0);
}

static struct mapped map_by_hand(bool from_file)
{
	struct link_map *map = NULL;
	struct mapped mapped = {0};
	struct stat status;
	uintptr_t upper = 0;

	cr_assert_eq(dlinfo(dlopen("libc.so.6", RTLD_NOW), RTLD_DI_LINKMAP, &map), 0);
	mapped.path = map->l_name;
	int fd = open(mapped.path, O_RDONLY | O_CLOEXEC);
	cr_assert(fd >= 0 && fstat(fd, &status) == 0);
	const uint8_t *file = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	cr_assert_neq(file, MAP_FAILED);
	const Elf64_Ehdr *elf = (const void *)file;
	const Elf64_Phdr *segments = (const void *)(file + elf->e_phoff);

	for (size_t i = 0; i < elf->e_phnum; i++)
		if (segments[i].p_type == PT_LOAD)
			upper = ALIGN_UP(segments[i].p_vaddr + segments[i].p_memsz, PAGE_SIZE);
	mapped.size = upper;
	mapped.lower = (uintptr_t)mmap(NULL, upper, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	mapped.bias = mapped.lower;
	for (size_t i = 0; i < elf->e_phnum; i++) {
		if (segments[i].p_type == PT_LOAD) {
			map_segment(&mapped, file, fd, &segments[i], from_file);
			if (segments[i].p_flags & PF_X)
				mapped.code = mapped.bias + segments[i].p_vaddr + segments[i].p_filesz / 2;
		}
		if (segments[i].p_type == PT_GNU_EH_FRAME)
			mapped.tables = ALIGN_DOWN(mapped.bias + segments[i].p_vaddr, PAGE_SIZE);
	}
	munmap((void *)file, status.st_size);
	close(fd);
	return mapped;
}

static bool find_mapped(uintptr_t address, struct module *module)
{
	struct maps_mapping mapping;
	bool readable;

	cr_assert(maps_mapping(address, &mapping, &readable));
	return module_find_mapped(address, &mapping, module);
}

static void compare_mapped(bool from_file)
{
	struct mapped mapped = map_by_hand(from_file);
	struct module module;

	cr_assert_not(module_find(mapped.code, &module));
	for (int times = 0; times < 2; times++) {
		cr_assert(find_mapped(mapped.code, &module));
		cr_assert_eq(module.lower, mapped.lower);
		cr_assert_eq(module.upper, mapped.lower + mapped.size);
		cr_assert_eq(ALIGN_DOWN((uintptr_t)module.eh_frame_hdr, PAGE_SIZE), mapped.tables);
		compare_module(&module, mapped.path, mapped.bias);
	}
}

Test(module, mapped_by_another_loader)
{
	compare_mapped(true);
}

Test(module, copied_by_another_loader)
{
	compare_mapped(false);
}

static uintptr_t code_page(uintptr_t address)
{
	uintptr_t page = ALIGN_DOWN(address, PAGE_SIZE);

	cr_assert_eq(mmap((void *)page, PAGE_SIZE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
			  0),
		     (void *)page);
	return page;
}

/* Code that is not the file's, where a segment of it should be; a file mapped whole, to be read. */
Test(module, not_mapped_as_its_headers_say)
{
	struct mapped mapped = map_by_hand(true);
	struct module module;

	code_page(mapped.code);
	cr_assert_not(find_mapped(mapped.code, &module));

	int fd = open(mapped.path, O_RDONLY | O_CLOEXEC);
	uint8_t *whole = mmap((void *)mapped.lower, mapped.size, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, fd, 0);

	cr_assert_eq(whole, (uint8_t *)mapped.lower);
	/* Text lies where it lies in the file: the linker left it at the same offset. What is beyond it does not. */
	if (find_mapped(mapped.code, &module) && module.eh_frame_hdr != NULL) {
		uintptr_t lower, upper;

		eh_frame_function(&module, mapped.code, &lower, &upper, NULL);
	}
	close(fd);
}

Test(module, mapped_without_its_tables)
{
	struct mapped mapped = map_by_hand(true);
	struct module module;
	uintptr_t lower, upper, next;

	cr_assert_eq(munmap((void *)mapped.tables, PAGE_SIZE), 0);
	if (find_mapped(mapped.code, &module))
		cr_assert_not(eh_frame_function(&module, mapped.code, &lower, &upper, &next));
}

/* What was looked up is not believed when the module is gone, nobody having said so. */
Test(module, mapped_and_gone)
{
	struct mapped mapped = map_by_hand(true);
	struct maps_mapping mapping;
	struct module module;
	bool readable;

	cr_assert(maps_mapping(mapped.code, &mapping, &readable));
	cr_assert(module_find_mapped(mapped.code, &mapping, &module));
	cr_assert_eq(munmap((void *)mapped.lower, mapped.size), 0);
	cr_assert_eq(mmap((void *)mapping.lower, mapping.upper - mapping.lower, PROT_READ | PROT_EXEC,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
		     (void *)mapping.lower);
	cr_assert_not(module_find_mapped(mapped.code, &mapping, &module));
	cr_assert_not(find_mapped(mapped.code, &module));
}

/* ---- tables made by hand ---------------------------------------------------------------------------------------- */

#define IMAGE_SIZE 512

/*
 * Layout of the image: +0 .eh_frame_hdr with three entries; +64 CIEs and FDEs. "Code" is anything from +256 on:
 * [256, 272) by absolute addresses and no augmentation, [288, 300) pcrel|sdata4 with all letters in the augmentation,
 * [304, 336) pcrel|udata2 through a CIE of version 3 with a 64-bit length.
 */
struct image {
	uint8_t *bytes;
	size_t at;
};

static void put(struct image *image, const void *bytes, size_t size)
{
	memcpy(image->bytes + image->at, bytes, size);
	image->at += size;
}

#define PUT(image, type, value) put(image, &(type){(type)(value)}, sizeof(type))

static void put_cie(struct image *image, bool wide, const char *rest, size_t rest_size)
{
	size_t size = 4 + rest_size;

	if (wide) {
		PUT(image, uint32_t, 0xffffffff);
		PUT(image, uint64_t, size);
	} else {
		PUT(image, uint32_t, size);
	}
	PUT(image, uint32_t, 0);
	put(image, rest, rest_size);
}

static void build_image(uint8_t *bytes)
{
	struct image image = {.bytes = bytes};
	size_t cies[3], fdes[3];
	static const int starts[] = {256, 288, 304};

	memset(bytes, 0, IMAGE_SIZE);
	image.at = 64;
	/* version, augmentation, code and data alignment, return address column, augmentation data */
	cies[0] = image.at;
	put_cie(&image, false, "\1\0\1\x78\x10", 5);
	fdes[0] = image.at;
	PUT(&image, uint32_t, 4 + 8 + 8);
	PUT(&image, uint32_t, image.at - cies[0]);
	PUT(&image, uint64_t, bytes + 256);
	PUT(&image, uint64_t, 16);

	cies[1] = image.at;
	put_cie(&image, false, "\1zPLSRB\0\1\x78\x10\7\x9b\1\2\3\4\x1b\x1b", 19);
	fdes[1] = image.at;
	PUT(&image, uint32_t, 4 + 4 + 4 + 1);
	PUT(&image, uint32_t, image.at - cies[1]);
	PUT(&image, int32_t, 288 - (int64_t)image.at);
	PUT(&image, int32_t, 12);
	PUT(&image, uint8_t, 0);

	cies[2] = image.at;
	put_cie(&image, true, "\3zR\0\1\x78\x80\1\1\x12", 10);
	fdes[2] = image.at;
	PUT(&image, uint32_t, 4 + 2 + 2 + 1);
	PUT(&image, uint32_t, image.at - cies[2]);
	PUT(&image, uint16_t, 304 - image.at);
	PUT(&image, uint16_t, 32);
	PUT(&image, uint8_t, 0);
	cr_assert(image.at < 256);

	image.at = 0;
	put(&image, "\1\x1b\3\x3b", 4);
	PUT(&image, int32_t, 60);
	PUT(&image, uint32_t, 3);
	for (int i = 0; i < 3; i++) {
		PUT(&image, int32_t, starts[i]);
		PUT(&image, int32_t, fdes[i]);
	}
}

static struct module image_module(const uint8_t *bytes)
{
	return (struct module){
		.lower = (uintptr_t)bytes, .upper = (uintptr_t)bytes + IMAGE_SIZE, .eh_frame_hdr = bytes};
}

/* IMAGE_SIZE bytes with nothing readable before them, or behind them. */
static uint8_t *fenced_memory(bool behind)
{
	uint8_t *pages = mmap(NULL, 3 * PAGE_SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(pages, MAP_FAILED);
	cr_assert_eq(mprotect(pages + PAGE_SIZE, PAGE_SIZE, PROT_READ | PROT_WRITE), 0);
	return pages + PAGE_SIZE + (behind ? PAGE_SIZE - IMAGE_SIZE : 0);
}

static void expect(const uint8_t *bytes, size_t at, int lower, int upper, int next)
{
	struct module module = image_module(bytes);
	uintptr_t got_lower = 0, got_upper = 0, got_next = 0;
	bool found = eh_frame_function(&module, (uintptr_t)bytes + at, &got_lower, &got_upper, &got_next);

	cr_assert_eq(found, lower >= 0, "%zu", at);
	if (found) {
		cr_assert_eq(got_lower, (uintptr_t)bytes + lower, "%zu", at);
		cr_assert_eq(got_upper, (uintptr_t)bytes + upper, "%zu", at);
	}
	cr_assert_eq(got_next, next < 0 ? UINTPTR_MAX : (uintptr_t)bytes + next, "%zu", at);
}

Test(module, encodings_and_augmentations)
{
	uint8_t *bytes = fenced_memory(true);

	build_image(bytes);
	expect(bytes, 0, -1, -1, 256);
	expect(bytes, 255, -1, -1, 256);
	expect(bytes, 256, 256, 272, 288);
	expect(bytes, 271, 256, 272, 288);
	expect(bytes, 272, -1, -1, 288);
	expect(bytes, 288, 288, 300, 304);
	expect(bytes, 299, 288, 300, 304);
	expect(bytes, 300, -1, -1, 304);
	expect(bytes, 304, 304, 336, -1);
	expect(bytes, 335, 304, 336, -1);
	expect(bytes, 336, -1, -1, -1);
}

/* An entry that ends in the next function, and one that begins where the table does not say. */
Test(module, entries_that_contradict_the_table)
{
	uint8_t *bytes = fenced_memory(true);
	const int32_t elsewhere = 290;
	const uint64_t size = 100;
	int32_t entry;

	build_image(bytes);
	memcpy(&entry, bytes + 16, sizeof(entry));
	memcpy(bytes + entry + 16, &size, sizeof(size));
	expect(bytes, 256, 256, 288, 288);
	expect(bytes, 287, 256, 288, 288);
	expect(bytes, 288, 288, 300, 304);
	memcpy(bytes + 20, &elsewhere, sizeof(elsewhere));
	expect(bytes, 256, 256, 290, 290);
	expect(bytes, 292, -1, -1, 304);
}

Test(module, tables_that_are_absent)
{
	uint8_t *bytes = fenced_memory(true);
	struct module module;
	uintptr_t lower, upper, next;
	/* offset, value: version; table encoding; count encoding; count beyond the module */
	static const struct {
		size_t at;
		uint8_t value;
	} cases[] = {{0, 2}, {3, 0x1b}, {3, 0xff}, {3, 0x3c}, {2, 0xff}, {2, 0x13}, {8, 200}};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		build_image(bytes);
		bytes[cases[i].at] = cases[i].value;
		expect(bytes, 260, -1, -1, -1);
	}
	build_image(bytes);
	bytes[8] = 0;
	expect(bytes, 260, -1, -1, -1);
	build_image(bytes);
	module = image_module(bytes);
	module.eh_frame_hdr = NULL;
	cr_assert_not(eh_frame_function(&module, (uintptr_t)bytes + 260, &lower, &upper, &next));
	cr_assert_eq(next, UINTPTR_MAX);
}

Test(module, unreadable_segments_are_not_read)
{
	/* The image on one page, its FDEs moved behind a hole. */
	uint8_t *bytes = fenced_memory(false);
	Elf64_Phdr headers[] = {
		{.p_type = PT_NOTE, .p_flags = PF_R, .p_vaddr = 0, .p_memsz = 4 * PAGE_SIZE},
		{.p_type = PT_LOAD, .p_flags = PF_R, .p_vaddr = 0, .p_memsz = IMAGE_SIZE},
		{.p_type = PT_LOAD, .p_flags = PF_X, .p_vaddr = PAGE_SIZE, .p_memsz = PAGE_SIZE},
	};
	struct module module;
	uintptr_t lower, upper, next;

	build_image(bytes);
	module = image_module(bytes);
	module.upper = module.lower + 2 * PAGE_SIZE;
	module.headers = headers;
	module.header_count = ARRAY_SIZE(headers);
	module.bias = (uintptr_t)bytes;
	cr_assert(eh_frame_function(&module, (uintptr_t)bytes + 260, &lower, &upper, &next));
	memcpy(bytes + 16, &(int32_t){PAGE_SIZE + 64}, 4);
	cr_assert_not(eh_frame_function(&module, (uintptr_t)bytes + 260, &lower, &upper, &next));
	cr_assert_eq(next, (uintptr_t)bytes + 288);
	/* A CIE in the hole: in front of the module, and behind it. */
	build_image(bytes);
	memcpy(bytes + 12 + 4, &(int32_t){-64}, 4);
	cr_assert_not(eh_frame_function(&module, (uintptr_t)bytes + 260, &lower, &upper, &next));
}

/* Whatever the tables hold: no crash (the fences), and what is reported is around the address and in the module. */
static void break_tables(bool behind)
{
	static const uint8_t favourites[] = {0, 1, 0x7f, 0x80, 0xff, 0x1b, 0x3b, 0x9b, 0x09, 0x50};
	uint8_t *bytes = fenced_memory(behind);
	uint32_t random = 20240229;

	for (int round = 0; round < 200000; round++) {
		struct module module = image_module(bytes);
		unsigned int changes = 1 + round % 4;

		build_image(bytes);
		while (changes-- > 0) {
			random = random * 1664525 + 1013904223;
			uint8_t value = random >> 24;

			bytes[(random >> 8) % 256] = value < 128 ? favourites[value % sizeof(favourites)] : value;
		}
		for (size_t at = 248; at < 344; at += 13) {
			uintptr_t address = (uintptr_t)bytes + at;
			uintptr_t lower = 0, upper = 0, next = 0;

			if (eh_frame_function(&module, address, &lower, &upper, &next))
				cr_assert(lower >= module.lower && lower <= address && address < upper &&
					  upper <= module.upper);
			cr_assert(next > address);
		}
	}
}

Test(module, broken_tables_before_unreadable_memory)
{
	break_tables(true);
}

Test(module, broken_tables_behind_unreadable_memory)
{
	break_tables(false);
}
