/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The commit protocol (doc/protocol.md) with threads that run the text while it changes. check.sh runs it.
 * Numbers I1 to I11 are invariants of doc/protocol.md, whose section "The model" says what is left out.
 *
 * Text is six bytes, three instructions of two:
 *
 *	cell  0 1   instruction 0: region P. Its jump is punned: opcode, displacement, and cell 2, which it only
 *	            reads (I11)
 *	      2 3   instruction 1: first of region N. Its jump has two versions, for two trampolines
 *	      4 5   instruction 2: behind a boundary of region N. The jump's byte there is a trap byte: of the SIGTRAP
 *	            class in version 1, of the SIGILL class in version 2
 *
 * P may take N in: then it is one region of three instructions, whose jump takes the cells 0 to 3.
 *
 * Each executing thread is a core of its own. At any fetch a core may see, for each byte on its own, any value that the
 * byte had since the core's last serialisation: `seen` holds those sets. A value fetched before stays in the set until
 * the core serialises, and serialising drops what is fetched but not executed: so choosing all bytes of an instruction
 * at the instant of its execution loses nothing. Data reads, those of the trap handler, see the current value.
 *
 * Instead of following each wrong byte, an instruction that could be fetched wrongly is an error: see execute.
 */

#include "common.pml"

/* ---- settings: from the environment, so that one verifier serves for all ----------------------------------------- */

byte threads;  /* 1 or 2 */
byte rounds;   /* commits */
byte failures; /* of membarrier or of a write, that are still to come at most */
bool with_punned; /* P takes part */
bool with_grown; /* P may take N in */
bool with_reuse;  /* of trampolines that are quiet: more than is built */
byte mutant;   /* what is left out, or done wrongly: */

/* check.sh reads this table: number, and what must be violated. */
#define NO_SYNC_0                1 /* MUTANT: torn jump */
#define NO_SYNC_1                2 /* MUTANT: torn instruction */
#define NO_SYNC_2                3 /* MUTANT: torn jump */
#define NO_SYNC_3                4 /* MUTANT: trap where its entry is retired */
#define NO_SYNC_3_PUNNED         5 /* MUTANT: torn jump */
#define NO_PHASE_0               6 /* MUTANT: torn jump */
#define PUNNED_IN_PHASE_3        7 /* MUTANT: torn jump */
#define PUNNED_NOT_LOOKED_AT     8 /* MUTANT: torn jump */
#define READ_BYTES_NOT_SPARED    9 /* MUTANT: torn jump */
#define PUBLISH_AFTER_PHASE_1   10 /* MUTANT: trap of ours given to the program */
#define TRAMPOLINE_AFTER_PHASE_1 11 /* MUTANT: code that is not there */
#define BOUNDARY_IN_PHASE_2     12 /* MUTANT: torn instruction */
#define BOUNDARY_IN_PHASE_3     13 /* MUTANT: torn jump */
#define BOUNDARY_BACK_IN_PHASE_2 14 /* MUTANT: torn instruction */
#define FIRST_BYTE_IN_PHASE_2   15 /* MUTANT: torn jump */
#define ENTRY_DELETED           16 /* MUTANT: trap of ours given to the program */
#define RETIRED_BEFORE_PHASE_3  17 /* MUTANT: trap of ours given to the program */
#define TRAMPOLINE_REUSED       18 /* MUTANT: code that is not there */
#define QUIET_BY_PC             19 /* MUTANT: code that is not there */
#define BYTE_DECIDES            20 /* MUTANT: trap of the program swallowed */
#define STATE_READ_ONCE         21 /* MUTANT: trap of ours given to the program */
#define STATE_READ_AFTER_BYTE   22 /* MUTANT: trap of ours given to the program */
#define SYNC_NOT_MADE_UP_FOR    23 /* MUTANT: torn jump */
#define NOT_WITHDRAWN_FROM_TEXT 24 /* MUTANT: trap of ours given to the program */
#define INNER_JUMP_NOT_CUT      25 /* MUTANT: torn jump */
#define LEAD_NOT_RETIRED        27 /* MUTANT: led where its entry is retired */
/*
 * Nothing that is checked here needs sync 3 where no entry is retired: whoever still sees a trap byte is served by its
 * entry.
 */
