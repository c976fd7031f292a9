/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Lists of patches at one hook, and pairs of calls (doc/protocol.md, "When a patch is gone"; hook_list.h,
 * hook_pairs.h): a writer makes, opens, closes and takes away the patches of an instruction, and finds out when nobody
 * uses a patch, or a list that another one has replaced; a thread executes the instruction, which has a hook in front
 * and one behind. lists.sh runs it. The table of threads and frames that something else overwrites are in quiesce.pml.
 *
 * Stores of the thread go through a buffer, in order, and reach memory at any later time (TSO). Only the writer reads
 * what they store, so that it is the writer who decides, in front of each of its reads, how many have arrived. Its own
 * stores are seen at once, as in quiesce.pml.
 *
 * The thread executes the instruction at several depths: a handler interrupts it between both hooks, and executes it,
 * too. As hooks are passed over while a procedure runs, handlers that interrupt one are left out.
 *
 * What is not modelled: other instructions, whose pairs are among this one's.
 *
 * An execution has the stack pointer of its depth. Where the second hook does not know that (KNOWN=0), it takes the
 * last pair of the place. Then INNER=1 is for what does not hold: when longjmp() ends in a handler, the pair of the
 * execution that was left is above that of the interrupted one, whose second hook takes it.
 */
#include "common.pml"

/* ---- settings: from the environment ------------------------------------------------------------------------------ */

byte patches; /* 2 or 3 */
byte start;   /* those on the list that the slot holds at first: a set */
byte rounds;  /* things that the writer does */
byte hits;    /* executions of the instruction that the thread begins */
byte depths;  /* 2: a handler, 3: a handler's handler */
byte leaps;   /* times that a procedure or a handler is left by longjmp() */
byte inner;   /* 1: into any handler, also the one that calls it; 0: all handlers are left */
byte known;   /* 1: the second hook knows the stack pointer of before the instruction; 0: only the place */
byte moves;   /* times that a procedure in front of the instruction leads the thread elsewhere */
byte ring;    /* pairs that there is room for, up to 3: the second one and those behind it are in a block of memory */
byte stores;  /* that the buffer holds at most, up to 6 */
byte around;  /* the patches that are called behind the instruction, too: a set */
byte alike;   /* 1: one open patch alone is called without its list */
byte mutant;  /* what is left out, or done wrongly: */

/* lists.sh reads this table: number, and what must be violated. */
#define NO_FENCE                    1 /* MUTANT: patch used when it is gone */
#define LIST_RETIRED_UNFENCED       2 /* MUTANT: list used when it is freed */
#define CURRENT_AFTER_CLOSED_LOOK   3 /* MUTANT: patch used when it is gone */
#define CURRENT_ZERO_AFTER_WALK     4 /* MUTANT: patch used when it is gone */
#define CURRENT_NOT_LOOKED_AT       5 /* MUTANT: patch used when it is gone */
#define ONLY_CURRENT_LOOKED_AT      6 /* MUTANT: patch used when it is gone */
#define CALLED_NOT_LOOKED_AT        7 /* MUTANT: patch used when it is gone */
#define CALLED_NOTED_BEHIND_GUARD   8 /* MUTANT: patch used when it is gone */
#define CALLED_NOTED_BEHIND_RECORD  9 /* not needed: until the guard is cleared the frame says it */
#define PAIR_NOTED_BEHIND_GUARD    10 /* MUTANT: patch used when it is gone */
#define PAIR_DROPPED_BEFORE_CALL   11 /* MUTANT: patch used when it is gone */
#define PAIRS_READ_FIRST           12 /* MUTANT: patch used when it is gone */
#define PAIRS_READ_BEFORE_FRAME    13 /* MUTANT: patch used when it is gone */
#define PAIRS_NOT_READ             14 /* MUTANT: patch used when it is gone */
#define SECOND_HAS_NO_RECORD       15 /* not needed: its pair says it until the call is over */
#define CURRENT_KEPT_ON_WAY_BACK   16 /* not needed: it would keep patches of the list for longer */
#define ENTRY_NOT_CLOSED           17 /* MUTANT: patch used when it is gone */
#define RETIRED_NOT_CLOSED         18 /* MUTANT: patch used when it is gone */
#define LIST_FREED_WITHOUT_LOOK    19 /* MUTANT: list used when it is freed */
#define LIST_NOT_SEEN_IN_PAIRS     20 /* MUTANT: list used when it is freed */
#define UNKNOWN_FREES_LISTS        21 /* MUTANT: list used when it is freed */
#define SECOND_READS_SLOT          22 /* MUTANT: second call is missing */
#define SECOND_CALLS_OPEN          23 /* MUTANT: second call is missing */
#define PASSED_NOT_NOTED           24 /* MUTANT: another execution's pair is taken */
#define LEFT_PAIRS_STAY            25 /* MUTANT: a pair stays behind its execution */
#define MOVED_PAIR_STAYS           26 /* MUTANT: another execution's pair is taken */
#define MOVED_STAYS_CALLED         27 /* not needed: its pair is forgotten */
#define PLACE_ALONE_COMPARED       28 /* MUTANT: another execution's pair is taken */
#define TOP_FORGOTTEN              29 /* MUTANT: pair dropped where there is none */
#define ABOVE_FOUND_STAYS          30 /* MUTANT: a pair stays behind its execution */
#define GONE_PAST_NOT_NOTED        31 /* MUTANT: a pair stays behind its execution */
#define GONE_PAST_AND_NOT_PASSED   32 /* MUTANT: another execution's pair is taken */
#define BLOCK_LOOKED_FOR_FIRST     33 /* MUTANT: patch used when it is gone */
#define BLOCK_TOLD_LATE            34 /* MUTANT: patch used when it is gone */
#define BLOCK_NOT_READ             35 /* MUTANT: patch used when it is gone */

