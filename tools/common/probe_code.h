/* SPDX-License-Identifier: MIT */
/* Functions that touch general purpose registers only: procedures of probes with PATCH_REGS_GP_ONLY, what they call. */
#ifndef EXAMPLES_PROBE_CODE_H
#define EXAMPLES_PROBE_CODE_H

#if defined(__clang__) || __GNUC__ >= 11
#define PROBE_CODE __attribute__((target("general-regs-only")))
#else
#define PROBE_CODE __attribute__((target("no-mmx,no-sse")))
#endif

#endif