#define SYNC_3_ALWAYS           26 /* harmless */

/* ---- text -------------------------------------------------------------------------------------------------------- */

/* Values of bytes; sets of them. */
#define ORIG 1
#define CC 2   /* int3: SIGTRAP class */
#define ILL 4  /* a trap byte of the SIGILL class */
#define JMP 8
#define D1 16  /* a byte of the displacement, version 1 */
#define D2 32  /* of version 2 */
#define D3 64  /* of P with N taken in */
#define TRAPS (CC | ILL)
#define DISPLACEMENT (D1 | D2 | D3)

#define CELLS 6
#define P0 0
#define N0 2
#define N1 4   /* the boundary */
#define OWN 6  /* elsewhere in the program: an int $3 (CD 03), whose trap is the program's, and where no trap byte is */
byte text[CELLS + 1] = ORIG;
byte seen[2 * CELLS] = ORIG;
#define SEEN(core, cell) seen[(core) * CELLS + (cell)]

/* ---- registry ---------------------------------------------------------------------------------------------------- */

/*
 * One per instruction; the last one stands for none. The state word: generation, classes of trap byte ever held, state.
 */
#define ENTRY(address) ((address) / 2)
byte word[4];
byte target[4]; /* a trampoline */
byte lead; /* of the boundary: where copies of branches to it go; 0: to the text */
#define DORMANT 0
#define ACTIVE 1
#define RETIRED 2
#define STATE(w) ((w) & 3)
#define CLASSES(w) ((w) >> 2 & 3)
#define GENERATION 16
#define CLASS(value) ((value) == CC -> 1 : ((value) == ILL -> 2 : 0))

/* ---- trampolines ------------------------------------------------------------------------------------------------- */

#define T1 1
#define T2 2
#define T3 3 /* of N as a trap */
#define TP 4 /* of region P */
#define TG 5 /* of region P with N taken in */
#define UNWRITTEN 0
#define COMPLETE 1
#define REUSED 2 /* for something else */
byte memory[6];
/* Which trampoline a thread is in, and which one its trap handler is about to go to. Ghosts, for the proof of quiet. */
byte inside[2];
byte led[2];

bool grown; /* P has taken N in */

/* ---- threads ----------------------------------------------------------------------------------------------------- */

#define BYTES(cell) SEEN(core, cell)
#define LETS_IT_PASS \
	(mutant == NO_SYNC_3_PUNNED || mutant == RETIRED_BEFORE_PHASE_3 || mutant == NOT_WITHDRAWN_FROM_TEXT)
#define WITH_P (with_punned || with_grown)

/* The jump of N is one version or the other, whichever bytes are seen. */
#define WHOLE_N(d, boundary) (BYTES(N0 + 1) == (d) && BYTES(N1) == (boundary) && BYTES(N1 + 1) == (d))

inline enter(trampoline)
{
	if
	:: memory[trampoline] != COMPLETE -> VIOLATION("code that is not there")
	:: else -> inside[core] = trampoline
	fi
}

