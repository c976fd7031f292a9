/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Calls before patch_init() and after patch_fini(), a second init, a second fini, bad options. */
#include "targets.h"

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static void all_calls(patch_t patch, patch_status expected)
{
	struct patch_location location = location_at((uintptr_t)t_push_push);
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE, procedure, NULL);
	struct patch_error error;
	struct patch_info info;
	patch_t out = NULL;

	CHECK_STATUS(patch_make(&location, &model, NULL, &out, NULL), expected);
	CHECK(patch_last_error(&error) == expected && error.message && error.message[0]);
	/* patch_init() may have been called, and have failed. */
	CHECK_MSG(expected != PATCH_EINIT || strstr(error.message, "has succeeded"), "%s", error.message);
	location.type = PATCH_LOCATION_SYMBOL;
	location.symbol.name = "no_such_function";
	location.symbol.offset = 0;
	CHECK_STATUS(patch_make(&location, &model, NULL, &out, NULL), expected);
	CHECK_STATUS(patch_enable(patch), expected);
	CHECK_STATUS(patch_disable(patch), expected);
	CHECK_STATUS(patch_unmake(patch), expected);
	CHECK_STATUS(patch_commit(), expected);
	CHECK_STATUS(patch_info(patch, &info, sizeof(info)), expected);
	CHECK_STATUS(patch_fini(), expected);
}

static void whole_life(void *argument)
{
	struct patch_option *wxe = argument;
	struct patch_statistics statistics;
	struct patch_option options[2];
	struct text_copy before = text_of_target(target_named("t_push_push"));
	uintptr_t original;
	patch_t patch;

	CONTEXT("before patch_init()");
	all_calls((patch_t)&statistics, PATCH_EINIT);
	CHECK_STATUS(patch_statistics(&statistics, sizeof(statistics)), PATCH_EINIT);
	CHECK_STATUS(patch_olx_original_pc((uintptr_t)t_push_push, &original), PATCH_ENEXIST);

	CONTEXT("bad options");
	CHECK_STATUS(patch_init(NULL, 1), PATCH_EINVAL);
	memset(options, 0, sizeof(options));
	options[0].type = PATCH_OPT_ENABLE_WXE;
	options[0].enable_wxe = true;
	options[1].type = 4711;
	CHECK_STATUS(patch_init(options, 2), PATCH_EINVAL);
	all_calls((patch_t)&statistics, PATCH_EINIT);

	CONTEXT("alive");
	CHECK_OK(patch_init(wxe, wxe ? 1 : 0));
	CHECK_STATUS(patch_init(NULL, 0), PATCH_EEXIST);
	CHECK_STATUS(patch_init(wxe, wxe ? 1 : 0), PATCH_EEXIST);
	CHECK_OK(make_probe((uintptr_t)t_push_push, procedure, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
	CHECK_OK(patch_commit());
	CHECK(!text_is_same(&before));
	CHECK_OK(patch_commit());
	CHECK_OK(patch_fini());
	CHECK_TEXT_SAME(&before);

	CONTEXT("after patch_fini()");
	all_calls(patch, PATCH_EFINI);
	CHECK_STATUS(patch_init(NULL, 0), PATCH_EFINI);
	CHECK_STATUS(patch_fini(), PATCH_EFINI);
	CHECK_EQ(t_push_push(1, 2), 5);
}

int main(void)
{
	struct patch_option wxe;

	harness_start();
	harness_isolated("no options", whole_life, NULL);
	memset(&wxe, 0, sizeof(wxe));
	wxe.type = PATCH_OPT_ENABLE_WXE;
	wxe.enable_wxe = true;
	harness_isolated("enable_wxe 1", whole_life, &wxe);
	wxe.enable_wxe = false;
	harness_isolated("enable_wxe 0", whole_life, &wxe);
	return harness_end();
}
