/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Instructions as they occur: the text of binaries is decoded linearly (data in text gives a few odd ones more), and of
 * every encoding (mnemonic, opcode, prefixes, addressing mode, vector length) some are kept, chosen by the seed.
 */
#include "differential.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIB "/usr/lib/x86_64-linux-gnu/"
#define TABLE_SIZE (1UL << 18)
#define KEPT_MAX 32
#define FORMS_MAX 32768

static const char *const paths[] = {
	LIB "libc.so.6", LIB "libm.so.6", LIB "libcrypto.so.3", LIB "libstdc++.so.6",
	"/usr/bin/python3.11", "/usr/bin/perl", LIB "libLLVM-14.so.1", "/usr/lib/gcc/x86_64-linux-gnu/12/cc1",
	LIB "libsqlite3.so.0", LIB "libgmp.so.10",
	LIB "libz.so.1", LIB "libx265.so.199", LIB "libaom.so.3", LIB "libdav1d.so.6", LIB "libSvtAv1Enc.so.1",
	LIB "libx264.so.164", LIB "libavcodec.so.59", LIB "libvpx.so.7", LIB "libz3.so.4", LIB "libLLVM-15.so.1",
	LIB "libgfortran.so.5", LIB "libgnat-12.so", LIB "libgnutls.so.30", LIB "libgcrypt.so.20",
	LIB "blas/libblas.so.3", LIB "lapack/liblapack.so.3", LIB "libopenblas.so.0", LIB "libfftw3.so.3",
	LIB "libpython3.11.so.1.0", LIB "libperl.so.5.36", "/usr/bin/openssl", "/usr/bin/gdb", "/usr/bin/git",
	"/lib64/libc.so.6", "/lib64/libm.so.6", "/lib64/libcrypto.so.3", "/lib64/libstdc++.so.6", "/usr/bin/python3",
	LIB "ld-linux-x86-64.so.2", LIB "libgcc_s.so.1", LIB "libbpf.so.1", LIB "libvorbis.so.0", LIB "libzstd.so.1",
};

#define M(name) ZYDIS_MNEMONIC_##name
static const struct {
	const char *reason;
	ZydisMnemonic mnemonics[12];
} skips[] = {
	{ "enters the kernel", { M(SYSCALL), M(SYSENTER), M(SYSEXIT), M(SYSRET), M(INT) } },
	{ "asks the hypervisor", { M(VMCALL), M(VMMCALL) } },
	{ "gives another result each time", { M(RDTSC), M(RDTSCP), M(RDRAND), M(RDSEED), M(RDPMC), M(RDPRU) } },
	{ "tells the processor's number", { M(RDPID), M(LSL) } },
	{ "depends on what the kernel did to the extended state",
	  { M(XGETBV), M(XSAVE), M(XSAVE64), M(XSAVEC), M(XSAVEC64), M(XSAVEOPT), M(XSAVEOPT64),
	    M(XSAVES), M(XSAVES64) } },
	{ "loads extended state from random memory", { M(XRSTOR), M(XRSTOR64), M(XRSTORS), M(XRSTORS64) } },
	{ "changes a segment the test needs",
	  { M(WRFSBASE), M(WRGSBASE), M(LSS), M(LFS), M(LGS), M(SWAPGS) } },
	{ "far transfer", { M(IRET), M(IRETD), M(IRETQ), M(UIRET) } },
	{ "changes the protection of memory", { M(WRPKRU) } },
	{ "waits", { M(MONITOR), M(MWAIT), M(MONITORX), M(MWAITX), M(UMONITOR), M(UMWAIT), M(TPAUSE) } },
	{ "writes where no operand says", { M(CLZERO), M(MOVDIR64B), M(ENQCMD), M(ENQCMDS) } },
	{ "sends interrupts", { M(CLUI), M(STUI), M(SENDUIPI) } },
};

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
	struct kept kept[KEPT_MAX];
};

static ZydisDecoder decoder;
static struct entry *table;
static size_t kept_limit;
static uint64_t choices;

static uint64_t add(uint64_t key, uint64_t value)
{
	return mix(key ^ (value + 0x9E3779B97F4A7C15));
}

/* ---- encodings --------------------------------------------------------------------------------------------------- */

