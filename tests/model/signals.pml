/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The signals of one thread (doc/protocol.md, S1 to S10): trap/signal_frame.c, trap/put_off.c, and what
 * interpose/emul_*.c do for rt_sigprocmask, for a wait with a mask, and for an execve. signals.sh runs it.
 *
 * There are two signals: OWNED, as SIGTRAP that others send, and OTHER. Both have a handler, and come between any two
 * steps. The program does anything: it changes its mask, waits, meets a hook whose procedure does the same, returns
 * from handlers, also with another mask in the frame, and leaves handlers and procedures by longjmp().
 *
 * Beside what the library has (kernel_mask, belief, held, put_off and the frames) the model keeps what Linux would have
 * without the library (program_mask, due and frame_program[]), and compares them wherever the program can look.
 *
 * Left out: other threads, and signals that are told to them; sigtimedwait; actions that ignore; SIGSYS; signals that
 * an instruction raises; registers and stacks, so that the stub is a word of the hook's frame that is exchanged or not.
 * An execve of a procedure is left out, too: with a signal put off, the new program begins with another mask.
 */
#include "common.pml"

byte calls; /* that the program makes, hooks and jumps included */
byte sends; /* signals that come */
byte mutant;

/* signals.sh reads this table: number, and what must be violated. */
#define BELIEF_NOT_FROM_FRAME    1 /* MUTANT: the program's mask is another one */
#define BELIEF_NOT_IN_FRAME      2 /* MUTANT: a frame has another mask */
#define BASE_NOT_OF_WAIT         3 /* MUTANT: a handler begins with another mask */
#define ENTRY_OPEN               4 /* MUTANT: a handler runs above a frame of ours */
#define LEAVING_OPEN             5 /* MUTANT: a handler runs above a frame of ours */
#define ENTRY_NOT_FINISHED       6 /* MUTANT: a handler runs above a frame of ours */
#define HELD_NOT_RAISED          7 /* MUTANT: a signal that is due does not come */
#define HELD_NOT_RAISED_AT_END   8 /* MUTANT: a signal that is due does not come */
#define HELD_LOOKED_AT_ONCE      9 /* MUTANT: a wait sleeps over a signal */
#define HELD_NOT_PENDED         10 /* MUTANT: a wait sleeps over a signal */
#define EXECVE_NOT_UNDONE       11 /* MUTANT: a trap of ours kills */
#define EXECVE_WITHOUT_BELIEF   12 /* MUTANT: a new program inherits another mask */
#define NOT_TAKEN_OUT_OF_MASK   13 /* MUTANT: a trap of ours kills */
#define HANDLER_BLOCKS_OWNED    14 /* MUTANT: a trap of ours kills */
#define CALL_NOT_FINISHED       15 /* MUTANT: a frame has another mask */
#define CALL_NOT_DROPPED        16 /* MUTANT: a handler runs above a frame of ours */
#define DROPPED_CALL_KEEPS_MASK 17 /* not needed: what such a call blocks of ours, the program blocks */
#define STUB_LEAVES_BIT         18 /* not needed here: it comes in the stub, unless sigtimedwait has taken it */
#define PUT_OFF_IS_READ         19 /* MUTANT: a call reads another mask */
#define PUT_OFF_IN_FRAME        20 /* MUTANT: a frame has another mask */
#define PUT_OFF_UNBLOCKS_BLOCKED 21 /* MUTANT: the program's mask is another one */
#define ABANDONED_FOR_EVER      22 /* MUTANT: a signal that is due does not come */
#define NOT_PUT_OFF             23 /* MUTANT: a handler runs in a procedure */
#define STUB_NOT_PUT            24 /* MUTANT: a signal that is due does not come */
#define STUB_NOT_FINISHED       25 /* MUTANT: a handler runs above a frame of ours */
#define BIT_KEPT_IN_HANDLER     26 /* MUTANT: the program's mask is another one */
#define OLD_READ_AGAIN          27 /* not needed: what was raised comes when the call is made, and ends it */
#define DELIVERED_WHILE_BLOCKED 28 /* MUTANT: a blocked signal is handled */
#define TAKEN_NOT_REMOVED       29 /* MUTANT: a signal is handled twice */
#define PUT_OFF_LOST            30 /* MUTANT: a signal is lost */
#define PUT_OFF_BEHIND_CALL     31 /* MUTANT: a signal that is due does not come */
#define PUT_OFF_THOUGH_BLOCKED  32 /* MUTANT: the program's mask is another one */
#define BIT_KEPT_AT_END         33 /* MUTANT: the program's mask is another one */
#define AT_ONCE_WITH_BELIEF     34 /* MUTANT: the program's mask is another one */
#define AT_ONCE_WITH_MASK       35 /* MUTANT: a trap of ours kills */
#define AT_ONCE_WITH_PUT_OFF    36 /* MUTANT: the program's mask is another one */
#define AT_ONCE_WITH_HELD       37 /* not needed with one thread: what is held, it believes to block */
#define LEAVING_NOT_BEGUN_ANEW  38 /* MUTANT: the program's mask is another one */

