/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * patch_last_error() tells of the last call that failed, whatever has succeeded since: after every public function,
 * also when something was refused on the way to its success. The next call that fails replaces all of it.
 */
#include "targets.h"

/* A range whose first instruction, an int3, is refused: the second one is taken. */
extern uint8_t refused[], refused_end[];
__asm__(".text\n"
	".p2align 4\n"
	".type refused, @function\n"
	"refused: .cfi_startproc\n"
	"	int3\n"
	"	.byte 0x0f, 0x1f, 0x44, 0, 0\n"
	"refused_end:\n"
	"	ret\n"
	"	.cfi_endproc\n"
	".size refused, . - refused\n");

static const char name[] = "a_symbol_that_no_module_defines";

static unsigned int hits;

static GP_ONLY void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
	hits++;
}

/* Two functions fail in turn, so that what was there before a success can be told from what came in it. */
static void fail(unsigned int which)
{
	patch_attr attr;

	if (which == 0)
		CHECK_EQ(patch_attr_init(&attr, 1), PATCH_EINVAL);
	else
		CHECK_EQ(patch_olx_original_pc(0x1234, (uintptr_t *)&attr), PATCH_ENEXIST);
}

static void expect(unsigned int which)
{
	struct patch_error error;

	CHECK_EQ(patch_last_error(&error), which == 0 ? PATCH_EINVAL : PATCH_ENEXIST);
	CHECK(!strcmp(error.origin, which == 0 ? "patch_attr_init" : "patch_olx_original_pc"));
	CHECK(!strcmp(error.irritant, which == 0 ? "sizeof_attr" : "0x1234"));
	CHECK(error.next == NULL);
}

static patch_attr attr;
static patch_t patch;

static patch_status init_attr(void)
{
	return patch_attr_init(&attr, sizeof(attr));
}

static patch_status fini_attr(void)
{
	return patch_attr_fini(&attr);
}

static patch_status set_policy(void)
{
	return patch_attr_set_trap_policy(&attr, PATCH_TRAP_POLICY_FORCE);
}

static patch_status set_abi(void)
{
	return patch_attr_set_abi(&attr, PATCH_ABI_OS);
}

static patch_status set_state(void)
{
	return patch_attr_set_initial_state(&attr, PATCH_ENABLED);
}

static patch_status init(void)
{
	return patch_init(NULL, 0);
}

static patch_status make(void)
{
	struct patch_location location = location_at((uintptr_t)t_nops);
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE, procedure, NULL);

	return patch_make(&location, &model, &attr, &patch, NULL);
}

static patch_status make_in_range(void)
{
	struct patch_location location = { .type = PATCH_LOCATION_RANGE };
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE, procedure, NULL);

	location.range.lower = (uintptr_t)refused;
	location.range.upper = (uintptr_t)refused_end;
	return patch_make(&location, &model, &attr, &patch, NULL);
}

static patch_status enable(void)
{
	return patch_enable(patch);
}

static patch_status disable(void)
{
	return patch_disable(patch);
}

static patch_status unmake(void)
{
	return patch_unmake(patch);
}

static patch_status synchronize(void)
{
	return patch_synchronize(-1);
}

static patch_status info(void)
{
	struct patch_info out;

	return patch_info(patch, &out, sizeof(out));
}

static patch_status statistics(void)
{
	struct patch_statistics out;

	return patch_statistics(&out, sizeof(out));
}

static patch_status original_pc(void)
{
	struct patch_info out;
	uintptr_t original;
	patch_status status = patch_info(patch, &out, sizeof(out));

	return status != PATCH_OK ? status : patch_olx_original_pc(out.trampoline, &original);
}

static patch_status component(void)
{
	static uint8_t image[1024] __attribute__((aligned(64)));
	struct patch_x86_64_legacy *legacy;

	return patch_x86_sse_state(image, &legacy);
}

static patch_status status_string(void)
{
	return patch_status_string(PATCH_EFAIL) != NULL ? PATCH_OK : PATCH_BUG;
}

static patch_status last_error(void)
{
	struct patch_error error;

	return patch_last_error(&error) != PATCH_OK ? PATCH_OK : PATCH_BUG;
}

/* libpatch_on_trap() serves a trap, and a hook runs. */
static patch_status trap(void)
{
	t_nops(1, 2);
	return hits == 1 ? PATCH_OK : PATCH_BUG;
}

#define NAMED(function) { function, #function }

int main(void)
{
	static const struct {
		patch_status (*function)(void);
		const char *name;
	} steps[] = { NAMED(init_attr), NAMED(set_policy), NAMED(set_abi), NAMED(set_state), NAMED(component),
		      NAMED(init), NAMED(make), NAMED(patch_commit), NAMED(trap), NAMED(info), NAMED(original_pc),
		      NAMED(disable), NAMED(patch_commit), NAMED(enable), NAMED(patch_commit), NAMED(unmake),
		      NAMED(patch_commit), NAMED(make_in_range), NAMED(patch_commit), NAMED(unmake), NAMED(synchronize),
		      NAMED(statistics), NAMED(fini_attr), NAMED(status_string), NAMED(last_error), NAMED(patch_fini) };
	struct patch_location location = { .type = PATCH_LOCATION_SYMBOL };
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE, procedure, NULL);
	struct patch_error error;
	char gone[sizeof(name)];

	harness_start();
	CHECK_EQ(patch_last_error(&error), PATCH_OK);
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		CONTEXT("%s, step %zu", steps[i].name, i);
		fail(i & 1);
		CHECK_OK(steps[i].function());
		expect(i & 1);
		if (steps[i].function != init)
			continue;
		/* What is told of a name outlasts it. */
		strcpy(gone, name);
		location.symbol.name = gone;
		CHECK_EQ(patch_make(&location, &model, NULL, &patch, NULL), PATCH_ENEXIST);
		memset(gone, '-', sizeof(gone) - 1);
		CHECK_EQ(patch_last_error(&error), PATCH_ENEXIST);
		CHECK(!strncmp(error.irritant, name, 20));
	}
	return harness_end();
}
