/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Why a symbol has no address, and what is near: the places of an ambiguous name, names that are spelled like a missing
 * one, the modules that have it. Asked for after a search that failed, so it may take longer than the search.
 */
#include "api/locate_search.h"

#include "base/error.h"
#include "base/format.h"

#include <string.h>

/* A text that is put together for an error. */
struct reason_text {
	char text[ERROR_IRRITANT_SIZE];
	size_t length;
};

static void reason_append(struct reason_text *out, const char *text, size_t length)
{
	length = MIN(length, sizeof(out->text) - 1 - out->length);
	memcpy(out->text + out->length, text, length);
	out->length += length;
	out->text[out->length] = '\0';
}

static void reason_append_offset(struct reason_text *out, uintptr_t offset)
{
	char text[sizeof("+0x") + 16];

	reason_append(out, text, (size_t)(format_number(format_string(text, "+0x"), offset, 16) - text));
}

/* ---- modules ---------------------------------------------------------------------------------------------------- */

static void reason_append_module(struct reason_text *out, const char *path, bool is_program)
{
	const char *name = is_program ? "main" : symbol_name_of_file(path);

	reason_append(out, name, name_length(name));
}

struct reason_near {
	struct name_part wanted;
	unsigned int distance; /* of the nearest one so far; names that are farther are not looked for */
	struct reason_text found;
};

/* One letter of a short name may be wrong, two of a longer one. */
static struct reason_near reason_begin_near(struct name_part wanted)
{
	return (struct reason_near){ .wanted = wanted, .distance = wanted.length < 5 ? 2 : 3 };
}

static void reason_offer(struct reason_near *near, const char *name, size_t length)
{
	const struct name_part *wanted = &near->wanted;
	unsigned int distance;

	if (near->distance <= 1)
		return;
	/* A compiler's copy of the function: its name goes on behind a dot. */
	if (length > wanted->length && name[wanted->length] == '.' && memcmp(name, wanted->text, wanted->length) == 0)
		distance = 1;
	else
		distance = name_distance(wanted->text, wanted->length, name, length, near->distance - 1);
	if (distance == 0 || distance >= near->distance)
		return;
	near->distance = distance;
	near->found.length = 0;
	reason_append(&near->found, name, length);
}

static bool reason_offer_module(const struct loaded *loaded, void *data)
{
	const char *name = symbol_name_of_file(loaded->path);
	size_t length = name_length(name);

	reason_offer(data, name, length);
	for (size_t i = 0; i + 3 <= length; ++i) {
		if (memcmp(name + i, ".so", 3) == 0) {
			reason_offer(data, name, i);
			break;
		}
	}
	return true;
}

patch_status locate_raise_no_module(const struct locate_search *search)
{
	struct reason_near near = reason_begin_near(search->name.module);
	struct reason_text module = { .length = 0 };

	reason_append(&module, search->name.module.text, search->name.module.length);
	error_raise_name(PATCH_ENEXIST, "patch_make", "no loaded module has this name", module.text);
	loaded_visit(false, reason_offer_module, &near);
	if (near.found.length > 0)
		error_raise_name(PATCH_ENEXIST, "patch_make", "a module has a similar name", near.found.text);
	return PATCH_ENEXIST;
}

/* ---- ambiguous names -------------------------------------------------------------------------------------------- */

struct reason_place {
	const struct symbol_place *place;
	struct reason_text text;
};

static bool reason_name_place(const struct loaded *loaded, void *data)
{
	struct reason_place *reason = data;

	if (loaded->module.bias != reason->place->module || reason->place->address < loaded->module.lower ||
	    reason->place->address >= loaded->module.upper)
		return true;
	reason_append_module(&reason->text, loaded->path, loaded->is_program);
	return false;
}

patch_status locate_raise_ambiguous(const struct locate_search *search)
{
	const struct symbol_places *places = &search->places;

	error_raise_name(PATCH_EAMBIGUOUS, "patch_make", "the name stands for several functions", search->text);
	for (size_t i = 0; i < MIN(places->count, (size_t)SYMBOL_PLACES); ++i) {
		struct reason_place reason = { .place = &places->at[i] };

		loaded_visit(search->others, reason_name_place, &reason);
		reason_append_offset(&reason.text, places->at[i].address - places->at[i].module);
		error_raise_name(PATCH_EAMBIGUOUS, "patch_make", "one of them is here", reason.text.text);
	}
	return PATCH_EAMBIGUOUS;
}

/* ---- missing names ---------------------------------------------------------------------------------------------- */