#define OWNED 1
#define OTHER 2
#define ALL 3
#define NOT(set) (ALL & ~(set))

/* ---- state ------------------------------------------------------------------------------------------------------- */

/* Where the thread is. */
#define PROGRAM      0 /* or a procedure */
#define MASK_FRONT   1 /* rt_sigprocmask, not made */
#define MASK_LOOK    2
#define MASK_BLOCK   3
#define MASK_MAKE    4
#define WAIT_FRONT   5 /* a wait, not made */
#define WAIT_LOOK    6
#define WAIT_RAISE   7
#define WAIT_MAKE    8
#define EXEC_FRONT   9 /* execve, not made */
#define EXEC_LOOK   10
#define EXEC_OPEN   11
#define EXEC_MAKE   12
#define ASLEEP      13 /* in the kernel */
#define MASK_READ   14 /* made */
#define MASK_KEEP   15
#define MASK_END    16
#define WAIT_POST   17
#define WAIT_END    18
#define EXEC_POST   19
#define EXEC_END    20
#define STUB        21
#define STUB_MADE   22
#define HOOK_END    23
#define ENTRY       24
#define ENTERED     25 /* the five instructions */
#define LEAVING     26
#define RETURNING   27
#define RESTORER    28 /* where it begins, as libc's does */
#define AT_ONCE     29 /* it has found nothing to do */
#define OVER        30

#define IN_CALL(pc) (pc >= MASK_FRONT && pc <= EXEC_END)
#define MADE(pc) (pc >= MASK_READ && pc <= EXEC_END)

byte pc;
byte kernel_mask, pending;
byte belief, held, put_off;

/* The hook: its procedure runs, above so many frames; it was left by a jump; it returns to the stub. */
bool running, abandoned, armed;
byte procedure_depth;

/* The call. */
#define BLOCK 0
#define UNBLOCK 1
#define SET 2
byte how, set;
byte believed;  /* when it began */
byte kernels;   /* mask from before, when everything is blocked for the call, or owned signals are */
byte asked;     /* with everything blocked: the mask to come */
bool whole;     /* that is so */
byte waits_out; /* the mask that the kernel puts back behind a wait */
byte old;       /* what the program reads */

byte to_come; /* mask of the handler, or of the frame that is returned to */

#define FRAMES 4
byte depth;
byte frame_mask[FRAMES], frame_pc[FRAMES], frame_how[FRAMES], frame_set[FRAMES], frame_program[FRAMES];
byte action_mask[3];

/* What Linux would have. */
byte program_mask, due, program_old;

/* ---- what several do --------------------------------------------------------------------------------------------- */

#define CHANGED(before, by) \
	(how == BLOCK -> ((before) | (by)) : (how == UNBLOCK -> ((before) & NOT(by)) : (by)))

inline raise_held(open)
{
	if
	:: held & (open) & OWNED -> pending = pending | OWNED; held = (mutant == TAKEN_NOT_REMOVED -> held : 0)
	:: else
	fi
}

inline front(next)
{
	/* syscall_emulate(): the procedure was left by a jump. */
	if
	:: !running && put_off != 0 && mutant != ABANDONED_FOR_EVER ->
		COVER(0, "a call finds that a procedure was left");
		kernel_mask = kernel_mask & NOT(put_off);
		put_off = 0
	:: else
	fi;
	abandoned = abandoned && running;
	pc = next
}