/* ---- memory ------------------------------------------------------------------------------------------------------ */

#define PATCHES 3
#define LISTS 2
#define DEPTHS 3
#define RING 3

/* Sets of patches. */
#define BIT(x) (1 << ((x) - 1))
#define HAS(set, x) (((set) >> ((x) - 1)) & 1)

/* Records: 0, those of the patches, and those of lists. */
#define RECORD_OF(list) (PATCHES + 1 + (list))
#define IS_LIST(record) ((record) > PATCHES)
#define LIST_OF(record) ((record) - PATCHES - 1)

/* Words of the thread that the writer reads. The guard is 0, or one more than the depth of the frame. */
#define GUARD 0
#define RECORD(depth) (1 + 2 * (depth))
#define CURRENT(depth) (2 + 2 * (depth))
#define PAIR_RECORD(offset) (1 + 2 * DEPTHS + 2 * ((offset) - 1))
#define PAIR_CALLED(offset) (2 + 2 * DEPTHS + 2 * ((offset) - 1))
/* Has the thread a block? */
#define BLOCK (1 + 2 * DEPTHS + 2 * RING)
#define WORDS (BLOCK + 1)

byte memory[WORDS];
chan buffer = [6] of { byte, byte };

/* The slot of both hooks. */
byte slot;

/* Lists. */
#define FREED 0
#define IN_USE 1
#define RETIRED 2
byte state[LISTS];
byte entries[LISTS]; /* a set of patches, in their order */
byte closed[LISTS];

/* Sets of patches: that are not gone; and that are closed, and may be used still. */
byte alive;
byte waiting;

inline arrive()
{
	buffer?word, value;
	memory[word] = value;
	word = 0;
	value = 0
}

/* ---- the thread -------------------------------------------------------------------------------------------------- */

/* What becomes of the execution at a depth. */
#define NONE 0
#define BETWEEN 1 /* both hooks */
#define MOVED 2 /* its pair is to be forgotten */
#define IS_EMPTY (top == 0 && !gone_past)

#define HERE 1
#define PASSED 2

typedef pair {
	byte place, record, called, depth
}

/*
 * Inside of an atomic step. As the writer decides how much has arrived, a step may have the end of a call in it, then
 * any stores, then one look at what the writer has stored.
 */
inline put(where, what)
{
	if
	:: len(buffer) >= stores -> arrive()
	:: else
	fi;
	buffer!where, what
}

inline put_unless(number, where, what)
{
	if
	:: mutant != number -> put(where, what)
	:: else
	fi
}

inline put_if(number, where, what)
{
	if
	:: mutant == number -> put(where, what)
	:: else
	fi
}

inline use(x)
{
	if
	:: !HAS(alive, x) -> VIOLATION("patch used when it is gone")
	:: HAS(waiting, x) -> COVER(0, "a patch is used while it waits")
	:: else
	fi
}