proctype executor(byte core)
{
	byte pc, class, before, byte_there, where;

arrive:
	/* A jump, a call, a return, or having been stopped there for long: any instruction, at any time. */
	atomic {
		if
		:: pc = N0
		:: pc = N1
		:: WITH_P -> pc = P0
		:: pc = OWN -> class = 1; goto trapped
		:: lead != 0 ->
			/* The copy of a branch to the boundary, which reads the slot and goes there at once. */
			pc = N1; where = lead; led[core] = where;
			COVER(25, "a branch to the boundary is led");
			if
			:: STATE(word[ENTRY(N1)]) != ACTIVE -> VIOLATION("led where its entry is retired")
			:: else
			fi;
			goto jump
		fi
	}
execute:
	atomic {
		if
		:: BYTES(pc) & ORIG ->
			/* I2: its other byte is original, whenever it was fetched. */
			if
			:: BYTES(pc + 1) != ORIG -> VIOLATION("torn instruction")
			:: else
			fi;
			if
			:: text[pc] == CC && pc == N0 ->
			COVER(0, "an original instruction is executed over its trap byte")
			:: text[pc] & TRAPS && pc == N1 -> COVER(1, "the same on a boundary")
			:: else
			fi;
			pc = 0;
			goto arrive
		:: BYTES(pc) & JMP ->
			if
			:: pc == N0 && WHOLE_N(D1, CC) -> where = T1; COVER(2, "jump, version 1")
			:: pc == N0 && WHOLE_N(D2, ILL) -> where = T2; COVER(3, "jump, version 2")
			:: pc == P0 && BYTES(P0 + 1) == D1 && BYTES(N0) == ORIG -> where = TP; COVER(4, "punned jump")
			:: pc == P0 && BYTES(P0 + 1) == D3 && BYTES(N0) == ILL && BYTES(N0 + 1) == D3 ->
				where = TG;
				COVER(22, "jump of the region that has grown")
			:: else -> VIOLATION("torn jump") /* I4, I11 */
			fi;
			if
			:: text[pc] == CC && pc == N0 -> COVER(5, "a jump is executed over its trap byte")
			:: text[pc] == ILL && pc == N0 ->
			COVER(23, "the jump of a region taken in is executed over its trap byte")
			:: text[pc] == CC && pc == P0 -> COVER(6, "a punned jump is executed over its trap byte")
			:: else
			fi;
			led[core] = where;
			goto jump
		:: BYTES(pc) & TRAPS ->
			if
			:: BYTES(pc) & CC -> class = 1
			:: BYTES(pc) & ILL -> class = 2
			fi;
			/*
			 * I5: retired means that no core raises a trap there any more. Some mutants are to show what
			 * comes of it.
			 */
			if
			:: STATE(word[ENTRY(pc)]) == RETIRED && !LETS_IT_PASS ->
				VIOLATION("trap where its entry is retired")
			:: else
			fi;
			if
			:: text[pc] == JMP -> COVER(7, "a trap byte is executed over the jump")
			:: text[pc] == ORIG && pc == N1 && text[N0] == CC ->
				COVER(21, "a trap byte is executed over the original byte behind a resident trap")
			:: text[pc] == ORIG && !(pc == N1 && text[N0] == CC) ->
			COVER(8, "a trap byte is executed over the original byte")
			:: pc == N1 && class == 2 -> COVER(9, "trap of the SIGILL class on the boundary")
			:: else
			fi;
			goto trapped
		:: BYTES(pc) & DISPLACEMENT -> VIOLATION("displacement executed") /* I1; of boundaries: I4 */
		fi
	}

trapped:
	/* The signal is pending, for any time. Then judge() of trap.c, load by load (I5). */
	if
	:: atomic { mutant == BYTE_DECIDES ->
		byte_there = text[pc];
		where = target[ENTRY(pc)];
		if
		:: byte_there & TRAPS -> goto go
		:: else -> goto retry
		fi }
	:: atomic { mutant == STATE_READ_AFTER_BYTE -> byte_there = text[pc] }
	:: else
	fi;
	before = word[ENTRY(pc)];
	if
	:: mutant != STATE_READ_AFTER_BYTE -> byte_there = text[pc]
	:: else
	fi;
	atomic { where = target[ENTRY(pc)]; led[core] = where };
	atomic {
		if
		:: word[ENTRY(pc)] != before && mutant != STATE_READ_ONCE && mutant != STATE_READ_AFTER_BYTE ->
			led[core] = 0;
			COVER(10, "the state changed while the handler looked");
			goto trapped
		:: else
		fi;
		if
		:: STATE(before) != DORMANT && !(CLASSES(before) & class) -> goto not_ours
		:: STATE(before) == ACTIVE -> goto go
		:: STATE(before) == RETIRED && CLASS(byte_there) == class -> goto not_ours
		:: STATE(before) == RETIRED && CLASS(byte_there) != class -> goto retry
		:: STATE(before) == DORMANT -> goto not_ours
		fi
	}

not_ours:
	atomic {
		if
		:: pc == OWN -> COVER(12, "a trap of the program is given to it")
		:: else -> VIOLATION("trap of ours given to the program")
		fi;
		goto again
	}
retry:
	atomic {
		if
		:: pc == OWN -> VIOLATION("trap of the program swallowed")
		:: else
		fi;
		COVER(13, "a late trap is executed again");
		if
		:: text[pc] == CC && pc == N0 -> COVER(14, "a late trap is executed again, and the trap byte is back")
		:: else
		fi;
		class = 0; before = 0; byte_there = 0; where = 0; led[core] = 0;
		goto execute
	}
go:
	atomic {
		if
		:: pc == OWN -> VIOLATION("trap of the program swallowed")
		:: pc == P0 && !grown -> COVER(15, "a trap at the punned jump leads to its trampoline")
		:: pc == P0 && grown ->
			COVER(24, "a trap at the first byte of the region that has grown leads to its trampoline")
		:: pc == N0 -> COVER(16, "a trap at the first byte leads to the trampoline")
		:: pc == N1 -> COVER(17, "a trap at the boundary leads to the trampoline")
		fi;
		if
		:: text[pc] == ORIG -> COVER(18, "a trap leads to the trampoline, and the original byte is back")
		:: pc == N0 && where != target[ENTRY(pc)] -> COVER(19, "a trap leads to the trampoline of before")
		:: else
		fi
	}
jump:
	atomic {
		enter(where);
		led[core] = 0;
		pc = 0; class = 0; before = 0; byte_there = 0; where = 0
	}
	/* In the trampoline, or in a hook, for any time (I7). */
	atomic {
		if
		:: memory[inside[core]] != COMPLETE -> VIOLATION("code that is not there")
		:: else
		fi;
		if
		:: inside[core] != target[ENTRY(N0)] && inside[core] < TP ->
			COVER(20, "a thread is in a retired trampoline")
		:: else
		fi;
		inside[core] = 0;
		goto arrive
	}
again:
	atomic {
		pc = 0; class = 0; before = 0; byte_there = 0; where = 0; led[core] = 0;
		goto arrive
	}
}