inline post_mask_read()
{
	old = ((whole -> kernels : old) & (mutant == PUT_OFF_IS_READ -> ALL : NOT(put_off))) | believed;
	if
	:: how != UNBLOCK && mutant != PUT_OFF_UNBLOCKS_BLOCKED -> put_off = put_off & NOT(set)
	:: else
	fi
}

inline post_mask_keep()
{
	belief = CHANGED(believed, set & OWNED);
	raise_held(NOT(belief))
}

inline check_old()
{
	if
	:: old != program_old -> VIOLATION("a call reads another mask")
	:: else
	fi
}

/* `post`, for a handler that has come; the frame has the mask. */
inline post()
{
	if
	:: pc >= MASK_READ && pc <= MASK_END ->
		COVER(1, "a handler finishes a call");
		post_mask_read();
		post_mask_keep();
		check_old()
	:: else
	fi
}

/* ---- a signal comes ---------------------------------------------------------------------------------------------- */

inline begin_handler(signal)
{
	if
	:: IN_CALL(pc) && mutant != DROPPED_CALL_KEEPS_MASK -> mask = mask & NOT(OWNED)
	:: else
	fi;
	mask = mask | (mutant == BELIEF_NOT_IN_FRAME -> 0 : belief);
	if
	:: mutant != PUT_OFF_IN_FRAME -> mask = mask & NOT(put_off)
	:: else
	fi;
	/* The handler's mask is not of it: what is put off comes anew, and is put off anew. */
	if
	:: put_off != 0 -> COVER(2, "a handler begins above a procedure with a signal put off")
	:: else
	fi;
	if
	:: mutant != BIT_KEPT_IN_HANDLER && mutant != PUT_OFF_IN_FRAME -> put_off = 0
	:: else
	fi;
	if
	:: mask != program_mask -> VIOLATION("a frame has another mask")
	:: else
	fi;
	if
	:: !(due & signal) -> VIOLATION("a signal is handled twice")
	:: else
	fi;
	if
	:: (ends_wait -> set : program_mask) & signal -> VIOLATION("a blocked signal is handled")
	:: else
	fi;
	if
	:: running && signal == OTHER -> VIOLATION("a handler runs in a procedure")
	:: else
	fi;
	due = due & NOT(signal);
	frame_mask[depth] = mask;
	frame_program[depth] = program_mask;
	frame_how[depth] = how;
	frame_set[depth] = set;
	/* Where it goes on. */
	if
	:: ends_wait -> COVER(3, "a handler ends a wait"); frame_pc[depth] = PROGRAM
	:: pc >= MASK_FRONT && pc <= MASK_MAKE -> frame_pc[depth] = (mutant == CALL_NOT_DROPPED -> pc : MASK_FRONT)
	:: pc >= WAIT_FRONT && pc <= WAIT_MAKE -> COVER(4, "a wait begins anew"); frame_pc[depth] = WAIT_FRONT
	:: pc >= EXEC_FRONT && pc <= EXEC_MAKE -> COVER(5, "an execve begins anew"); frame_pc[depth] = EXEC_FRONT
	:: pc == ENTERED ->
		COVER(6, "a handler comes in the window of an entry");
		frame_pc[depth] = (mutant == ENTRY_NOT_FINISHED -> ENTERED : PROGRAM)
	:: else -> frame_pc[depth] = (pc == HOOK_END -> PROGRAM : pc)
	fi;
	if
	:: frame_pc[depth] != PROGRAM && frame_pc[depth] != MASK_FRONT && frame_pc[depth] != WAIT_FRONT &&
	   frame_pc[depth] != EXEC_FRONT && frame_pc[depth] != RESTORER && frame_pc[depth] != AT_ONCE ->
		VIOLATION("a handler runs above a frame of ours")
	:: else
	fi;
	mask = (ends_wait && mutant != BASE_NOT_OF_WAIT -> set : mask) | action_mask[signal] | signal;
	program_mask = (ends_wait -> set : program_mask) | action_mask[signal] | signal;
	if
	:: mask != program_mask -> VIOLATION("a handler begins with another mask")
	:: else
	fi;
	belief = mask & OWNED;
	to_come = (mutant == HANDLER_BLOCKS_OWNED -> mask : mask & NOT(OWNED));
	depth++;
	pc = ENTRY;
	kernel_mask = (mutant == ENTRY_OPEN -> to_come : ALL)
}

