/* SPDX-License-Identifier: MIT */
/* A tool's own threads in somebody else's program. */
#ifndef EXAMPLES_THREAD_H
#define EXAMPLES_THREAD_H

#include <pthread.h>

/* 0, or why there is none. The program's signals are not its to take; what the library or a fault raises is. */
int thread_start(pthread_t *thread, void *(*run)(void *));

#endif
