/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The chain of errors of each thread: a few thread-local records, the first of which are kept when there are more.
 */
#include "base/error.h"

#include "base/bug.h"

#include <errno.h>
#include <string.h>

struct record {
	struct patch_error error;
	char irritant[ERROR_IRRITANT_SIZE];
};

static TLS_INITIAL_EXEC struct record chain[ERROR_CHAIN];
static TLS_INITIAL_EXEC unsigned int chain_length;
/* The chain is an earlier call's. */
static TLS_INITIAL_EXEC bool chain_is_earlier;

void error_begin(void)
{
	chain_is_earlier = true;
}

size_t error_count(void)
{
	return chain_is_earlier ? 0 : chain_length;
}

void error_truncate(size_t count)
{
	if (count < error_count())
		chain_length = (unsigned int)count;
}

static struct record *error_append(patch_status code, const char *origin, const char *message)
{
	struct record *record;

	if (chain_is_earlier)
		chain_length = 0;
	chain_is_earlier = false;
	if (chain_length == ERROR_CHAIN)
		return NULL;
	record = &chain[chain_length++];
	record->error.code = code;
	record->error.origin = origin;
	record->error.message = message;
	record->error.irritant = "";
	return record;
}

patch_status error_raise(patch_status code, const char *origin, const char *message, const char *irritant)
{
	struct record *record = error_append(code, origin, message);

	if (record != NULL && irritant != NULL)
		record->error.irritant = irritant;
	return code;
}

patch_status error_raise_name(patch_status code, const char *origin, const char *message, const char *name)
{
	struct record *record = error_append(code, origin, message);
	size_t size = 0;

	if (record == NULL)
		return code;
	while (size < ERROR_IRRITANT_SIZE - 1 && name[size] != '\0')
		++size;
	memcpy(record->irritant, name, size);
	record->irritant[size] = '\0';
	record->error.irritant = record->irritant;
	return code;
}

static void error_format(char *out, uint64_t value, unsigned int radix, const char *prefix)
{
	char digits[ERROR_IRRITANT_SIZE];
	size_t n = 0;

	while (*prefix != '\0')
		*out++ = *prefix++;
	do {
		digits[n++] = "0123456789abcdef"[value % radix];
		value /= radix;
	} while (value != 0);
	while (n > 0)
		*out++ = digits[--n];
	*out = '\0';
}

patch_status error_raise_at(patch_status code, const char *origin, const char *message, uintptr_t address)
{
	struct record *record = error_append(code, origin, message);

	if (record != NULL) {
		error_format(record->irritant, address, 16, "0x");
		record->error.irritant = record->irritant;
	}
	return code;
}

patch_status error_raise_sys(patch_status code, const char *origin, const char *message, long error)
{
	struct record *record = error_append(code, origin, message);

	if (record != NULL) {
		error_format(record->irritant, error < 0 ? -error : error, 10, "errno ");
		record->error.irritant = record->irritant;
	}
	return code;
}

void error_save(struct error_chain *saved)
{
	saved->count = chain_length;
	saved->earlier = chain_is_earlier;
	for (unsigned int i = 0; i < chain_length; ++i) {
		saved->errors[i] = chain[i].error;
		memcpy(saved->irritants[i], chain[i].irritant, sizeof(chain[i].irritant));
	}
}

/* The records go back to their places, so that an irritant that was formatted into its record is there again. */
void error_restore(const struct error_chain *saved)
{
	BUG_ON_RETURN(saved->count > ERROR_CHAIN);
	chain_length = (unsigned int)saved->count;
	chain_is_earlier = saved->earlier;
	for (unsigned int i = 0; i < chain_length; ++i) {
		chain[i].error = saved->errors[i];
		memcpy(chain[i].irritant, saved->irritants[i], sizeof(chain[i].irritant));
	}
}

patch_status error_last(struct patch_error *out)
{
	if (chain_length == 0) {
		*out = (struct patch_error){ PATCH_OK, "", "", "", NULL };
		return PATCH_OK;
	}
	for (unsigned int i = 0; i < chain_length; ++i)
		chain[i].error.next = i + 1 < chain_length ? &chain[i + 1].error : NULL;
	*out = chain[0].error;
	return (patch_status)out->code;
}
