/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Hooks of a program are of few kinds, and the code of those of a kind differs in few fields. So it is emitted once,
 * and kept, in two pieces, the hook and its cold code; from then on these are copied, and the fields set.
 *
 * Of the kinds that there are, the first ones are kept. Hooks on ways out of an instruction, with pairs, and in far
 * code are emitted each time.
 */
#include "arch/x86_64/hook_parts.h"

#include <string.h>

#define KINDS 24

struct kind {
	uint64_t read;
	uint64_t write;
	uint64_t clobber;
	uint64_t rest;
};

struct kept_piece {
	uint16_t size;
	uint8_t row; /* of its first byte: the cfa */
	uint8_t stretch; /* the same: the kind */
	uint8_t row_count; /* behind that */
	uint8_t stretch_count;
	uint8_t field_count;
	uint8_t call_count;
	struct arch_row rows[16]; /* offsets are from the piece's first byte */
	struct arch_stretch stretches[40];
	struct arch_field fields[40]; /* of landings, from the hook's first byte */
	struct arch_cold_call calls[8];
	uint8_t bytes[768]; /* fields across the pieces: less, or more, their distance */
};

struct kept_hook {
	struct kind kind;
	bool complete; /* both pieces are kept */
	const struct arch_cold_hook *of; /* until then, whose code the first one is */
	struct kept_piece hook;
	struct kept_piece cold;
};

static struct kept_hook kept[KINDS];
static size_t kept_count;
/* Of the piece that is emitted. */
static struct arch_kept_fields fields;
static size_t calls_before;
static size_t begins_at;

static uint32_t kept_get(const uint8_t *end)
{
	uint32_t value;

	memcpy(&value, end - sizeof(value), sizeof(value));
	return value;
}

static void kept_set(uint8_t *end, uint32_t value)
{
	memcpy(end - sizeof(value), &value, sizeof(value));
}

static bool kept_is_eligible(const struct arch_code *code, const struct arch_hook *hook)
{
	return !code->far && code->pushed == 0 && hook->exit == NULL && hook->pair == ARCH_PAIR_NONE;
}

static struct kept_hook *kept_of(const struct arch_cold_hook *cold)
{
	return cold->kept != 0 ? &kept[cold->kept - 1] : NULL;
}

/* Its number; 0: there is no room for another kind. */
static uint8_t kept_find(const struct arch_hook *hook)
{
	const struct kind kind = {
		.read = hook->read,
		.write = hook->write,
		.clobber = hook->clobber,
		.rest = hook->post | (uint64_t)hook->own << 8 | (uint64_t)hook->at_entry << 16 |
			(uint64_t)hook->x87_empty << 24 | (uint64_t)hook->shadow << 32 |
			(uint64_t)(hook->program_counter > UINT32_MAX) << 40,
	};

	for (size_t i = 0; i < kept_count; ++i)
		if (kept[i].kind.rest == kind.rest && kept[i].kind.read == kind.read &&
		    kept[i].kind.write == kind.write && kept[i].kind.clobber == kind.clobber)
			return (uint8_t)(i + 1);
	if (kept_count == KINDS)
		return 0;
	kept[kept_count].kind = kind;
	return (uint8_t)++kept_count;
}

/* ---- keeping ---------------------------------------------------------------------------------------------------- */

void arch_begin_keeping(struct arch_code *code, const struct arch_cold_hook *cold)
{
	const struct kept_hook *of = kept_of(cold);

	code->cold->keeping = of != NULL && !of->complete ? &fields : NULL;
	fields.count = 0;
	calls_before = code->cold->call_count;
	begins_at = code->size;
}

/* What was emitted since then. False: it is more than there is room for. */
static bool kept_take(struct kept_piece *piece, const struct arch_code *code)
{
	const size_t size = code->size - begins_at, calls = code->cold->call_count - calls_before;
	size_t rows = code->row_count, stretches = code->stretch_count;

	if (code->size > code->capacity || rows > code->row_capacity || stretches > code->stretch_capacity)
		return false;
	while (rows > 0 && code->rows[rows - 1].code > begins_at)
		--rows;
	while (stretches > 0 && code->stretches[stretches - 1].code > begins_at)
		--stretches;
	if (rows == 0 || stretches == 0 || size > sizeof(piece->bytes) || calls > ARRAY_SIZE(piece->calls) ||
	    fields.count > ARRAY_SIZE(piece->fields) || code->row_count - rows > ARRAY_SIZE(piece->rows) ||
	    code->stretch_count - stretches > ARRAY_SIZE(piece->stretches))
		return false;
	piece->size = (uint16_t)size;
	piece->row = code->rows[rows - 1].cfa;
	piece->stretch = code->stretches[stretches - 1].kind;
	piece->row_count = 0;
	piece->stretch_count = 0;
	for (; rows < code->row_count; ++rows) {
		piece->rows[piece->row_count] = code->rows[rows];
		piece->rows[piece->row_count++].code -= (uint16_t)begins_at;
	}
	for (; stretches < code->stretch_count; ++stretches) {
		piece->stretches[piece->stretch_count] = code->stretches[stretches];
		piece->stretches[piece->stretch_count++].code -= (uint16_t)begins_at;
	}
	piece->field_count = (uint8_t)fields.count;
	for (size_t i = 0; i < fields.count; ++i) {
		piece->fields[i] = fields.list[i];
		if (piece->fields[i].kind != ARCH_FIELD_LANDING)
			piece->fields[i].end -= (uint16_t)begins_at;
	}
	piece->call_count = (uint8_t)calls;
	for (size_t i = 0; i < calls; ++i) {
		piece->calls[i] = code->cold->calls[calls_before + i];
		piece->calls[i].field -= (uint32_t)begins_at;
	}
	memcpy(piece->bytes, code->bytes + begins_at, size);
	return true;
}

