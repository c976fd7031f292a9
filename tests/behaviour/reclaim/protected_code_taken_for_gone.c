/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Code that the program has made unreadable or not executable for the moment is not code that was unmapped. Whatever is
 * asked for meanwhile is done, or is refused and can be asked for again: patches stay, bytes are put back, what
 * generated code was used is not used for other code. Every protection, operation, kind of code and strategy, with and
 * without /proc/self/mem; and code that is unmapped really ends.
 */
#include "harness.h"

#include <sys/resource.h>

#define PAGE 4096
#define RX (PROT_READ | PROT_EXEC)
#define UNMAPPED -1

enum operation {
	MAKE,
	ENABLE,
	DISABLE,
	COMMIT,
	UNMAKE,
	FINI,
	OPERATIONS
};

static const char *const names[] = { "make", "enable", "disable", "commit", "unmake", "fini" };

struct part {
	int protection;
	enum operation operation;
	int policy;
	bool module;
	bool descriptors;
};

/* mov eax, VALUE; ret, of which 1 and 2 are on the page that is protected, 3 is not. */
#define FUNCTION(VALUE) { 0xB8, VALUE, 0, 0, 0, 0xC3 }
static const uint8_t codes[][6] = { FUNCTION(1), FUNCTION(2), FUNCTION(3) };
/* In the program itself, a module that the dynamic linker knows: three pages of their own. */
__asm__(".text\n.balign 4096\nin_module:\n"
	".cfi_startproc\nmov $1, %eax\nret\n.cfi_endproc\n.balign 64\n"
	".cfi_startproc\nmov $2, %eax\nret\n.cfi_endproc\n.balign 4096\n"
	".cfi_startproc\nmov $3, %eax\nret\n.cfi_endproc\n.balign 4096\n");
extern uint8_t in_module[];

static uint8_t *function[3];
static unsigned int hits[3];

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	++*(unsigned int *)context->user_data;
}

static patch_status make(int index, int policy, int state, patch_t *out)
{
	return make_probe((uintptr_t)function[index], procedure, &hits[index], policy, state, out);
}

static void prepare(bool module)
{
	uint8_t *code = in_module;

	if (!module)
		code = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(code != MAP_FAILED);
	function[0] = code;
	function[1] = code + 64;
	function[2] = code + PAGE;
	for (int i = 0; i < 3 && !module; i++)
		memcpy(function[i], codes[i], sizeof(codes[i]));
	REQUIRE(module || mprotect(code, 2 * PAGE, RX) == 0);
}

/* Each function returns what it should, and is probed or not. */
static void check_functions(const bool probed[3])
{
	for (int i = 0; i < 3; i++) {
		hits[i] = 0;
		CHECK_EQ(call_code(function[i]), i + 1);
		CHECK_EQ(hits[i], probed[i]);
	}
}

