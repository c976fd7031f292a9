/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Symbols are those of the file that is mapped, wherever they are: in that file, in a file of debug information. Others
 * are not believed, and what cannot be known is said.
 */
#include "locate.h"

#include "elf/symbol_source.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <linux/capability.h>
#include <sys/stat.h>

#define MISSING "the module does not define the symbol"
#define STRIPPED "the module has dynamic symbols only, and no file of debug information was found"
#define REPLACED "the module's file was replaced since it was loaded: its dynamic symbols alone are known"
#define UNREADABLE "the module's file cannot be opened: its dynamic symbols alone are known"
#define DAMAGED "the module's file is damaged: its dynamic symbols alone are known"

#define MODULE "liblocate.so.1"
#define OBJCOPY "objcopy "

/* ---- files ------------------------------------------------------------------------------------------------------ */

/* A file's contents, shared with the file. */
static uint8_t *contents(const char *path, size_t *size)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	struct stat status;
	uint8_t *bytes;

	REQUIRE(fd >= 0 && fstat(fd, &status) == 0);
	*size = (size_t)status.st_size;
	bytes = mmap(NULL, *size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	REQUIRE(bytes != MAP_FAILED);
	close(fd);
	return bytes;
}

static Elf64_Shdr *section_of_type(uint8_t *bytes, uint32_t type)
{
	Elf64_Ehdr *header = (Elf64_Ehdr *)bytes;
	Elf64_Shdr *sections = (Elf64_Shdr *)(bytes + header->e_shoff);

	for (size_t i = 0; i < header->e_shnum; i++)
		if (sections[i].sh_type == type)
			return &sections[i];
	REQUIRE(!"a section of this type");
	return NULL;
}

/* Another build: one bit of the build id differs. */
static void change_build_id(const char *path)
{
	static const uint8_t head[] = { 4, 0, 0, 0, 20, 0, 0, 0, 3, 0, 0, 0, 'G', 'N', 'U', 0 };
	size_t size;
	uint8_t *bytes = contents(path, &size);
	uint8_t *note = memmem(bytes, size, head, sizeof(head));

	REQUIRE(note != NULL);
	note[sizeof(head)] ^= 1;
	munmap(bytes, size);
}

static void append_byte(const char *path)
{
	int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);

	REQUIRE(fd >= 0 && write(fd, "", 1) == 1);
	close(fd);
}

/* Strip the module, and leave its debug information in `debug`. */
static void split(const char *debug)
{
	const char *path = locate_path(MODULE);

	locate_tool(OBJCOPY "--only-keep-debug '%s' '%s'", path, debug);
	locate_tool(OBJCOPY "--strip-all '%s'", path);
}

static void link_debug(const char *debug)
{
	locate_tool(OBJCOPY "--add-gnu-debuglink='%s' '%s'", debug, locate_path(MODULE));
}

static void forget_build_id(void)
{
	locate_tool(OBJCOPY "--remove-section=.note.gnu.build-id '%s'", locate_path(MODULE));
}

static const char *build_id_path(void)
{
	static char path[600];
	struct identity identity;
	struct elf_file file;
	int length;

	REQUIRE(elf_file_open(&file, locate_path(MODULE)) == 0);
	identity_build_id(&file, &identity);
	elf_file_close(&file);
	REQUIRE(identity.size == 20);
	length = snprintf(path, sizeof(path), "%s/.build-id", locate_directory());
	mkdir(path, 0755);
	length += snprintf(path + length, sizeof(path) - length, "/%02x", identity.bytes[0]);
	mkdir(path, 0755);
	path[length++] = '/';
	for (size_t i = 1; i < identity.size; i++)
		length += snprintf(path + length, sizeof(path) - length, "%02x", identity.bytes[i]);
	snprintf(path + length, sizeof(path) - length, ".debug");
	return path;
}

/* ---- what is said of them --------------------------------------------------------------------------------------- */

static struct locate_module load(void)
{
	symbol_source_debug_root = locate_directory();
	return locate_load(locate_path(MODULE), RTLD_LOCAL);
}

static void known(struct locate_module module)
{
	REQUIRE_OK(patch_init(NULL, 0));
	locate_expect(MODULE ":located_static", module.address(LOCATED_STATIC));
	locate_expect("located_hidden", module.address(LOCATED_HIDDEN));
	locate_expect(MODULE ":located_exported", module.address(LOCATED_EXPORTED));
	CHECK_OK(patch_fini());
}

static void unknown(struct locate_module module, const char *reason)
{
	REQUIRE_OK(patch_init(NULL, 0));
	locate_refused(MODULE ":located_static", PATCH_ENEXIST, MISSING);
	locate_chain_says(reason, MODULE);
	locate_expect(MODULE ":located_exported", module.address(LOCATED_EXPORTED));
	CHECK_OK(patch_fini());
}

static int find_module(struct dl_phdr_info *info, size_t size, void *data)
{
	char link[96];

	(void)size;
	if (strstr(info->dlpi_name, MODULE) == NULL)
		return 0;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		uintptr_t lower = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
		int fd;

		if (info->dlpi_phdr[i].p_type != PT_LOAD)
			continue;
		snprintf(link, sizeof(link), "/proc/self/map_files/%lx-%lx", lower & ~0xffful,
			 (lower + info->dlpi_phdr[i].p_filesz + 0xfff) & ~0xffful);
		fd = open(link, O_RDONLY | O_CLOEXEC);
		*(bool *)data |= fd >= 0;
		if (fd >= 0)
			close(fd);
	}
	return 1;
}

static void known_by_link(void *module)
{
	known(*(struct locate_module *)module);
}

