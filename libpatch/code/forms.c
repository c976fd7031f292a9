/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The table of forms, which are bytes here: what they say is not looked at.
 */
#include "code/forms.h"

#include "base/heap.h"
#include "base/thread_safety.h"

#include <string.h>

#define BUCKETS (1UL << 12)

struct form {
	struct form *next; /* of the same bucket */
	uint32_t hash;
	uint32_t size;
	uint8_t bytes[];
};

static struct form *buckets[BUCKETS] GUARDED_BY(library_lock);

static uint64_t forms_hash(const uint8_t *bytes, size_t size)
{
	uint64_t hash = size;
	uint32_t word;

	for (size_t i = 0; i < size; i += sizeof(word)) {
		memcpy(&word, bytes + i, sizeof(word));
		hash = (hash ^ word) * 0x9E3779B97F4A7C15ULL;
	}
	return hash ^ hash >> 32;
}

const void *forms_share(const void *bytes, size_t size)
{
	const uint64_t hash = forms_hash(bytes, size);
	struct form **bucket = &buckets[hash_index(hash, BUCKETS)];
	struct form *form;

	LOCK_ASSERT_HELD();
	for (form = *bucket; form != NULL; form = form->next)
		if (form->hash == (uint32_t)hash && form->size == size && memcmp(form->bytes, bytes, size) == 0)
			return form->bytes;
	form = heap_alloc(sizeof(*form) + size);
	if (form == NULL)
		return NULL;
	form->next = *bucket;
	form->hash = (uint32_t)hash;
	form->size = (uint32_t)size;
	memcpy(form->bytes, bytes, size);
	*bucket = form;
	return form->bytes;
}
