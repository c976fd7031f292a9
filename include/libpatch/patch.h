/* SPDX-License-Identifier: MIT */
/*
 * libpatch: rewrite instructions of the running process while its threads run through them.
 *
 * Usable first and alone, from C99 and C++. Every function may be called from any thread, from inside probe procedures
 * and from signal handlers, except where its comment says otherwise; none but patch_synchronize() waits for a running
 * probe. None exits, aborts or prints. patch_last_error() tells the calling thread why a call failed.
 *
 * Beside the codes listed with each function, every one that needs patch_init() returns PATCH_EINIT before it,
 * PATCH_EFINI after patch_fini(), and PATCH_EFAIL when it is called by a handler for SIGTRAP or SIGILL that interrupted
 * libpatch in the same thread, or in a child that was copied by a raw system call while a thread of its parent was in
 * libpatch; every one that changes something can return PATCH_ENOMEM.
 */
#ifndef LIBPATCH_PATCH_H
#define LIBPATCH_PATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PATCH_VERSION_MAJOR 2
#define PATCH_VERSION_MINOR 0
#define PATCH_VERSION_PATCH 0

typedef enum patch_status {
	PATCH_BUG = -1,      /* the library found itself inconsistent; nothing was changed */
	PATCH_OK = 0,
	PATCH_EINVAL = 1,    /* an argument is out of its range */
	PATCH_ENOTSUP = 2,   /* this machine, kernel or version cannot do it */
	PATCH_EFINI = 3,     /* called after patch_fini() */
	PATCH_EFAIL = 4,     /* part of a batch failed; the error chain says what */
	PATCH_ESYS = 5,      /* a system call failed */
	PATCH_ECONF = 6,     /* an option conflicts with what is there */
	PATCH_ENEXIST = 7,   /* unknown handle, or nothing there */
	PATCH_EEXIST = 8,    /* it is there already */
	PATCH_EDISASM = 9,   /* bytes that do not decode */
	PATCH_EINIT = 10,    /* called before patch_init() */
	PATCH_ENOMEM = 11,   /* out of memory, or out of memory near enough to the site */
	PATCH_EFAULT = 12,   /* an address is not mapped, or not executable; a counter cannot be written to */
	PATCH_EBOUNDARY = 13, /* the address is not the first byte of an instruction */
	PATCH_ECHANGED = 14, /* somebody else changed the bytes: a debugger, a uprobe, the program */
	PATCH_ENOJUMP = 15,  /* no jump is possible and the policy forbids a trap */
	PATCH_EPROTECTED = 16, /* code that libpatch itself relies on */
	PATCH_ERELOCATE = 17, /* an instruction that cannot be executed elsewhere */
	PATCH_EBUSY = 18,    /* a thread is still in a procedure */
	PATCH_EBLOCKED = 19, /* a thread blocks the signals that trap bytes raise, and would be killed by one */
	PATCH_EAMBIGUOUS = 20 /* a name stands for several functions */
} patch_status;

#include <libpatch/patch-x86-64.h>

/* ---- options ---------------------------------------------------------------------------------------------------- */

/* May libpatch map pages writable and executable at once? 0: yes; 1 (default): never. */
#define PATCH_OPT_ENABLE_WXE 3

/*
 * May libpatch take SIGTRAP and SIGILL out of the masks of threads that block them from before patch_init(), or by
 * system calls that it does not see? It traces such a thread for a moment, which ends epoll_wait(), sigtimedwait() and
 * recv() with a time-out with EINTR, as any debugger does. 1 (default): yes; 0: never, and patch_commit() returns
 * PATCH_EBLOCKED for as long as there is such a thread.
 */
#define PATCH_OPT_ADOPT_THREADS 4

/*
 * Shall perf be told of generated code? 1: names, in /tmp/perf-PID.map, as perf report reads it. 0 (default): no file
 * is written.
 */
#define PATCH_OPT_PERF_MAP 5
/*
 * The same by code and unwind descriptions, in /tmp/jit-PID.dump: `perf record -k mono --call-graph dwarf`, then
 * `perf inject --jit`, see the callers of what a patch calls. 0 (default): no file is written.
 */
#define PATCH_OPT_PERF_DUMP 6

