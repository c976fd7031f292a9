/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Encodings by enumeration: legacy maps, 3DNow!, VEX, EVEX and XOP; every opcode, mandatory prefix, W, vector length,
 * group number; register and memory operands in all addressing modes. Register numbers, displacements and immediates
 * are the seed's. What is none is for the decoder to say (Intel SDM vol. 2, 2.1 to 2.7; AMD APM vol. 3, 1.2 to 1.10).
 */
#include "differential.h"

enum mode {
	MODE_REGISTER,
	MODE_BASE,       /* [base] */
	MODE_BASE_DISP8,
	MODE_BASE_DISP32,
	MODE_SIB,        /* [base + index * scale] */
	MODE_SIB_DISP8,
	MODE_RIP,
	MODE_RSP,        /* [rsp] */
	MODE_RSP_DISP8,
	MODE_INDEX,      /* [index * scale + disp32] */
	MODE_ABSOLUTE,   /* [disp32] */
	MODES
};

#define ALL_MODES ((1U << MODES) - 1)
#define GROUPS 8

struct generator {
	uint64_t seed;
	bool thorough;
	generator_fn *take;
	void *data;
	uint8_t bytes[INSN_MAX + 16];
	size_t size;
};

static uint64_t draw(struct generator *generator)
{
	return random_next(&generator->seed);
}

static void put(struct generator *generator, uint64_t byte)
{
	generator->bytes[generator->size++] = (uint8_t)byte;
}

/* Register operand, and some of the memory ones. */
static unsigned int choose_modes(struct generator *generator)
{
	const uint64_t random = draw(generator);

	if (generator->thorough)
		return ALL_MODES;
	return 1U << MODE_REGISTER | 2U << random % (MODES - 1) | 2U << (random >> 32) % (MODES - 1);
}

/* In [rsp] and [index * scale] the base is a number that the extension bits would change. */
static bool needs_no_base_extension(enum mode mode)
{
	return mode == MODE_RSP || mode == MODE_RSP_DISP8;
}

static void put_modrm(struct generator *generator, enum mode mode, unsigned int reg, unsigned int rm)
{
	static const uint8_t mods[MODES] = { 3, 0, 1, 2, 0, 1, 0, 0, 1, 0, 0 };
	const uint64_t random = draw(generator);
	/* as base without SIB neither 4 nor, without displacement, 5 */
	static const uint8_t bases[] = { 0, 1, 2, 3, 6, 7 };
	unsigned int base = bases[random % ARRAY_SIZE(bases)], sib = (unsigned int)(random >> 8) & 0xF8;

	switch (mode) {
	case MODE_REGISTER:
		put(generator, 3U << 6 | reg << 3 | rm);
		return;
	case MODE_RIP:
		put(generator, reg << 3 | 5);
		return;
	case MODE_BASE: case MODE_BASE_DISP8: case MODE_BASE_DISP32:
		put(generator, (unsigned int)mods[mode] << 6 | reg << 3 | base);
		return;
	case MODE_SIB: case MODE_SIB_DISP8:
		sib |= base;
		break;
	case MODE_RSP: case MODE_RSP_DISP8:
		sib = 0x24;
		break;
	case MODE_INDEX:
		sib |= 5;
		break;
	default:
		sib = 0x25;
	}
	put(generator, (unsigned int)mods[mode] << 6 | reg << 3 | 4);
	put(generator, sib);
}

/* The rest, displacement and immediate, is random. */
static void finish(struct generator *generator)
{
	uint64_t random = draw(generator);
	size_t i;

	for (i = generator->size; i < INSN_MAX; i++, random = random >> 8 | random << 56)
		generator->bytes[i] = (uint8_t)random;
	generator->take(generator->bytes, generator->data);
}

/* ---- legacy encodings -------------------------------------------------------------------------------------------- */

#define NO_REX 0x100U

static bool is_prefix(unsigned int byte)
{
	switch (byte) {
	case 0x0F: /* escape */
	case 0x26: case 0x2E: case 0x36: case 0x3E: case 0x64: case 0x65: case 0x66: case 0x67:
	case 0x62: case 0xC4: case 0xC5: case 0xF0: case 0xF2: case 0xF3:
		return true;
	default:
		return byte >= 0x40 && byte <= 0x4F;
	}
}

