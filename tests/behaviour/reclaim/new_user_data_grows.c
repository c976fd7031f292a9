/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Patches made and unmade for ever, each with user data of its own and in an order of its own: code is used again for
 * whatever is wanted at the same place, and what belongs to a patch goes with it. Code and memory are exactly as many
 * after ten thousand patches as after three thousand; where several share a window, in any order, nearly so: code grows
 * when one of them has stayed for longer than any before.
 */
#include "targets.h"

#define EARLY 3000
#define LATE 10000
#define MANY 6

static uint64_t serial, random_state = 88172645463325252;
static unsigned int called[MANY];
static uint64_t expected[MANY];

static unsigned int random_below(unsigned int limit)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (unsigned int)(random_state % limit);
}

/* user_data: serial * MANY + index. */
static void one(struct patch_exec_context *context, uint8_t post)
{
	uint64_t data = (uint64_t)(uintptr_t)context->user_data;

	CHECK_EQ(data, expected[data % MANY]);
	if (post == 0)
		called[data % MANY]++;
}

static void other(struct patch_exec_context *context, uint8_t post)
{
	one(context, post);
}

static patch_t make(uintptr_t address, int type, unsigned int index)
{
	struct patch_location location = location_at(address);
	struct patch_exec_model model = model_of(type, serial & 1 ? one : other, NULL);
	patch_attr attr = attr_of(PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED);
	patch_t patch = NULL;

	expected[index] = ++serial * MANY + index;
	model.probe.user_data = (void *)(uintptr_t)expected[index];
	REQUIRE_OK(patch_make(&location, &model, &attr, &patch, NULL));
	return patch;
}

static void alone(uintptr_t address, int type)
{
	patch_t patch = make(address, type, 0);

	REQUIRE_OK(patch_commit());
	called[0] = 0;
	t_five_bytes(1, 2);
	if (address == (uintptr_t)t_five_bytes)
		CHECK_EQ(called[0], 1);
	REQUIRE_OK(patch_unmake(patch));
	REQUIRE_OK(patch_commit());
}

static void probe(void)
{
	alone((uintptr_t)t_five_bytes, PATCH_EXEC_MODEL_PROBE);
}

static void around(void)
{
	alone((uintptr_t)t_five_bytes, PATCH_EXEC_MODEL_PROBE_AROUND);
}

/* A call with two patches on it that tell of its return. */
static void call_pair_begin(void)
{
	static struct instructions list;
	unsigned int calls = 0;
	patch_t second;

	if (list.count == 0)
		list = target_decode(target_named("t_call_twice"));
	for (unsigned int i = 0; i < list.count; i++) {
		if (!target_is_call(list.address[i]))
			continue;
		calls++;
		second = make(list.address[i], PATCH_EXEC_MODEL_PROBE_CALL, 1);
		alone(list.address[i], PATCH_EXEC_MODEL_PROBE_CALL);
		called[1] = 0;
		target_named("t_call_twice")->function(1, 2);
		CHECK_EQ(called[1], 1);
		REQUIRE_OK(patch_unmake(second));
	}
	CHECK_EQ(calls, 2);
	REQUIRE_OK(patch_commit());
}

/* Several at one instruction, or in one window, which one that stays keeps as it is; in any order. */
static void neighbours(void)
{
	static patch_t patches[MANY];
	unsigned int index = 1 + random_below(MANY - 1);

	if (patches[0] == NULL)
		patches[0] = make((uintptr_t)t_five_singles, PATCH_EXEC_MODEL_PROBE, 0);

	if (patches[index] != NULL)
		REQUIRE_OK(patch_unmake(patches[index]));
	patches[index] = NULL;
	if (random_below(4) != 0)
		patches[index] = make((uintptr_t)t_five_singles + index % 3,
				      index < 4 ? PATCH_EXEC_MODEL_PROBE : PATCH_EXEC_MODEL_PROBE_AROUND, index);
	if (random_below(2) != 0)
		return;
	REQUIRE_OK(patch_commit());
	memset(called, 0, sizeof(called));
	t_five_singles(1, 2);
	for (unsigned int i = 0; i < MANY; i++)
		CHECK_EQ(called[i], patches[i] != NULL);
}

static void repeat(const char *what, void (*cycle)(void), unsigned int percent)
{
	struct patch_statistics early, late;

	CONTEXT("%s", what);
	memset(&early, 0, sizeof(early));
	memset(&late, 0, sizeof(late));
	for (unsigned int i = 0; i < LATE && harness_failures == 0; i++) {
		cycle();
		if (i == EARLY)
			CHECK_OK(patch_statistics(&early, sizeof(early)));
	}
	CHECK_OK(patch_statistics(&late, sizeof(late)));
	CHECK(late.code_bytes <= early.code_bytes * (100 + percent) / 100);
	harness_say("%s: %llu bytes of code\n", what, (unsigned long long)late.code_bytes);
	CHECK_EQ(late.heap_bytes, early.heap_bytes);
	CHECK_EQ(late.arenas, early.arenas);
	CHECK_EQ(late.pads, early.pads);
}

int main(void)
{
	harness_start();
	REQUIRE_OK(patch_init(NULL, 0));
	repeat("a probe", probe, 0);
	repeat("a probe around an instruction", around, 0);
	repeat("a probe of a call", call_pair_begin, 0);
	repeat("neighbours", neighbours, 20);
	CHECK_OK(patch_fini());
	return harness_end();
}