inline use_list()
{
	if
	:: IS_LIST(record) && state[LIST_OF(record)] == FREED -> VIOLATION("list used when it is freed")
	:: IS_LIST(record) && state[LIST_OF(record)] == RETIRED -> COVER(1, "a list is walked that was replaced")
	:: else
	fi
}

inline clear_pair(offset)
{
	put(PAIR_RECORD(offset), 0);
	pairs[offset].place = 0;
	pairs[offset].record = 0
}

/* hook_pairs_make_room() */
inline make_room()
{
	found = false;
	i = 1;
	do
	:: i <= room ->
		if
		:: pairs[i].place != 0 && pairs[i].depth >= depth && mutant != LEFT_PAIRS_STAY ->
			COVER(2, "a pair whose second call will not come is cleared");
			clear_pair(i)
		:: else
		fi;
		found = found || pairs[i].place != 0;
		i++
	:: else -> break
	od;
	do
	:: top != 0 && pairs[top].place == 0 -> top--
	:: else -> break
	od;
	if
	:: top != 0 && room < ring -> COVER(18, "there is no memory for a second pair")
	:: top != 0 && room < ring ->
		put_unless(BLOCK_TOLD_LATE, BLOCK, 1);
		room = ring
	:: else
	fi;
	gone_past = found && (gone_past || top == room);
	top = (top < room -> top : 0);
	found = false;
	i = 0
}

/* In the place that follows: that of the oldest one if there is no other. */
inline take_place(what)
{
	top++;
	if
	:: pairs[top].place != 0 ->
		COVER(16, "the oldest pair is lost");
		i = 1;
		do
		:: i <= room ->
			if
			:: pairs[i].place == 0 || pairs[i].depth < pairs[top].depth ->
				VIOLATION("a pair is lost that is not the oldest of as many as there is room for")
			:: else
			fi;
			i++
		:: else -> i = 0; break
		od;
		owed[pairs[top].depth] = 0
	:: else
	fi;
	pairs[top].depth = depth;
	pairs[top].place = what
}

/* All others are of executions that this one has interrupted. */
inline check_others()
{
	i = 1;
	do
	:: i <= room ->
		if
		:: i != top && pairs[i].place != 0 && pairs[i].depth >= depth ->
			VIOLATION("a pair stays behind its execution")
		:: else
		fi;
		i++
	:: else -> i = 0; break
	od
}

#define BELOW(n) ((n) > 1 -> (n) - 1 : room)

/* hook_pairs_find(), hook_pairs_find_at(), hook_pairs_forget(): with the pair in `top` */
inline seek(by_place)
{
	found = false;
	n = (top != 0 -> top : room);
	i = 0;
	do
	:: i < room && (pairs[n].place == 0 || (!(by_place) && pairs[n].depth != depth)) -> i++; n = BELOW(n)
	:: else -> break
	od;
	if
	:: i < room ->
		found = true;
		i = (top != 0 -> top : room);
		do
		:: i != n && mutant != ABOVE_FOUND_STAYS ->
			if
			:: pairs[i].place != 0 ->
				COVER(17, "a pair is above that of the interrupted execution");
				clear_pair(i)
			:: else
			fi;
			i = BELOW(i)
		:: else -> break
		od;
		top = n;
		if
		:: pairs[n].depth != depth && pairs[n].place == HERE ->
			VIOLATION("another execution's pair is taken")
		:: else
		fi
	:: else
	fi;
	n = 0;
	i = 0
}

inline drop_pair()
{
	if
	:: top == 0 -> VIOLATION("pair dropped where there is none")
	:: top != 0 && pairs[top].depth != depth -> VIOLATION("another execution's pair is taken")
	:: else
	fi;
	clear_pair(top);
	top--
}

inline find()
{
	seek(!known || mutant == PLACE_ALONE_COMPARED);
	if
	:: found && pairs[top].place == PASSED ->
		COVER(3, "a second hook is passed over as its first was");
		clear_pair(top);
		top--;
		found = false
	:: else
	fi
}

/* Of the list that is walked. */
#define ENTRIES entries[LIST_OF(record)]
#define CLOSED closed[LIST_OF(record)]

inline next_entry()
{
	x++;
	do
	:: x <= patches && !HAS(ENTRIES, x) -> x++
	:: else -> break
	od
}

inline hook_begins()
{
	put(RECORD(depth), 0);
	put(GUARD, depth + 1)
}