/* ---- the committing thread --------------------------------------------------------------------------------------- */

/* Jobs: region P and region N. */
#define P 0
#define N 1
#define JOB(cell) ((cell) < N0 || grown -> P : N)

/* What a region is to be: not installed; N installed with trampoline T1 to T3; P as a jump or as a trap, or grown. */
#define REMOVED 0
#define INSTALLED(job) (wanted[job] != REMOVED)
#define P_JUMP 1
#define P_TRAP 2
#define P_GROWN 3
byte wanted[2];
bool changes[2];
bool failed[2];
bool installed[2];
bool punned; /* the text has, or may have, P's jump */
bool unseen; /* something was written since the last sync */
bool cut_short; /* the batch before was */
bool broken;     /* the batch was cut short */
byte final[CELLS]; /* phase_final_bytes() */
byte trap[CELLS];  /* of instructions: phase_1_bytes() */

/* A write that fails leaves what was written before it, and ends the job. The writes of a phase are not one. */
inline write(cell, value)
{
	if
	:: failed[JOB(cell)] || !changes[JOB(cell)] || text[cell] == (value)
	:: !failed[JOB(cell)] && changes[JOB(cell)] && text[cell] != (value) ->
		if
		:: d_step {
			text[cell] = value;
			SEEN(0, cell) = SEEN(0, cell) | text[cell];
			if
			:: threads > 1 -> SEEN(1, cell) = SEEN(1, cell) | text[cell]
			:: else
			fi;
			installed[JOB(cell)] = true;
			unseen = true
		   }
		:: atomic { failures > 0 -> failures--; failed[JOB(cell)] = true; COVER(30, "a write fails") }
		fi
	fi
}