struct patch_option {
	int type;
	__extension__ union {
		bool enable_wxe;
		bool adopt_threads;
		bool perf_map;
		bool perf_dump;
		uint64_t reserved;
	};
};

/* ---- attributes ------------------------------------------------------------------------------------------------- */

typedef struct patch_attr {
	uint8_t trap_policy;
	uint8_t abi;
	uint8_t initial_state;
	uint8_t exits;
	uint8_t stack;
	uint8_t reserved[11];
} patch_attr;

/* May a patch be resident as an int3, which costs a signal at each hit? */
typedef enum patch_trap_policy {
	PATCH_TRAP_POLICY_ALLOW = 0,  /* a jump where one is possible, else int3 */
	PATCH_TRAP_POLICY_FORBID = 1, /* a jump, or patch_make() fails */
	PATCH_TRAP_POLICY_FORCE = 2   /* int3 */
} patch_trap_policy;

/* Calling convention of the procedure. */
typedef enum patch_abi {
	PATCH_ABI_OS = 0 /* System V AMD64 */
} patch_abi;

typedef enum patch_state {
	PATCH_DISABLED = 0,
	PATCH_ENABLED = 1
} patch_state;

/* Of PATCH_EXEC_MODEL_PROBE_RETURN: must all exits of the function be found? */
typedef enum patch_exits {
	PATCH_EXITS_ALL = 0,  /* or patch_make() fails */
	PATCH_EXITS_KNOWN = 1 /* where it is left otherwise, (ctx, 1) does not come */
} patch_exits;

/* Where a procedure runs. */
typedef enum patch_stack {
	PATCH_STACK_PROGRAM = 0, /* below the program's stack pointer */
	PATCH_STACK_OWN = 1      /* on a stack of the thread's own: nothing below the stack pointer is touched */
} patch_stack;

/* ---- where ------------------------------------------------------------------------------------------------------ */

#define PATCH_LOCATION_ADDRESS 0
#define PATCH_LOCATION_RANGE 1
#define PATCH_LOCATION_SYMBOL 2

#define PATCH_LOCATION_FORWARD 0
#define PATCH_LOCATION_BACKWARD 1

#define PATCH_LOCATION_FIRST 0

/*
 * ADDRESS: the instruction that starts at `address`.
 * RANGE: the first instruction in [lower, upper), counted from lower (FORWARD) or from upper (BACKWARD), that can be
 *   patched under the policy. `lower` is the start of an instruction. upper == 0 means: the one at `lower`.
 * SYMBOL: `offset` bytes behind the function `name`, [MODULE:]NAME[@VERSION]: a dynamic symbol, else one of the symbol
 *   table of a module's file or of its file of debug information. patch_location(7) has all of it.
 */
struct patch_location {
	int type;
	int direction;
	int algorithm;
	__extension__ union {
		uintptr_t address;
		struct {
			uintptr_t lower;
			uintptr_t upper;
		} range;
		struct {
			const char *name;
			uintptr_t offset;
		} symbol;
	};
};

/* ---- what ------------------------------------------------------------------------------------------------------- */

#define PATCH_EXEC_MODEL_PROBE 0        /* procedure(ctx, 0) before the instruction */
#define PATCH_EXEC_MODEL_PROBE_AROUND 1 /* (ctx, 0) before it, (ctx, 1) as soon as it alone is done */
#define PATCH_EXEC_MODEL_PROBE_RETURN 2 /* (ctx, 0) on function entry, (ctx, 1) when it returns */
#define PATCH_EXEC_MODEL_DIVERT 3       /* control goes to client code, no register saved */
#define PATCH_EXEC_MODEL_COUNT 4        /* *counter is increased before the instruction; nothing is called */
#define PATCH_EXEC_MODEL_PROBE_CALL 5   /* at a call: (ctx, 0) before it, (ctx, 1) when it has returned; uses `probe` */

/*
 * PROBE_AROUND on a call, jump or return: the second call comes when the operands are read and, for a call, the return
 * address is pushed, before the first instruction of where it leads. Both calls come in one thread, also when the patch
 * is disabled in between, by the first one or by others.
 *
 * PROBE_CALL: there is no second call when the patch is disabled or unmade before the call returns, by the first one or
 * by others. A call may last for as long as its thread, and the patch would be in use until then.
 *
 * Procedures of several patches at one instruction are called in order of patch_make(), behind it in reverse.
 */

