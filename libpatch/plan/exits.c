/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Pieces and exits of a function. Pieces are found from the first one on: each is decoded, and what it goes to may be a
 * piece, too. When all are known, what goes to another place than a piece is an exit. Only reads.
 *
 * A jump with the frame in place stays in the function, and so does an indirect one: jump tables need not be read. A
 * jump without frame to the beginning of other code, with its own entry in the unwind table, leads to a piece when
 *
 * P1 the frame of that code is there when it begins: a caller cannot have made it;
 * P2 it jumps back into the middle of a piece;
 * P3 it never leaves: then the jump is no return either;
 * P4 the jump is conditional, and the code is not aligned as functions around here are.
 */
#include "plan/exits.h"

#include "arch/insn.h"
#include "base/heap.h"
#include "elf/cfa.h"
#include "elf/segments.h"
#include "patch/original.h"
#include "plan/scan.h"
#include "plan/site.h"
#include "sys/mem_read.h"

/* Text of all pieces, and how many. */
#define TEXT_MAX (4UL << 20)
#define PIECES_MAX 64
/* What functions are aligned to. */
#define FUNCTION_ALIGN 16
/* Padding behind a function that is looked through for the next one. */
#define PADDING_MAX 64
/* Further than any displacement of 8 bits reaches. */
#define SHORT_REACH 130

static struct exits found;
static struct exit_piece pieces[PIECES_MAX];
static struct exit_place *places;
static size_t places_room;
static const struct module *module;
static size_t text_size;

static void exits_miss(const char *message, uintptr_t address)
{
	if (found.missing.message == NULL)
		found.missing = (struct refusal){ message, address };
}

/* False: out of memory. */
static bool exits_add_place(struct exit_place place) REQUIRES(library_lock)
{
	if (!heap_reserve(&places, &places_room, found.place_count + 1, sizeof(*places)))
		return false;
	places[found.place_count++] = place;
	return true;
}

/* ---- pieces ------------------------------------------------------------------------------------------------------ */

static struct exit_piece *exits_piece_around(uintptr_t address)
{
	for (size_t i = 0; i < found.piece_count; ++i)
		if (address - pieces[i].lower < pieces[i].upper - pieces[i].lower)
			return &pieces[i];
	return NULL;
}

/* The instruction at address, in text that can be read up to `upper`. */
static bool exits_decode(uintptr_t address, uintptr_t upper, struct arch_insn *insn) REQUIRES(library_lock)
{
	const uint8_t *bytes;
	size_t size = original_view(address, &bytes);

	if (size == 0) {
		bytes = (const uint8_t *)address;
		size = MIN(upper - address, INSN_MAX);
	}
	return arch_decode(bytes, size, address, insn);
}

/* Behind the endbr64 that code begins with, or where it begins. */
static uintptr_t exits_body(uintptr_t lower, uintptr_t upper) REQUIRES(library_lock)
{
	struct arch_insn insn;

	return exits_decode(lower, upper, &insn) && (insn.flags & ARCH_F_ENDBR) ? lower + insn.length : lower;
}

/* Does code begin at address that is described from `lower` on? */
static bool exits_is_beginning(uintptr_t lower, uintptr_t upper, uintptr_t address) REQUIRES(library_lock)
{
	return address == lower || (address - lower <= INSN_MAX && address == exits_body(lower, upper));
}

static bool exits_is_in_middle(uintptr_t address) REQUIRES(library_lock)
{
	const struct exit_piece *piece = exits_piece_around(address);

	return piece != NULL && !exits_is_beginning(piece->lower, piece->upper, address);
}

/* The first row of the code around address, which can be read: unwind tables may say anything. */
static bool exits_describe(struct cfa_rows *rows, uintptr_t address)
{
	if (!cfa_begin(rows, module, address) || !mem_is_readable(rows->entry.lower, rows->entry.upper))
		return false;
	if (module->headers == NULL)
		return true;
	FOR_EACH_SEGMENT(segment, module->headers, module->header_count, PT_LOAD, PF_R | PF_X) {
		if (segment_contains(segment, module->bias, rows->entry.lower) &&
		    segment_contains(segment, module->bias, rows->entry.upper - 1))
			return true;
	}
	return false;
}

