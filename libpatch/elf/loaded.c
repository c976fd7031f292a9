/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The dynamic linker's lists. dl_iterate_phdr() goes through one namespace, that of its caller; elf/others.c finds the
 * others. Nothing is kept.
 */
#include "elf/loaded.h"

#include "elf/segments.h"

#include <link.h>

struct loaded_walk {
	loaded_visit_fn *visit;
	void *data;
	uint64_t changes;
};

static bool loaded_is_program(const struct module *module)
{
	size_t count;

	return module->headers != NULL && module->headers == module_program_headers(&count);
}

static int loaded_visit_own(struct dl_phdr_info *info, size_t size, void *data)
{
	struct loaded_walk *walk = data;
	struct loaded loaded = {
		.module = { .headers = info->dlpi_phdr, .header_count = info->dlpi_phnum, .bias = info->dlpi_addr },
		.path = info->dlpi_name != NULL ? info->dlpi_name : "",
	};

	(void)size;
	segments_extent(loaded.module.headers, loaded.module.header_count, loaded.module.bias, &loaded.module.lower,
			&loaded.module.upper);
	loaded.is_program = loaded_is_program(&loaded.module);
	return !walk->visit(&loaded, walk->data);
}

static int loaded_read_changes(struct dl_phdr_info *info, size_t size, void *data)
{
	struct loaded_walk *walk = data;

	if (size >= offsetof(struct dl_phdr_info, dlpi_subs) + sizeof(info->dlpi_subs))
		walk->changes = info->dlpi_adds + info->dlpi_subs;
	return 1;
}

uint64_t loaded_changes(void)
{
	struct loaded_walk walk = { .changes = 0 };

	dl_iterate_phdr(loaded_read_changes, &walk);
	return walk.changes;
}

void loaded_visit_others(const struct others *others, loaded_visit_fn *visit, void *data)
{
	for (size_t i = 0; others != NULL && i < others->count; ++i) {
		const struct other *other = &others->modules[i];
		struct loaded loaded = { .path = other->map->l_name != NULL ? other->map->l_name : "" };

		if (!module_of_map(other->code, other->start, other->map, &loaded.module))
			continue;
		loaded.is_program = loaded_is_program(&loaded.module);
		if (!visit(&loaded, data))
			return;
	}
}

struct loaded_call {
	loaded_held_fn *function;
	void *data;
	const struct others *others;
	uint64_t changes;
	bool last; /* however modules change */
	bool done;
};

/* Once, with the loader's lock. */
static int loaded_call_held(struct dl_phdr_info *info, size_t size, void *data)
{
	struct loaded_call *call = data;

	(void)info;
	(void)size;
	call->done = loaded_changes() == call->changes;
	/* What was listed may be gone by now: it counts as not known. */
	if (!call->done && call->last) {
		call->others = NULL;
		call->done = true;
	}
	if (call->done)
		call->function(call->others, call->data);
	return 1;
}

/* Beside a thread that does nothing but load and unload there may never be a list that is still good. */
#define TRIES 64

void loaded_hold(loaded_held_fn *function, void *data)
{
	struct loaded_call call = { .function = function, .data = data };

	for (int i = 1; !call.done; ++i) {
		struct others *others;

		call.changes = loaded_changes();
		call.others = others = others_make();
		call.last = i == TRIES;
		dl_iterate_phdr(loaded_call_held, &call);
		others_free(others);
	}
}

static void loaded_visit_held(const struct others *others, void *data)
{
	const struct loaded_walk *walk = data;

	loaded_visit_others(others, walk->visit, walk->data);
}

void loaded_visit(bool others, loaded_visit_fn *visit, void *data)
{
	struct loaded_walk walk = { .visit = visit, .data = data };

	if (others)
		loaded_hold(loaded_visit_held, &walk);
	else
		dl_iterate_phdr(loaded_visit_own, &walk);
}