/*
 * How it is increased: by plain moves, which lose hits of threads at the same time; atomically; in each thread's own
 * variable.
 */
#define PATCH_COUNT_PLAIN 0
#define PATCH_COUNT_ATOMIC 1
#define PATCH_COUNT_THREAD 2
/* counter[1] receives the time stamp counter of the last hit. */
#define PATCH_COUNT_TSC 1

/*
 * A procedure runs on the stack of the thread that met the site, below the red zone, or where patch_attr_set_stack()
 * says, with the calling convention that patch_attr_set_abi() chose. It may call whatever the program could call at the
 * site. A probe that is met while a procedure of the same thread runs is passed over: its procedure is not called. The
 * procedure runs with the program's MXCSR and x87 control word; DF is clear.
 *
 * Masks (see PATCH_REGS_*): what `clobber_registers` names, the procedure may destroy: it is offered in the context and
 * loaded back from there. `read_registers` are offered, too, and `write_registers` offered and loaded back. What the
 * calling convention lets a procedure destroy is preserved whatever the masks say, x87/SSE/AVX/AVX-512 state and MXCSR
 * included: with all masks 0 any procedure is safe. The clobber mask says by name that a procedure does with less, and
 * takes less time: PATCH_REGS_GP_ONLY, PATCH_REGS_NO_STATE, and bits of PATCH_REGS_VECTOR. AMX tiles and PKRU it must
 * leave alone. Of RFLAGS it must leave alone what instructions do not change in passing (AC, ID, NT, ...); it may
 * change it on purpose.
 *
 * `counter` is aligned to 8, writable, and stays so: a thread that was interrupted in the middle of counting does so
 * whenever it goes on, once, also after the patch is gone. With PATCH_COUNT_THREAD it is the calling thread's instance
 * of a thread-local variable in static storage (initial-exec model). A hit counts wherever it is: also while a
 * procedure of the thread runs, and in calls of the library.
 *
 * DIVERT: control goes to `target` instead of the instruction, with all registers, flags and the stack as they are
 * there: at a function's entry, `target` is called by the function's caller. Nothing is on the stack, and nothing keeps
 * a diversion from being met inside procedures, by handlers, or by `target` itself. `*original`, unless `original` is
 * NULL, receives an address before patch_make() returns. Who jumps there, or at a function's entry calls it, has the
 * instruction executed and goes on behind it, through diversions of the instruction that were made before this one. It
 * may be used from then on for as long as the patch lives, enabled or not. The patch that was made last comes first;
 * probes and counters in front of the instruction come before all diversions, and do not see uses of `*original`.
 * Behind the patch_commit() that disables a diversion no thread newly enters its `target`; who is in it is not known,
 * also when `destroy` is called.
 */
struct patch_exec_model {
	int type;
	__extension__ union {
		struct {
			uint64_t read_registers;
			uint64_t write_registers;
			uint64_t clobber_registers;
			void *user_data;
			/*
			 * NULL, or called once when the patch is gone: it was unmade, or patch_fini() removed it, that
			 * was committed, and no thread runs its procedure or will. By a thread in patch_commit(),
			 * patch_synchronize() or patch_fini(), which holds no lock of the library and may call it.
			 */
			void (*destroy)(void *user_data);
			void (*procedure)(struct patch_exec_context *context, uint8_t post);
		} probe;
		struct {
			uint64_t *counter;
			uint32_t kind;  /* PATCH_COUNT_PLAIN, _ATOMIC, _THREAD */
			uint32_t flags; /* 0 or PATCH_COUNT_TSC */
		} count;
		struct {
			void *target;
			void **original; /* or NULL */
			uint64_t reserved;
			void *user_data;                  /* of destroy */
			void (*destroy)(void *user_data); /* as in probe: NULL, or called once */
		} divert;
	};
};

/* Handle of one patch; NULL is never valid. */
typedef struct patch_handle *patch_t;

/* ---- errors ----------------------------------------------------------------------------------------------------- */

