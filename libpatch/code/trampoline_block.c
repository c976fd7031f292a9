/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A trampoline's block: a header of rows, then the code, which is emitted until its size and its place agree; staged.
 */
#include "base/bug.h"
#include "code/forms.h"
#include "code/staging.h"
#include "code/trampoline_builder.h"

#include <stdatomic.h>
#include <string.h>

/* A stub is a block of its own: one row, and jmp [rip + 2] with eight aligned bytes behind it. */
#define STUB_HEADER 32
#define STUB_SIZE (STUB_HEADER + 16)

/* Header of a block (arena.h), then the code behind it. */
static size_t trampoline_header_size(const struct arch_code *code)
{
	return ALIGN_UP(ARENA_BLOCK_ROWS + code->row_count * sizeof(struct arch_row) + sizeof(uint64_t), ARENA_GRANULE);
}

/* NULL: out of memory. */
static const void *trampoline_form(struct builder *builder, size_t stretch_count) REQUIRES(library_lock)
{
	struct arch_stretch *end = builder->stretches + stretch_count;
	struct arch_hook_map map;

	for (size_t i = 0; i < builder->cold.hook_count; ++i, end += HOOK_STRETCHES) {
		arch_hook_describe(&builder->cold.hooks[i], builder->window->start, &map);
		memcpy(end, &map, sizeof(map));
	}
	return forms_share(builder->stretches, (size_t)((uint8_t *)end - (uint8_t *)builder->stretches));
}

/* False: out of memory. */
static bool trampoline_finish_header(struct builder *builder, const struct arch_code *code, size_t header)
	REQUIRES(library_lock)
{
	uint64_t site = builder->window->start;
	uint64_t form = (uintptr_t)trampoline_form(builder, code->stretch_count);
	uint64_t last = form << ARENA_FORM_SHIFT | ARENA_ROW_END;

	const size_t rows_end = ARENA_BLOCK_ROWS + code->row_count * sizeof(builder->rows[0]);

	memcpy(builder->block, &site, sizeof(site));
	for (size_t i = 0; i < code->row_count; ++i)
		builder->rows[i].code = (uint16_t)(builder->rows[i].code + header);
	memcpy(builder->block + ARENA_BLOCK_ROWS, builder->rows, rows_end - ARENA_BLOCK_ROWS);
	memcpy(builder->block + rows_end, &last, sizeof(last));
	memset(builder->block + rows_end + sizeof(last), 0, header - rows_end - sizeof(last));
	return form != 0;
}

/* With what is behind the code: so blocks are staged without gaps, which would be read before they are written. */
static bool trampoline_stage(struct builder *builder, const struct arena_block *block, size_t size)
	REQUIRES(library_lock)
{
	memset(builder->block + size, 0, block->size - size);
	return staging_add(block->address, builder->block, block->size);
}

/* From offsets in the code to addresses; closed. */
static void trampoline_close_diverts(const struct builder *builder, uintptr_t base)
{
	for (size_t i = 0; i < builder->count; ++i) {
		struct built_hook *hook = &builder->built[i];

		if (hook->action != ARCH_DIVERT)
			continue;
		hook->behind += base;
		hook->original += base;
		atomic_store((_Atomic uintptr_t *)hook->slot, hook->behind);
		atomic_store((_Atomic uintptr_t *)hook->original_slot, hook->behind);
	}
}

/* Does an instruction of the window branch to code of the block, which is not emitted yet? */
static bool trampoline_branches_inside(const struct builder *builder)
{
	const struct window *window = builder->window;

	if (builder->lead_count > 0)
		return true;
	for (unsigned int i = 0; i < window->count; ++i)
		if (builder->insns[i].target - window->start < window->length)
			return true;
	return false;
}

/* For code at `base`, behind a header of so many bytes. */
static void trampoline_emit_begin(struct builder *builder, struct arch_code *code, uintptr_t base, size_t header,
				  bool far)
{
	*code = (struct arch_code){
		.bytes = builder->block + header,
		.capacity = ARENA_ROW_END - header,
		.base = base + header,
		.far = far,
		.rows = builder->rows,
		.row_capacity = ROWS_MAX,
		.stretches = builder->stretches,
		.stretch_capacity = STRETCHES_MAX,
	};
}

/* Sizes do not depend on `base`, but modulo ARENA_GRANULE. */
static void trampoline_emit_pass(struct builder *builder, struct arch_code *code, uintptr_t base, size_t header,
				 bool far)
{
	trampoline_emit_begin(builder, code, base, header, far);
	trampoline_emit_all(builder, code);
}

/*
 * The first pass finds the size and the entries, the second has the addresses; the first will do if it guessed them.
 */
