/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The kernel's probes, by system calls: no library is needed. */
#ifndef BENCHMARK_UPROBE_H
#define BENCHMARK_UPROBE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where in its file an address of a loaded module is. */
bool file_offset(uintptr_t address, uint64_t *offset);

/* A BPF program that does nothing; `multi`: for uprobe_multi_attach(). Its descriptor, or negative and a reason. */
int uprobe_program(bool multi, const char **reason);

/* A probe of this process and threads that it starts, as a perf event; program: -1, or run at each hit. */
int uprobe_attach(const char *path, uint64_t offset, bool at_return, int program, const char **reason);

/* One link for all offsets, of this process. Its descriptor, or negative, and errno. */
int uprobe_multi_attach(int program, const char *path, const uint64_t *offsets, size_t count);

#endif
