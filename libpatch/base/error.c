/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The chain of errors of each thread: a few records in its block, the first of which are kept when there are more.
 */
#include "base/error.h"

#include "base/bug.h"
#include "base/format.h"

#include <errno.h>
#include <string.h>

void error_begin(void)
{
	struct thread_block *block = thread_block_known();

	if (block != NULL)
		block->errors.earlier = true;
}

size_t error_count(void)
{
	const struct thread_block *block = thread_block_known();

	return block == NULL || block->errors.earlier ? 0 : block->errors.length;
}

void error_truncate(size_t count)
{
	if (count < error_count())
		thread_block_known()->errors.length = (unsigned int)count;
}

static struct error_record *error_append(patch_status code, const char *origin, const char *message)
{
	struct thread_block *block = thread_block();
	struct error_record *record;

	if (block == NULL)
		return NULL;
	if (block->errors.earlier)
		block->errors.length = 0;
	block->errors.earlier = false;
	if (block->errors.length == ERROR_CHAIN)
		return NULL;
	record = &block->errors.chain[block->errors.length++];
	record->error.code = code;
	record->error.origin = origin;
	record->error.message = message;
	record->error.irritant = "";
	return record;
}

patch_status error_raise(patch_status code, const char *origin, const char *message, const char *irritant)
{
	struct error_record *record = error_append(code, origin, message);

	if (record != NULL && irritant != NULL)
		record->error.irritant = irritant;
	return code;
}

patch_status error_raise_name(patch_status code, const char *origin, const char *message, const char *name)
{
	struct error_record *record = error_append(code, origin, message);
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

patch_status error_raise_at(patch_status code, const char *origin, const char *message, uintptr_t address)
{
	struct error_record *record = error_append(code, origin, message);

	if (record != NULL) {
		*format_number(format_string(record->irritant, "0x"), address, 16) = '\0';
		record->error.irritant = record->irritant;
	}
	return code;
}

/* Those that the kernel has for what the library asks; "" for others. */
static const char *error_name(long error)
{
#define NAME(error) { error, " (" #error ")" }
	static const struct {
		long error;
		const char *name;
	} names[] = { NAME(EPERM),  NAME(ENOENT),  NAME(ESRCH),     NAME(EINTR),  NAME(EIO),    NAME(E2BIG),
		      NAME(EBADF),  NAME(EAGAIN),  NAME(ENOMEM),    NAME(EACCES), NAME(EFAULT), NAME(EBUSY),
		      NAME(EEXIST), NAME(ENODEV),  NAME(ENOTDIR),   NAME(EISDIR), NAME(EINVAL), NAME(ENFILE),
		      NAME(EMFILE), NAME(ETXTBSY), NAME(EFBIG),     NAME(ENOSPC), NAME(EROFS),  NAME(ENAMETOOLONG),
		      NAME(ENOSYS), NAME(ELOOP),   NAME(EOPNOTSUPP) };
#undef NAME

	for (size_t i = 0; i < ARRAY_SIZE(names); ++i)
		if (names[i].error == error)
			return names[i].name;
	return "";
}

patch_status error_raise_sys(patch_status code, const char *origin, const char *message, long error)
{
	struct error_record *record = error_append(code, origin, message);

	if (record != NULL) {
		error = error < 0 ? -error : error;
		*format_string(format_number(format_string(record->irritant, "errno "), (uint64_t)error, 10),
			       error_name(error)) = '\0';
		record->error.irritant = record->irritant;
	}
	return code;
}

void error_save(struct error_chain *saved)
{
	const struct thread_block *block = thread_block_known();

	*saved = (struct error_chain){ 0 };
	if (block == NULL)
		return;
	saved->count = block->errors.length;
	saved->earlier = block->errors.earlier;
	memcpy(saved->records, block->errors.chain, saved->count * sizeof(saved->records[0]));
}

/* The records go back to their places, so that an irritant that was formatted into its record is there again. */
void error_restore(const struct error_chain *saved)
{
	struct thread_block *block = thread_block_known();

	BUG_ON_RETURN(saved->count > ERROR_CHAIN);
	/* None then, none now: nothing was raised, nor is there anything to restore. */
	if (block == NULL)
		return;
	block->errors.length = (unsigned int)saved->count;
	block->errors.earlier = saved->earlier;
	memcpy(block->errors.chain, saved->records, saved->count * sizeof(saved->records[0]));
}

patch_status error_last(struct patch_error *out)
{
	struct thread_block *block = thread_block_known();
	struct error_record *chain;

	if (block == NULL || block->errors.length == 0) {
		*out = (struct patch_error){ PATCH_OK, "", "", "", NULL };
		return PATCH_OK;
	}
	chain = block->errors.chain;
	for (unsigned int i = 0; i < block->errors.length; ++i)
		chain[i].error.next = i + 1 < block->errors.length ? &chain[i + 1].error : NULL;
	*out = chain[0].error;
	return (patch_status)out->code;
}