static bool reason_offer_dynamic(const char *name, void *data)
{
	struct reason_near *near = data;

	/* Mistyped first letters are not looked for: that spares the comparison with most names. */
	if (name[0] == near->wanted.text[0])
		reason_offer(near, name, name_length(name));
	return near->distance > 1;
}

static bool reason_visit_dynamic(const struct loaded *loaded, void *data)
{
	dynamic_symbols_visit(&loaded->module, reason_offer_dynamic, data);
	return true;
}

static void reason_find_near(const struct locate_search *search, const struct module_files *files,
			     struct reason_near *near)
{
	struct locate_search again = *search;

	again.others = false;
	locate_visit(&again, reason_visit_dynamic, near);
	for (size_t i = 0; i < files->count; ++i) {
		const struct module_file *file = &files->files[i];

		if (file->is_other || !locate_fits(search, file->mapped.path, file->mapped.is_program))
			continue;
		for (size_t n = 0; n < file->table.count && near->distance > 1; ++n)
			if (symbol_is_defined(&file->table.symbols[n]))
				reason_offer_dynamic(symbol_table_name(&file->table, &file->table.symbols[n]), near);
	}
}

struct reason_owner {
	const struct locate_search *search;
	struct reason_text name;
};

static bool reason_find_owner(const struct loaded *loaded, void *data)
{
	struct reason_owner *owner = data;
	struct symbol_places places = { .count = 0 };

	dynamic_symbols_find(&loaded->module, &owner->search->name, owner->search->hash, &places);
	if (places.count > 0)
		reason_append_module(&owner->name, loaded->path, loaded->is_program);
	return places.count == 0;
}

/* A module that has the name, though MODULE does not name it. */
static void reason_find_elsewhere(const struct locate_search *search, struct module_files *files,
				  struct reason_text *name)
{
	struct reason_owner owner = { .search = search };

	loaded_visit(false, reason_find_owner, &owner);
	for (size_t i = 0; i < files->count && owner.name.length == 0; ++i) {
		struct module_file *file = &files->files[i];
		struct symbol_places places = { .count = 0 };

		module_file_read(file);
		module_file_find(file, &search->name, &places);
		if (places.count > 0)
			reason_append_module(&owner.name, file->mapped.path, file->mapped.is_program);
	}
	*name = owner.name;
}

static const char *reason_of_source(enum symbol_source source)
{
	switch (source) {
	case SOURCE_STRIPPED:
		return "the module has dynamic symbols only, and no file of debug information was found";
	case SOURCE_REPLACED:
		return "the module's file was replaced since it was loaded: its dynamic symbols alone are known";
	case SOURCE_UNREADABLE:
		return "the module's file cannot be opened: its dynamic symbols alone are known";
	case SOURCE_DAMAGED:
		return "the module's file is damaged: its dynamic symbols alone are known";
	default:
		return NULL;
	}
}

/* Of a module that MODULE names, why there may be more symbols than are known. */
static void reason_raise_source(const struct locate_search *search, const struct module_files *files)
{
	for (size_t i = 0; i < files->count; ++i) {
		const struct module_file *file = &files->files[i];
		const char *reason = reason_of_source(file->source);
		struct reason_text name = { .length = 0 };

		if (reason == NULL || !locate_fits(search, file->mapped.path, file->mapped.is_program))
			continue;
		reason_append_module(&name, file->mapped.path, file->mapped.is_program);
		error_raise_name(PATCH_ENEXIST, "patch_make", reason, name.text);
		return;
	}
}

patch_status locate_raise_missing(const struct locate_search *search, struct module_files *files)
{
	struct reason_near near = reason_begin_near(search->name.name);
	bool is_qualified = search->name.module.text != NULL;
	struct reason_text elsewhere = { .length = 0 };

	if (search->places.other_version)
		return error_raise_name(PATCH_ENEXIST, "patch_make", "the symbol has other versions only",
					search->text);
	error_raise_name(PATCH_ENEXIST, "patch_make",
			 is_qualified ? "the module does not define the symbol" : "no module defines the symbol",
			 search->text);
	if (is_qualified) {
		reason_raise_source(search, files);
		reason_find_elsewhere(search, files, &elsewhere);
		if (elsewhere.length > 0)
			error_raise_name(PATCH_ENEXIST, "patch_make", "another module defines it", elsewhere.text);
	}
	reason_find_near(search, files, &near);
	if (near.found.length > 0)
		error_raise_name(PATCH_ENEXIST, "patch_make", "a symbol has a similar name", near.found.text);
	return PATCH_ENEXIST;
}