void arch_keep(struct arch_code *code, const struct arch_cold_hook *cold)
{
	struct kept_hook *of = kept_of(cold);

	if (code->cold->keeping != NULL)
		of->of = kept_take(&of->hook, code) ? cold : NULL;
	code->cold->keeping = NULL;
}

void arch_keep_cold(struct arch_code *code, const struct arch_cold_hook *cold, size_t begins)
{
	struct kept_hook *of = kept_of(cold);
	const uint32_t distance = (uint32_t)(begins - cold->begins);

	if (code->cold->keeping != NULL && of->of == cold && kept_take(&of->cold, code)) {
		for (size_t i = 0; i < of->cold.field_count; ++i) {
			struct arch_field *field = &of->cold.fields[i];
			uint8_t *end = of->cold.bytes + field->end;

			if (field->kind == ARCH_FIELD_BACK) {
				kept_set(end, kept_get(end) + distance);
			} else if (field->kind == ARCH_FIELD_LANDING) {
				kept_set(of->hook.bytes + field->end - cold->begins,
					 kept_get(code->bytes + field->end) - distance);
				field->end -= (uint16_t)cold->begins;
			}
		}
		of->complete = true;
	}
	code->cold->keeping = NULL;
}

/* ---- copying ---------------------------------------------------------------------------------------------------- */

/* What does not fit is only counted. */
static bool kept_fits(struct arch_code *code, const struct kept_piece *piece)
{
	if (code->size + piece->size <= MIN(code->capacity, (size_t)UINT16_MAX) &&
	    code->row_count + piece->row_count < code->row_capacity &&
	    code->stretch_count + piece->stretch_count < code->stretch_capacity &&
	    code->cold->call_count + piece->call_count <= ARRAY_SIZE(code->cold->calls))
		return true;
	code->size += piece->size;
	code->row_count += piece->row_count + 1U;
	code->stretch_count += piece->stretch_count + 1U;
	code->out_of_range = true;
	return false;
}

static void kept_set_distance(struct arch_code *code, size_t end, uintptr_t target)
{
	const int64_t distance = (int64_t)(target - (code->base + end));

	if (distance != (int32_t)distance)
		code->out_of_range = true;
	kept_set(code->bytes + end, (uint32_t)distance);
}

static void kept_copy(struct arch_code *code, const struct kept_piece *piece, const struct arch_cold_hook *cold)
{
	const uint32_t at = (uint32_t)code->size;
	const uint32_t distance = at - cold->begins;

	if (!kept_fits(code, piece))
		return;
	arch_emit_row(code, piece->row);
	arch_emit_stretch(code, piece->stretch, cold->number);
	for (size_t i = 0; i < piece->row_count; ++i)
		code->rows[code->row_count++] = (struct arch_row){ (uint16_t)(piece->rows[i].code + at),
								   code->original, piece->rows[i].cfa };
	for (size_t i = 0; i < piece->stretch_count; ++i) {
		struct arch_stretch stretch = piece->stretches[i];

		stretch.code += (uint16_t)at;
		/* Others are no hook's. */
		if ((stretch.kind & ARCH_STRETCH_KIND) >= ARCH_HOOK_BEGINS)
			stretch.arg = cold->number;
		code->stretches[code->stretch_count++] = stretch;
	}
	arch_emit_bytes(code, piece->bytes, piece->size);
	for (size_t i = 0; i < piece->field_count; ++i) {
		const uint32_t end = piece->fields[i].end;
		uint8_t *field = code->bytes + at + end;

		switch ((enum arch_field_kind)piece->fields[i].kind) {
		case ARCH_FIELD_SLOT:
			kept_set_distance(code, at + end, cold->slot);
			break;
		case ARCH_FIELD_REPORTED:
			kept_set_distance(code, at + end, cold->program_counter);
			break;
		case ARCH_FIELD_REPORTED_LOW:
			kept_set(field, (uint32_t)cold->program_counter);
			break;
		case ARCH_FIELD_BACK:
			kept_set(field, kept_get(field) - distance);
			break;
		case ARCH_FIELD_LANDING:
			field = code->bytes + cold->begins + end;
			kept_set(field, kept_get(field) + distance);
			break;
		}
	}
	for (size_t i = 0; i < piece->call_count; ++i)
		code->cold->calls[code->cold->call_count++] = (struct arch_cold_call){
			piece->calls[i].function, piece->calls[i].field + at };
}

bool arch_emit_kept(struct arch_code *code, const struct arch_hook *hook, struct arch_cold_hook *cold)
{
	const struct kept_hook *of;

	cold->kept = kept_is_eligible(code, hook) ? kept_find(hook) : 0;
	of = kept_of(cold);
	cold->copied = of != NULL && of->complete;
	if (!cold->copied)
		return false;
	kept_copy(code, &of->hook, cold);
	cold->done = (uint32_t)code->size;
	return true;
}

bool arch_emit_kept_cold(struct arch_code *code, const struct arch_cold_hook *cold)
{
	if (cold->copied)
		kept_copy(code, &kept_of(cold)->cold, cold);
	return cold->copied;
}
