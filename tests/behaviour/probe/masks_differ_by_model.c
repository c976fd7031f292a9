/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Register masks mean the same with every model at every kind of place: function entry, middle, call, jump, return.
 * What a mask offers is what the program has there, and what the procedure writes there takes effect; all else stays,
 * although both calls destroy whatever the calling convention lets them destroy, and whatever extended state the
 * clobber mask names where it names some. The program has something else in each register, x87 values among them
 * wherever the calling convention allows that. All of it is the same beside another patch at the same place.
 *
 * Three states are compared: at the site (BEFORE); behind the instruction, where it leads (BEHIND); and where the
 * callee has returned, with all registers but rsp anew (RETURNED).
 */
#include "targets.h"

enum point { BEFORE, BEHIND, RETURNED };
enum component { X87, SSE, AVX, OPMASK = 5, ZMM_HI256, HI16_ZMM };
#define ALL_COMPONENTS 0xe7u
#define ALL_REGISTERS (((uint64_t)1 << PATCH_ARCH_GREGS_COUNT) - 1)

struct machine_image {
	uint64_t registers[PATCH_ARCH_GREGS_COUNT];
	uint64_t flags;
	uint64_t stack_pointer;
	uint64_t pad[7];
	uint8_t extended[4096]; /* XSAVE, standard format */
} __attribute__((aligned(64)));

/* What the code below loads, and what it leaves of each execution. */
struct machine_image masks_before __attribute__((used)), masks_results __attribute__((used));
struct machine_image masks_behind __attribute__((used)), masks_returned __attribute__((used));
uint64_t masks_function __attribute__((used)), masks_reached __attribute__((used));
uint64_t masks_word __attribute__((used)) = 0x5a5a5a5a5a5a5a5a;
extern const uint8_t masks_land[], masks_other[];

#define MOVE_ALL(M, image) \
	M(rbx, 1, image) M(rcx, 2, image) M(rdx, 3, image) M(rsi, 4, image) M(rdi, 5, image) M(rbp, 6, image) \
	M(r8, 7, image) M(r9, 8, image) M(r10, 9, image) M(r11, 10, image) M(r12, 11, image) M(r13, 12, image) \
	M(r14, 13, image) M(r15, 14, image) M(rax, 0, image)
#define LOAD_ONE(register, index, image) "	mov " #image " + 8 * " #index "(%rip), %" #register "\n"
#define STORE_ONE(register, index, image) "	mov %" #register ", " #image " + 8 * " #index "(%rip)\n"
#define LOAD(image) \
	"	mov $0xe7, %eax\n	xor %edx, %edx\n	xrstor64 " #image " + 192(%rip)\n" \
	"	push " #image " + 120(%rip)\n	popfq\n" MOVE_ALL(LOAD_ONE, image)
#define STORE(image) \
	MOVE_ALL(STORE_ONE, image) "	mov %rsp, " #image " + 128(%rip)\n" \
	"	pushfq\n	pop " #image " + 120(%rip)\n" \
	"	mov $0xe7, %eax\n	xor %edx, %edx\n	xsave64 " #image " + 192(%rip)\n"

void masks_call(void);
__asm__(".text\n.p2align 6\n.type masks_call, @function\nmasks_call:\n.cfi_startproc\n"
	"	push %rbx\n	push %rbp\n	push %r12\n	push %r13\n	push %r14\n	push %r15\n"
	"	sub $24, %rsp\n.cfi_adjust_cfa_offset 72\n	stmxcsr 8(%rsp)\n	fnstcw (%rsp)\n"
	LOAD(masks_before)
	"	call *masks_function(%rip)\n"
	STORE(masks_returned)
	"	fninit\n	fldcw (%rsp)\n	ldmxcsr 8(%rsp)\n	vzeroupper\n	cld\n"
	"	add $24, %rsp\n.cfi_adjust_cfa_offset -72\n"
	"	pop %r15\n	pop %r14\n	pop %r13\n	pop %r12\n	pop %rbp\n	pop %rbx\n	ret\n"
	".cfi_endproc\n.size masks_call, . - masks_call\n"
	".p2align 6\n.type masks_land, @function\nmasks_land:\n.cfi_startproc\n"
	"	movl $1, masks_reached(%rip)\n	jmp 1f\n"
	".type masks_other, @function\nmasks_other:\n	movl $2, masks_reached(%rip)\n"
	"1:\n" STORE(masks_behind) LOAD(masks_results) "	ret\n"
	".cfi_endproc\n.size masks_land, . - masks_land\n"
	".section .data.rel.ro, \"aw\"\n.p2align 3\nmasks_pointer: .quad masks_land\n.text\n");