/* `from`: who goes there. */
static void exits_add_piece(const struct eh_frame_entry *entry, bool callable, uintptr_t from)
{
	const size_t size = entry->upper - entry->lower;

	if (found.piece_count == PIECES_MAX || size > TEXT_MAX - text_size) {
		exits_miss("the function, with what it shares code with, is too large", from);
		return;
	}
	pieces[found.piece_count++] = (struct exit_piece){ entry->lower, entry->upper, callable };
	text_size += size;
}

/* ---- is it a piece? ---------------------------------------------------------------------------------------------- */

struct __attribute__((packed, may_alias)) exits_word {
	int32_t value;
};

/* May a branch in [lower, upper), which is as the program has it, lead into a piece? False is sure. */
static bool exits_may_lead_back(uintptr_t lower, uintptr_t upper)
{
	for (size_t i = 0; i < found.piece_count; ++i) {
		const uintptr_t size = pieces[i].upper - pieces[i].lower;

		if (pieces[i].upper + SHORT_REACH > lower && pieces[i].lower < upper + SHORT_REACH)
			return true;
		/* Every byte as if a displacement of 32 bits began there. */
		for (uintptr_t at = lower; at + sizeof(struct exits_word) <= upper; ++at) {
			const struct exits_word *word = (const void *)at;

			if (at + sizeof(*word) + (uintptr_t)(intptr_t)word->value - pieces[i].lower < size)
				return true;
		}
	}
	return false;
}

/*
 * P2 and P3, for the code that `rows` begins to describe. Not by scan.h, which should keep the pieces: this code is
 * mostly a function of its own, and most of it need not be decoded.
 */
static bool exits_comes_back_or_stays(struct cfa_rows *rows) REQUIRES(library_lock)
{
	const uintptr_t lower = rows->entry.lower, upper = rows->entry.upper;
	const bool in_place = original_is_in_place(lower, upper);
	bool leaves = false, runs_on = true, may_come_back;
	struct arch_insn insn;

	/* What the library wrote is not what the program branches by. */
	may_come_back = !in_place || exits_may_lead_back(lower, upper);
	for (uintptr_t at = lower; at < upper; at += insn.length) {
		if (in_place ? !arch_decode((const uint8_t *)at, upper - at, at, &insn) :
			       !exits_decode(at, upper, &insn))
			return false;
		if (insn.kind == ARCH_RET) {
			leaves = true;
		} else if (insn.kind == ARCH_JMP_IND) {
			cfa_seek(rows, at);
			leaves |= cfa_is_bare(rows);
		} else if (insn.rel_size != 0 && insn.kind != ARCH_CALL && insn.target - lower >= upper - lower) {
			if (exits_is_in_middle(insn.target))
				return true;
			leaves = true;
		}
		if (leaves && !may_come_back)
			return false;
		if (!(insn.flags & ARCH_F_NOP))
			runs_on = arch_runs_on(&insn);
	}
	return !leaves && !runs_on;
}

/* Are functions aligned here: the first piece, and what is behind it? Where code is to be small they are not. */
static bool exits_are_aligned(void)
{
	uintptr_t lower, upper, next;

	return pieces[0].lower % FUNCTION_ALIGN == 0 &&
	       eh_frame_function(module, pieces[0].lower, &lower, &upper, &next) &&
	       (next == UINTPTR_MAX || next % FUNCTION_ALIGN == 0);
}

/* Does the jump, without frame, to the beginning of the code that `rows` begins to describe stay in the function? */
static bool exits_is_part(const struct exit_place *place, struct cfa_rows *rows) REQUIRES(library_lock)
{
	return !cfa_is_bare(rows) ||
	       (place->kind == EXIT_BRANCH && rows->entry.lower % FUNCTION_ALIGN != 0 && exits_are_aligned()) ||
	       exits_comes_back_or_stays(rows);
}

/* Code that goes on where a pointer says: an entry of a procedure linkage table? */
static bool exits_is_linkage(uintptr_t address) REQUIRES(library_lock)
{
	struct arch_insn insn;

	if (!site_decode(address, &insn))
		return false;
	if (insn.flags & ARCH_F_ENDBR)
		return site_decode(address + insn.length, &insn) && insn.kind == ARCH_JMP_IND;
	return insn.kind == ARCH_JMP_IND;
}

