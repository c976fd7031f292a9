/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Single instructions. As they occur: the text of binaries is decoded linearly (data in text gives a few odd ones
 * more), and of every encoding (mnemonic, opcode, prefixes, addressing mode, vector length) some are kept, chosen by
 * the seed. Then the generator adds those encodings that no binary has.
 */
#include "differential.h"

#define TABLE_BITS 19
#define TABLE_SIZE (1UL << TABLE_BITS)
#define KEPT_MAX 16
#define FORMS_MAX 32768
#define FORM_INDEX (2 * FORMS_MAX)

#define PREFIXES                                                                                                       \
	(ZYDIS_ATTRIB_HAS_LOCK | ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE |              \
	 ZYDIS_ATTRIB_HAS_BND | ZYDIS_ATTRIB_HAS_XACQUIRE | ZYDIS_ATTRIB_HAS_XRELEASE | ZYDIS_ATTRIB_HAS_NOTRACK |    \
	 ZYDIS_ATTRIB_HAS_SEGMENT | ZYDIS_ATTRIB_HAS_ADDRESSSIZE | ZYDIS_ATTRIB_HAS_OPERANDSIZE |                     \
	 ZYDIS_ATTRIB_HAS_BRANCH_TAKEN | ZYDIS_ATTRIB_HAS_BRANCH_NOT_TAKEN)

struct kept {
	uint8_t size;
	uint8_t bytes[INSN_MAX];
};

struct entry {
	uint64_t key;
	uint32_t seen;
	uint8_t count;
	bool generated;
	struct kept kept[KEPT_MAX];
};

static struct entry *table;
static size_t table_used;
static size_t kept_limit;
static uint64_t choices;
bool corpus_around;
static uint32_t *form_index; /* 1 more than the form's number */

/* ---- encodings --------------------------------------------------------------------------------------------------- */

/* Which legacy prefixes there are, also those without a meaning here: the processor may see one. */
static uint64_t prefix_set(const ZydisDecodedInstruction *zydis)
{
	static const uint8_t prefixes[] = { 0x66, 0x67, 0xF0, 0xF2, 0xF3, 0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65 };
	uint64_t set = 0;
	size_t i, j;

	for (i = 0; i < zydis->raw.prefix_count; i++)
		for (j = 0; j < ARRAY_SIZE(prefixes); j++)
			set |= (uint64_t)(zydis->raw.prefixes[i].value == prefixes[j]) << j;
	return set;
}

static uint64_t encoding_key(const ZydisDecodedInstruction *zydis)
{
	uint64_t key = mix_in(zydis->mnemonic, zydis->attributes), mode;

	key = mix_in(key, (uint64_t)zydis->encoding << 32 | (uint64_t)zydis->opcode_map << 16 | zydis->opcode);
	key = mix_in(key, prefix_set(zydis) << 32 | (uint64_t)zydis->operand_width << 16 | zydis->address_width);
	if (zydis->attributes & ZYDIS_ATTRIB_HAS_MODRM) {
		mode = zydis->raw.modrm.mod;
		if (mode != 3 && zydis->raw.modrm.rm == 4)
			mode |= 8 | (zydis->raw.sib.base == 4) << 4 | (zydis->raw.sib.base == 5) << 5 |
				(zydis->raw.sib.index == 4) << 6;
		else if (mode == 0)
			mode |= (zydis->raw.modrm.rm == 5) << 7;
		key = mix_in(key, mode);
	}
	key = mix_in(key, (uint64_t)zydis->avx.vector_length << 32 | zydis->avx.mask.mode << 24 |
				  zydis->avx.broadcast.mode << 16 | zydis->avx.rounding.mode << 8 | zydis->avx.has_sae);
	return key | 1;
}

/* Its entry, a new one if need be; NULL when the table is full. */
static struct entry *find_entry(uint64_t key)
{
	struct entry *entry = &table[key >> (64 - TABLE_BITS)];

	while (entry->key != 0 && entry->key != key)
		entry = entry + 1 < table + TABLE_SIZE ? entry + 1 : table;
	if (entry->key == 0) {
		if (table_used >= TABLE_SIZE / 4 * 3)
			return NULL;
		table_used++;
		entry->key = key;
	}
	return entry;
}

static void remember(const uint8_t *bytes, const ZydisDecodedInstruction *zydis, bool generated)
{
	struct entry *entry = find_entry(encoding_key(zydis));
	size_t i, slot;

	if (!entry || (generated && entry->count != 0 && !entry->generated))
		return;
	entry->generated = generated;
	entry->seen++;
	slot = entry->count;
	if (slot == kept_limit) {
		slot = random_next(&choices) % entry->seen;
		if (slot >= kept_limit)
			return;
	}
	for (i = 0; i < entry->count; i++)
		if (entry->kept[i].size == zydis->length && memcmp(entry->kept[i].bytes, bytes, zydis->length) == 0)
			return;
	entry->kept[slot].size = zydis->length;
	memcpy(entry->kept[slot].bytes, bytes, zydis->length);
	entry->count += slot == entry->count;
}

static void read_text(struct corpus *corpus, const uint8_t *bytes, size_t size)
{
	ZydisDecodedInstruction zydis;
	ZydisDecoderContext context;
	size_t at;

	for (at = 0; at < size; at += zydis.length) {
		if (!ZYAN_SUCCESS(
			    ZydisDecoderDecodeInstruction(step_decoder(), &context, bytes + at, size - at, &zydis))) {
			zydis.length = 1;
			continue;
		}
		remember(bytes + at, &zydis, false);
		corpus->instructions++;
	}
}

