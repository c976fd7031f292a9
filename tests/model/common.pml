/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What models share: settings, what is to be exercised, what must not happen. driver.sh puts it beside each model. */
c_decl {
\#include <stdio.h>
\#include <stdlib.h>

	/* How the search went, not part of the state. */
	static unsigned char covered[64];

	static int setting(const char *name, int otherwise)
	{
		const char *text = getenv(name);

		return text != NULL ? atoi(text) : otherwise;
	}

	static void cover(int point, const char *what)
	{
		if (!covered[point])
			printf("covered: %s\n", what);
		covered[point] = 1;
	}
}

#define COVER(point, what) c_code { cover(point, what); }
#define VIOLATION(what) c_code { printf("violated: %s\n", what); }; assert(false)