static void put_legacy(struct generator *generator, const char *prefixes, unsigned int rex, unsigned int map,
		       unsigned int opcode)
{
	generator->size = 0;
	while (*prefixes)
		put(generator, (uint8_t)*prefixes++);
	if (rex != NO_REX)
		put(generator, rex);
	if (map > 0)
		put(generator, 0x0F);
	if (map > 1)
		put(generator, map == 2 ? 0x38 : 0x3A);
	put(generator, opcode);
}

/* Where the register number in ModRM.rm is part of the opcode, too. */
static bool rm_counts(unsigned int map, unsigned int opcode)
{
	return map == 0 ? (opcode & 0xF8) == 0xD8 : map == 1;
}

static void legacy_opcode(struct generator *generator, const char *prefixes, unsigned int rex, unsigned int map,
			  unsigned int opcode, unsigned int modes)
{
	const unsigned int rex_bits = rex == NO_REX ? 0 : (unsigned int)draw(generator) & 7;
	unsigned int reg, mode, rm, rm_end;

	for (reg = 0; reg < GROUPS; reg++) {
		for (mode = 0; mode < MODES; mode++) {
			if (!(modes & 1U << mode))
				continue;
			rm = (unsigned int)draw(generator) & 7;
			rm_end = rm + 1;
			if (mode == MODE_REGISTER && rm_counts(map, opcode)) {
				rm = 0;
				rm_end = GROUPS;
			}
			for (; rm < rm_end; rm++) {
				put_legacy(generator, prefixes,
					   rex | (needs_no_base_extension(mode) ? rex_bits & 6 : rex_bits), map,
					   opcode);
				put_modrm(generator, mode, reg, rm);
				finish(generator);
			}
		}
	}
}

static void legacy(struct generator *generator)
{
	static const char *const mandatory[] = { "", "\x66", "\xF2", "\xF3", "\x66\xF2", "\x66\xF3" };
	/* lock, segments, address size, hints; with what they may come with */
	static const char *const others[] = {
		"\xF0", "\x64", "\x65", "\x67", "\x2E", "\x3E", "\x26", "\x36", "\xF0\x66", "\xF0\xF2", "\xF0\xF3",
		"\x64\x66", "\x65\x66", "\x67\x66", "\x67\xF2", "\x67\xF3", "\x64\x67", "\x3E\x67", "\x65\xF3",
	};
	static const unsigned int rex[] = { NO_REX, 0x40, 0x48 };
	unsigned int map, opcode;
	size_t i, j;

	for (map = 0; map < 4; map++) {
		for (opcode = 0; opcode < 256; opcode++) {
			if (map == 0 ? is_prefix(opcode) : map == 1 && (opcode == 0x38 || opcode == 0x3A))
				continue;
			for (i = 0; i < ARRAY_SIZE(mandatory); i++)
				for (j = 0; j < ARRAY_SIZE(rex); j++)
					legacy_opcode(generator, mandatory[i], rex[j], map, opcode,
						      choose_modes(generator));
			for (i = 0; i < ARRAY_SIZE(others); i++)
				legacy_opcode(generator, others[i], rex[draw(generator) % ARRAY_SIZE(rex)], map, opcode,
					      choose_modes(generator));
		}
	}
}

/* 0F 0F, and the opcode behind the operand. */
static void three_d_now(struct generator *generator)
{
	static const uint8_t disp_sizes[MODES] = { 0, 0, 1, 4, 0, 1, 4, 0, 1, 4, 4 };
	unsigned int opcode, mode, i, modes;

	for (opcode = 0; opcode < 256; opcode++) {
		modes = choose_modes(generator);
		for (mode = 0; mode < MODES; mode++) {
			if (!(modes & 1U << mode))
				continue;
			put_legacy(generator, "", NO_REX, 1, 0x0F);
			put_modrm(generator, mode, (unsigned int)draw(generator) & 7,
				  (unsigned int)draw(generator) & 7);
			for (i = 0; i < disp_sizes[mode]; i++)
				put(generator, draw(generator));
			put(generator, opcode);
			finish(generator);
		}
	}
}

/* ---- VEX, XOP, EVEX ---------------------------------------------------------------------------------------------- */

/* One choice of the fields that the opcode's meaning depends on. */
struct fields {
	unsigned int map, opcode, pp, w, length;
	bool unused_vvvv; /* vvvv is 1111, as it must be where no operand is there */
	bool broadcast;
	unsigned int mask; /* 0: none, 1: merging, 2: zeroing */
};

/* RXB in bits 7 to 5, all inverted. */
static unsigned int draw_rxb(struct generator *generator, enum mode mode)
{
	return ((unsigned int)draw(generator) & 0xE0) | (needs_no_base_extension(mode) ? 0x20 : 0);
}

