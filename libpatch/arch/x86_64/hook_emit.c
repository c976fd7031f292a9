/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The code of a hook: saves what the masks and the System V ABI demand, calls the procedure, puts everything back.
 * Frame layout in hook_frame.h. Nothing of the program's is touched outside the frame; flags are kept from the first
 * instruction to the last.
 *
 * What a hit executes is one straight line without a taken branch. All else goes behind the trampoline's last
 * instruction: arch_emit_cold().
 *
 * Its parts are in files of their own (hook_parts.h). Here is their order, which registers are saved, the guard, and
 * the record.
 */
#include "arch/x86_64/hook_parts.h"

/* What a function may destroy (System V AMD64 psABI, 3.2.1). */
#define DESTROYED                                                                                                      \
	(MASK(RAX) | MASK(RCX) | MASK(RDX) | MASK(RSI) | MASK(RDI) | MASK(R8) | MASK(R9) | MASK(R10) | MASK(R11))

_Static_assert(ARCH_HOOK_FRAME_CONTEXT + sizeof(struct patch_exec_context) <= ARCH_HOOK_FRAME_SIZE, "frame layout");
_Static_assert(ARCH_HOOK_FRAME_TOTAL % 16 == 8, "arch_emit_procedure()");
_Static_assert(PRIVATE(PATCH_ARCH_GREGS_COUNT) == ARCH_HOOK_FRAME_CONTEXT, "frame layout");
_Static_assert(offsetof(struct patch_exec_context, user_data) == 0x88, "interface");
_Static_assert(offsetof(struct patch_exec_context, extended_states) == 0x90, "interface");

/* General purpose registers that are loaded from the context. */
static uint64_t hook_written(const struct arch_hook *hook)
{
	return (hook->write | hook->clobber) & ARCH_GENERAL;
}

uint16_t arch_hook_writes(const struct arch_hook *hook)
{
	const uint64_t written = hook_written(hook);
	unsigned int numbers = 0;

	FOR_EACH_REGISTER(written, i)
		numbers |= 1U << arch_hook_hardware[i];
	return hook->action == ARCH_CALL_PROCEDURE ? (uint16_t)numbers : 0;
}

/* What cold code is told from the start. NULL: there is no room. */
static struct arch_cold_hook *hook_begin_cold(struct arch_code *code, const struct arch_hook *hook)
{
	struct arch_cold *all = code->cold;
	struct arch_cold_hook *cold;

	if (all == NULL || all->hook_count == ARRAY_SIZE(all->hooks))
		return NULL;
	cold = &all->hooks[all->hook_count];
	*cold = (struct arch_cold_hook){
		.number = (uint8_t)all->hook_count++,
		.begins = (uint32_t)code->size,
		.written = (uint16_t)hook_written(hook),
		.original = code->original,
		.pushed = code->pushed,
		.pair = hook->pair,
		.slot = hook->slot,
		.program_counter = hook->program_counter,
		/* At an exit, what is called is told the hook's address. */
		.leads = hook->shadow != ARCH_SHADOW_EXIT && arch_hook_leads(hook),
		.above = hook_above(hook->exit),
		.own = hook->own,
		.held = hook->exit != NULL ? hook->exit->held : 0,
		.on_way = hook->exit != NULL,
	};
	return cold;
}

/*
 * rcx: the record. The order of four is what quiescence rests on (runtime/hook_threads.h): no record in the frame, the
 * guard, the slot read, the record in the frame.
 */
static void emit_take_record(struct arch_code *code, const struct arch_hook *hook, uint64_t offered,
			     struct arch_cold_hook *cold)
{
	const int32_t guard = hook_tls_offset(&libpatch_hook_guard.guard);

	EMIT_FIELD("\x64\x48\x8B\x04\x25", guard); /* mov rax, fs:[guard] */
	EMIT("\x48\x85\xC0");                      /* test rax, rax */
	cold->guarded = EMIT_FORWARD("\x0F\x85");  /* jne guarded */
	cold->fresh = (uint32_t)code->size;
	arch_emit_store(code, KEPT(cold->written, PATCH_X86_64_RCX), RCX);
	arch_emit_stretch(code, ARCH_HOOK_RCX, cold->number);
	if (offered & ~(uint64_t)cold->written & MASK(RCX))
		arch_emit_store(code, OFFERED(PATCH_X86_64_RCX), RCX);
	arch_emit_store(code, ARCH_HOOK_FRAME_RECORD, RAX);
	EMIT_FIELD("\x64\x48\x89\x24\x25", guard); /* mov fs:[guard], rsp */
	if (hook->pair >= ARCH_PAIR_SECOND) {
		arch_emit_load_pair(code, hook, cold);
	} else {
		arch_emit_load_slot(code, hook);
		EMIT("\x48\x85\xC9");                    /* test rcx, rcx */
		cold->closed = EMIT_FORWARD("\x0F\x84"); /* je closed */
	}
	arch_emit_store(code, ARCH_HOOK_FRAME_RECORD, RCX);
}