struct patch_error {
	int code;              /* a patch_status */
	const char *origin;    /* the public function that refused; of PATCH_BUG a place in the library's source */
	const char *irritant;  /* what it was about: an address, an option, an errno; "" when nothing can be named */
	const char *message;   /* why, in words */
	struct patch_error *next; /* the error behind this one, or NULL */
};

/* ---- introspection ---------------------------------------------------------------------------------------------- */

typedef enum patch_strategy {
	PATCH_STRATEGY_JUMP = 0,             /* jmp rel32 over one instruction of five bytes or more */
	PATCH_STRATEGY_CONSTRAINED_JUMP = 1, /* jmp rel32 over several instructions, trap bytes on their boundaries */
	PATCH_STRATEGY_TRAP = 2,             /* int3 */
	/* jmp rel32 that ends in bytes of the instructions behind, left as they are */
	PATCH_STRATEGY_PUNNED_JUMP = 3
} patch_strategy;

/* May grow at its end: patch_info() is told its size. */
struct patch_info {
	uintptr_t address;    /* as located */
	uintptr_t lower;      /* displaced range [lower, upper) */
	uintptr_t upper;
	uintptr_t trampoline; /* entry of the generated code */
	uint64_t trap_hits;   /* traps taken in the displaced range since it was first patched */
	int strategy;         /* enum patch_strategy */
	int state;            /* enum patch_state; as of the last commit */
	uint64_t exits;       /* of PATCH_EXEC_MODEL_PROBE_RETURN: places where the function is left */
};

/* May grow at its end: patch_statistics() is told its size. */
struct patch_statistics {
	uint64_t patches;           /* live handles */
	uint64_t regions;           /* displaced ranges, shared ones counted once */
	uint64_t regions_installed;
	uint64_t arenas;            /* mappings made for generated code */
	uint64_t code_bytes;        /* bytes of generated code in use */
	uint64_t retired_bytes;     /* bytes kept because a thread might still be in them */
	uint64_t commits;
	uint64_t core_syncs;        /* membarrier calls */
	uint64_t text_writes;       /* writes to live text and generated code */
	uint64_t traps;             /* trap bytes met and served */
	/* jumps at particular addresses, that others lead to; among `arenas`, but not `code_bytes` */
	uint64_t pads;
	uint64_t pad_bytes;         /* memory of the pages that they are on: they share pages where they can */
	uint64_t heap_bytes;        /* memory mapped for the library's own structures */
	uint64_t modules_kept;      /* unloaded, but not unmapped: a thread was in a procedure of theirs */
	uint64_t mediated;          /* system call instructions whose signal masks and handlers are mediated */
	uint64_t pending;           /* patches that were unmade and are not gone yet */
	uint64_t threads;           /* that have met a probe, as far as is known */
	uint64_t missed;            /* probes passed over because there was no memory to know their thread by */
	uint64_t heap_lost;         /* bytes that the kernel refused to unmap, and that are not tried again */
	uint64_t code_lost;         /* bytes of generated code that were freed and cannot be used again */
};

/* ---- life cycle ------------------------------------------------------------------------------------------------- */

/*
 * Prepare the process: membarrier registration, the trap handler, the registry, and patches of the library's own on the
 * system calls that set signal masks and handlers, so that no thread blocks SIGTRAP where it meets a trap byte.
 *
 * options   array of n options, or NULL
 * n         number of options
 *
 * PATCH_OK; PATCH_EEXIST when already initialised, also by another copy of the library in this process: one linked
 * statically into some module, or loaded under another name. The first copy that is initialised keeps the process until
 * it ends; PATCH_EFINI after patch_fini(); PATCH_EINVAL for an unknown option or a NULL array with n > 0; PATCH_ENOTSUP
 * when the kernel lacks membarrier(SYNC_CORE) or a way to write text; PATCH_ESYS when a system call failed or /proc
 * cannot be read; PATCH_ECONF when functions of the program have the names of Zydis', and that library cannot be loaded
 * apart from them; PATCH_ENOMEM. After a failure it may be called again.
 *
 * Thread safe. Not for signal handlers.
 */
patch_status patch_init(const struct patch_option *options, size_t n);