inline deliver(signal)
{
	pending = pending & NOT(signal);
	ends_wait = pc == ASLEEP;
	mask = (ends_wait -> waits_out : kernel_mask);
	if
	:: pc == ENTRY || pc == LEAVING || pc == RETURNING -> VIOLATION("a handler runs above a frame of ours")
	:: else
	fi;
	/* arch_signal_leave_anew() */
	if
	:: pc == AT_ONCE && mutant != LEAVING_NOT_BEGUN_ANEW ->
		COVER(16, "a handler comes where there was nothing to do");
		pc = RESTORER
	:: else
	fi;
	/* put_off_end() */
	if
	:: (pc == STUB || pc == STUB_MADE) && mutant != STUB_NOT_FINISHED ->
		COVER(7, "a signal comes in the stub");
		mask = mask & NOT(put_off);
		put_off = 0;
		pc = HOOK_END
	:: else
	fi;
	if
	:: MADE(pc) ->
		if
		:: mutant != CALL_NOT_FINISHED -> post()
		:: else
		fi;
		mask = mask & NOT(OWNED);
		pc = PROGRAM
	:: else
	fi;
	if
	:: signal == OTHER && mutant != NOT_PUT_OFF &&
	   (running || (pc == HOOK_END && mutant == PUT_OFF_BEHIND_CALL)) ->
		COVER(8, "a signal is put off");
		if
		:: mutant != PUT_OFF_LOST -> pending = pending | OTHER
		:: else
		fi;
		armed = mutant != STUB_NOT_PUT;
		/* Blocked already: it was the mask of a wait that let it through. */
		put_off = put_off | ((mask & OTHER) && mutant != PUT_OFF_THOUGH_BLOCKED -> 0 : OTHER);
		if
		:: ends_wait -> COVER(9, "a signal that is put off ends a wait"); pc = PROGRAM
		:: else
		fi;
		kernel_mask = (mask | OTHER) & NOT(OWNED)
	:: signal == OWNED && !ends_wait && (belief & OWNED) && mutant != DELIVERED_WHILE_BLOCKED ->
		COVER(10, "a signal is held");
		held = held | OWNED;
		kernel_mask = mask;
		if
		:: pc >= WAIT_FRONT && pc <= WAIT_MAKE && !(set & OWNED) && mutant != HELD_LOOKED_AT_ONCE ->
			COVER(11, "a wait looks again at what is held");
			kernel_mask = mask & NOT(OWNED);
			pc = WAIT_FRONT
		:: else
		fi
	:: else -> begin_handler(signal)
	fi;
	mask = 0;
	ends_wait = false
}

/* ---- what the program does --------------------------------------------------------------------------------------- */

inline choose_set()
{
	if
	:: set = 0
	:: set = OWNED
	:: set = OTHER
	:: set = ALL
	fi
}

inline look()
{
	if
	:: kernel_mask & OWNED -> VIOLATION("a trap of ours kills")
	:: else
	fi;
	if
	:: ((kernel_mask & NOT(put_off)) | belief) != program_mask -> VIOLATION("the program's mask is another one")
	:: else
	fi;
	if
	:: due & NOT(pending | held) -> VIOLATION("a signal is lost")
	:: else
	fi;
	/* What is put off comes later. */
	if
	:: due & NOT(program_mask) & (running || abandoned -> OWNED : ALL) ->
		VIOLATION("a signal that is due does not come")
	:: else
	fi
}

inline leave_by_jump()
{
	if
	:: running -> COVER(12, "a procedure is left by a jump"); abandoned = true
	:: else
	fi;
	running = false;
	armed = false;
	depth = 0
}

/* In a restorer. */
#define NOTHING_TO_DO                                                                                                  \
	((belief == 0 || mutant == AT_ONCE_WITH_BELIEF) &&                                                             \
	 (!(frame_mask[depth - 1] & OWNED) || mutant == AT_ONCE_WITH_MASK) &&                                          \
	 (held == 0 || mutant == AT_ONCE_WITH_HELD) &&                                                                 \
	 (put_off == 0 || mutant == AT_ONCE_WITH_PUT_OFF) &&                                                           \
	 (frame_pc[depth - 1] == PROGRAM || frame_pc[depth - 1] == RESTORER))