/* The jump leads out of its own piece, whose end is `upper`. */
static void exits_follow(const struct exit_place *place, uintptr_t upper) REQUIRES(library_lock)
{
	struct exit_piece *piece = exits_piece_around(place->target);
	struct cfa_rows rows;

	/* Again when it was taken for a function that shares code. */
	if (piece != NULL && !(place->bare && piece->callable && piece != pieces &&
			       exits_is_beginning(piece->lower, piece->upper, place->target)))
		return;
	if (!exits_describe(&rows, place->target)) {
		/* A jump to the own end is what is left of code that is never reached. */
		if (place->target != upper && !(place->bare && exits_is_linkage(place->target)))
			exits_miss("a jump leads to code that no unwind entry describes", place->address);
		return;
	}
	if (exits_is_beginning(rows.entry.lower, rows.entry.upper, place->target)) {
		bool part = exits_is_part(place, &rows);

		if (piece != NULL)
			piece->callable = !part;
		else if (part || !place->bare)
			exits_add_piece(&rows.entry, !part, place->address);
	} else if (!place->bare) {
		bool callable = cfa_is_bare(&rows);

		cfa_seek(&rows, place->target);
		if (rows.frame.known)
			exits_add_piece(&rows.entry, callable, place->address);
		else
			exits_miss("a jump leads, with the frame, to code whose frame is not known", place->address);
	}
}

/* ---- what is in a piece ------------------------------------------------------------------------------------------ */

/* Control runs on behind the piece's last instruction, which `place` is of. */
static bool exits_fall(struct exit_place place, uintptr_t upper) REQUIRES(library_lock)
{
	uintptr_t at = upper;
	struct cfa_rows rows;
	struct arch_insn insn;

	for (;;) {
		if (exits_describe(&rows, at))
			break;
		if (at - upper >= PADDING_MAX || !site_decode(at, &insn) || !(insn.flags & ARCH_F_NOP)) {
			exits_miss("control runs on into code that no unwind entry describes", place.address);
			return true;
		}
		at += insn.length;
	}
	place.target = at;
	if (rows.entry.lower != at) {
		exits_miss("control runs on into the middle of other code", place.address);
	} else if (!cfa_is_bare(&rows)) {
		if (exits_piece_around(at) == NULL)
			exits_add_piece(&rows.entry, false, place.address);
	} else if (place.bare) {
		return exits_add_place(place);
	} else {
		exits_miss("control runs on, with the frame, into another function", place.address);
	}
	return true;
}

/* A branch inside a piece: false, it leads into an instruction. Behind a lock prefix is none. */
static bool exits_leads_to_start(uintptr_t target) REQUIRES(library_lock)
{
	uint8_t byte;

	return scan_is_start(target) ||
	       (scan_is_start(target - 1) && original_read(target - 1, &byte, 1) == 1 && byte == 0xF0);
}

static bool exits_add_direct(const struct exit_piece *piece, struct exit_place place, unsigned int kind)
	REQUIRES(library_lock)
{
	bool inside = place.target - piece->lower < piece->upper - piece->lower;

	if (inside && !exits_leads_to_start(place.target))
		exits_miss("a branch leads into an instruction", place.address);
	if (inside && !(place.bare && exits_is_beginning(piece->lower, piece->upper, place.target)))
		return true;
	switch (kind) {
	case ARCH_JMP:
		place.kind = EXIT_JUMP;
		break;
	case ARCH_JCC:
	case ARCH_LOOP:
		place.kind = EXIT_BRANCH;
		break;
	default:
		exits_miss("an instruction may leave that is no usual branch", place.address);
		return true;
	}
	return exits_add_place(place);
}

/* What may be an exit in a piece: all that leads out of it, and to its beginning. False: out of memory. */
static bool exits_read_piece(const struct exit_piece *piece) REQUIRES(library_lock)
{
	const struct scan_function *function;
	struct cfa_rows rows;

	scan_set(piece->lower, piece->upper);
	function = scan_get();
	if (function == NULL || !exits_describe(&rows, piece->lower))
		return false;
	if (function->undecodable != 0)
		exits_miss("bytes that are no instruction", function->undecodable);
	for (size_t i = 0; i < function->count; ++i) {
		const struct scan_branch *branch = &function->branches[i];
		struct exit_place place = { .address = scan_branch_address(function, branch),
					    .length = branch->length };
		bool added = true;

		cfa_seek(&rows, place.address);
		place.bare = cfa_is_bare(&rows);
		if (branch->far) {
			exits_miss("a far return or jump", place.address);
		} else if (branch->kind == ARCH_RET) {
			place.kind = EXIT_RET;
			added = exits_add_place(place);
		} else if (branch->kind == ARCH_JMP_IND) {
			place.kind = EXIT_INDIRECT;
			added = !place.bare || exits_add_place(place);
		} else {
			place.target = scan_branch_target(function, branch);
			added = exits_add_direct(piece, place, branch->kind);
		}
		if (!added)
			return false;
	}
	if (function->falls && function->last != 0) {
		struct exit_place place = { .address = function->last,
					    .length = (uint8_t)(piece->upper - function->last),
					    .kind = EXIT_FALL };

		cfa_seek(&rows, place.address);
		place.bare = cfa_is_bare(&rows);
		if (!exits_fall(place, piece->upper))
			return false;
	}
	if (rows.damaged)
		exits_miss("the unwind table is damaged", rows.lower);
	return true;
}