static unsigned int draw_vvvv(struct generator *generator, const struct fields *fields)
{
	return fields->unused_vvvv ? 15 : (unsigned int)draw(generator) & 15;
}

static void put_vex(struct generator *generator, unsigned int escape, const struct fields *fields, enum mode mode)
{
	const unsigned int rest = draw_vvvv(generator, fields) << 3 | fields->length << 2 | fields->pp;

	generator->size = 0;
	put(generator, escape);
	if (escape == 0xC5) {
		put(generator, (draw_rxb(generator, mode) & 0x80) | rest);
	} else {
		put(generator, draw_rxb(generator, mode) | fields->map);
		put(generator, fields->w << 7 | rest);
	}
	put(generator, fields->opcode);
}

static void put_evex(struct generator *generator, const struct fields *fields, enum mode mode)
{
	const uint64_t random = draw(generator);
	const unsigned int mask = fields->mask ? 1 + (unsigned int)random % 7 : 0;
	const unsigned int v_extension = fields->unused_vvvv || random & 0x100;

	generator->size = 0;
	put(generator, 0x62);
	put(generator, draw_rxb(generator, mode) | (random >> 9 & 1) << 4 | fields->map);
	put(generator, fields->w << 7 | draw_vvvv(generator, fields) << 3 | 4 | fields->pp);
	put(generator, (fields->mask == 2) << 7 | fields->length << 5 | fields->broadcast << 4 | v_extension << 3 |
			       mask);
	put(generator, fields->opcode);
}

static void vector_opcode(struct generator *generator, unsigned int escape, const struct fields *fields, bool groups)
{
	const unsigned int modes = choose_modes(generator);
	unsigned int reg, mode;

	for (reg = 0; reg < (groups ? GROUPS : 1); reg++) {
		for (mode = 0; mode < MODES; mode++) {
			if (!(modes & 1U << mode))
				continue;
			if (escape == 0x62)
				put_evex(generator, fields, mode);
			else
				put_vex(generator, escape, fields, mode);
			put_modrm(generator, mode, groups ? reg : (unsigned int)draw(generator) & 7,
				  (unsigned int)draw(generator) & 7);
			finish(generator);
		}
	}
}

static void vex_map(struct generator *generator, unsigned int escape, unsigned int map)
{
	struct fields fields = { .map = map };
	unsigned int bits;

	for (fields.opcode = 0; fields.opcode < 256; fields.opcode++) {
		for (bits = 0; bits < 32; bits++) {
			fields.pp = bits & 3;
			fields.length = bits >> 2 & 1;
			fields.unused_vvvv = bits >> 3 & 1;
			fields.w = bits >> 4;
			if (fields.w == 0 || escape != 0xC5)
				vector_opcode(generator, escape, &fields, true);
		}
	}
}

/* Opcodes of which ModRM.reg is a part: shifts by immediates, prefetching gathers. */
static bool evex_groups(unsigned int map, unsigned int opcode)
{
	return (map == 1 && opcode >= 0x70 && opcode <= 0x73) || (map == 2 && (opcode == 0xC6 || opcode == 0xC7));
}

static void evex_map(struct generator *generator, unsigned int map)
{
	struct fields fields = { .map = map };
	unsigned int bits;

	for (fields.opcode = 0; fields.opcode < 256; fields.opcode++) {
		for (bits = 0; bits < 128; bits++) {
			fields.pp = bits & 3;
			fields.length = bits >> 2 & 3;
			fields.w = bits >> 4 & 1;
			fields.unused_vvvv = bits >> 5 & 1;
			fields.broadcast = bits >> 6;
			for (fields.mask = 0; fields.mask < 3; fields.mask++)
				vector_opcode(generator, 0x62, &fields, evex_groups(map, fields.opcode));
		}
	}
}

void generate(uint64_t seed, bool thorough, generator_fn *take, void *data)
{
	static const uint8_t evex_maps[] = { 1, 2, 3, 5, 6 };
	struct generator generator = { .seed = seed, .thorough = thorough, .take = take, .data = data };
	unsigned int i;

	legacy(&generator);
	three_d_now(&generator);
	vex_map(&generator, 0xC5, 1);
	for (i = 1; i <= 3; i++)
		vex_map(&generator, 0xC4, i);
	for (i = 8; i <= 10; i++)
		vex_map(&generator, 0x8F, i);
	for (i = 0; i < ARRAY_SIZE(evex_maps); i++)
		evex_map(&generator, evex_maps[i]);
}
