/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* NULL pointers, values out of range, execution models that are not there yet: each refused with its status. */
#include "targets.h"

#include <sys/mman.h>

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static void check_words(void)
{
	struct patch_error error;

	CHECK(patch_last_error(&error) != PATCH_OK);
	CHECK(error.origin && error.origin[0]);
	CHECK(error.irritant != NULL);
	CHECK(error.message && error.message[0]);
}

static void attributes(void)
{
	patch_attr attr;

	CHECK_STATUS(patch_attr_init(NULL, sizeof(attr)), PATCH_EINVAL);
	CHECK_STATUS(patch_attr_init(&attr, sizeof(attr) - 1), PATCH_EINVAL);
	CHECK_STATUS(patch_attr_init(&attr, 0), PATCH_EINVAL);
	CHECK_OK(patch_attr_init(&attr, sizeof(attr)));
	CHECK_STATUS(patch_attr_set_trap_policy(NULL, PATCH_TRAP_POLICY_ALLOW), PATCH_EINVAL);
	CHECK_STATUS(patch_attr_set_trap_policy(&attr, 3), PATCH_EINVAL);
	CHECK_STATUS(patch_attr_set_trap_policy(&attr, -1), PATCH_EINVAL);
	CHECK_STATUS(patch_attr_set_abi(NULL, PATCH_ABI_OS), PATCH_EINVAL);
	CHECK_STATUS(patch_attr_set_abi(&attr, 1), PATCH_EINVAL);
	CHECK_STATUS(patch_attr_set_initial_state(NULL, PATCH_ENABLED), PATCH_EINVAL);
	CHECK_STATUS(patch_attr_set_initial_state(&attr, 2), PATCH_EINVAL);
	CHECK_STATUS(patch_attr_fini(NULL), PATCH_EINVAL);
	check_words();
	CHECK_OK(patch_attr_fini(&attr));
}

/* Whatever the patch will call or write to is looked at before it is made, and the handle says that it was not. */
static void used_memory(const struct patch_location *good, const struct patch_exec_model *probe)
{
	static const uint64_t constants[2];
	static uint64_t counters[2] = { 0 };
	char *end = mmap(NULL, 2 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct {
		int type;
		uintptr_t target, destroy, original, counter;
		uint32_t flags;
		patch_status expected;
	} cases[] = {
		{ .type = PATCH_EXEC_MODEL_PROBE, .destroy = 16, .expected = PATCH_EFAULT },
		{ .type = PATCH_EXEC_MODEL_PROBE, .destroy = (uintptr_t)counters, .expected = PATCH_EFAULT },
		{ .type = PATCH_EXEC_MODEL_DIVERT,
		  .target = (uintptr_t)used_memory,
		  .destroy = 16,
		  .expected = PATCH_EFAULT },
		{ .type = PATCH_EXEC_MODEL_DIVERT,
		  .target = (uintptr_t)used_memory,
		  .original = 16,
		  .expected = PATCH_EFAULT },
		{ .type = PATCH_EXEC_MODEL_DIVERT,
		  .target = (uintptr_t)used_memory,
		  .original = (uintptr_t)constants,
		  .expected = PATCH_EFAULT },
		{ .type = PATCH_EXEC_MODEL_COUNT, .counter = 16, .expected = PATCH_EFAULT },
		{ .type = PATCH_EXEC_MODEL_COUNT, .counter = (uintptr_t)constants, .expected = PATCH_EFAULT },
		{ .type = PATCH_EXEC_MODEL_COUNT, .counter = (uintptr_t)used_memory / 8 * 8, .expected = PATCH_EFAULT },
		{ .type = PATCH_EXEC_MODEL_COUNT, .counter = (uintptr_t)end + 4096, .expected = PATCH_EFAULT },
		{ .type = PATCH_EXEC_MODEL_COUNT, .counter = (uintptr_t)end + 4088, .expected = PATCH_OK },
		{ .type = PATCH_EXEC_MODEL_COUNT,
		  .counter = (uintptr_t)end + 4088,
		  .flags = PATCH_COUNT_TSC,
		  .expected = PATCH_EFAULT },
		{ .type = PATCH_EXEC_MODEL_COUNT,
		  .counter = (uintptr_t)counters,
		  .flags = 2,
		  .expected = PATCH_EINVAL },
		{ .type = PATCH_EXEC_MODEL_COUNT, .counter = (uintptr_t)counters, .flags = 1, .expected = PATCH_OK },
	};

	REQUIRE(end != MAP_FAILED);
	munmap(end + 4096, 4096);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct patch_exec_model model = { .type = cases[i].type };
		patch_t patch = (patch_t)1;
		patch_status status;

		if (cases[i].type == PATCH_EXEC_MODEL_PROBE) {
			model = *probe;
			model.probe.destroy = (void (*)(void *))cases[i].destroy;
		} else if (cases[i].type == PATCH_EXEC_MODEL_DIVERT) {
			model.divert.target = (void *)cases[i].target;
			model.divert.destroy = (void (*)(void *))cases[i].destroy;
			model.divert.original = (void **)cases[i].original;
		} else {
			model.count.counter = (uint64_t *)cases[i].counter;
			model.count.flags = cases[i].flags;
		}
		CONTEXT("used memory, case %zu", i);
		status = patch_make(good, &model, NULL, &patch, NULL);
		CHECK_STATUS(status, cases[i].expected);
		CHECK_EQ(patch != NULL, status == PATCH_OK);
		if (status == PATCH_OK)
			CHECK_OK(patch_unmake(patch));
		else
			check_words();
	}
	CONTEXT("patch_make");
	munmap(end, 4096);
}

