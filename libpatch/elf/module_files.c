/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The list of modules with what is known of their files, copied with the loader's lock, and used without it. Memory of
 * a module is read during the copy only: it may be unloaded afterwards.
 */
#include "elf/module_files.h"

#include "base/syscall.h"
#include "elf/segments.h"

#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

/* NULL: nothing was read, or somebody has it. */
static struct module_files *_Atomic kept;

static void files_free(struct module_files *files)
{
	if (files == NULL)
		return;
	for (size_t i = 0; i < files->count; ++i)
		symbol_table_free(&files->files[i].table);
	raw_syscall(SYS_munmap, files, files->size);
}

struct files_copy {
	struct module_files *files; /* NULL: only counted */
	bool others;
	size_t count;
	size_t path_bytes;
	size_t room;
	size_t path_room;
};

static void files_describe(const struct loaded *loaded, struct module_file *file)
{
	const struct module *module = &loaded->module;
	size_t n = 0;

	file->bias = module->bias;
	file->mapped.is_program = loaded->is_program;
	identity_of_module(module, &file->mapped.identity);
	file->code_lower = UINTPTR_MAX;
	FOR_EACH_SEGMENT(segment, module->headers, module->header_count, PT_LOAD, 0) {
		uintptr_t start = module->bias + segment->p_vaddr;

		if (segment->p_flags & PF_X) {
			file->code_lower = MIN(file->code_lower, start);
			file->code_upper = MAX(file->code_upper, start + segment->p_memsz);
		}
		if (n < MAPPED_SEGMENTS) {
			file->mapped.segments[n].lower = ALIGN_DOWN(start, PAGE_SIZE);
			file->mapped.segments[n++].upper = ALIGN_UP(start + segment->p_filesz, PAGE_SIZE);
		}
	}
}

static bool files_copy(const struct loaded *loaded, void *data)
{
	struct files_copy *copy = data;
	size_t length = name_length(loaded->path) + 1;

	if (copy->files != NULL && copy->count < copy->room && length <= copy->path_room - copy->path_bytes) {
		struct module_file *file = &copy->files->files[copy->count];
		char *path = copy->files->paths + copy->path_bytes;

		files_describe(loaded, file);
		file->is_other = copy->others;
		memcpy(path, loaded->path, length);
		file->mapped.path = path;
		copy->files->count = copy->count + 1;
	}
	++copy->count;
	copy->path_bytes += length;
	return true;
}

static void files_visit(struct files_copy *copy)
{
	copy->count = 0;
	copy->path_bytes = 0;
	copy->others = false;
	loaded_visit(false, files_copy, copy);
	copy->others = true;
	loaded_visit(true, files_copy, copy);
}

/* Modules that come between counting and copying: then once more. */
static struct module_files *files_make(void)
{
	for (;;) {
		struct files_copy copy = { .files = NULL };
		uint64_t changes = loaded_changes();
		size_t size;
		long result;

		files_visit(&copy);
		copy.room = copy.count;
		copy.path_room = copy.path_bytes;
		size = sizeof(*copy.files) + copy.room * sizeof(struct module_file) + copy.path_room;
		size = ALIGN_UP(size, PAGE_SIZE);
		result = raw_syscall(SYS_mmap, NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (result < 0)
			return NULL;
		copy.files = (struct module_files *)result;
		copy.files->size = size;
		copy.files->paths = (char *)(copy.files->files + copy.room);
		copy.files->changes = changes;
		files_visit(&copy);
		if (loaded_changes() == changes)
			return copy.files;
		files_free(copy.files);
	}
}

struct module_files *module_files_take(void)
{
	struct module_files *files = atomic_exchange(&kept, NULL);

	if (files != NULL && files->changes == loaded_changes())
		return files;
	files_free(files);
	return files_make();
}

void module_files_give(struct module_files *files)
{
	files_free(atomic_exchange(&kept, files));
}

void module_files_forget(void)
{
	files_free(atomic_exchange(&kept, NULL));
}

void module_file_read(struct module_file *file)
{
	if (file->source == SOURCE_UNREAD)
		file->source = symbol_source_read(&file->mapped, &file->table);
}

/* Whether the symbol has the version, and whether that is the one that others are linked with. */
static bool files_is_version(const char *version, const struct symbol_name *name, bool *is_hidden)
{
	*is_hidden = version[0] == '@' && version[1] != '@';
	if (name->version.text == NULL)
		return true;
	if (version[0] == '\0' || (name->only_default && *is_hidden))
		return false;
	return name_part_is(&name->version, version + (*is_hidden ? 1 : 2));
}

void module_file_find(const struct module_file *file, const struct symbol_name *name, struct symbol_places *places)
{
	const struct symbol_table *table = &file->table;

	for (const Elf64_Sym *symbol = symbol_table_find(table, &name->name, NULL); symbol != NULL;
	     symbol = symbol_table_find(table, &name->name, symbol)) {
		struct symbol_place place = { .module = file->bias, .address = file->bias + symbol->st_value };
		bool is_hidden;

		if (!symbol_is_defined(symbol))
			continue;
		if (!files_is_version(symbol_table_version(table, symbol), name, &is_hidden)) {
			places->other_version = true;
			continue;
		}
		place.kind = symbol_kind_of(symbol, place.address >= file->code_lower &&
							    place.address < file->code_upper);
		symbol_places_add(places, &place,
				  is_hidden || ELF64_ST_BIND(symbol->st_info) == STB_LOCAL ? SYMBOL_RANK_LESS :
											      SYMBOL_RANK_FULL);
	}
}