/*
 * Remove every patch and restore every byte. The trap handler and the generated code stay, for threads that are still
 * in them. All handles become invalid.
 *
 * PATCH_OK; PATCH_EINIT before patch_init(); PATCH_EFINI when called again after success; PATCH_EFAIL when some bytes
 * could not be restored (somebody else changed them), PATCH_ESYS when core synchronisation failed: the rest is
 * restored, sites that are not keep working, and another call tries again. PATCH_EFAIL, too, in a child of vfork(),
 * where nothing is done: the patches are its parent's.
 *
 * Thread safe, not for signal handlers; may be called from a probe.
 */
patch_status patch_fini(void);

/* ---- attributes ------------------------------------------------------------------------------------------------- */

/*
 * Set defaults: ALLOW, PATCH_ABI_OS, PATCH_DISABLED. sizeof_attr is sizeof(patch_attr). PATCH_OK; PATCH_EINVAL for NULL
 * or another size. Thread safe, async-signal-safe, needs no patch_init(), as all of these.
 */
patch_status patch_attr_init(patch_attr *attr, size_t sizeof_attr);
/*
 * An attribute holds nothing that has to be freed. PATCH_OK; PATCH_EINVAL for NULL. patch_make() copies: an attribute
 * may go before the commit.
 */
patch_status patch_attr_fini(patch_attr *attr);
/* PATCH_OK; PATCH_EINVAL for NULL or a value that is none of enum patch_trap_policy. */
patch_status patch_attr_set_trap_policy(patch_attr *attr, int policy);
/* PATCH_OK; PATCH_EINVAL for NULL or a value that is none of enum patch_abi. */
patch_status patch_attr_set_abi(patch_attr *attr, int abi);
/* State that the next commit gives the patch. PATCH_OK; PATCH_EINVAL for NULL or none of enum patch_state. */
patch_status patch_attr_set_initial_state(patch_attr *attr, int state);
/* PATCH_OK; PATCH_EINVAL for NULL or a value that is none of enum patch_exits. */
patch_status patch_attr_set_exits(patch_attr *attr, int exits);
/*
 * PATCH_STACK_OWN: for code that relies on little room below its stack pointer. Of several patches at one instruction
 * all are called there. A procedure must not go to another stack and meet such a patch there. PATCH_OK; PATCH_EINVAL
 * for NULL or a value that is none of enum patch_stack.
 */
patch_status patch_attr_set_stack(patch_attr *attr, int stack);

/* ---- patches ---------------------------------------------------------------------------------------------------- */

/*
 * Plan one patch and generate its code; live text is not touched before patch_commit().
 *
 * location, model, attr   the caller's temporaries; attr NULL = defaults
 * out                     receives the handle; NULL after a failure
 * reserved                NULL
 *
 * PATCH_OK; PATCH_EINIT, PATCH_EFINI; PATCH_EINVAL; PATCH_ENOTSUP (an execution model that the site does not allow, a
 * user shadow stack); PATCH_EFAULT; PATCH_EBOUNDARY; PATCH_EDISASM; PATCH_ERELOCATE; PATCH_ENOJUMP; PATCH_ENOMEM;
 * PATCH_ECHANGED (a foreign int3 or a uprobe is there); PATCH_ECONF (the site shares its bytes with a patch of a
 * conflicting trap policy); PATCH_EPROTECTED; PATCH_ENEXIST (no such symbol); PATCH_EAMBIGUOUS (several functions have
 * the symbol's name). A failed call leaves nothing behind.
 *
 * Thread safe, signal safe, but for PATCH_LOCATION_SYMBOL: that takes the dynamic linker's lock.
 */
patch_status patch_make(const struct patch_location *location, const struct patch_exec_model *model,
			const patch_attr *attr, patch_t *out, void *reserved);

/*
 * Disable at the next commit, then release. The handle is invalid from now on. A thread may be in the procedure for any
 * time after that: see patch_synchronize(), and destroy in struct patch_exec_model. PATCH_OK; PATCH_ENEXIST for a
 * handle that is unknown or was released; PATCH_EINIT, PATCH_EFINI. Thread safe, signal safe.
 */
patch_status patch_unmake(patch_t patch);

