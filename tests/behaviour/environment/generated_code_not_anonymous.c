/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A patched site begins with an int3 or a jmp, and generated code lies in anonymous memory (or a memfd named
 * libpatch:…): programs that read /proc/self/maps can tell it from program text.
 */
#include "targets.h"

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static void check_mapping(uintptr_t address)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	bool found = false;
	char line[512];

	REQUIRE(maps != NULL);
	while (fgets(line, sizeof(line), maps)) {
		unsigned long start, end, inode;
		char permissions[8], path[256] = "";

		if (sscanf(line, "%lx-%lx %7s %*s %*s %lu %255s", &start, &end, permissions, &inode, path) < 4 ||
		    address < start || address >= end)
			continue;
		found = true;
		if (!(path[0] == '\0' && inode == 0) && strncmp(path, "/memfd:libpatch:", 16) &&
		    strncmp(path, "[anon:", 6))
			FAIL("generated code at %#llx lies in: %s", (unsigned long long)address, line);
		if (permissions[2] != 'x' || permissions[1] == 'w')
			FAIL("generated code at %#llx is mapped %s", (unsigned long long)address, permissions);
		if (permissions[3] != 'p')
			FAIL("generated code at %#llx is shared: a fork would share it", (unsigned long long)address);
	}
	fclose(maps);
	if (!found)
		FAIL("%#llx is not mapped", (unsigned long long)address);
}

int main(void)
{
	unsigned int jumps = 0, traps = 0;

	harness_start();
	REQUIRE_OK(patch_init(NULL, 0));
	for (size_t t = 0; t < TARGET_COUNT; t++) {
		uintptr_t site = target_start(&targets[t]) + (target_has_endbr(target_start(&targets[t])) ? 4 : 0);
		struct patch_info info;
		const uint8_t *code;
		patch_t patch;

		CONTEXT("%s", targets[t].name);
		REQUIRE_OK(make_probe(target_start(&targets[t]), procedure, NULL,
				      t % 5 ? PATCH_TRAP_POLICY_ALLOW : PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED,
				      &patch));
		CHECK_OK(patch_commit());
		code = (const uint8_t *)site;
		CHECK_OK(patch_info(patch, &info, sizeof(info)));
		check_mapping(info.trampoline);
		if (code[0] == 0xe9) {
			int32_t displacement;

			memcpy(&displacement, code + 1, 4);
			check_mapping(site + 5 + (uintptr_t)(intptr_t)displacement);
			jumps++;
		} else {
			CHECK_EQ(code[0], 0xcc);
			traps++;
		}
		if (t % 2) {
			CHECK_OK(patch_unmake(patch));
			CHECK_OK(patch_commit());
		}
	}
	CONTEXT("%s", "");
	harness_say("%u jumps, %u traps\n", jumps, traps);
	CHECK(jumps > traps);
	CHECK(traps > 0);
	CHECK_OK(patch_fini());
	return harness_end();
}