/* ---- the whole function ------------------------------------------------------------------------------------------ */

/* Is it an exit, now that all pieces are known? */
static bool exits_is_exit(struct exit_place *place) REQUIRES(library_lock)
{
	const struct exit_piece *piece;

	switch (place->kind) {
	case EXIT_RET:
	case EXIT_INDIRECT:
		return true;
	case EXIT_JUMP:
	case EXIT_BRANCH:
		if (!place->bare)
			return false;
		if (place->target == found.entry || place->target == found.body) {
			place->kind = EXIT_AGAIN;
			return true;
		}
	}
	piece = exits_piece_around(place->target);
	return piece == NULL || (piece->callable && exits_is_beginning(piece->lower, piece->upper, place->target));
}

static void exits_settle(void) REQUIRES(library_lock)
{
	size_t kept = 0;

	for (size_t i = 0; i < found.place_count; ++i)
		if (exits_is_exit(&places[i]))
			places[kept++] = places[i];
	found.place_count = kept;
}

/* Asked about a part of a function: the function is the only piece that can be called. */
static bool exits_find_entry(void) REQUIRES(library_lock)
{
	size_t entry = 0, callable = 0;

	for (size_t i = 0; i < found.piece_count; ++i) {
		if (!pieces[i].callable)
			continue;
		++callable;
		entry = i;
	}
	if (pieces[0].callable)
		entry = 0;
	else if (callable != 1)
		return false;
	if (entry != 0) {
		struct exit_piece piece = pieces[0];

		pieces[0] = pieces[entry];
		pieces[entry] = piece;
	}
	found.entry = pieces[0].lower;
	found.body = exits_body(pieces[0].lower, pieces[0].upper);
	return true;
}

static patch_status exits_search(uintptr_t address, struct refusal *refusal) REQUIRES(library_lock)
{
	struct cfa_rows rows;

	*refusal = (struct refusal){ "no unwind entry describes the function", address };
	if (!exits_describe(&rows, address))
		return PATCH_ENOTSUP;
	exits_add_piece(&rows.entry, cfa_is_bare(&rows), address);
	if (found.piece_count == 0) {
		*refusal = found.missing;
		return PATCH_ENOTSUP;
	}
	for (size_t i = 0; i < found.piece_count; ++i) {
		size_t first = found.place_count;

		if (!exits_read_piece(&pieces[i])) {
			*refusal = (struct refusal){ "out of memory", address };
			return PATCH_ENOMEM;
		}
		for (size_t j = first; j < found.place_count; ++j)
			if (places[j].kind == EXIT_JUMP || places[j].kind == EXIT_BRANCH)
				exits_follow(&places[j], pieces[i].upper);
	}
	if (!exits_find_entry()) {
		*refusal = (struct refusal){ "the address is in a part of a function whose entry is not known",
					     address };
		return PATCH_ENOTSUP;
	}
	exits_settle();
	return PATCH_OK;
}

patch_status exits_find_in(const struct module *in, uintptr_t address, const struct exits **exits,
			   struct refusal *refusal)
{
	patch_status status;

	module = in;
	text_size = 0;
	found = (struct exits){ 0 };
	*exits = NULL;
	status = exits_search(address, refusal);
	module = NULL;
	if (status != PATCH_OK)
		return status;
	found.pieces = pieces;
	found.places = places;
	*exits = &found;
	*refusal = found.missing;
	return found.missing.message == NULL ? PATCH_OK : PATCH_ENOTSUP;
}

patch_status exits_find(uintptr_t address, const struct exits **exits, struct refusal *refusal)
{
	struct module around;

	*exits = NULL;
	*refusal = (struct refusal){ "the address is in no module", address };
	if (!site_module(address, &around))
		return PATCH_ENOTSUP;
	return exits_find_in(&around, address, exits, refusal);
}
