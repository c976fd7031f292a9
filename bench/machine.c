/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The machine that the figures come from, in comment lines. */
#include "bench.h"

#include <libpatch/patch.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

/* Value of the first line `name ... : value` in /proc/cpuinfo. */
static void cpuinfo(const char *name, char *value, size_t size)
{
	FILE *file = fopen("/proc/cpuinfo", "r");
	char line[4096];

	snprintf(value, size, "unknown");
	while (file && fgets(line, sizeof(line), file)) {
		const char *colon = strchr(line, ':');

		if (colon && !strncmp(line, name, strlen(name))) {
			snprintf(value, size, "%s", colon + 2);
			value[strcspn(value, "\n")] = '\0';
			break;
		}
	}
	if (file)
		fclose(file);
}

static const char *machine_vectors(void)
{
	if (__builtin_cpu_supports("avx512f"))
		return ", AVX-512";
	return __builtin_cpu_supports("avx") ? ", AVX" : "";
}

void machine_print(void)
{
	char model[128], family[16], number[16], hypervisor[4096];
	double load[3] = {0};
	time_t now = time(NULL);
	char date[32];
	struct utsname system;

	cpuinfo("model name", model, sizeof(model));
	cpuinfo("cpu family", family, sizeof(family));
	cpuinfo("model\t", number, sizeof(number));
	cpuinfo("flags", hypervisor, sizeof(hypervisor));
	uname(&system);
	if (getloadavg(load, 3) < 0)
		load[0] = -1;
	strftime(date, sizeof(date), "%Y-%m-%d", gmtime(&now));
	printf("# machine: %s, family %s model %s, %ld processors%s%s, %s %s, load %.1f, %s, libpatch %d.%d.%d%s\n",
	       model, family, number, sysconf(_SC_NPROCESSORS_ONLN),
	       strstr(hypervisor, " hypervisor") ? ", virtual" : "",
	       machine_vectors(),
	       system.sysname, system.release, load[0], date, PATCH_VERSION_MAJOR, PATCH_VERSION_MINOR,
	       PATCH_VERSION_PATCH, options.quick ? ", quick: figures mean nothing" : "");
}