static void take_generated(const uint8_t bytes[INSN_MAX], void *data)
{
	struct corpus *corpus = data;
	ZydisDecodedInstruction zydis;
	ZydisDecoderContext context;

	corpus->enumerated++;
	if (ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(step_decoder(), &context, bytes, INSN_MAX, &zydis)))
		remember(bytes, &zydis, true);
}

/* ---- patterns ---------------------------------------------------------------------------------------------------- */

static uint32_t find_form(struct corpus *corpus, const struct decoded *decoded)
{
	const ZydisDecodedInstruction *zydis = &decoded->insn;
	const ZydisDecodedOperand *operands = decoded->operands;
	uint64_t key = mix_in(zydis->mnemonic, zydis->attributes & PREFIXES);
	char text[sizeof(corpus->forms->text)];
	size_t i, at;

	at = (size_t)snprintf(text, sizeof(text), "%s%s", zydis->attributes & ZYDIS_ATTRIB_HAS_LOCK ? "lock " : "",
			      ZydisMnemonicGetString(zydis->mnemonic));
	for (i = 0; i < zydis->operand_count; i++) {
		if (operands[i].visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
			continue;
		key = mix_in(key, (uint64_t)operands[i].type << 32 | operands[i].size);
		if (operands[i].type == ZYDIS_OPERAND_TYPE_REGISTER)
			key = mix_in(key, ZydisRegisterGetClass(operands[i].reg.value));
		if (at < sizeof(text))
			at += (size_t)snprintf(text + at, sizeof(text) - at, " %c%u",
					       "-rmpi"[MIN((unsigned int)operands[i].type, 4U)], operands[i].size);
	}
	for (i = key % FORM_INDEX; form_index[i] != 0; i = (i + 1) % FORM_INDEX)
		if (corpus->forms[form_index[i] - 1].key == key)
			return form_index[i] - 1;
	if (corpus->form_count == FORMS_MAX)
		return 0;
	corpus->forms[corpus->form_count].key = key;
	memcpy(corpus->forms[corpus->form_count].text, text, sizeof(text));
	form_index[i] = (uint32_t)++corpus->form_count;
	return form_index[i] - 1;
}

static void take(struct corpus *corpus, const struct kept *kept, bool generated)
{
	struct pattern *pattern = &corpus->patterns[corpus->pattern_count];
	struct decoded decoded;
	const char *reason;
	uint64_t way;

	memset(pattern, 0, sizeof(*pattern));
	reason = step_make(&pattern->step, kept->bytes, kept->size, &decoded);
	if (reason) {
		skip_note(&corpus->skips, reason);
		return;
	}
	switch ((enum arch_kind)pattern->step.insn.kind) {
	case ARCH_JMP: case ARCH_JCC: case ARCH_LOOP: case ARCH_CALL: case ARCH_JMP_IND: case ARCH_CALL_IND:
	case ARCH_RET:
		way = corpus_around ? 1 + random_next(&choices) % 2 : random_next(&choices) % 3;
		if (way != 0 && !arch_refuses_around(pattern->step.bytes, &pattern->step.insn, 0xFFFF, false))
			pattern->step.flags |= way == 1 ? P_AROUND : P_AROUND | P_WRITTEN;
		break;
	default:
		break;
	}
	if (corpus_around && !(pattern->step.flags & P_AROUND))
		return;
	if (random_next(&choices) % 2 != 0)
		pattern->step.flags |= P_LOW;
	pattern->generated = generated;
	pattern->form = find_form(corpus, &decoded);
	corpus->forms[pattern->form].found |= !generated;
	corpus->pattern_count++;
}

static void take_all(struct corpus *corpus)
{
	size_t i, j, before = 0;

	for (i = 0; i < TABLE_SIZE; i++)
		before += table[i].count;
	corpus->patterns = calloc(before + 1, sizeof(*corpus->patterns));
	if (!corpus->patterns) {
		perror("calloc");
		exit(1);
	}
	for (i = 0; i < TABLE_SIZE; i++) {
		before = corpus->pattern_count;
		for (j = 0; j < table[i].count; j++)
			take(corpus, &table[i].kept[j], table[i].generated);
		if (corpus->pattern_count != before)
			*(table[i].generated ? &corpus->encodings_generated : &corpus->encodings_found) += 1;
	}
}

void corpus_read(struct corpus *corpus, const struct files *files, uint64_t seed, size_t bytes, size_t per_encoding,
		 bool thorough)
{
	size_t i, size, offset;

	choices = seed;
	table = calloc(TABLE_SIZE, sizeof(*table));
	form_index = calloc(FORM_INDEX, sizeof(*form_index));
	corpus->forms = calloc(FORMS_MAX, sizeof(*corpus->forms));
	if (!table || !form_index || !corpus->forms) {
		perror("calloc");
		exit(1);
	}
	kept_limit = MIN(per_encoding, (size_t)KEPT_MAX);
	for (i = 0; i < files->text_count; i++) {
		size = MIN(files->texts[i].size, bytes);
		/* a part of it that the seed chooses */
		offset = files->texts[i].size > size ? random_next(&choices) % (files->texts[i].size - size) : 0;
		read_text(corpus, files->texts[i].bytes + offset, size);
	}
	kept_limit = 1;
	generate(random_next(&choices), thorough, take_generated, corpus);
	take_all(corpus);
	free(table);
	free(form_index);
}
