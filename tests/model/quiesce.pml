/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The grace period of removal (doc/protocol.md, "When a patch is gone"; hook_threads.h): hooks load a record through a
 * slot with plain moves, and a writer that closed the slot finds out when nobody uses the record any more. quiesce.sh
 * runs it.
 *
 * Stores of a thread go through a buffer, in order, and reach memory at any later time (TSO); a membarrier, or an
 * atomic operation of the thread, comes when the buffer is empty. The writer's own stores are followed by the fence or
 * by system calls: they are seen at once.
 *
 * Each thread has two places for a frame, as its hooks may meet at different depths. Behind the hook the place holds
 * anything, also while the guard still names it: longjmp() has left the hook. Lists of patches and pairs of calls are
 * in lists.pml.
 */
#include "common.pml"

/* ---- settings: from the environment ------------------------------------------------------------------------------ */

byte threads; /* 1 or 2 */
byte rounds;  /* things that the writer does */
byte hooks;   /* that each thread runs */
byte deaths;  /* threads that end and whose storage another one gets */
byte mutant;  /* what is left out, or done wrongly: */

/* quiesce.sh reads this table: number, and what must be violated. */
#define NO_FENCE              1 /* MUTANT: record used when it is gone */
#define FENCE_BEFORE_CLOSING  2 /* MUTANT: record used when it is gone */
#define OLD_FENCE_COUNTS      3 /* MUTANT: record used when it is gone */
#define GUARD_AFTER_LOAD      4 /* MUTANT: record used when it is gone */
#define RECORD_NOT_ZEROED     5 /* MUTANT: record used when it is gone */
#define ZEROED_AFTER_GUARD    6 /* not needed: the fence comes behind both */
#define REGISTERED_AFTER_LOAD 7 /* MUTANT: record used when it is gone */
#define UNKNOWN_IS_QUIET      8 /* MUTANT: record used when it is gone */
#define GUARD_CLEARED_EARLY   9 /* MUTANT: record used when it is gone */
#define SAVED_AFTER_INSIDE   10 /* MUTANT: record used when it is gone */
#define SAVED_NOT_LOOKED_AT  11 /* MUTANT: record used when it is gone */
#define REOPENED_STILL_WAITS 12 /* MUTANT: record used when it is gone */
#define DROPPED_UNDOUBTED    13 /* MUTANT: record used when it is gone */

/* ---- memory ------------------------------------------------------------------------------------------------------ */

#define THREADS 2
/* Words of a thread. */
#define GUARD 0
#define SAVED 1
#define FRAME 2 /* two of them: what they hold is the record */
#define WORDS 4

/* Values of the guard; a frame is 1 or 2. */
#define NO_HOOK 0
#define INSIDE 3
#define UNKNOWN 4

/* Values of a frame. */
#define NOTHING 0
#define JUNK 3 /* neither a record */

byte memory[8];
chan buffer[THREADS] = [8] of { byte, byte };
/* The table. */
#define FREE 0
#define TAKEN 1
#define DOUBTED 2
byte entry[THREADS];
bool mapped[THREADS];

byte slot;
/* Of records 1 and 2. */
bool alive[3];
bool waiting[3];
bool fenced[3];

#define PUT(word, value) buffer[t]!word, value
#define DRAINED(t) empty(buffer[t])