static uint64_t encoding_key(const ZydisDecodedInstruction *zydis)
{
	uint64_t key = add(zydis->mnemonic, zydis->attributes), mode;

	key = add(key, (uint64_t)zydis->encoding << 32 | (uint64_t)zydis->opcode_map << 16 | zydis->opcode);
	key = add(key, (uint64_t)zydis->operand_width << 16 | zydis->address_width);
	if (zydis->attributes & ZYDIS_ATTRIB_HAS_MODRM) {
		mode = zydis->raw.modrm.mod;
		if (mode != 3 && zydis->raw.modrm.rm == 4)
			mode |= 8 | (zydis->raw.sib.base == 4) << 4 | (zydis->raw.sib.base == 5) << 5 |
				(zydis->raw.sib.index == 4) << 6;
		else if (mode == 0)
			mode |= (zydis->raw.modrm.rm == 5) << 7;
		key = add(key, mode);
	}
	key = add(key, (uint64_t)zydis->avx.vector_length << 32 | zydis->avx.mask.mode << 24 |
			       zydis->avx.broadcast.mode << 16 | zydis->avx.rounding.mode << 8 | zydis->avx.has_sae);
	return key | 1;
}

static void remember(const uint8_t *bytes, const ZydisDecodedInstruction *zydis)
{
	const uint64_t key = encoding_key(zydis);
	struct entry *entry = &table[key >> 46];
	size_t i, slot;

	while (entry->key != 0 && entry->key != key)
		entry = entry + 1 < table + TABLE_SIZE ? entry + 1 : table;
	entry->key = key;
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
		if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, &context, bytes + at, size - at, &zydis))) {
			zydis.length = 1;
			continue;
		}
		remember(bytes + at, &zydis);
		corpus->instructions++;
	}
}

static void read_file(struct corpus *corpus, const char *path, size_t limit)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	const Elf64_Ehdr *header;
	const Elf64_Phdr *segment;
	const uint8_t *file;
	struct stat info;
	size_t i, size, offset;

	if (fd < 0)
		return;
	file = fstat(fd, &info) == 0 && (size_t)info.st_size > sizeof(*header) ?
		       mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
	close(fd);
	if (file == MAP_FAILED)
		return;
	header = (const Elf64_Ehdr *)file;
	if (memcmp(header->e_ident, ELFMAG, SELFMAG) == 0 && header->e_machine == EM_X86_64) {
		corpus->files++;
		segment = (const Elf64_Phdr *)(file + header->e_phoff);
		for (i = 0; i < header->e_phnum; i++, segment++) {
			if (segment->p_type != PT_LOAD || !(segment->p_flags & PF_X))
				continue;
			size = MIN((size_t)segment->p_filesz, limit);
			/* a part of it that the seed chooses */
			offset = segment->p_filesz > size ? random_next(&choices) % (segment->p_filesz - size) : 0;
			read_text(corpus, file + segment->p_offset + offset, size);
		}
	}
	munmap((void *)(uintptr_t)file, (size_t)info.st_size);
}

/* ---- patterns ---------------------------------------------------------------------------------------------------- */

void corpus_skip(struct corpus *corpus, const char *reason)
{
	size_t i;

	for (i = 0; i < corpus->skip_count && strcmp(corpus->skips[i].reason, reason) != 0; i++)
		;
	if (i == ARRAY_SIZE(corpus->skips))
		return;
	if (i == corpus->skip_count)
		corpus->skips[corpus->skip_count++].reason = reason;
	corpus->skips[i].patterns++;
}

static const char *skip_reason(const ZydisDecodedInstruction *zydis)
{
	size_t i, j;

	for (i = 0; i < ARRAY_SIZE(skips); i++)
		for (j = 0; j < ARRAY_SIZE(skips[i].mnemonics) && skips[i].mnemonics[j] != 0; j++)
			if (skips[i].mnemonics[j] == zydis->mnemonic)
				return skips[i].reason;
	if (zydis->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
		return "far transfer";
	if ((zydis->mnemonic == M(MOV) && zydis->opcode == 0x8E && zydis->opcode_map == ZYDIS_OPCODE_MAP_DEFAULT) ||
	    (zydis->mnemonic == M(POP) && zydis->opcode_map == ZYDIS_OPCODE_MAP_0F))
		return "changes a segment the test needs";
	return NULL;
}

static uint8_t register_number(ZydisRegister reg)
{
	const ZydisRegister whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, reg);

	if (ZydisRegisterGetClass(whole) != ZYDIS_REGCLASS_GPR64)
		return NONE;
	return (uint8_t)ZydisRegisterGetId(whole);
}