inline serialise(core)
{
	d_step {
		SEEN(core, 0) = text[0];
		SEEN(core, 1) = text[1];
		SEEN(core, 2) = text[2];
		SEEN(core, 3) = text[3];
		SEEN(core, 4) = text[4];
		SEEN(core, 5) = text[5]
	}
}

/*
 * Where nothing was written it is left out. membarrier() ends when each core has serialised, one after the other; it
 * may fail, before or after some have.
 */
inline core_sync(without)
{
	if
	:: mutant == without || !unseen
	:: else ->
		if
		:: serialise(0)
		:: atomic { failures > 0 -> failures--; broken = true; COVER(31, "core synchronisation fails") }
		fi;
		if
		:: threads > 1 && !broken ->
			if
			:: serialise(1)
			:: atomic { failures > 0 -> failures--; broken = true }
			fi
		:: else
		fi;
		unseen = broken
	fi
}

/* registry_activate(): the target before the state (I3). */
inline activate_class(address, where, class)
{
	target[ENTRY(address)] = where;
	if
	:: STATE(word[ENTRY(address)]) != ACTIVE || !(CLASSES(word[ENTRY(address)]) & (class)) ->
		word[ENTRY(address)] = (word[ENTRY(address)] & (256 - GENERATION)) + GENERATION |
				       (CLASSES(word[ENTRY(address)]) | (class)) << 2 | ACTIVE
	:: else
	fi;
	if
	:: address == N1 -> lead = where
	:: else
	fi
}

/* activate() of commit.c: for the byte in the end, and for the one after phase 1. */
inline activate(address, where, first)
{
	if
	:: final[address] & TRAPS -> activate_class(address, where, CLASS(final[address]))
	:: else
	fi;
	if
	:: ((first) & TRAPS) && CLASS(first) != CLASS(final[address]) -> activate_class(address, where, CLASS(first))
	:: else
	fi
}

inline retire(address)
{
	if
	:: address == N1 && STATE(word[ENTRY(N1)]) == ACTIVE && mutant != LEAD_NOT_RETIRED -> lead = 0
	:: else
	fi;
	if
	:: STATE(word[ENTRY(address)]) == ACTIVE && mutant == ENTRY_DELETED -> word[ENTRY(address)] = DORMANT
	:: STATE(word[ENTRY(address)]) == ACTIVE && mutant != ENTRY_DELETED ->
		word[ENTRY(address)] = (word[ENTRY(address)] & (256 - GENERATION)) + GENERATION |
				       CLASSES(word[ENTRY(address)]) << 2 | RETIRED
	:: else
	fi
}

inline retire_region(job)
{
	if
	:: job == P && !grown -> retire(P0)
	:: job == P && grown -> retire(P0); retire(N0); retire(N1)
	:: job == N -> retire(N0); retire(N1)
	fi
}

inline publish()
{
	if
	:: INSTALLED(P) && !grown -> activate(P0, TP, trap[P0])
	:: INSTALLED(P) && grown ->
		activate(P0, TG, trap[P0]);
		activate(N0, TG, trap[N0]);
		activate(N1, TG, trap[N1])
	:: else
	fi;
	if
	:: INSTALLED(N) ->
		activate(N0, wanted[N], trap[N0]);
		activate(N1, wanted[N], trap[N1])
	:: else
	fi
}

/* Trampolines that were reused in the meantime are written again: as if they were others. */
inline write_trampolines()
{
	if
	:: INSTALLED(P) -> memory[(grown -> TG : TP)] = COMPLETE
	:: else
	fi;
	if
	:: INSTALLED(N) -> memory[wanted[N]] = COMPLETE
	:: else
	fi
}