proctype core(byte t)
{
	byte word, value;

end:	do
	:: atomic { buffer[t]?word, value -> memory[t * WORDS + word] = value }
	od
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

inline register()
{
	/* claim_same(), claim_free(): whatever it was, an atomic operation makes it TAKEN. */
	atomic {
		DRAINED(t);
		if
		:: entry[t] == DOUBTED -> COVER(0, "a thread registers against a doubt")
		:: else
		fi;
		entry[t] = TAKEN
	}
}

inline use()
{
	if
	:: !alive[record] -> VIOLATION("record used when it is gone")
	:: waiting[record] -> COVER(1, "a record is used while it waits")
	:: else
	fi
}

proctype thread(byte t)
{
	byte guard = UNKNOWN, frame, record, left = hooks;
	bool new;

end:	do
	:: left > 0 ->
		left--;
		new = guard == UNKNOWN;
		if
		:: new && mutant != REGISTERED_AFTER_LOAD -> register()
		:: else
		fi;
		if
		:: frame = 0
		:: frame = 1
		fi;
		if
		:: mutant != RECORD_NOT_ZEROED && mutant != ZEROED_AFTER_GUARD -> PUT(FRAME + frame, NOTHING)
		:: else
		fi;
		if
		:: mutant != GUARD_AFTER_LOAD -> PUT(GUARD, frame + 1)
		:: else
		fi;
		if
		:: mutant == ZEROED_AFTER_GUARD -> PUT(FRAME + frame, NOTHING)
		:: else
		fi;
		record = slot;
		if
		:: mutant == GUARD_AFTER_LOAD -> PUT(GUARD, frame + 1)
		:: else
		fi;
		if
		:: new && mutant == REGISTERED_AFTER_LOAD -> register()
		:: else
		fi;
		guard = frame + 1;
		if
		:: record == 0 -> PUT(GUARD, NO_HOOK); guard = NO_HOOK
		:: else ->
			PUT(FRAME + frame, record);
			if
			:: mutant == GUARD_CLEARED_EARLY -> PUT(GUARD, NO_HOOK)
			:: else
			fi;
			use();
			if
			:: mutant != SAVED_AFTER_INSIDE ->
				/* The procedure calls the library. */
				PUT(SAVED, guard); PUT(GUARD, INSIDE); PUT(GUARD, guard)
			:: mutant == SAVED_AFTER_INSIDE ->
				PUT(GUARD, INSIDE); PUT(SAVED, guard); PUT(GUARD, guard)
			:: true
			fi;
			use();
			if
			:: PUT(GUARD, NO_HOOK); guard = NO_HOOK
			:: true /* longjmp() */
			fi
		fi;
		/* The stack is used for something else. */
		if
		:: PUT(FRAME + frame, NOTHING)
		:: PUT(FRAME + frame, JUNK)
		:: true
		fi;
		record = 0
	:: deaths > 0 && guard != UNKNOWN ->
		atomic { DRAINED(t); deaths--; mapped[t] = false };
		/* Another thread gets the same storage. */
		atomic { mapped[t] = true; memory[t * WORDS + GUARD] = UNKNOWN; guard = UNKNOWN }
	od
}

/* ---- the writer -------------------------------------------------------------------------------------------------- */

inline fence()
{
	k = 0;
	do
	:: k < threads -> DRAINED(k); k++
	:: else -> break
	od
}

inline look_at(t)
{
	if
	:: entry[t] == FREE
	:: entry[t] != FREE && !mapped[t] ->
		if
		:: mutant == DROPPED_UNDOUBTED -> entry[t] = FREE
		:: else ->
			entry[t] = DOUBTED;
			if
			:: !mapped[t] ->
				atomic {
					if
					:: entry[t] == DOUBTED -> entry[t] = FREE;
			COVER(2, "a thread that is gone is dropped")
					:: else -> COVER(3, "a doubt was taken back by a new thread")
					fi
				}
			:: else -> atomic {
					COVER(4, "a doubt is withdrawn");
					entry[t] = TAKEN
				}
			fi
		fi
	:: entry[t] != FREE && mapped[t] ->
		seen = memory[t * WORDS + GUARD];
		if
		:: seen == INSIDE && mutant != SAVED_NOT_LOOKED_AT ->
			COVER(5, "a thread is inside the library");
			seen = memory[t * WORDS + SAVED]
		:: seen == INSIDE && mutant == SAVED_NOT_LOOKED_AT -> seen = NO_HOOK
		:: else
		fi;
		if
		:: seen == NO_HOOK || seen == UNKNOWN
		:: else ->
			seen = memory[t * WORDS + FRAME + seen - 1];
			if
			:: seen == NOTHING -> unknown = mutant != UNKNOWN_IS_QUIET;
			COVER(6, "a record is not known yet")
			:: seen == JUNK -> COVER(7, "a frame that was left is looked at")
			:: else -> used[seen] = true
			fi
		fi
	fi;
	seen = 0
}

inline finish(x)
{
	if
	:: waiting[x] && !unknown && !used[x] ->
		waiting[x] = false;
		alive[x] = false;
		COVER(8, "a record is gone")
	:: else
	fi;
	used[x] = false
}

proctype writer()
{
	byte k, seen, x;
	bool unknown, used[4];

end:	do
	:: rounds > 0 ->
		rounds--;
		if
		:: x = 1
		:: x = 2
		fi;
		if
		:: slot == 0 && !alive[x] -> alive[x] = true; slot = x
		:: slot == 0 && waiting[x] ->
			COVER(9, "a record is opened again");
			atomic { waiting[x] = mutant == REOPENED_STILL_WAITS; slot = x }
		:: slot == x ->
			if
			:: mutant == FENCE_BEFORE_CLOSING -> fence(); fenced[x] = true
			:: mutant != OLD_FENCE_COUNTS -> fenced[x] = false
			:: else
			fi;
			slot = 0;
			waiting[x] = true
		:: waiting[1] || waiting[2] ->
			if
			:: mutant != NO_FENCE && ((waiting[1] && !fenced[1]) || (waiting[2] && !fenced[2])) ->
				fence();
				atomic { fenced[1] = true; fenced[2] = true }
			:: else
			fi;
			look_at(0);
			if
			:: threads > 1 -> look_at(1)
			:: else
			fi;
			atomic { finish(1); finish(2); unknown = false }
		:: else
		fi;
		x = 0
	od
}

init {
	atomic {
		c_code {
			now.threads = setting("THREADS", 1);
			now.rounds = setting("ROUNDS", 5);
			now.hooks = setting("HOOKS", 2);
			now.deaths = setting("DEATHS", 0);
			now.mutant = setting("MUTANT", 0);
		};
		memory[GUARD] = UNKNOWN;
		memory[WORDS + GUARD] = UNKNOWN;
		mapped[0] = true;
		mapped[1] = true;
		run writer();
		run core(0);
		run thread(0);
		if
		:: threads > 1 -> run core(1); run thread(1)
		:: else
		fi
	}
}