/*
 * Queue a change of state for the next commit; asking for the state it has, or twice, is no error.
 * PATCH_OK; PATCH_ENEXIST for an unknown handle; from patch_enable() PATCH_EFAULT when the patch's code, or its
 * procedure's, was unmapped; PATCH_EINIT, PATCH_EFINI. Thread safe, signal safe.
 */
patch_status patch_enable(patch_t patch);
patch_status patch_disable(patch_t patch);

/*
 * Apply everything queued, by any thread, as one batch, while threads run. Patches come into effect one after the
 * other.
 *
 * PATCH_OK, also with nothing queued; PATCH_EINIT, PATCH_EFINI; PATCH_EFAIL when some patches could not be changed:
 * patch_last_error() has a chain with one error for each of the first few; the rest of the batch is in effect, the
 * failed ones have the state they had and their change stays queued for the next commit. PATCH_ESYS when core
 * synchronisation or writing failed half-way: the sites keep working, patch_info() tells what is in effect, and the
 * next commit completes the batch. PATCH_EBLOCKED when a thread blocks SIGTRAP or SIGILL by means that the library
 * cannot mediate, or may do so at any time, and must not be traced: no text was changed. What needs no change of text
 * is in effect, as where another patch stays on the same instructions; everything else stays queued.
 *
 * Thread safe, signal safe, callable from probes. Waits for other threads' commits, never for probes. Destroys
 * what is gone: see struct patch_exec_model.
 */
patch_status patch_commit(void);

/*
 * Wait until everything that was disabled or unmade, and committed, before the call is quiet: no thread runs its
 * procedure or will, and the destroy functions of what was unmade have returned. What is due is destroyed by this call.
 *
 * timeout_ns   how long to wait; negative: without limit; 0: only look
 *
 * PATCH_OK; PATCH_EBUSY when the time is over, or at once when the calling thread is itself in such a procedure;
 * PATCH_EINIT before patch_init(). Also after patch_fini(). Called from a destroy function it does not wait for that
 * one.
 *
 * Thread safe; signal safe but for the waiting. Holds no lock while it waits.
 */
patch_status patch_synchronize(int64_t timeout_ns);

/*
 * The calling thread's last error: of its last libpatch call that failed, whatever has succeeded since.
 *
 * error   filled in, not NULL. Its strings and chain are valid until another call of the thread into libpatch fails.
 *
 * PATCH_OK when there is none: code is 0 and the strings are empty. Else the error's code. PATCH_EINVAL for NULL.
 * Thread safe, async-signal-safe, needs no patch_init(). Does not reset the error.
 */
patch_status patch_last_error(struct patch_error *error);

/*
 * A short English name for a status, or for the `code` of an error, never NULL; "unknown status" for other numbers.
 * Thread safe, async-signal-safe.
 */
const char *patch_status_string(int status);

/*
 * Original address of the instruction that generated code at `pc` stands for. PATCH_OK; PATCH_EINVAL for NULL;
 * PATCH_ENEXIST when pc is not in generated code. Thread safe, async-signal-safe; needs no patch_init(), and works
 * after patch_fini().
 */
patch_status patch_olx_original_pc(uintptr_t pc, uintptr_t *original);

/*
 * How a patch is placed.
 *
 * info          filled in, not NULL
 * sizeof_info   sizeof(struct patch_info) as the caller was built: with fewer bytes than this library's, fields beyond
 *               them are not written; with more, the bytes behind the last known field are set to 0
 *
 * PATCH_OK; PATCH_EINVAL for NULL, or a size that no version of the structure has; PATCH_ENEXIST for an unknown handle;
 * PATCH_EFAULT when the patch's code, or its procedure's, was unmapped; PATCH_EINIT, PATCH_EFINI. Thread safe, signal
 * safe.
 */
patch_status patch_info(patch_t patch, struct patch_info *info, size_t sizeof_info);
/*
 * What the library uses and has done. `sizeof_statistics` is sizeof(struct patch_statistics), as in patch_info().
 * PATCH_OK; PATCH_EINVAL for NULL, or a size that no version of the structure has; PATCH_EINIT, PATCH_EFINI. Thread
 * safe, signal safe.
 */
patch_status patch_statistics(struct patch_statistics *statistics, size_t sizeof_statistics);

#ifdef __cplusplus
}
#endif

#endif