inline pass_over()
{
	if
	:: IS_EMPTY || (top == 0 && mutant == GONE_PAST_AND_NOT_PASSED)
	:: else ->
		/* hook_pairs_pass() */
		make_room();
		if
		:: !IS_EMPTY && mutant != PASSED_NOT_NOTED ->
			take_place(PASSED);
			put(PAIR_RECORD(top), 0);
			pairs[top].record = 0
		:: else
		fi;
		check_others()
	fi;
	put(GUARD, 0);
	phase[depth] = BETWEEN
}

/* Of the walk in front, and of emit_note_pair(). */
inline note_pair()
{
	if
	:: IS_EMPTY || (top == 0 && mutant == GONE_PAST_NOT_NOTED)
	:: else -> make_room()
	fi;
	take_place(HERE);
	check_others();
	put_if(PAIR_NOTED_BEHIND_GUARD, GUARD, 0);
	if
	:: !IS_LIST(record)
	:: IS_LIST(record) ->
		put_if(CALLED_NOTED_BEHIND_RECORD, PAIR_RECORD(top), record);
		put_unless(CALLED_NOTED_BEHIND_GUARD, PAIR_CALLED(top), called);
		if
		:: mutant == CURRENT_ZERO_AFTER_WALK -> n = 0
		:: else -> n++
		fi;
		put(CURRENT(depth), n)
	fi;
	put(PAIR_RECORD(top), record);
	put_unless(PAIR_NOTED_BEHIND_GUARD, GUARD, 0);
	if
	:: mutant == BLOCK_TOLD_LATE && room > 1 -> put(BLOCK, 1)
	:: else
	fi;
	if
	:: IS_LIST(record) -> put_if(CALLED_NOTED_BEHIND_GUARD, PAIR_CALLED(top), called)
	:: else
	fi;
	pairs[top].record = record;
	pairs[top].called = called;
	owed[depth] = called;
	if
	:: moved -> COVER(7, "the instruction is not executed"); phase[depth] = MOVED
	:: else -> phase[depth] = BETWEEN
	fi
}

