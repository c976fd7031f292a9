/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Files that /proc has of the calling thread. Neither /proc/self/, which is the main thread's and has no memory any
 * more once that has ended by pthread_exit(), nor /proc/thread-self/ alone, which who follows links for this process
 * (proot, a supervisor of a filter) takes for its own: memory would be read, and written, that is another process's.
 */
#ifndef LIBPATCH_SYS_OWN_PROC_H
#define LIBPATCH_SYS_OWN_PROC_H

#include "base/compiler.h"

/* As raw_open(). `file`: its name in the thread's directory. */
long own_proc_open(const char *file, int flags);

/* Where it is, for who opens it later. */
#define OWN_PROC_PATH 64
const char *own_proc_path(char path[OWN_PROC_PATH], const char *file);

#endif