static void allow_descriptors(bool allowed)
{
	struct rlimit limit;

	REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
	limit.rlim_cur = allowed ? limit.rlim_max : 0;
	REQUIRE(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

/* Refused or done: what was asked for holds after a commit that can do it. */
static patch_status operate(const struct part *part, patch_t patches[2], bool probed[3])
{
	patch_status status = PATCH_OK;

	switch (part->operation) {
	case MAKE:
		status = make(1, part->policy, PATCH_ENABLED, &patches[1]);
		probed[1] = status == PATCH_OK;
		break;
	case ENABLE:
		CHECK_OK(patch_enable(patches[1]));
		probed[1] = true;
		break;
	case DISABLE:
		CHECK_OK(patch_disable(patches[0]));
		probed[0] = false;
		break;
	case UNMAKE:
		CHECK_OK(patch_unmake(patches[0]));
		probed[0] = false;
		break;
	case FINI:
		/* What has failed can be done by the next commit. */
		probed[0] = false;
		return patch_fini();
	default:
		break;
	}
	return patch_commit();
}

static void check_part(void *argument)
{
	const struct part *part = argument;
	bool probed[3] = { true, false, false };
	patch_t patches[3];
	struct patch_info info;
	patch_status status;

	prepare(part->module);
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make(0, part->policy, PATCH_ENABLED, &patches[0]));
	if (part->operation != MAKE)
		REQUIRE_OK(make(1, part->policy, PATCH_DISABLED, &patches[1]));
	CHECK_OK(patch_commit());
	check_functions(probed);
	/* Look the page up once more, behind what the commit has forgotten. */
	if (part->operation == MAKE) {
		REQUIRE_OK(make(2, part->policy, PATCH_DISABLED, &patches[2]));
		REQUIRE_OK(patch_unmake(patches[2]));
	}

	REQUIRE(mprotect(function[0], PAGE, part->protection) == 0);
	allow_descriptors(part->descriptors);
	status = operate(part, patches, probed);
	allow_descriptors(true);
	if (part->protection & PROT_READ || part->descriptors)
		CHECK(status == PATCH_OK || part->operation == MAKE);
	/* Other code that would get what belonged to the page. */
	if (part->operation != FINI || status != PATCH_OK) {
		REQUIRE_OK(make(2, part->policy, PATCH_ENABLED, &patches[2]));
		(void)patch_commit();
		probed[2] = true;
	}
	REQUIRE(mprotect(function[0], PAGE, RX) == 0);
	if (part->operation == FINI && status == PATCH_OK) {
		check_functions(probed);
		return;
	}
	CHECK_OK(patch_commit());
	check_functions(probed);
	if (part->operation != UNMAKE && part->operation != FINI)
		CHECK_OK(patch_info(patches[0], &info, sizeof(info)));
	CHECK_OK(patch_fini());
	for (int i = 0; i < 3; i++)
		CHECK(memcmp(function[i], codes[i], sizeof(codes[i])) == 0);
}

/* The other way round: what is not there any more is gone, and nothing keeps it. */
static void check_unmapped(void *argument)
{
	const struct part *part = argument;
	patch_t patches[2];
	bool probed[3] = { true };

	prepare(false);
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE_OK(make(0, part->policy, PATCH_ENABLED, &patches[0]));
	if (part->operation != MAKE)
		REQUIRE_OK(make(1, part->policy, PATCH_DISABLED, &patches[1]));
	CHECK_OK(patch_commit());
	REQUIRE(syscall(SYS_munmap, function[0], PAGE) == 0);
	switch (part->operation) {
	case MAKE:
	case ENABLE:
		CHECK(operate(part, patches, probed) != PATCH_OK || part->operation == MAKE);
		break;
	case COMMIT:
		break;
	default:
		CHECK_OK(operate(part, patches, probed));
	}
	if (part->operation != FINI)
		CHECK_OK(patch_fini());
}

int main(void)
{
	static const int protections[] = { PROT_NONE, PROT_EXEC, PROT_READ };
	static const int policies[] = { PATCH_TRAP_POLICY_FORBID, PATCH_TRAP_POLICY_FORCE };
	struct part part;
	char what[128];

	harness_start();
	for (unsigned int i = 0; i < 3 * OPERATIONS * 2 * 2 * 2; i++) {
		part.protection = protections[i % 3];
		part.operation = i / 3 % OPERATIONS;
		part.policy = policies[i / 3 / OPERATIONS % 2];
		part.module = i / 3 / OPERATIONS / 2 % 2;
		part.descriptors = i / 3 / OPERATIONS / 4 % 2;
		snprintf(what, sizeof(what), "protection %d, %s, %s, %s, descriptors: %d", part.protection,
			 names[part.operation], policy_name(part.policy), part.module ? "module" : "anonymous",
			 part.descriptors);
		harness_isolated(what, check_part, &part);
	}
	for (part.operation = MAKE; part.operation < OPERATIONS; part.operation++) {
		for (int i = 0; i < 2; i++) {
			part.policy = policies[i];
			snprintf(what, sizeof(what), "unmapped, %s, %s", names[part.operation],
				 policy_name(part.policy));
			harness_isolated(what, check_unmapped, &part);
		}
	}
	return harness_end();
}