proctype thread()
{
	byte depth, left = hits, record, called, done, x, n, i, top, word, value;
	byte phase[DEPTHS], owed[DEPTHS];
	pair pairs[RING + 1];
	byte room = 1; /* of `ring`, so far */
	bool found, moved, gone_past;

end:	do
	:: atomic { phase[depth] == NONE && left > 0 -> left--; hook_begins(); record = slot; goto first }
	:: atomic { phase[depth] == BETWEEN -> goto second }
	:: atomic { phase[depth] == MOVED ->
			/* emit_forget_pair() */
			if
			:: mutant == MOVED_PAIR_STAYS
			:: mutant == TOP_FORGOTTEN -> drop_pair()
			:: else ->
				seek(false);
				if
				:: found -> drop_pair(); found = false
				:: else
				fi
			fi;
			phase[depth] = NONE;
			owed[depth] = 0
		}
	:: atomic { phase[depth] != NONE && depth + 1 < depths && left > 0 -> depth++ }
	:: atomic { phase[depth] == NONE && depth > 0 -> depth-- }
	:: atomic { phase[depth] == NONE && depth > 0 && leaps > 0 ->
			COVER(4, "a handler is left by siglongjmp()");
			goto leap
		}
	od;

first:	skip;
	atomic {
		if
		:: record == 0 -> pass_over(); goto end
		:: else
		fi;
		put(RECORD(depth), record);
		if
		:: !IS_LIST(record) -> x = record; goto call
		:: else -> next_entry()
		fi
	};

	/* hook_list_walk_around() */
walk:	atomic {
		if
		:: x > patches -> goto note
		:: else
		fi;
		n++;
		put_unless(CURRENT_AFTER_CLOSED_LOOK, CURRENT(depth), n);
		use_list();
		found = !HAS(CLOSED, x)
	};
	if
	:: !found ->
		atomic {
			COVER(5, "a closed entry is passed over");
			put_if(CURRENT_AFTER_CLOSED_LOOK, CURRENT(depth), n);
			next_entry();
			goto walk
		}
	:: else ->
		atomic {
			found = false;
			put_if(CURRENT_AFTER_CLOSED_LOOK, CURRENT(depth), n)
		}
	fi;

call:	skip;
	atomic {
		use(x);
		if
		:: !IS_LIST(record) -> called = BIT(x)
		:: else -> called = called | (BIT(x) & around)
		fi;
		if
		:: leaps > 0 -> COVER(6, "a procedure in front is left by longjmp()"); goto leap
		:: moves > 0 -> moves--; moved = true; called = (mutant == MOVED_STAYS_CALLED -> called : 0)
		:: IS_LIST(record) -> next_entry(); goto walk
		:: !IS_LIST(record)
		fi
	};
note:	atomic {
		if
		:: IS_LIST(record) ->
			n = 0;
			i = 1;
			do
			:: i <= patches -> n = n + HAS(ENTRIES, i); i++
			:: else -> i = 0; break
			od;
			use_list()
		:: else
		fi;
		note_pair();
		goto out
	};

second:	atomic {
		hook_begins();
		find();
		if
		:: !found ->
			if
			:: owed[depth] != 0 -> VIOLATION("second call is missing")
			:: else
			fi;
			put(GUARD, 0);
			phase[depth] = NONE;
			owed[depth] = 0;
			goto end
		:: else -> found = false
		fi;
		called = pairs[top].called;
		record = pairs[top].record;
		if
		:: mutant == SECOND_READS_SLOT -> record = slot
		:: else
		fi;
		put_unless(SECOND_HAS_NO_RECORD, RECORD(depth), record);
		if
		:: IS_LIST(record) -> put_unless(CURRENT_KEPT_ON_WAY_BACK, CURRENT(depth), 0)
		:: else
		fi;
		if
		:: mutant == PAIR_DROPPED_BEFORE_CALL -> drop_pair()
		:: else
		fi
	};
	/* hook_list_walk_back(): there is nothing that it stores or looks at between calls. */
	atomic {
		use_list();
		if
		:: !IS_LIST(record) -> called = (record != 0 -> BIT(record) : 0)
		:: IS_LIST(record) && mutant == SECOND_CALLS_OPEN -> called = ENTRIES & around & ~CLOSED
		:: else -> called = called & ENTRIES
		fi;
		x = patches;
		do
		:: x > 0 && HAS(called, x) ->
			use(x);
			if
			:: !HAS(owed[depth], x) -> VIOLATION("second call without a first")
			:: else
			fi;
			done = done | BIT(x);
			x--;
			if
			:: leaps > 0 ->
				/* Its pair stays. */
				COVER(8, "a procedure behind is left by longjmp()");
				goto leap
			:: true
			fi
		:: x > 0 && !HAS(called, x) -> x--
		:: x == 0 -> break
		od;
		if
		:: done != owed[depth] -> VIOLATION("second call is missing")
		:: else
		fi;
		if
		:: mutant != PAIR_DROPPED_BEFORE_CALL -> drop_pair()
		:: else
		fi;
		put(GUARD, 0);
		phase[depth] = NONE;
		owed[depth] = 0;
		goto out
	};

leap:	atomic {
		leaps--;
		do
		:: phase[depth] = NONE;
			owed[depth] = 0;
			if
			:: depth == 0 || inner -> break
			:: depth != 0 -> depth--
			fi
		od
	};
out:	atomic { moved = false; n = 0; x = 0; done = 0; called = 0; record = 0; goto end }
}

/* ---- the writer -------------------------------------------------------------------------------------------------- */

#define NO_LIST 255

inline get(where, into)
{
	atomic {
		do
		:: nempty(buffer) -> arrive()
		:: break
		od;
		into = memory[where]
	}
}

inline fence()
{
	atomic {
		do
		:: nempty(buffer) -> arrive()
		:: empty(buffer) -> break
		od;
		fenced = true
	}
}

/* place_set_slot() */
inline set_slot()
{
	if
	:: list != NO_LIST ->
		seen = entries[list] & ~closed[list];
		if
		:: seen == 0 -> slot = 0
		:: alike && (seen == 1 || seen == 2 || seen == 4) && (seen & around) != 0 ->
			slot = (seen == 4 -> 3 : seen)
		:: else -> slot = RECORD_OF(list); published[list] = true
		fi;
		seen = 0
	:: else -> slot = ((open & only) == 4 -> 3 : open & only)
	fi
}

inline free_list(l)
{
	state[l] = FREED;
	entries[l] = 0;
	closed[l] = 0
}