static uint32_t find_form(struct corpus *corpus, const ZydisDecodedInstruction *zydis,
			  const ZydisDecodedOperand *operands)
{
	uint64_t key = add(zydis->mnemonic, zydis->attributes & PREFIXES);
	char text[sizeof(corpus->forms->text)];
	size_t i, at;

	at = (size_t)snprintf(text, sizeof(text), "%s%s", zydis->attributes & ZYDIS_ATTRIB_HAS_LOCK ? "lock " : "",
			      ZydisMnemonicGetString(zydis->mnemonic));
	for (i = 0; i < zydis->operand_count; i++) {
		if (operands[i].visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN)
			continue;
		key = add(key, (uint64_t)operands[i].type << 32 | operands[i].size);
		if (operands[i].type == ZYDIS_OPERAND_TYPE_REGISTER)
			key = add(key, ZydisRegisterGetClass(operands[i].reg.value));
		if (at < sizeof(text))
			at += (size_t)snprintf(text + at, sizeof(text) - at, " %c%u",
					       "-rmpi"[MIN((unsigned int)operands[i].type, 4U)], operands[i].size);
	}
	for (i = 0; i < corpus->form_count; i++)
		if (corpus->forms[i].key == key)
			return (uint32_t)i;
	if (corpus->form_count < FORMS_MAX) {
		corpus->forms[i].key = key;
		memcpy(corpus->forms[i].text, text, sizeof(text));
		return (uint32_t)corpus->form_count++;
	}
	return 0;
}

static void take_operand(struct pattern *pattern, const ZydisDecodedInstruction *zydis,
			 const ZydisDecodedOperand *operand)
{
	struct operand *own = &pattern->operands[pattern->operand_count];

	if (operand->mem.type == ZYDIS_MEMOP_TYPE_AGEN)
		return;
	if (operand->mem.type == ZYDIS_MEMOP_TYPE_VSIB)
		pattern->flags |= P_VSIB;
	if (operand->mem.segment == ZYDIS_REGISTER_FS)
		pattern->flags |= P_FS | P_LOW;
	if (operand->mem.segment == ZYDIS_REGISTER_GS)
		pattern->flags |= P_GS | P_LOW;
	if (pattern->operand_count == ARRAY_SIZE(pattern->operands))
		return;
	own->base = register_number(operand->mem.base);
	own->index = register_number(operand->mem.index);
	own->scale = operand->mem.scale;
	own->disp = operand->mem.disp.has_displacement ? operand->mem.disp.value : 0;
	if ((own->base == NONE && operand->mem.base != ZYDIS_REGISTER_RIP) || zydis->address_width != 64)
		pattern->flags |= P_LOW;
	/* the stack pointer as such stays where it is */
	if (operand->visibility != ZYDIS_OPERAND_VISIBILITY_HIDDEN || own->base != RSP)
		pattern->operand_count++;
}