patch_status trampoline_emit_block(struct builder *builder, struct trampoline *trampoline, enum trampoline_how how,
				   const char **message)
{
	/* Of the last with as many instructions. */
	static size_t headers[WINDOW_INSNS_MAX + 1] GUARDED_BY(library_lock);
	const struct window *window = builder->window;
	const bool far = how == TRAMPOLINE_FAR;
	uintptr_t guess = far || trampoline_branches_inside(builder) ? 0 : arena_next(trampoline_reach(builder));
	size_t guessed_header = MAX(headers[window->count], (size_t)ARENA_GRANULE);
	struct arch_code code;
	size_t header, code_size, row_count, stretch_count;
	uint16_t *entries;
	bool moved = false;
	patch_status status;

	if (guess != 0)
		trampoline_bring_slots(builder, guess, far, &moved);
	/* What is nowhere yet is not in range, nor need it be. */
	for (unsigned int i = 0; i < (unsigned int)window->count + builder->lead_count; ++i)
		builder->to[i] = window->start;
	trampoline_emit_pass(builder, &code, guess != 0 ? guess : ALIGN_DOWN(window->start, ARENA_GRANULE),
			     guessed_header, far);
	row_count = code.row_count;
	code_size = code.size;
	stretch_count = code.stretch_count;
	if (row_count > ROWS_MAX || stretch_count > STRETCHES_MAX ||
	    code_size > ARENA_ROW_END - trampoline_header_size(&code)) {
		*message = "too many hooks on one group of instructions";
		return PATCH_ENOMEM;
	}
	header = trampoline_header_size(&code);
	headers[window->count] = header;
	moved = guess == 0;
	status = trampoline_settle(builder, header + code_size, how, &trampoline->block, &moved);
	if (status != PATCH_OK) {
		*message = NO_MEMORY;
		return status;
	}
	if (moved || trampoline->block.address != guess || header != guessed_header) {
		for (unsigned int i = 0; i < (unsigned int)window->count + builder->lead_count; ++i)
			builder->to[i] = trampoline->block.address + header + builder->entries[i];
		trampoline_emit_pass(builder, &code, trampoline->block.address, header, far);
	}
	entries = trampoline_entries(trampoline);
	for (unsigned int i = 0; i < window->count; ++i)
		entries[i] = (uint16_t)(builder->entries[i] + header);
	if (code.size != code_size || code.row_count != row_count || code.stretch_count != stretch_count ||
	    code.out_of_range) {
		trampoline_free_block(&trampoline->block);
		*message = code.out_of_range ? "an operand is out of reach of the generated code" :
					       "generated code changed its size between passes";
		return code.out_of_range ? PATCH_ENOMEM : PATCH_BUG;
	}
	if (!trampoline_finish_header(builder, &code, header) ||
	    !trampoline_stage(builder, &trampoline->block, header + code_size)) {
		trampoline_free_block(&trampoline->block);
		*message = "out of memory";
		return PATCH_ENOMEM;
	}
	trampoline_close_diverts(builder, trampoline->block.address + header);
	return PATCH_OK;
}

patch_status trampoline_emit_stub(struct builder *builder, struct trampoline *trampoline, const char **message)
{
	const struct window *window = builder->window;
	struct arena_block *stub = trampoline_stub(trampoline);
	struct arena_tried tried = { 0 };
	struct arch_code code;

	*message = NO_MEMORY;
	if (arena_alloc(STUB_SIZE, window->start, arena_reach_of(window->pad != 0 ? window->pad : window->start),
			&tried, stub) != PATCH_OK)
		return PATCH_ENOMEM;
	trampoline_emit_begin(builder, &code, stub->address, STUB_HEADER, true);
	builder->cold.hook_count = 0;
	arch_emit_row(&code, 0);
	arch_emit_stretch(&code, ARCH_COPY, 0);
	arch_emit_jmp(&code, trampoline_entry(trampoline, 0));
	arch_emit_stretch(&code, ARCH_STRETCH_END, 0);
	BUG_ON_RETURN(STUB_HEADER + code.size != STUB_SIZE, PATCH_BUG);
	if (trampoline_finish_header(builder, &code, STUB_HEADER) && trampoline_stage(builder, stub, STUB_SIZE))
		return PATCH_OK;
	*message = "out of memory";
	trampoline_free_block(stub);
	return PATCH_ENOMEM;
}

uintptr_t trampoline_front(const struct trampoline *trampoline)
{
	const struct arena_block *stub = trampoline->far ? trampoline_stub(trampoline) : NULL;

	return stub != NULL && stub->size != 0 ? stub->address + STUB_HEADER : trampoline_entry(trampoline, 0);
}