inline retire(l)
{
	if
	:: !published[l] || mutant == LIST_FREED_WITHOUT_LOOK -> free_list(l)
	:: else ->
		state[l] = RETIRED;
		fenced = fenced && mutant == LIST_RETIRED_UNFENCED
	fi;
	published[l] = false
}

/* place_use(), when a patch joins: it is not open yet. */
inline join(x)
{
	if
	:: attached == 0 && (BIT(x) & around) && alike -> attached = BIT(x); only = BIT(x)
	:: else ->
		if
		:: state[0] == FREED -> fresh = 0
		:: state[0] != FREED && state[1] == FREED -> fresh = 1
		:: else -> fresh = NO_LIST
		fi;
		if
		:: fresh != NO_LIST ->
			attached = attached | BIT(x);
			state[fresh] = IN_USE;
			entries[fresh] = attached;
			closed[fresh] = attached & ~open;
			seen = list;
			list = fresh;
			fresh = seen;
			only = 0;
			set_slot();
			if
			:: fresh != NO_LIST -> COVER(9, "a list is replaced"); retire(fresh)
			:: else
			fi
		:: else -> COVER(10, "no memory for a list")
		fi;
		fresh = 0;
		seen = 0
	fi
}

/* place_leave(): its entries are nobody's, and stay closed. */
inline leave(x)
{
	attached = attached & ~BIT(x);
	only = only & ~BIT(x);
	if
	:: attached == 0 && list != NO_LIST ->
		slot = 0;
		retire(list);
		list = NO_LIST
	:: else
	fi
}

/* quiesce_see(), of a thread that uses this */
inline see(record, current, called, is_pair)
{
	if
	:: record == 0
	:: record != 0 && !IS_LIST(record) -> used = used | BIT(record)
	:: IS_LIST(record) ->
		l = LIST_OF(record);
		if
		:: !(is_pair && mutant == LIST_NOT_SEEN_IN_PAIRS) -> lists_seen = lists_seen | (1 << l)
		:: else
		fi;
		y = 1;
		n = 0;
		do
		:: y <= patches ->
			n = n + HAS(entries[l], y);
			if
			:: state[l] == FREED || !HAS(entries[l], y)
			:: state[l] != FREED && HAS(entries[l], y) ->
				if
				:: n == current && mutant != CURRENT_NOT_LOOKED_AT -> used = used | BIT(y)
				:: HAS(around & called, y) && mutant != CALLED_NOT_LOOKED_AT ->
					used = used | BIT(y)
				:: HAS(around, y) && n < current && mutant != ONLY_CURRENT_LOOKED_AT ->
					used = used | BIT(y)
				:: else
				fi
			fi;
			y++
		:: else -> break
		od;
		y = 0;
		n = 0;
		l = 0
	fi
}

/* The words of a pair, in any order; of the first one before it is known where the others are. */
inline read_pairs()
{
	p = 1;
	do
	:: p == 2 && mutant == BLOCK_NOT_READ -> break
	:: p == 2 && mutant != BLOCK_NOT_READ && mutant != BLOCK_LOOKED_FOR_FIRST && !block -> get(BLOCK, block);
		if
		:: !block -> break
		:: else
		fi
	:: p == 2 && mutant == BLOCK_LOOKED_FOR_FIRST && !block -> break
	:: p <= ring && (p != 2 || (block && mutant != BLOCK_NOT_READ)) ->
		if
		:: get(PAIR_RECORD(p), record); get(PAIR_CALLED(p), called)
		:: get(PAIR_CALLED(p), called); get(PAIR_RECORD(p), record)
		fi;
		atomic {
			if
			:: record != 0 -> COVER(11, "a pair is seen")
			:: else
			fi;
			see(record, 0, called, true);
			record = 0;
			called = 0
		};
		p++
	:: else -> break
	od;
	p = 0;
	block = 0
}

