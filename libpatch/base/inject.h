/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Named points between the protocol's steps at which a test can stop a thread or make a step fail. Empty in production.
 */
#ifndef LIBPATCH_BASE_INJECT_H
#define LIBPATCH_BASE_INJECT_H

enum inject_point {
	INJECT_COMMIT_CHECKED,   /* bytes compared, nothing published */
	INJECT_COMMIT_PUBLISHED, /* entries active, no text written */
	INJECT_COMMIT_PHASE_0,   /* punned jumps cut, not yet synchronised; only when there are any */
	INJECT_COMMIT_PHASE_1,   /* trap bytes written, not yet synchronised */
	INJECT_COMMIT_SYNC_1,
	INJECT_COMMIT_PHASE_2,
	INJECT_COMMIT_SYNC_2,
	INJECT_COMMIT_PHASE_3,
	INJECT_COMMIT_SYNC_3,
	INJECT_COMMIT_PHASE_4,   /* punned jumps written; only when there are any */
	INJECT_SYNC,       /* a membarrier call is about to be made */
	INJECT_TEXT_WRITE, /* a write to text is about to be made */
	INJECT_MMAP,       /* memory is about to be mapped */
	INJECT_ALLOC,      /* a block, a place for generated code, a pad, a record is about to be taken */
	INJECT_SYSCALL,    /* any system call that can fail is about to be made */
	INJECT_TRAP,       /* a trap was taken and not yet looked up */
	INJECT_LOCATED,    /* a symbol was found, and the library lock is not yet taken */
	INJECT_WAIT,       /* no owned signal is held, and a call that waits for them is about to be made */
	INJECT_TELL,       /* a signal of the process was given to a thread that waits, and not yet told */
	INJECT_TAKEN,      /* a thread's call takes what it was told, which is still noted as told */
	INJECT_ACTION,     /* an action of the program's was set, and what is due behind that is, or was, done */
	INJECT_UNMAPPED,   /* a module was unmapped, and the linker does not know yet */
	INJECT_LEFT,       /* a thread's block was seen to be left, and is not yet taken */
	INJECT_POINTS
};

#ifdef LIBPATCH_INJECT
/* Called at every point when set. Nonzero makes the step about to be taken fail with that errno, where it can fail. */
extern int (*libpatch_inject)(enum inject_point point);
#define INJECT(point) (libpatch_inject != 0 ? libpatch_inject(point) : 0)

/* 0, or the errno with which the system call `nr` is to fail without being made. Asked before each raw_syscall(). */
int libpatch_inject_system_call(long nr);
#else
#define INJECT(point) 0
#define libpatch_inject_system_call(nr) 0
#endif

#endif
