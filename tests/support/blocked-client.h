/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A preloaded tool whose dependency blocks signals in threads, and the test that preloads it. */
#ifndef TESTS_BLOCKED_CLIENT_H
#define TESTS_BLOCKED_CLIENT_H

/* "1" or "0": what it says of PATCH_OPT_ADOPT_THREADS. Without it, it does nothing. */
#define BLOCKED_CLIENT_ADOPTS "LIBPATCH_TEST_BLOCKED_CLIENT_ADOPTS"
/*
 * The program finds these by dlsym(). NULL: all went well; else what did not, and what the library said.
 */
#define BLOCKED_CLIENT_FAILURE "blocked_client_failure" /* const char * */
#define BLOCKED_CLIENT_DETAILS "blocked_client_details" /* char [] */

#endif