inline look()
{
	if
	:: !fenced && mutant != NO_FENCE -> fence()
	:: else
	fi;
	if
	:: mutant == PAIRS_READ_FIRST -> read_pairs()
	:: else
	fi;
	if
	:: mutant == BLOCK_LOOKED_FOR_FIRST -> get(BLOCK, block)
	:: else
	fi;
	get(GUARD, guard);
	if
	:: mutant == PAIRS_READ_BEFORE_FRAME -> read_pairs()
	:: else
	fi;
	if
	:: guard != 0 ->
		/* One call reads both words, but not at one time. */
		if
		:: get(RECORD(guard - 1), record); get(CURRENT(guard - 1), current)
		:: get(CURRENT(guard - 1), current); get(RECORD(guard - 1), record)
		fi;
		atomic {
			if
			:: record == 0 -> unknown = true
			:: else -> see(record, current, 0, false)
			fi;
			record = 0;
			current = 0
		}
	:: else
	fi;
	if
	:: mutant != PAIRS_READ_FIRST && mutant != PAIRS_READ_BEFORE_FRAME && mutant != PAIRS_NOT_READ -> read_pairs()
	:: else
	fi;
	atomic {
		guard = 0;
		l = 0;
		do
		:: l < LISTS ->
			if
			:: state[l] == RETIRED && !HAS(lists_seen, l + 1) &&
			   (!unknown || mutant == UNKNOWN_FREES_LISTS) ->
				COVER(12, "a list is freed");
				free_list(l)
			:: state[l] == RETIRED && HAS(lists_seen, l + 1) && !unknown ->
				COVER(13, "a list is kept for a thread")
			:: else
			fi;
			l++
		:: else -> l = 0; break
		od;
		if
		:: !unknown ->
			if
			:: (waiting & ~used) != 0 && lists_seen != 0 ->
				COVER(14, "a patch is gone while a list is walked")
			:: else
			fi;
			alive = alive & ~(waiting & ~used);
			waiting = waiting & used
		:: else -> COVER(15, "a record is not known yet")
		fi;
		unknown = false;
		used = 0;
		lists_seen = 0
	}
}

proctype writer()
{
	byte x, y, l, p, n, word, value;
	byte list, fresh, only, attached = start, open = start;
	bool published[LISTS], fenced = true, unknown;
	byte guard, record, current, called, used, lists_seen, seen, block;

	published[0] = true;
end:	do
	:: atomic { rounds > 0 ->
			rounds--;
			if
			:: x = 1
			:: x = 2
			:: patches == 3 -> x = 3
			fi
		};
end_choice:	if
		:: atomic { !HAS(attached, x) && !HAS(waiting, x) -> join(x) };
			if
			:: HAS(attached, x) -> goto opens
			:: else
			fi
		:: atomic { HAS(attached, x) && !HAS(open, x) -> goto opens }
		:: atomic { HAS(attached, x) && !HAS(open, x) -> leave(x) }
		:: HAS(open, x) -> goto closes
		:: x == 1 && (waiting != 0 || state[0] == RETIRED || state[1] == RETIRED) -> look()
		fi;
		x = 0
	od;

	/* quiesce_set_open() */
opens:	atomic {
		waiting = waiting & ~BIT(x);
		alive = alive | BIT(x);
		open = open | BIT(x);
		if
		:: list != NO_LIST -> closed[list] = closed[list] & ~BIT(x)
		:: else
		fi
	};
	atomic { set_slot(); x = 0; goto end };

closes:	atomic {
		open = open & ~BIT(x);
		if
		:: list != NO_LIST && mutant != ENTRY_NOT_CLOSED -> closed[list] = closed[list] | BIT(x)
		:: else
		fi
	};
	atomic { set_slot() };
	atomic {
		do
		:: l < LISTS ->
			if
			:: state[l] == RETIRED && HAS(entries[l], x) && mutant != RETIRED_NOT_CLOSED ->
				closed[l] = closed[l] | BIT(x)
			:: else
			fi;
			l++
		:: else -> l = 0; break
		od;
		waiting = waiting | BIT(x);
		fenced = false;
		x = 0;
		goto end
	}
}

init {
	atomic {
		c_code {
			now.patches = setting("PATCHES", 2);
			now.start = setting("START", 3);
			now.rounds = setting("ROUNDS", 5);
			now.hits = setting("HITS", 1);
			now.depths = setting("DEPTHS", 1);
			now.leaps = setting("LEAPS", 0);
			now.inner = setting("INNER", 0);
			now.known = setting("KNOWN", 1);
			now.moves = setting("MOVES", 0);
			now.ring = setting("RING", 2);
			now.stores = setting("STORES", 4);
			now.around = setting("AROUND", 3);
			now.alike = setting("ALIKE", 1);
			now.mutant = setting("MUTANT", 0);
		};
		alive = start;
		state[0] = IN_USE;
		entries[0] = start;
		slot = RECORD_OF(0);
		run writer();
		run thread()
	}
}