/* Phase 0 and sync 0: commit_cut_punned(); then commit_spare_what_is_read(). */
inline cut_punned()
{
	if
	:: punned && mutant != NO_PHASE_0 ->
		if
		:: changes[P] || !INSTALLED(P) ->
			if
			:: text[P0] != ORIG -> write(P0, CC)
			:: else
			fi;
			core_sync(NO_SYNC_0);
			if
			:: !broken && !failed[P] -> punned = false
			:: else
			fi
		:: else
		fi
	:: else
	fi;
	if
	:: punned && changes[N] && !broken && mutant != READ_BYTES_NOT_SPARED && mutant != NO_PHASE_0 ->
		failed[N] = true;
		COVER(32, "a punned jump could not be cut")
	:: else
	fi
}

inline phase_1()
{
	write(P0, trap[P0]);
	if
	:: grown && text[N0] == JMP && mutant == INNER_JUMP_NOT_CUT
	:: else -> write(N0, trap[N0])
	fi;
	if
	:: mutant == BOUNDARY_IN_PHASE_2 || mutant == BOUNDARY_IN_PHASE_3
	:: else -> write(N1, trap[N1])
	fi
}

/* A write that failed wholly left the text as it was: so must the registry be. */
inline withdraw()
{
	if
	:: failed[P] && INSTALLED(P) && (!installed[P] || mutant == NOT_WITHDRAWN_FROM_TEXT) ->
		COVER(33, "entries are withdrawn");
		retire_region(P)
	:: else
	fi;
	if
	:: failed[N] && INSTALLED(N) && (!installed[N] || mutant == NOT_WITHDRAWN_FROM_TEXT) ->
		COVER(33, "entries are withdrawn");
		retire_region(N)
	:: else
	fi
}

/* Boundaries that are to hold no trap byte get their original byte in phase 3 only (I2). */
#define TRAP_TO_TRAP(cell) (INSTALLED(JOB(cell)) && (final[cell] & TRAPS))
inline phase_2()
{
	write(P0 + 1, final[P0 + 1]);
	if
	:: (grown && TRAP_TO_TRAP(N0)) || (mutant == FIRST_BYTE_IN_PHASE_2 && !grown) -> write(N0, final[N0])
	:: else
	fi;
	write(N0 + 1, final[N0 + 1]);
	if
	:: (TRAP_TO_TRAP(N1) || mutant == BOUNDARY_BACK_IN_PHASE_2) && mutant != BOUNDARY_IN_PHASE_3 ->
		write(N1, final[N1])
	:: else
	fi;
	write(N1 + 1, final[N1 + 1])
}

inline phase_3()
{
	if
	:: grown || wanted[P] != P_JUMP || mutant == PUNNED_IN_PHASE_3 -> write(P0, final[P0])
	:: else
	fi;
	write(N0, final[N0]);
	write(N1, final[N1])
}

/* Phase 4: commit_write_punned(). */
inline write_punned()
{
	if
	:: changes[P] && wanted[P] == P_JUMP && !failed[P] && !broken ->
		if
		:: text[N0] != ORIG && mutant != PUNNED_NOT_LOOKED_AT ->
			failed[P] = true;
			COVER(34, "what a punned jump would read is not original")
		:: else ->
			punned = true;
			write(P0, JMP)
		fi
	:: else
	fi
}

/* commit_needs_sync_3(): commit_settle() retires an entry, or phase 4 follows. */
#define ACTIVE_AT(address) (STATE(word[ENTRY(address)]) == ACTIVE)
#define RETIRES_P \
	(WITH_P && !failed[P] && !INSTALLED(P) && (ACTIVE_AT(P0) || grown && (ACTIVE_AT(N0) || ACTIVE_AT(N1))))
