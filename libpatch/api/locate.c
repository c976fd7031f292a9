/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Finding a symbol. Dynamic symbols of all modules come first, because programs are bound to them, then symbols of
 * files; libpatch's own namespace first, then the others. What is found must be one address of code. The library lock
 * is not held here, nor the loader's while a file is read.
 */
#include "api/locate.h"

#include "api/locate_search.h"
#include "base/error.h"
#include "base/inject.h"
#include "base/syscall.h"
#include "plan/site.h"
#include "sys/own_proc.h"

#include <dlfcn.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

static bool locate_stat(const char *path, uint64_t *device, uint64_t *inode)
{
	struct stat status;

	if (raw_syscall(SYS_newfstatat, AT_FDCWD, path, &status, 0) != 0)
		return false;
	*device = status.st_dev;
	*inode = status.st_ino;
	return true;
}

bool locate_fits(const struct locate_search *search, const char *path, bool is_program)
{
	const struct symbol_name *name = &search->name;
	char program[OWN_PROC_PATH];
	uint64_t device, inode;

	if (name->module.text == NULL)
		return true;
	if (symbol_name_is_program(name))
		return is_program;
	if (search->by_file)
		return locate_stat(is_program ? own_proc_path(program, "exe") : path, &device, &inode) &&
		       device == search->device && inode == search->inode;
	if (is_program)
		path = symbol_source_program_path();
	return symbol_name_has_slash(name) ? name_part_is(&name->module, path) : symbol_name_fits_file(name, path);
}

struct locate_visitor {
	struct locate_search *search;
	loaded_visit_fn *visit;
	void *data;
};

static bool locate_visit_one(const struct loaded *loaded, void *data)
{
	const struct locate_visitor *visitor = data;

	if (!locate_fits(visitor->search, loaded->path, loaded->is_program))
		return true;
	++visitor->search->modules;
	return visitor->visit(loaded, visitor->data);
}

void locate_visit(struct locate_search *search, loaded_visit_fn *visit, void *data)
{
	struct locate_visitor visitor = { .search = search, .visit = visit, .data = data };

	loaded_visit(search->others, locate_visit_one, &visitor);
}

static bool locate_in_memory(const struct loaded *loaded, void *data)
{
	struct locate_search *search = data;

	dynamic_symbols_find(&loaded->module, &search->name, search->hash, &search->places);
	return true;
}

/* False: out of memory. */
static bool locate_in_files(struct locate_search *search, struct module_files *files)
{
	for (size_t i = 0; i < files->count; ++i) {
		struct module_file *file = &files->files[i];

		if (file->is_other != search->others ||
		    !locate_fits(search, file->mapped.path, file->mapped.is_program))
			continue;
		module_file_read(file);
		if (file->source == SOURCE_NO_MEMORY) {
			file->source = SOURCE_UNREAD;
			return false;
		}
		module_file_find(file, &search->name, &search->places);
	}
	return true;
}

/* Where a path names a module by another way than the dynamic linker has found it, the files are compared. */
static void locate_compare_files(struct locate_search *search)
{
	char path[PATH_MAX];

	if (!symbol_name_has_slash(&search->name) || search->name.module.length >= sizeof(path))
		return;
	memcpy(path, search->name.module.text, search->name.module.length);
	path[search->name.module.length] = '\0';
	search->by_file = locate_stat(path, &search->device, &search->inode);
}

static void locate_search_memory(struct locate_search *search)
{
	for (int others = 0; others < 2 && search->places.count == 0; ++others) {
		search->others = others;
		locate_visit(search, locate_in_memory, search);
	}
}

/* False: out of memory. */
static bool locate_search_files(struct locate_search *search, struct module_files *files)
{
	search->from_files = true;
	for (int others = 0; others < 2 && search->places.count == 0; ++others) {
		search->others = others;
		if (!locate_in_files(search, files))
			return false;
	}
	return true;
}

/*
 * Several modules export the name. The dynamic linker takes the first one of the global scope, which nobody else
 * knows: modules that were loaded with RTLD_LOCAL are not in it. It is asked only for names that it should know,
 * because it allocates when it knows none.
 */
static uintptr_t locate_ask_linker(const struct locate_search *search)
{
	char name[512], version[128];
	const struct symbol_name *wanted = &search->name;

	if (wanted->module.text != NULL || search->others || search->from_files ||
	    wanted->name.length >= sizeof(name) || wanted->version.length >= sizeof(version))
		return 0;
	memcpy(name, wanted->name.text, wanted->name.length);
	name[wanted->name.length] = '\0';
	if (wanted->version.text == NULL)
		return (uintptr_t)dlsym(RTLD_DEFAULT, name);
	memcpy(version, wanted->version.text, wanted->version.length);
	version[wanted->version.length] = '\0';
	return (uintptr_t)dlvsym(RTLD_DEFAULT, name, version);
}