/* The context and the call. rcx: the record. */
static void emit_call(struct arch_code *code, const struct arch_hook *hook, uint64_t offered,
		      struct arch_cold_hook *cold)
{
	arch_call_fn *extended = arch_call_with_state(hook->clobber, hook->x87_empty);

	arch_emit_context(code, hook, offered, cold);
	arch_emit_stretch(code, ARCH_HOOK_SAVED, cold->number);
	/* cld takes longer than to see that it is not needed, and to clear AC takes popfq. */
	EMIT("\xA9\x00\x04\x04\x00");               /* test eax, DF | AC */
	cold->backwards = EMIT_FORWARD("\x0F\x85"); /* jne backwards */
	cold->forwards = (uint32_t)code->size;
	EMIT("\x31\xF6");                         /* xor esi, esi */
	CONTEXT_STORE(extended_states, RSI);      /* one that offers them writes it again */
	if (hook->shadow != ARCH_SHADOW_NONE) {
		arch_emit_shadow(code, hook, cold);
		EMIT("\x31\xF6");                 /* xor esi, esi */
	}
	if (hook->post)
		EMIT("\xFF\xC6");                 /* inc esi */
	if (extended != NULL) {
		arch_emit_call_library(code, extended);
		arch_emit_stretch(code, hook_stretch_behind(cold), cold->number);
	} else {
		arch_emit_procedure(code, hook, cold);
	}
	cold->uncalled = (uint32_t)code->size;
}

/* The guard, and what was saved or the procedure has written of registers but rax, which is in the frame. */
static void emit_put_back(struct arch_code *code, uint64_t written)
{
	EMIT_FIELD("\x64\x48\x89\x04\x25", hook_tls_offset(&libpatch_hook_guard.guard)); /* mov fs:[guard], rax */
	FOR_EACH_REGISTER((written | DESTROYED) & ~MASK(RAX), i)
		arch_emit_load(code, arch_hook_hardware[i], KEPT(written, i));
}

void arch_emit_hook(struct arch_code *code, const struct arch_hook *hook)
{
	const uint64_t written = hook_written(hook);
	const uint64_t offered = written | (hook->read & ARCH_GENERAL);
	struct arch_cold_hook *cold;

	if (hook->action == ARCH_DIVERT) {
		arch_emit_row(code, 0);
		arch_emit_jmp_slot(code, hook->slot);
		return;
	}
	if (hook->action != ARCH_CALL_PROCEDURE) {
		arch_emit_count(code, hook);
		return;
	}
	cold = hook_begin_cold(code, hook);
	if (cold == NULL) {
		code->out_of_range = true;
		return;
	}
	if (arch_emit_kept(code, hook, cold))
		return;

	arch_begin_keeping(code, cold);
	arch_emit_enter(code, hook, cold);
	arch_emit_store(code, KEPT(written, PATCH_X86_64_RAX), RAX);
	arch_emit_stretch(code, ARCH_HOOK_RAX, cold->number);
	if (offered & ~written & MASK(RAX))
		arch_emit_store(code, OFFERED(PATCH_X86_64_RAX), RAX);
	emit_take_record(code, hook, offered, cold);
	arch_emit_save_errno(code);
	FOR_EACH_REGISTER(DESTROYED & ~written & ~(MASK(RAX) | MASK(RCX)), i)
		arch_emit_store(code, PRIVATE(i), arch_hook_hardware[i]);
	if (offered & MASK(RDI))
		arch_emit_store(code, OFFERED(PATCH_X86_64_RDI), RDI);
	emit_call(code, hook, offered, cold);

	arch_emit_restore_errno(code, cold);
	if (hook->pair == ARCH_PAIR_FIRST)
		arch_emit_note_pair(code, hook, cold);
	EMIT("\x31\xC0"); /* xor eax, eax */
	if (hook->pair >= ARCH_PAIR_SECOND)
		arch_emit_drop_pair(code, cold);
	emit_put_back(code, written);
	arch_emit_look_whether_moved(code, cold);
	cold->passed_over = (uint32_t)code->size;
	arch_emit_stretch(code, ARCH_HOOK_LEAVES, cold->number);
	arch_emit_leave(code, cold);
	cold->done = (uint32_t)code->size;
	arch_keep(code, cold);
}

void arch_hook_describe(const struct arch_cold_hook *cold, uintptr_t region, struct arch_hook_map *map)
{
	*map = (struct arch_hook_map){
		.program_counter = (int32_t)(cold->program_counter - region),
		.above = cold->above,
		.begins = (uint16_t)cold->begins,
		.ends = (uint16_t)cold->done,
		.place = (uint16_t)cold->place,
		.written = cold->written,
		.held = cold->held,
		.pushed = cold->pushed,
		.pair = cold->pair,
		.leads = cold->leads,
		.on_way = cold->on_way,
		.own = cold->own,
	};
}
