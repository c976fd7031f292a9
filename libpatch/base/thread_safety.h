/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The library lock as clang sees it: with -Wthread-safety, a function that needs the lock cannot be called by one that
 * does not hold it. For other compilers the macros are empty; for all of them nothing is generated.
 *
 * The lock itself is runtime/lock.c's. Its name is declared here, because layers below runtime/ need it too.
 */
#ifndef LIBPATCH_BASE_THREAD_SAFETY_H
#define LIBPATCH_BASE_THREAD_SAFETY_H

#include "base/bug.h"

#if defined(__clang__)
#define THREAD_SAFETY(attribute) __attribute__((attribute))
#else
#define THREAD_SAFETY(attribute)
#endif

#define CAPABILITY(name) THREAD_SAFETY(capability(name))
/* A function that is called with the capability held, and holds it when it returns. */
#define REQUIRES(...) THREAD_SAFETY(requires_capability(__VA_ARGS__))
/* A function that takes it when it returns the first argument. */
#define TRY_ACQUIRE(...) THREAD_SAFETY(try_acquire_capability(__VA_ARGS__))
#define RELEASE(...) THREAD_SAFETY(release_capability(__VA_ARGS__))
/*
 * A function that is not looked into, because what it does with the lock depends on what it finds. Says why beside it.
 */
#define NO_THREAD_SAFETY_ANALYSIS THREAD_SAFETY(no_thread_safety_analysis)
/* A variable that is read and written with the capability held only. */
#define GUARDED_BY(...) THREAD_SAFETY(guarded_by(__VA_ARGS__))

/* Never defined: the name of a capability. What is locked is a word of libpatch_process_own (sys/process.h). */
struct CAPABILITY("mutex") library_lock {
	char unused;
};
extern struct library_lock library_lock;

/*
 * At the entries where a lock that is not held would do damage: in the build for tests, it is a bug. The analysis does
 * not see calls by pointer, nor what functions without analysis call, and gcc has none.
 */
#ifdef LIBPATCH_INJECT
/* In runtime/lock.c. True, too, where it was never taken: unit tests of single modules do not. */
bool lock_may_be_held(void);
#define LOCK_ASSERT_HELD() ((void)BUG_ON(!lock_may_be_held()))
#else
#define LOCK_ASSERT_HELD() ((void)0)
#endif

#endif