/* The place that was found, looked at with the loader's lock, under which its module stays. */
struct locate_confirmation {
	const struct symbol_place *place;
	struct located *out;
	bool is_there;
};

static bool locate_confirm_one(const struct loaded *loaded, void *data)
{
	struct locate_confirmation *confirmation = data;
	const struct symbol_place *place = confirmation->place;
	uintptr_t (*resolve)(void) = (uintptr_t(*)(void))place->address;

	if (loaded->module.bias != place->module || place->address < loaded->module.lower ||
	    place->address >= loaded->module.upper)
		return true;
	confirmation->is_there = true;
	confirmation->out->bias = place->module;
	confirmation->out->address = place->kind == SYMBOL_INDIRECT ? resolve() : place->address;
	if (confirmation->out->address >= loaded->module.lower && confirmation->out->address < loaded->module.upper)
		identity_of_module(&loaded->module, &confirmation->out->module);
	return false;
}

static patch_status locate_decide(struct locate_search *search, struct located *out)
{
	struct symbol_places *places = &search->places;
	struct locate_confirmation confirmation = { .place = &places->at[0], .out = out };

	if (places->rank == SYMBOL_RANK_DATA)
		return error_raise_name(PATCH_EFAULT, "patch_make", "the symbol is data", search->text);
	*out = (struct located){ .address = 0 };
	if (places->count > 1) {
		out->address = locate_ask_linker(search);
		if (out->address == 0)
			return locate_raise_ambiguous(search);
		for (size_t i = 0; i < MIN(places->count, (size_t)SYMBOL_PLACES); ++i)
			if (places->at[i].address == out->address && places->at[i].kind == SYMBOL_CODE)
				confirmation.place = &places->at[i];
		/* Another one than were noted, or what the linker has resolved. */
		if (confirmation.place->address != out->address)
			return PATCH_OK;
	}
	if (confirmation.place->kind == SYMBOL_INDIRECT && search->from_files)
		return error_raise_name(PATCH_ENOTSUP, "patch_make",
					"the symbol is an indirect function that is not exported: "
					"name its implementation",
					search->text);
	loaded_visit(search->others, locate_confirm_one, &confirmation);
	if (!confirmation.is_there)
		return error_raise_name(PATCH_ENEXIST, "patch_make", "the module was unloaded meanwhile", search->text);
	if (out->address == 0)
		return error_raise_name(PATCH_ENOTSUP, "patch_make", "the indirect function has no implementation",
					search->text);
	return PATCH_OK;
}

static patch_status locate_search_once(struct locate_search *search, struct located *out)
{
	struct module_files *files;
	patch_status status;

	locate_search_memory(search);
	if (search->modules == 0) {
		locate_compare_files(search);
		if (search->by_file)
			locate_search_memory(search);
	}
	if (search->modules == 0)
		return locate_raise_no_module(search);
	if (search->places.count > 0)
		return locate_decide(search, out);
	files = module_files_take();
	if (files == NULL)
		return error_raise(PATCH_ENOMEM, "patch_make", "out of memory", "symbols");
	if (!locate_search_files(search, files))
		status = error_raise(PATCH_ENOMEM, "patch_make", "out of memory", "symbols");
	else if (search->places.count == 0)
		status = locate_raise_missing(search, files);
	else
		status = locate_decide(search, out);
	module_files_give(files);
	return status;
}

patch_status locate_symbol(const char *text, struct located *out)
{
	struct locate_search search;
	struct symbol_name name;
	patch_status status;
	uint64_t changes;

	if (!symbol_name_parse(text, &name))
		return error_raise_name(PATCH_EINVAL, "patch_make",
					"the symbol is not written as [MODULE:]NAME[@VERSION]", text);
	/* What was found is of no use when other modules have come to where it was. */
	do {
		changes = loaded_changes();
		error_truncate(0);
		search = (struct locate_search){ .text = text, .name = name, .hash = dynamic_symbols_hash(&name.name) };
		status = locate_search_once(&search, out);
	} while (loaded_changes() != changes);
	(void)INJECT(INJECT_LOCATED);
	return status;
}

bool locate_is_current(const struct located *located)
{
	struct identity identity;
	struct module module;

	if (located->module.size == 0 || !site_module(located->address, &module) || module.headers == NULL)
		return true;
	identity_of_module(&module, &identity);
	return module.bias == located->bias && identity_is_same(&identity, &located->module);
}