/* `setup` changes neither flags nor registers. */
#define FORM(name, setup, instruction, behind) \
	__asm__(".text\n.p2align 6\n.type m_" #name ", @function\nm_" #name ":\n.cfi_startproc\n" setup \
		"m_" #name "_site: " instruction "\n" behind "\n" \
		".cfi_endproc\n.size m_" #name ", . - m_" #name "\n.p2align 6, 0xcc\n"); \
	void m_##name(void); \
	extern const uint8_t m_##name##_site[];
#define FRAME "	lea -8(%rsp), %rsp\n.cfi_adjust_cfa_offset 8\n"
#define LEAVE "	lea 8(%rsp), %rsp\n.cfi_adjust_cfa_offset -8\n	ret"
#define NOP5 ".byte 0x0f, 0x1f, 0x44, 0, 0"
#define ON "	jmp masks_land"

FORM(entry, "", NOP5, ON)
FORM(entry_short, "", "nop", "	xchg %ax, %ax\n	nop\n	nop\n" ON)
FORM(entry_endbr, "", "endbr64", "	" NOP5 "\n" ON)
FORM(middle, "	nop\n", NOP5, ON)
FORM(middle_short, "	nop\n", "nop", "	xchg %ax, %ax\n	nop\n	nop\n" ON)
FORM(load, "	nop\n", "mov masks_word(%rip), %rcx", ON)
FORM(call_direct, FRAME, "call masks_land", LEAVE)
FORM(call_memory, FRAME, "call *masks_pointer(%rip)", LEAVE)
FORM(call_r11, FRAME, "call *%r11", LEAVE)
FORM(jump_tail, "	nop\n", "jmp masks_land", "")
FORM(jump_short, "	nop\n", "jmp 1f", "	ud2\n1:	nop\n" ON)
FORM(jump_memory, "	nop\n", "jmp *masks_pointer(%rip)", "")
FORM(jump_r11, "	nop\n", "jmp *%r11", "")
FORM(jump_taken, "	nop\n", "jc 1f", "	ud2\n1:	nop\n" ON)
FORM(jump_not_taken, "	nop\n", "jnc 1f", ON "\n1:	ud2")
FORM(return, "	push masks_pointer(%rip)\n", "ret", "")

#define NO_REGISTER (-1)

static const struct form {
	const char *name;
	void (*function)(void);
	const uint8_t *site;
	bool entry; /* x87 registers are empty */
	bool call;
	int operand; /* the register that says where the instruction leads */
	int result;  /* the register that it loads with masks_word */
	int pushes;  /* what it adds to the stack pointer is taken from this */
} forms[] = {
#define F(name, entry, call, operand, result, pushes) \
	{ #name, m_##name, m_##name##_site, entry, call, operand, result, pushes }
	F(entry, true, false, NO_REGISTER, NO_REGISTER, 0),
	F(entry_short, true, false, NO_REGISTER, NO_REGISTER, 0),
	F(entry_endbr, true, false, NO_REGISTER, NO_REGISTER, 0),
	F(middle, false, false, NO_REGISTER, NO_REGISTER, 0),
	F(middle_short, false, false, NO_REGISTER, NO_REGISTER, 0),
	F(load, false, false, NO_REGISTER, PATCH_X86_64_RCX, 0),
	F(call_direct, false, true, NO_REGISTER, NO_REGISTER, 8),
	F(call_memory, false, true, NO_REGISTER, NO_REGISTER, 8),
	F(call_r11, false, true, PATCH_X86_64_R11, NO_REGISTER, 8),
	F(jump_tail, false, false, NO_REGISTER, NO_REGISTER, 0),
	F(jump_short, false, false, NO_REGISTER, NO_REGISTER, 0),
	F(jump_memory, false, false, NO_REGISTER, NO_REGISTER, 0),
	F(jump_r11, false, false, PATCH_X86_64_R11, NO_REGISTER, 0),
	F(jump_taken, false, false, NO_REGISTER, NO_REGISTER, 0),
	F(jump_not_taken, false, false, NO_REGISTER, NO_REGISTER, 0),
	F(return, false, false, NO_REGISTER, NO_REGISTER, -8),
};
#define FORMS (sizeof(forms) / sizeof(*forms))

/* Where the second call of a model is: at a state, or nowhere. */
static const struct model {
	const char *name;
	int type;
	enum point second; /* BEFORE: there is none */
} models[] = {
	{ "PROBE", PATCH_EXEC_MODEL_PROBE, BEFORE },
	{ "PROBE_AROUND", PATCH_EXEC_MODEL_PROBE_AROUND, BEHIND },
	{ "PROBE_CALL", PATCH_EXEC_MODEL_PROBE_CALL, RETURNED },
};
#define MODELS (sizeof(models) / sizeof(*models))

static const struct form *form;
static const struct model *model;
static unsigned int have; /* components of this processor */

/* ---- the procedure ------------------------------------------------------------------------------------------- */

static struct seen {
	unsigned int calls;
	struct patch_exec_context context;
	uint64_t components; /* of the image; 0: there was none */
	uint8_t extended[4096];
} seen[2];
static unsigned int may_destroy, others_offered;
static uint64_t may_scribble;

/* Offset and size of each component in the standard format; of the second part of X87 and SSE, too. */
static struct part {
	unsigned int at, size;
} parts[8];

static uint64_t written(unsigned int post, int r)
{
	if (r == form->operand && !post)
		return (uint64_t)masks_other;
	return 0x7700000000000000 + (uint64_t)post * 0x1000000 + (uint64_t)r;
}

/* What the procedure changes in a component. Values in x87 registers are changed where there are some. */
static GP_ONLY void change(uint8_t *image, unsigned int component, unsigned int post, bool x87_empty)
{
	if (component == X87) {
		if (!x87_empty)
			image[32] ^= (uint8_t)(0x11 << post);
		return;
	}
	for (unsigned int i = 0; i < parts[component].size; i += 8)
		((volatile uint8_t *)image)[parts[component].at + i] ^= (uint8_t)(0x21 << post);
}

static bool x87_is_empty(enum point point)
{
	return form->entry && point != RETURNED;
}

static GP_ONLY void inner(struct patch_exec_context *context, uint8_t post)
{
	struct seen *s = &seen[post];
	uint8_t *image = context->extended_states;
	struct patch_x86_64_legacy *legacy;

	s->calls++;
	/* From now on the image holds what is in its initial state, too. */
	if (image != NULL && patch_x86_sse_state(image, &legacy) != PATCH_OK)
		return;
	for (size_t i = 0; i < sizeof(*context) / 8; i++)
		((volatile uint64_t *)&s->context)[i] = ((const uint64_t *)context)[i];
	s->components = image == NULL ? 0 : *(const uint64_t *)(image + 512) & ALL_COMPONENTS;
	for (size_t i = 0; image != NULL && i < parts[0].size / 8; i++)
		((volatile uint64_t *)s->extended)[i] = ((const uint64_t *)image)[i];
	for (int r = 0; r < PATCH_ARCH_GREGS_COUNT; r++)
		context->general_purpose_registers[r] = written(post, r);
	context->status_register ^= 0x8d5;
	for (unsigned int c = 0; c < 8; c++)
		if (s->components >> c & 1)
			change(image, c, post, x87_is_empty(post ? model->second : BEFORE));
}

static GP_ONLY void destroy_components(unsigned int which)
{
	static uint32_t mxcsr;

	if (which >> X87 & 1)
		__asm__ volatile("fld1; fld1; fld1; fld1; fldpi; fldpi; fldpi; fldpi\n"
				 "fstp %st; fstp %st; fstp %st; fstp %st; fstp %st; fstp %st; fstp %st; fstp %st");
	if (which >> SSE & 1)
		__asm__ volatile(".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n"
				 "pcmpeqd %%xmm\\n, %%xmm\\n\n"
				 ".endr\n"
				 "stmxcsr %0; orl $0x3f, %0; ldmxcsr %0"
				 : "+m"(mxcsr));
	/* Bits 255:128 alone, where there are bits above them. */
	if (which >> AVX & 1 && have >> ZMM_HI256 & 1)
		__asm__ volatile(".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n"
				 "vinserti32x4 $1, %xmm\\n, %zmm\\n, %zmm\\n\n"
				 ".endr");
	else if (which >> AVX & 1)
		__asm__ volatile(".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n"
				 "vinsertf128 $1, %xmm\\n, %ymm\\n, %ymm\\n\n"
				 ".endr");
	if (which >> OPMASK & 1)
		__asm__ volatile(".irp n, 0, 1, 2, 3, 4, 5, 6, 7\n"
				 "kxnorw %k\\n, %k\\n, %k\\n\n"
				 ".endr");
	if (which >> ZMM_HI256 & 1)
		__asm__ volatile(".irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15\n"
				 "vinserti64x4 $1, %ymm\\n, %zmm\\n, %zmm\\n\n"
				 ".endr");
	if (which >> HI16_ZMM & 1)
		__asm__ volatile(".irp n, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31\n"
				 "vpternlogd $0xff, %zmm\\n, %zmm\\n, %zmm\\n\n"
				 ".endr");
}

/* Destroys general purpose registers, stack and flags, and of extended state the components that it may. */
static GP_ONLY void procedure(struct patch_exec_context *context, uint8_t post)
{
	destroy_general(context, post);
	destroy_components(may_destroy);
}

/* Of another patch at the place, with masks that are all 0: nothing that it does has an effect. */
static GP_ONLY void other_procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	others_offered += context->extended_states != NULL;
	for (int r = 0; r < PATCH_ARCH_GREGS_COUNT; r++)
		if (may_scribble >> r & 1)
			context->general_purpose_registers[r] = 0x6600000000000000;
	destroy_components(have);
}

/* ---- states -------------------------------------------------------------------------------------------------- */

static void fill(struct machine_image *image, unsigned int seed, bool x87_empty)
{
	struct patch_x86_64_legacy *legacy = (struct patch_x86_64_legacy *)image->extended;

	memset(image, 0, sizeof(*image));
	for (int r = 0; r < PATCH_ARCH_GREGS_COUNT; r++)
		image->registers[r] = 0x0101010101010101 * (uint64_t)(seed + (unsigned int)r);
	image->flags = seed & 1 ? 0x2 | 0x8d5 : 0x2 | 0x415; /* CF is set in both: jump_taken */
	for (unsigned int c = SSE; c < 8; c++)
		for (unsigned int i = 0; i < parts[c].size && have >> c & 1; i++)
			image->extended[parts[c].at + i] = (uint8_t)(i * 7 + seed + c);
	legacy->fcw = 0x037f;
	legacy->mxcsr = 0x1f80 | (seed & 1 ? 0x6000 : 0x2000);
	if (!x87_empty) {
		legacy->ftw = 0xc0;
		legacy->fsw = 6 << 11;
		for (unsigned int s = 0; s < 2; s++) {
			long double value = 1.5L + seed + s;

			memcpy(legacy->st0[s], &value, 10);
		}
	}
	*(uint64_t *)(image->extended + 512) = have;
}

static bool x87_same(const struct patch_x86_64_legacy *a, const struct patch_x86_64_legacy *b)
{
	/* Exception flags and condition codes stay out of it where there are no values: see patch_masks(7). */
	uint16_t status = b->ftw == 0 ? 0x3800 : 0xffff;

	if (a->fcw != b->fcw || a->ftw != b->ftw || ((a->fsw ^ b->fsw) & status) != 0)
		return false;
	return b->ftw == 0 || (!memcmp(a->st0[0], b->st0[0], 10) && !memcmp(a->st0[1], b->st0[1], 10));
}

static void compare_extended(const uint8_t *image, const uint8_t *wanted, uint64_t components, const char *where)
{
	const struct patch_x86_64_legacy *legacy = (const void *)image, *other = (const void *)wanted;

	if (components >> X87 & 1 && !x87_same(legacy, other))
		FAIL("%s: x87: fcw %#x, fsw %#x, ftw %#x, wanted %#x, %#x, %#x", where, legacy->fcw, legacy->fsw,
		     legacy->ftw, other->fcw, other->fsw, other->ftw);
	if (components >> SSE & 1 && legacy->mxcsr != other->mxcsr)
		FAIL("%s: MXCSR is %#x, wanted %#x", where, legacy->mxcsr, other->mxcsr);
	for (unsigned int c = SSE; c < 8; c++)
		if (components >> c & 1 && memcmp(image + parts[c].at, wanted + parts[c].at, parts[c].size))
			FAIL("%s: component %u is wrong", where, c);
}

static void compare_registers(const uint64_t *registers, const uint64_t *wanted, uint64_t which, const char *where)
{
	for (int r = 0; r < PATCH_ARCH_GREGS_COUNT; r++)
		if (which >> r & 1 && registers[r] != wanted[r])
			FAIL("%s: %s is %#llx, wanted %#llx", where, machine_register_name[r],
			     (unsigned long long)registers[r], (unsigned long long)wanted[r]);
}

static void compare_state(const struct machine_image *image, const struct machine_image *wanted, const char *where)
{
	compare_registers(image->registers, wanted->registers, ALL_REGISTERS, where);
	compare_extended(image->extended, wanted->extended, have, where);
	if ((image->flags & MACHINE_FLAGS) != (wanted->flags & MACHINE_FLAGS))
		FAIL("%s: flags are %#llx, wanted %#llx", where, (unsigned long long)image->flags,
		     (unsigned long long)wanted->flags);
}

/* ---- what masks mean ----------------------------------------------------------------------------------------- */

struct masks {
	uint64_t read, write, clobber;
};

#define STATE_BITS (~(ALL_REGISTERS | PATCH_REGS_NO_STATE))

/* Components that the image must hold. */
static uint64_t offered_components(uint64_t clobber)
{
	uint64_t named = clobber & STATE_BITS;

	if (named & ~PATCH_REGS_VECTOR)
		return have;
	return named >> PATCH_REGS_STATE_SHIFT & have;
}

static unsigned int destroyed_components(uint64_t clobber)
{
	if (clobber & STATE_BITS)
		return (unsigned int)offered_components(clobber);
	return clobber & PATCH_REGS_NO_STATE ? 0 : have;
}

/* A call saw `state`, and `state` becomes what its writes make of it. */
static void check_call(unsigned int post, const struct masks *masks, struct machine_image *state, enum point point)
{
	uint64_t offered = offered_components(masks->clobber);
	const struct seen *s = &seen[post];
	const char *where = post ? "the second call sees" : "the first call sees";

	if (s->calls != 1) {
		FAIL("%s: %u times", where, s->calls);
		return;
	}
	compare_registers(s->context.general_purpose_registers, state->registers,
			  masks->read | masks->write | masks->clobber, where);
	CHECK_EQ(s->context.status_register & MACHINE_FLAGS, state->flags & MACHINE_FLAGS);
	CHECK_EQ(s->context.stack_pointer, state->stack_pointer);
	CHECK_EQ(s->components & offered, offered);
	CHECK_EQ(s->context.extended_states != NULL, (masks->clobber & STATE_BITS) != 0);
	compare_extended(s->extended, state->extended, s->components & have, where);
	for (int r = 0; r < PATCH_ARCH_GREGS_COUNT; r++)
		if ((masks->write | masks->clobber) >> r & 1)
			state->registers[r] = written(post, r);
	for (unsigned int c = 0; c < 8; c++)
		if (s->components >> c & 1)
			change(state->extended, c, post, x87_is_empty(point));
}

static void execute(void)
{
	memset(seen, 0, sizeof(seen));
	memset(&masks_behind, 0, sizeof(masks_behind));
	memset(&masks_returned, 0, sizeof(masks_returned));
	masks_function = (uint64_t)form->function;
	masks_reached = 0;
	masks_call();
}

/* Both states behind the site are what the masks make of those before it. */
static void check(const struct masks *masks)
{
	struct machine_image state = masks_before;
	uint64_t leads_to = (uint64_t)masks_land;

	state.stack_pointer = masks_behind.stack_pointer + (uint64_t)form->pushes;
	if (masks != NULL)
		check_call(0, masks, &state, BEFORE);
	if (form->operand != NO_REGISTER)
		leads_to = state.registers[form->operand];
	CHECK_EQ(masks_reached, leads_to == (uint64_t)masks_land ? 1 : 2);
	if (form->result != NO_REGISTER)
		state.registers[form->result] = masks_word;
	state.stack_pointer = masks_behind.stack_pointer;
	if (masks != NULL && model->second == BEHIND)
		check_call(1, masks, &state, BEHIND);
	compare_state(&masks_behind, &state, "behind the instruction");

	state = masks_results;
	state.stack_pointer = masks_behind.stack_pointer + 8;
	if (masks != NULL && model->second == RETURNED)
		check_call(1, masks, &state, RETURNED);
	compare_state(&masks_returned, &state, "where the callee has returned");
	if (masks == NULL || model->second == BEFORE)
		CHECK_EQ(seen[1].calls, 0);
}

static patch_t other;

/* Another patch of the same model, at the same place, called before the patches under test. */
static void make_other(int policy)
{
	struct patch_location location = location_at((uintptr_t)form->site);
	struct patch_exec_model exec_model = model_of(model->type, other_procedure, NULL);
	patch_attr attr = attr_of(policy, PATCH_ENABLED);

	exec_model.probe.read_registers = 0;
	exec_model.probe.clobber_registers = 0;
	REQUIRE_OK(patch_make(&location, &exec_model, &attr, &other, NULL));
}

static void try_masks(int policy, const struct masks *masks)
{
	struct patch_location location = location_at((uintptr_t)form->site);
	struct patch_exec_model exec_model = model_of(model->type, procedure, NULL);
	patch_attr attr = attr_of(policy, PATCH_ENABLED);
	patch_t patch;

	CONTEXT("%s, %s, %s, read %#llx, write %#llx, clobber %#llx%s", form->name, model->name, policy_name(policy),
		(unsigned long long)masks->read, (unsigned long long)masks->write, (unsigned long long)masks->clobber,
		other != NULL ? ", beside another" : "");
	exec_model.probe.read_registers = masks->read;
	exec_model.probe.write_registers = masks->write;
	exec_model.probe.clobber_registers = masks->clobber;
	may_destroy = destroyed_components(masks->clobber);
	others_offered = 0;
	/* A register that is only read has one slot in the context for all patches at the place. */
	may_scribble = ~masks->read | masks->write | masks->clobber;
	REQUIRE_OK(patch_make(&location, &exec_model, &attr, &patch, NULL));
	CHECK_OK(patch_commit());
	execute();
	check(masks);
	CHECK_EQ(others_offered, 0);
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
}

static void try_model(int policy)
{
	static const uint64_t states[] = {
		0, PATCH_REGS_NO_STATE, PATCH_REGS_SSE, PATCH_REGS_AVX, PATCH_REGS_VECTOR, PATCH_REGS_STATE(AVX),
		PATCH_REGS_STATE(OPMASK), PATCH_REGS_STATE(ZMM_HI256), PATCH_REGS_STATE(HI16_ZMM),
		PATCH_REGS_SSE | PATCH_REGS_STATE(OPMASK), PATCH_REGS_STATE(X87),
		PATCH_REGS_STATE(X87) | PATCH_REGS_SSE,
		(uint64_t)1 << PATCH_ARCH_GREGS_COUNT, (uint64_t)1 << 63, PATCH_REGS_ALL & ~ALL_REGISTERS,
		PATCH_REGS_NO_STATE | PATCH_REGS_SSE, PATCH_REGS_NO_STATE | PATCH_REGS_STATE(X87),
	};
	static const struct masks registers[] = {
		{ 0, 0, 0 }, { 0, 0, ALL_REGISTERS }, { 0x5555, 0x0f0f, 0x1111 },
		{ ALL_REGISTERS, 0, 0 }, { 0, ALL_REGISTERS, 0 }, { ALL_REGISTERS, ALL_REGISTERS, ALL_REGISTERS },
	};

	for (size_t s = 0; s < sizeof(states) / sizeof(*states); s++)
		for (size_t r = 0; r < sizeof(registers) / sizeof(*registers); r++) {
			struct masks masks = registers[r];

			masks.clobber |= states[s];
			try_masks(policy, &masks);
		}
	for (int r = 0; r < PATCH_ARCH_GREGS_COUNT; r++) {
		uint64_t bit = (uint64_t)1 << r;

		try_masks(policy, &(struct masks){ bit, 0, PATCH_REGS_NO_STATE });
		try_masks(policy, &(struct masks){ 0, bit, PATCH_REGS_NO_STATE });
		try_masks(policy, &(struct masks){ 0, 0, bit });
	}
}

/* COUNT has no masks, and changes nothing. */
static void try_count(int policy, uint32_t kind, uint32_t flags)
{
	static uint64_t plain[2];
	static __thread uint64_t of_thread[2] __attribute__((tls_model("initial-exec")));
	uint64_t *counter = kind == PATCH_COUNT_THREAD ? of_thread : plain;
	struct patch_location location = location_at((uintptr_t)form->site);
	struct patch_exec_model exec_model = { .type = PATCH_EXEC_MODEL_COUNT };
	patch_attr attr = attr_of(policy, PATCH_ENABLED);
	patch_t patch;

	CONTEXT("%s, COUNT, %s, kind %u, flags %u", form->name, policy_name(policy), kind, flags);
	exec_model.count.counter = counter;
	exec_model.count.kind = kind;
	exec_model.count.flags = flags;
	counter[0] = counter[1] = 0;
	REQUIRE_OK(patch_make(&location, &exec_model, &attr, &patch, NULL));
	CHECK_OK(patch_commit());
	execute();
	check(NULL);
	CHECK_EQ(counter[0], 1);
	CHECK_EQ(counter[1] != 0, flags == PATCH_COUNT_TSC);
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
}

static void try_form(void *unused)
{
	static const int policies[] = { PATCH_TRAP_POLICY_ALLOW, PATCH_TRAP_POLICY_FORCE };

	(void)unused;
	fill(&masks_before, 1, form->entry);
	fill(&masks_results, 100, false);
	if (form->operand != NO_REGISTER)
		masks_before.registers[form->operand] = (uint64_t)masks_land;
	destroy_inner = inner;
	REQUIRE_OK(patch_init(NULL, 0));
	CONTEXT("%s, not patched", form->name);
	model = models;
	execute();
	check(NULL);
	for (size_t p = 0; p < 2; p++) {
		int policy = policies[p];

		for (model = models; model < models + MODELS; model++)
			if (model->type != PATCH_EXEC_MODEL_PROBE_CALL || form->call) {
				try_model(policy);
				make_other(policy);
				try_model(policy);
				CHECK_OK(patch_unmake(other));
				other = NULL;
			}
		model = models;
		for (uint32_t kind = PATCH_COUNT_PLAIN; kind <= PATCH_COUNT_THREAD; kind++) {
			try_count(policy, kind, 0);
			try_count(policy, kind, PATCH_COUNT_TSC);
		}
	}
	CHECK_OK(patch_fini());
}

static void find_parts(void)
{
	unsigned int eax, ebx, ecx, edx, xcr0;

	__asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(edx) : "c"(0));
	have = xcr0 & ALL_COMPONENTS;
	parts[SSE] = (struct part){ offsetof(struct patch_x86_64_legacy, xmm0), 256 };
	parts[0] = (struct part){ 0, 576 };
	for (unsigned int c = AVX; c < 8; c++) {
		if (!(have >> c & 1))
			continue;
		__asm__ volatile("cpuid" : "=a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx) : "a"(13), "c"(c));
		parts[c] = (struct part){ ebx, eax };
		if (parts[0].size < ebx + eax)
			parts[0].size = ebx + eax;
	}
	REQUIRE(parts[0].size <= sizeof(masks_before.extended));
}

int main(int argc, char **argv)
{
	harness_start();
	if (!__builtin_cpu_supports("avx"))
		SKIP("the processor has no AVX");
	find_parts();
	for (form = forms; form < forms + FORMS; form++)
		if (argc <= 1 || !strcmp(argv[1], form->name))
			harness_isolated(form->name, try_form, NULL);
	return harness_end();
}