#define RETIRES_N \
	(!grown && !failed[N] && (!INSTALLED(N) && (ACTIVE_AT(N0) || ACTIVE_AT(N1)) || \
		wanted[N] == T3 && ACTIVE_AT(N1)))
#define PHASE_4 (changes[P] && wanted[P] == P_JUMP && !failed[P])
#define SYNC_3_NEEDED (RETIRES_P || RETIRES_N || PHASE_4 || mutant == SYNC_3_ALWAYS)

inline change_text()
{
	cut_punned();
	if
	:: !broken ->
		phase_1();
		withdraw();
		if
		:: mutant == PUBLISH_AFTER_PHASE_1 -> publish()
		:: mutant == TRAMPOLINE_AFTER_PHASE_1 -> write_trampolines()
		:: else
		fi;
		core_sync(NO_SYNC_1)
	:: else
	fi;
	if
	:: !broken -> phase_2(); core_sync(NO_SYNC_2)
	:: else
	fi;
	if
	:: !broken ->
		if
		:: mutant == RETIRED_BEFORE_PHASE_3 && !grown && !INSTALLED(N) && !failed[N] -> retire_region(N)
		:: else
		fi;
		phase_3();
		if
		:: mutant == NO_SYNC_3_PUNNED
		:: SYNC_3_NEEDED && mutant != NO_SYNC_3_PUNNED -> core_sync(NO_SYNC_3)
		:: !SYNC_3_NEEDED && mutant != NO_SYNC_3_PUNNED -> COVER(37, "sync 3 is left out")
		fi
	:: else
	fi;
	if
	:: !broken -> write_punned()
	:: else
	fi;
	cut_short = broken && mutant != SYNC_NOT_MADE_UP_FOR;
	unseen = unseen && mutant != SYNC_NOT_MADE_UP_FOR
}

#define IN(trampoline) (inside[0] == (trampoline) || inside[1] == (trampoline))
#define LED(trampoline) (led[0] == (trampoline) || led[1] == (trampoline))
/*
 * I7. Built is: nothing is ever reused for something else. What would do is here, too: no thread is in it, or is led
 * there by a handler that looked at the entry before. The program counter alone does not tell.
 */
inline reuse(trampoline)
{
	if
	:: atomic { wanted[N] != trampoline && memory[trampoline] == COMPLETE &&
		    (mutant == TRAMPOLINE_REUSED || !IN(trampoline) && (mutant == QUIET_BY_PC || !LED(trampoline))) ->
		memory[trampoline] = REUSED;
		COVER(35, "a trampoline that is quiet is used for something else") }
	:: else
	fi
}

inline settle()
{
	if
	:: WITH_P && !failed[P] && !INSTALLED(P) -> retire_region(P); installed[P] = false
	:: else
	fi;
	if
	:: !grown && !failed[N] && !INSTALLED(N) -> retire_region(N); installed[N] = false
	:: !grown && !failed[N] && wanted[N] == T3 -> retire(N1) /* retire_bystanders() */
	:: else
	fi;
	if
	:: true
	:: !failed[JOB(N0)] && (with_reuse || mutant == TRAMPOLINE_REUSED || mutant == QUIET_BY_PC) ->
		if
		:: true -> reuse(T1)
		:: true -> reuse(T2)
		fi
	fi
}

/* phase_trap_for(): the byte of an instruction after phase 1. */
#define BACK(cell) (text[cell] != ORIG -> CC : ORIG)
#define TRAP_FOR_FIRST(job, cell) (INSTALLED(job) -> CC : (text[cell] & TRAPS -> text[cell] : BACK(cell)))
#define TRAP_FOR_BOUNDARY(job, cell) \
	(text[cell] & TRAPS -> text[cell] : (INSTALLED(job) && (final[cell] & TRAPS) -> final[cell] : BACK(cell)))