static bool can_open_mapped(void)
{
	bool is_open = false;

	dl_iterate_phdr(find_module, &is_open);
	return is_open;
}

/* The mapped file has no path any more. Whether it can still be opened is a question of privileges. */
static void gone(struct locate_module module, const char *reason)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3];

	memset(none, 0, sizeof(none));
	if (can_open_mapped())
		harness_isolated("by the kernel's link", known_by_link, &module);
	REQUIRE(syscall(SYS_capset, &header, none) == 0);
	CHECK(!can_open_mapped());
	unknown(module, reason);
}

/* ---- cases ------------------------------------------------------------------------------------------------------ */

static void whole(void *unused)
{
	(void)unused;
	known(load());
}

static void stripped(void *unused)
{
	(void)unused;
	locate_tool(OBJCOPY "--strip-all '%s'", locate_path(MODULE));
	unknown(load(), STRIPPED);
}

/* In each place that the link may mean. */
static void linked(void *format)
{
	char path[600];

	snprintf(path, sizeof(path), format, locate_directory(), locate_directory());
	locate_tool("mkdir -p \"$(dirname '%s')\"", path);
	split(path);
	link_debug(path);
	known(load());
}

static void linked_to_other_build(void *unused)
{
	const char *debug = locate_path("other.debug");

	(void)unused;
	split(debug);
	change_build_id(debug);
	link_debug(debug);
	unknown(load(), STRIPPED);
}

static void linked_by_sum(void *unused)
{
	const char *debug = locate_path("sum.debug");

	(void)unused;
	forget_build_id();
	split(debug);
	link_debug(debug);
	known(load());
}

static void linked_by_wrong_sum(void *unused)
{
	const char *debug = locate_path("sum.debug");

	(void)unused;
	forget_build_id();
	split(debug);
	link_debug(debug);
	append_byte(debug);
	unknown(load(), STRIPPED);
}

static void by_build_id(void *unused)
{
	(void)unused;
	split(build_id_path());
	known(load());
}

static void by_build_id_of_other(void *unused)
{
	const char *debug = build_id_path();

	(void)unused;
	split(debug);
	change_build_id(debug);
	unknown(load(), STRIPPED);
}

static void without_build_id(void *unused)
{
	(void)unused;
	forget_build_id();
	known(load());
}

static void replaced(void *without)
{
	struct locate_module module;

	if (without != NULL)
		forget_build_id();
	module = load();
	if (without != NULL)
		locate_copy(MODULE);
	else {
		locate_copy_file(locate_path(MODULE), locate_path("new"));
		change_build_id(locate_path("new"));
		REQUIRE(rename(locate_path("new"), locate_path(MODULE)) == 0);
	}
	gone(module, REPLACED);
}

static void replaced_by_the_same(void *unused)
{
	struct locate_module module = load();

	(void)unused;
	locate_copy(MODULE);
	known(module);
}

static void deleted(void *unused)
{
	struct locate_module module = load();

	(void)unused;
	REQUIRE(unlink(locate_path(MODULE)) == 0);
	gone(module, UNREADABLE);
}

/* The file of debug information tells what the module's file cannot. */
static void deleted_with_debug_file(void *unused)
{
	struct locate_module module;

	(void)unused;
	split(build_id_path());
	module = load();
	REQUIRE(unlink(locate_path(MODULE)) == 0);
	known(module);
}

static void replaced_by_a_pipe(void *unused)
{
	struct locate_module module = load();

	(void)unused;
	REQUIRE(unlink(locate_path(MODULE)) == 0 && mkfifo(locate_path(MODULE), 0600) == 0);
	gone(module, UNREADABLE);
}

static void cut_off(void *unused)
{
	struct locate_module module = load();

	(void)unused;
	locate_copy(MODULE);
	REQUIRE(truncate(locate_path(MODULE), 8192) == 0);
	gone(module, REPLACED);
}

static void damaged(void *unused)
{
	size_t size;
	uint8_t *bytes = contents(locate_path(MODULE), &size);

	(void)unused;
	section_of_type(bytes, SHT_SYMTAB)->sh_link = 0;
	munmap(bytes, size);
	unknown(load(), DAMAGED);
}

static const struct {
	const char *what;
	void (*run)(void *);
	void *argument;
} cases[] = {
	{ "the module's file", whole, NULL },
	{ "stripped", stripped, NULL },
	{ "linked, in the same directory", linked, "%s/linked.debug" },
	{ "linked, in .debug", linked, "%s/.debug/linked.debug" },
	{ "linked, below the root", linked, "%s%s/linked.debug" },
	{ "linked, of another build", linked_to_other_build, NULL },
	{ "linked, by sum", linked_by_sum, NULL },
	{ "linked, by a wrong sum", linked_by_wrong_sum, NULL },
	{ "by build id", by_build_id, NULL },
	{ "by build id, of another build", by_build_id_of_other, NULL },
	{ "without build id", without_build_id, NULL },
	{ "replaced", replaced, NULL },
	{ "replaced, without build id", replaced, "" },
	{ "replaced by the same", replaced_by_the_same, NULL },
	{ "deleted", deleted, NULL },
	{ "deleted, with debug information", deleted_with_debug_file, NULL },
	{ "replaced by a pipe", replaced_by_a_pipe, NULL },
	{ "cut off", cut_off, NULL },
	{ "damaged", damaged, NULL },
};

int main(void)
{
	harness_start();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		locate_tool("rm -rf '%s'/* '%s'/.build-id '%s'/.debug", locate_directory(), locate_directory(),
			    locate_directory());
		locate_copy(MODULE);
		harness_isolated(cases[i].what, cases[i].run, cases[i].argument);
	}
	return harness_end();
}
