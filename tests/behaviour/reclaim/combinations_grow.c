/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Patches of any policy, model and masks that come and go in any order on the instructions of one function, so that
 * each moment has another combination of them: the code that is kept is bounded by how many there are at a time (I7),
 * not by how many combinations there were. LIBPATCH_CHANGES is how many changes there are: a million take minutes.
 */
#include "targets.h"

#define AT_ONE 3 /* patches at one instruction, at most */
#define CHANGES 64000

static patch_t patches[TARGET_MAX_INSTRUCTIONS][AT_ONE];
static unsigned int hits[TARGET_MAX_INSTRUCTIONS][AT_ONE];
static bool enabled[TARGET_MAX_INSTRUCTIONS][AT_ONE];

static GP_ONLY void procedure(struct patch_exec_context *context, uint8_t post)
{
	if (!post)
		++*(unsigned int *)context->user_data;
}

static unsigned int random_below(unsigned int limit)
{
	static uint64_t state = 88172645463325252u;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (unsigned int)((state >> 20) % limit);
}

/* What conflicts with others is refused: no news here. */
static void make(uintptr_t address, unsigned int i, unsigned int k)
{
	static const int policies[8] = { PATCH_TRAP_POLICY_FORCE, PATCH_TRAP_POLICY_FORBID };
	static const uint64_t masks[4] = { PATCH_REGS_GP_ONLY, PATCH_REGS_ALL, PATCH_REGS_SSE };
	struct patch_location location = location_at(address);
	struct patch_exec_model model = model_of(random_below(4) ? PATCH_EXEC_MODEL_PROBE :
								   PATCH_EXEC_MODEL_PROBE_AROUND,
						 procedure, &hits[i][k]);
	unsigned int policy = random_below(8);
	patch_attr attr;

	model.probe.clobber_registers = masks[random_below(4)];
	attr = attr_of(policy < 2 ? policies[policy] : PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED);

	enabled[i][k] = patch_make(&location, &model, &attr, &patches[i][k], NULL) == PATCH_OK;
	if (!enabled[i][k])
		patches[i][k] = NULL;
}

static void change(const struct instructions *list)
{
	unsigned int i = random_below(list->count), k = random_below(AT_ONE);

	if (patches[i][k] == NULL) {
		make(list->address[i], i, k);
	} else if (random_below(2)) {
		CHECK_OK(patch_unmake(patches[i][k]));
		patches[i][k] = NULL;
		enabled[i][k] = false;
	} else {
		enabled[i][k] = random_below(2);
		CHECK_OK(enabled[i][k] ? patch_enable(patches[i][k]) : patch_disable(patches[i][k]));
	}
}

static void run(const struct target *target)
{
	CHECK_OK(patch_commit());
	memset(hits, 0, sizeof(hits));
	CHECK_EQ(target->function(1, 2), target->model(1, 2));
	for (unsigned int i = 0; i < TARGET_MAX_INSTRUCTIONS; i++)
		for (unsigned int k = 0; k < AT_ONE; k++)
			CHECK_EQ(hits[i][k], enabled[i][k]);
}

static uint64_t code_bytes(void)
{
	struct patch_statistics statistics;

	memset(&statistics, 0, sizeof(statistics));
	CHECK_OK(patch_statistics(&statistics, sizeof(statistics)));
	return statistics.code_bytes;
}

static void combine(void *name)
{
	const struct target *target = target_named(name);
	struct instructions list = target_decode(target);
	struct text_copy text = text_of_target(target);
	unsigned int changes = harness_seconds("LIBPATCH_CHANGES", CHANGES);
	uint64_t early = 0, late;

	CONTEXT("%s", (const char *)name);
	REQUIRE_OK(patch_init(NULL, 0));
	for (unsigned int n = 1; n <= changes && harness_failures == 0; n++) {
		change(&list);
		if (random_below(3) == 0)
			run(target);
		if (n == changes / 4)
			early = code_bytes();
	}
	late = code_bytes();
	harness_say("%s: %llu bytes of code after %u changes, %llu after %u\n", (const char *)name,
		    (unsigned long long)early, changes / 4, (unsigned long long)late, changes);
	CHECK(late <= early + early / 2);
	CHECK_OK(patch_fini());
	CHECK_TEXT_SAME(&text);
}

int main(void)
{
	static char straight[] = "t_five_singles", longer[] = "t_push_push";

	harness_start_seconds(HARNESS_SECONDS + harness_seconds("LIBPATCH_CHANGES", CHANGES) / 500);
	harness_isolated("one window", combine, straight);
	harness_isolated("several windows", combine, longer);
	return harness_end();
}