static void take(struct corpus *corpus, const struct kept *kept)
{
	struct pattern *pattern = &corpus->patterns[corpus->pattern_count];
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction zydis;
	ZydisDecoderContext context;
	const char *reason;
	size_t i;

	memset(pattern, 0, sizeof(*pattern));
	memcpy(pattern->bytes, kept->bytes, kept->size);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, &context, kept->bytes, kept->size, &zydis)) ||
	    !ZYAN_SUCCESS(ZydisDecoderDecodeOperands(&decoder, &context, &zydis, operands, zydis.operand_count)))
		return;
	reason = skip_reason(&zydis);
	if (!arch_decode(kept->bytes, kept->size, 0x10000000, &pattern->insn))
		reason = "arch_decode() says it is invalid";
	else if (pattern->insn.flags & ARCH_F_REFUSED && !reason)
		reason = pattern->insn.why;
	if (reason) {
		corpus_skip(corpus, reason);
		return;
	}
	pattern->bit = NONE;
	for (i = 0; i < zydis.operand_count; i++) {
		if (operands[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			take_operand(pattern, &zydis, &operands[i]);
		if (operands[i].type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		switch (ZydisRegisterGetClass(operands[i].reg.value)) {
		case ZYDIS_REGCLASS_GPR8: case ZYDIS_REGCLASS_GPR16:
		case ZYDIS_REGCLASS_GPR32: case ZYDIS_REGCLASS_GPR64:
		case ZYDIS_REGCLASS_FLAGS: case ZYDIS_REGCLASS_IP: case ZYDIS_REGCLASS_SEGMENT:
			break;
		default:
			pattern->flags |= P_VECTOR;
		}
	}
	if (zydis.attributes & (ZYDIS_ATTRIB_FPU_STATE_CR | ZYDIS_ATTRIB_FPU_STATE_CW | ZYDIS_ATTRIB_XMM_STATE_CR |
				ZYDIS_ATTRIB_XMM_STATE_CW) ||
	    zydis.meta.isa_ext == ZYDIS_ISA_EXT_X87 || zydis.mnemonic == M(VZEROALL) || zydis.mnemonic == M(VZEROUPPER))
		pattern->flags |= P_VECTOR;
	if (zydis.attributes & ZYDIS_ATTRIB_HAS_LOCK || zydis.mnemonic == M(XCHG))
		pattern->flags |= P_ALIGNED;
	if (zydis.meta.category == ZYDIS_CATEGORY_STRINGOP)
		pattern->flags |= P_STRING;
	if (zydis.mnemonic == M(DIV) || zydis.mnemonic == M(IDIV))
		pattern->flags |= P_DIVIDE;
	if (zydis.mnemonic == M(CPUID))
		pattern->flags |= P_SLOW;
	if (zydis.mnemonic == M(LEAVE) || zydis.mnemonic == M(ENTER))
		pattern->flags |= P_FRAME;
	if (zydis.meta.category == ZYDIS_CATEGORY_BITBYTE && pattern->operand_count > 0 && zydis.operand_count > 1 &&
	    operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER) {
		pattern->flags |= P_BIT;
		pattern->bit = register_number(operands[1].reg.value);
	}
	if (pattern->insn.kind == ARCH_JMP_IND || pattern->insn.kind == ARCH_CALL_IND || pattern->insn.kind == ARCH_RET)
		pattern->flags |= P_POINTERS;
	switch ((enum arch_kind)pattern->insn.kind) {
	case ARCH_JMP: case ARCH_JCC: case ARCH_LOOP: case ARCH_JMP_IND: case ARCH_RET:
		pattern->flags |= corpus->pattern_count % 2 ? P_AROUND : 0;
		break;
	default:
		break;
	}
	if (random_next(&choices) % 2 != 0)
		pattern->flags |= P_LOW;
	pattern->encoding = (uint32_t)corpus->encoding_count;
	pattern->form = find_form(corpus, &zydis, operands);
	corpus->pattern_count++;
}

void corpus_describe(const struct pattern *pattern, char *text, size_t size)
{
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
	ZydisDecodedInstruction zydis;
	ZydisFormatter formatter;

	ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, pattern->bytes, pattern->insn.length, &zydis, operands)) ||
	    !ZYAN_SUCCESS(ZydisFormatterFormatInstruction(&formatter, &zydis, operands, zydis.operand_count_visible,
							   text, size, pattern->native, NULL)))
		snprintf(text, size, "?");
}

void corpus_read(struct corpus *corpus, uint64_t seed, size_t bytes, size_t per_encoding)
{
	size_t i, j, before;

	choices = seed;
	kept_limit = MIN(per_encoding, (size_t)KEPT_MAX);
	ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	table = calloc(TABLE_SIZE, sizeof(*table));
	corpus->forms = calloc(FORMS_MAX, sizeof(*corpus->forms));
	for (i = 0; table && i < ARRAY_SIZE(paths); i++)
		read_file(corpus, paths[i], bytes);
	for (i = before = 0; table && i < TABLE_SIZE; i++)
		before += table[i].count;
	corpus->patterns = calloc(before + 1, sizeof(*corpus->patterns));
	if (!table || !corpus->patterns || !corpus->forms) {
		perror("calloc");
		exit(1);
	}
	for (i = 0; i < TABLE_SIZE; i++) {
		before = corpus->pattern_count;
		for (j = 0; j < table[i].count; j++)
			take(corpus, &table[i].kept[j]);
		corpus->encoding_count += corpus->pattern_count != before;
	}
	free(table);
}