inline return_to_frame()
{
	program_mask = frame_program[depth];
	pc = frame_pc[depth];
	how = frame_how[depth];
	set = frame_set[depth];
	frame_mask[depth] = 0;
	frame_program[depth] = 0;
	frame_pc[depth] = 0;
	frame_how[depth] = 0;
	frame_set[depth] = 0
}

inline program()
{
	look();
	if
	:: calls > 0 ->
		calls--;
		if
		:: choose_set();
			if
			:: how = BLOCK
			:: how = UNBLOCK
			:: how = SET
			fi;
			pc = MASK_FRONT
		:: choose_set(); pc = WAIT_FRONT
		:: !running -> pc = EXEC_FRONT
		:: !running ->
			/* hook_threads_may_run(): of one that was left. */
			kernel_mask = kernel_mask & NOT(put_off);
			put_off = 0;
			abandoned = false;
			running = true;
			armed = false;
			procedure_depth = depth
		:: depth > 0 || running -> leave_by_jump()
		:: depth > 0 && !(running && procedure_depth == depth) ->
			/* The handler writes to its frame. */
			choose_set();
			frame_mask[depth - 1] = set;
			frame_program[depth - 1] = set;
			set = 0
		fi
	:: running && procedure_depth == depth ->
		running = false;
		pc = (armed -> STUB : HOOK_END);
		armed = false
	:: depth > 0 && !(running && procedure_depth == depth) ->
		pc = RESTORER
	:: depth == 0 && !running && calls == 0 -> pc = OVER
	fi
}