/* Any wish at all, but that a punned jump is not planned over a region (I11). */
inline choose()
{
	if
	:: with_grown && !grown ->
		grown = true;
		installed[P] = installed[P] || installed[N];
		installed[N] = false
	:: grown && !installed[P] -> grown = false
	:: true
	fi;
	if
	:: wanted[N] = REMOVED
	:: !grown -> wanted[N] = T1
	:: !grown -> wanted[N] = T2
	:: !grown -> wanted[N] = T3
	fi;
	if
	:: wanted[P] = REMOVED
	:: with_punned && !grown && wanted[N] == REMOVED -> wanted[P] = P_JUMP
	:: with_punned && !grown -> wanted[P] = P_TRAP
	:: grown -> wanted[P] = P_GROWN
	fi;
	if
	:: wanted[N] == REMOVED ->
		final[N0] = ORIG; final[N0 + 1] = ORIG; final[N1] = ORIG; final[N1 + 1] = ORIG
	:: wanted[N] == T1 ->
		final[N0] = JMP; final[N0 + 1] = D1; final[N1] = CC; final[N1 + 1] = D1
	:: wanted[N] == T2 ->
		final[N0] = JMP; final[N0 + 1] = D2; final[N1] = ILL; final[N1 + 1] = D2
	:: wanted[N] == T3 ->
		final[N0] = CC; final[N0 + 1] = ORIG; final[N1] = ORIG; final[N1 + 1] = ORIG
	fi;
	if
	:: wanted[P] == REMOVED -> final[P0] = ORIG; final[P0 + 1] = ORIG
	:: wanted[P] == P_JUMP -> final[P0] = JMP; final[P0 + 1] = D1
	:: wanted[P] == P_TRAP -> final[P0] = CC; final[P0 + 1] = ORIG
	:: wanted[P] == P_GROWN ->
		final[P0] = JMP; final[P0 + 1] = D3;
		final[N0] = ILL; final[N0 + 1] = D3;
		/* Behind the jump. */
		final[N1] = CC
	fi;
	trap[P0] = TRAP_FOR_FIRST(P, P0);
	trap[N0] = (grown -> TRAP_FOR_BOUNDARY(P, N0) : TRAP_FOR_FIRST(N, N0));
	trap[N1] = TRAP_FOR_BOUNDARY(JOB(N1), N1);
	changes[N] = final[N0] != text[N0] || final[N0 + 1] != text[N0 + 1] ||
		     final[N1] != text[N1] || final[N1 + 1] != text[N1 + 1];
	changes[P] = final[P0] != text[P0] || final[P0 + 1] != text[P0 + 1] || (grown && changes[N]);
	changes[N] = changes[N] && !grown
}

proctype committer()
{
	do
	:: rounds > 0 ->
		atomic {
			rounds--;
			broken = false;
			failed[P] = false;
			failed[N] = false;
			choose()
		}
		if
		:: mutant != TRAMPOLINE_AFTER_PHASE_1 -> write_trampolines()
		:: else
		fi;
		if
		:: mutant != PUBLISH_AFTER_PHASE_1 -> publish()
		:: else
		fi;
		if
		:: changes[P] || changes[N] || cut_short || unseen && SYNC_3_NEEDED ->
			if
			:: cut_short -> COVER(36, "a batch goes on where the one before was cut short")
			:: else
			fi;
			change_text()
		:: else
		fi;
		if
		:: !broken -> settle()
		:: else
		fi
	:: rounds == 0 -> break
	od
}

init {
	atomic {
		c_code {
			now.threads = setting("THREADS", 2);
			now.rounds = setting("ROUNDS", 2);
			now.failures = setting("FAILURES", 0);
			now.with_grown = setting("GROWN", 0);
			now.with_reuse = setting("REUSE", 0);
			now.with_punned = setting("PUNNED", 0);
			now.mutant = setting("MUTANT", 0);
		};
		run executor(0);
		if
		:: threads > 1 -> run executor(1)
		:: else
		fi;
		run committer()
	}
}