int main(void)
{
	const struct target *target = target_named("t_push_push");
	struct text_copy before = text_of_target(target);
	struct patch_location good = location_at(target_start(target)), location;
	struct patch_exec_model probe = model_of(PATCH_EXEC_MODEL_PROBE, procedure, NULL), model;
	struct patch_statistics statistics;
	patch_attr attr;
	patch_t patch = NULL, other;
	void *original = NULL;

	harness_start();
	CONTEXT("attributes before patch_init()");
	attributes();
	REQUIRE_OK(patch_init(NULL, 0));
	CONTEXT("attributes");
	attributes();

	CONTEXT("patch_make");
	CHECK_STATUS(patch_make(NULL, &probe, NULL, &patch, NULL), PATCH_EINVAL);
	check_words();
	CHECK_STATUS(patch_make(&good, NULL, NULL, &patch, NULL), PATCH_EINVAL);
	CHECK_STATUS(patch_make(&good, &probe, NULL, NULL, NULL), PATCH_EINVAL);
	CHECK_STATUS(patch_make(&good, &probe, NULL, &patch, &patch), PATCH_EINVAL);
	model = probe;
	model.probe.procedure = NULL;
	CHECK_STATUS(patch_make(&good, &model, NULL, &patch, NULL), PATCH_EINVAL);
	model.probe.procedure = (probe_procedure)(uintptr_t)&model;
	CHECK_STATUS(patch_make(&good, &model, NULL, &patch, NULL), PATCH_EFAULT);
	check_words();
	model.probe.procedure = (probe_procedure)16;
	CHECK_STATUS(patch_make(&good, &model, NULL, &patch, NULL), PATCH_EFAULT);
	check_words();
	model = probe;
	model.type = 99;
	CHECK_STATUS(patch_make(&good, &model, NULL, &patch, NULL), PATCH_EINVAL);
	model.type = -1;
	CHECK_STATUS(patch_make(&good, &model, NULL, &patch, NULL), PATCH_EINVAL);
	memset(&model, 0, sizeof(model));
	model.type = PATCH_EXEC_MODEL_DIVERT;
	CHECK_STATUS(patch_make(&good, &model, NULL, &patch, NULL), PATCH_EINVAL);
	check_words();
	model.divert.target = (void *)good.address;
	CHECK_STATUS(patch_make(&good, &model, NULL, &patch, NULL), PATCH_EINVAL);
	check_words();
	model.divert.target = &model;
	CHECK_STATUS(patch_make(&good, &model, NULL, &patch, NULL), PATCH_EFAULT);
	check_words();
	model.divert.target = (void *)16;
	CHECK_STATUS(patch_make(&good, &model, NULL, &patch, NULL), PATCH_EFAULT);
	check_words();
	model.divert.target = (void *)(uintptr_t)main;
	model.divert.original = &original;
	CHECK_OK(patch_make(&good, &model, NULL, &patch, NULL));
	CHECK(original != NULL);
	model.divert.target = original;
	CHECK_STATUS(patch_make(&good, &model, NULL, &other, NULL), PATCH_EINVAL);
	check_words();
	CHECK_OK(patch_unmake(patch));
	model.divert.target = (void *)(uintptr_t)main;
	model.divert.original = NULL;
	model.divert.reserved = 1;
	CHECK_STATUS(patch_make(&good, &model, NULL, &other, NULL), PATCH_EINVAL);
	check_words();
	used_memory(&good, &probe);
	location = good;
	location.type = 99;
	CHECK_STATUS(patch_make(&location, &probe, NULL, &patch, NULL), PATCH_EINVAL);
	memset(&location, 0, sizeof(location));
	location.type = PATCH_LOCATION_RANGE;
	location.range.lower = target_start(target);
	location.direction = 7;
	CHECK_STATUS(patch_make(&location, &probe, NULL, &patch, NULL), PATCH_EINVAL);
	location.direction = PATCH_LOCATION_FORWARD;
	location.algorithm = 7;
	CHECK_STATUS(patch_make(&location, &probe, NULL, &patch, NULL), PATCH_EINVAL);
	memset(&location, 0, sizeof(location));
	location.type = PATCH_LOCATION_SYMBOL;
	CHECK_STATUS(patch_make(&location, &probe, NULL, &patch, NULL), PATCH_EINVAL);
	location.symbol.name = "no_such_symbol_anywhere";
	CHECK_STATUS(patch_make(&location, &probe, NULL, &patch, NULL), PATCH_ENEXIST);
	check_words();
	memset(&location, 0, sizeof(location));
	location.type = PATCH_LOCATION_RANGE;
	location.range.lower = target_start(target) + 4;
	location.range.upper = target_start(target);
	CHECK(patch_make(&location, &probe, NULL, &patch, NULL) != PATCH_OK);
	check_words();
	memset(&attr, 0xff, sizeof(attr));
	CHECK_STATUS(patch_make(&good, &probe, &attr, &patch, NULL), PATCH_EINVAL);

	CONTEXT("the rest");
	CHECK_STATUS(patch_last_error(NULL), PATCH_EINVAL);
	CHECK_STATUS(patch_statistics(NULL, sizeof(struct patch_statistics)), PATCH_EINVAL);
	CHECK_STATUS(patch_olx_original_pc(0, NULL), PATCH_EINVAL);
	CHECK_OK(patch_make(&good, &probe, NULL, &patch, NULL));
	CHECK_STATUS(patch_info(patch, NULL, sizeof(struct patch_info)), PATCH_EINVAL);
	CHECK_OK(patch_unmake(patch));
	{
		uint64_t image[1024] = { 0 };
		void *component;

		CHECK_STATUS(patch_x86_64_state_component(NULL, 1, &component, NULL), PATCH_EINVAL);
		CHECK_STATUS(patch_x86_64_state_component(image, 1, NULL, NULL), PATCH_EINVAL);
		CHECK_STATUS(patch_x86_64_state_component(image, 63, &component, NULL), PATCH_EINVAL);
		CHECK_STATUS(patch_x86_64_state_component(image, -1, &component, NULL), PATCH_EINVAL);
		CHECK_STATUS(patch_x86_64_state_component(image, 1, &component, image), PATCH_EINVAL);
	}
	CHECK_OK(patch_commit());
	CHECK_TEXT_SAME(&before);
	CHECK_OK(patch_statistics(&statistics, sizeof(statistics)));
	CHECK_EQ(statistics.patches, 0);
	CHECK_OK(patch_fini());
	return harness_end();
}