inline step()
{
	if
	:: pc == PROGRAM -> program()
	/* emul_sigprocmask() */
	:: pc == MASK_FRONT -> front(MASK_LOOK)
	:: pc == MASK_LOOK ->
		believed = belief;
		whole = false;
		pc = (held & NOT(CHANGED(believed, set & OWNED)) && mutant != HELD_NOT_RAISED -> MASK_BLOCK : MASK_MAKE)
	:: pc == MASK_BLOCK ->
		COVER(13, "what is held is raised before it is unblocked");
		kernels = kernel_mask;
		kernel_mask = ALL;
		asked = NOT(CHANGED(believed, set & OWNED));
		raise_held(asked);
		asked = CHANGED(kernels, set) & NOT(OWNED);
		/* Nothing is put off until the call is made. */
		kernels = (mutant == OLD_READ_AGAIN -> kernels : kernels & NOT(put_off));
		whole = true;
		pc = MASK_MAKE
	:: pc == MASK_MAKE ->
		old = kernel_mask;
		kernel_mask = (whole -> asked :
			CHANGED(kernel_mask, (mutant == NOT_TAKEN_OUT_OF_MASK -> set : set & NOT(OWNED))));
		asked = 0;
		program_old = program_mask;
		program_mask = CHANGED(program_mask, set);
		pc = MASK_READ
	:: pc == MASK_READ -> post_mask_read(); pc = MASK_KEEP
	:: pc == MASK_KEEP ->
		belief = CHANGED(believed, set & OWNED);
		if
		:: mutant != HELD_NOT_RAISED -> raise_held(NOT(belief))
		:: else
		fi;
		pc = MASK_END
	:: pc == MASK_END -> check_old(); pc = PROGRAM; how = 0; set = 0; old = 0; program_old = 0;
		whole = false; kernels = 0
	/* emul_wait() */
	:: pc == WAIT_FRONT -> front(WAIT_LOOK)
	:: pc == WAIT_LOOK ->
		whole = false;
		if
		:: held & NOT(set) && mutant != HELD_NOT_PENDED ->
			kernels = kernel_mask;
			kernel_mask = kernel_mask | OWNED;
			whole = true;
			pc = WAIT_RAISE
		:: else -> pc = WAIT_MAKE
		fi
	:: pc == WAIT_RAISE -> COVER(14, "a wait finds what is held"); raise_held(ALL); pc = WAIT_MAKE
	:: pc == WAIT_MAKE -> waits_out = kernel_mask; kernel_mask = set; pc = ASLEEP
	:: pc == ASLEEP ->
		if
		:: due & NOT(set) -> VIOLATION("a wait sleeps over a signal")
		:: else
		fi;
		/* What it waits for is there. */
		kernel_mask = waits_out;
		waits_out = 0;
		pc = WAIT_POST
	:: pc == WAIT_POST ->
		if
		:: whole -> kernel_mask = kernels
		:: else
		fi;
		pc = WAIT_END
	:: pc == WAIT_END -> pc = PROGRAM; set = 0; whole = false; kernels = 0
	/* emul_execve() */
	:: pc == EXEC_FRONT -> front(EXEC_LOOK)
	:: pc == EXEC_LOOK ->
		if
		:: belief == 0 && put_off == 0 -> pc = EXEC_MAKE; whole = false; kernels = kernel_mask
		:: else -> kernels = kernel_mask; kernel_mask = ALL; whole = true; pc = EXEC_OPEN
		fi
	:: pc == EXEC_OPEN ->
		kernel_mask = (kernels & NOT(put_off)) | (mutant == EXECVE_WITHOUT_BELIEF -> 0 : belief);
		pc = EXEC_MAKE
	:: pc == EXEC_MAKE ->
		if
		:: kernel_mask != program_mask -> VIOLATION("a new program inherits another mask")
		:: else
		fi;
		/* It fails. */
		pc = EXEC_POST
	:: pc == EXEC_POST ->
		if
		:: whole && mutant != EXECVE_NOT_UNDONE -> kernel_mask = kernels
		:: else
		fi;
		pc = EXEC_END
	:: pc == EXEC_END -> pc = PROGRAM; whole = false; kernels = 0
	/* put_off_stubs.S */
	:: pc == STUB -> kernel_mask = kernel_mask & NOT(put_off); pc = STUB_MADE
	:: pc == STUB_MADE ->
		put_off = (mutant == STUB_LEAVES_BIT -> put_off : 0);
		pc = HOOK_END
	:: pc == HOOK_END -> pc = PROGRAM
	/* signal_thunks.S */
	:: pc == ENTRY -> kernel_mask = to_come; pc = ENTERED; to_come = 0
	:: pc == ENTERED -> pc = PROGRAM
	:: pc == RESTORER && NOTHING_TO_DO -> COVER(15, "a handler is left at once"); pc = AT_ONCE
	:: pc == RESTORER && !(NOTHING_TO_DO) ->
		if
		:: mutant != LEAVING_OPEN -> kernel_mask = ALL
		:: else
		fi;
		pc = LEAVING
	:: pc == LEAVING ->
		depth--;
		belief = (mutant == BELIEF_NOT_FROM_FRAME -> belief : frame_mask[depth] & OWNED);
		to_come = frame_mask[depth] & NOT(OWNED);
		/* As at the beginning: the frame has all that is blocked. */
		put_off = (mutant == BIT_KEPT_AT_END -> put_off : 0);
		if
		:: mutant != HELD_NOT_RAISED_AT_END -> raise_held(NOT(belief))
		:: else
		fi;
		pc = RETURNING
	:: pc == RETURNING ->
		kernel_mask = to_come;
		to_come = 0;
		return_to_frame()
	:: pc == AT_ONCE ->
		depth--;
		kernel_mask = frame_mask[depth];
		return_to_frame()
	fi
}

inline send(signal)
{
	sends--;
	due = due | signal;
	pending = pending | signal
}

proctype thread()
{
	byte mask;
	bool ends_wait;

	do
	:: atomic { sends > 0 && pc != OVER && !(due & OWNED) -> send(OWNED) }
	:: atomic { sends > 0 && pc != OVER && !(due & OTHER) -> send(OTHER) }
	:: atomic { pc != OVER && pending & OWNED & NOT(kernel_mask) -> deliver(OWNED) }
	:: atomic { pc != OVER && pending & OTHER & NOT(kernel_mask) -> deliver(OTHER) }
	:: atomic { pc != OVER && !(pending & NOT(kernel_mask)) -> step() }
	:: pc == OVER -> break
	od
}

init {
	atomic {
		c_code {
			now.calls = setting("CALLS", 3);
			now.sends = setting("SENDS", 2);
			now.mutant = setting("MUTANT", 0);
		};
		if
		:: action_mask[OWNED] = 0
		:: action_mask[OWNED] = OTHER
		fi;
		if
		:: action_mask[OTHER] = 0
		:: action_mask[OTHER] = OWNED
		fi;
		run thread()
	}
}
