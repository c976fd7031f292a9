/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The forms of a location: RANGE forwards and backwards, upper == 0, SYMBOL with an offset. */
#include "targets.h"

#include <Zydis/Zydis.h>
#include <dlfcn.h>

/* volatile: a64l() is declared pure, the compiler believes that calling it changes nothing */
static volatile unsigned int hits;
static volatile uintptr_t met;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	hits++;
	met = context->program_counter;
}

static uintptr_t made_at(const struct patch_location *location, int policy, patch_t *out)
{
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE, procedure, NULL);
	patch_attr attr = attr_of(policy, PATCH_ENABLED);
	struct patch_info info;
	patch_t patch = NULL;

	memset(&info, 0, sizeof(info));
	CHECK_OK(patch_make(location, &model, &attr, &patch, NULL));
	if (!patch)
		return 0;
	CHECK_OK(patch_info(patch, &info, sizeof(info)));
	*out = patch;
	return info.address;
}

static void range(const struct target *target, size_t lower, size_t upper, int direction, int policy, size_t wanted)
{
	struct text_copy before = text_of_target(target);
	struct patch_location location;
	uintptr_t address;
	patch_t patch = NULL;

	CONTEXT("%s, range %zu to %zu, direction %d, %s", target->name, lower, upper, direction, policy_name(policy));
	memset(&location, 0, sizeof(location));
	location.type = PATCH_LOCATION_RANGE;
	location.direction = direction;
	location.range.lower = target_start(target) + lower;
	location.range.upper = upper ? target_start(target) + upper : 0;
	address = made_at(&location, policy, &patch);
	CHECK_EQ(address, target_start(target) + wanted);
	if (!patch)
		return;
	CHECK_OK(patch_commit());
	hits = 0;
	CHECK_EQ(target->function(5, 7), target->model(5, 7));
	CHECK_EQ(hits, 1);
	CHECK_EQ(met, address);
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
	CHECK_TEXT_SAME(&before);
}

static void symbol(const char *name, size_t offset, bool call)
{
	uintptr_t address = (uintptr_t)dlsym(RTLD_DEFAULT, name);
	struct patch_location location;
	patch_t patch = NULL;

	CONTEXT("symbol %s+%zu", name, offset);
	if (!address) {
		FAIL("dlsym");
		return;
	}
	memset(&location, 0, sizeof(location));
	location.type = PATCH_LOCATION_SYMBOL;
	location.symbol.name = name;
	location.symbol.offset = offset;
	CHECK_EQ(made_at(&location, PATCH_TRAP_POLICY_ALLOW, &patch), address + offset);
	CHECK_OK(patch_commit());
	hits = 0;
	if (call) {
		CHECK_EQ(a64l("/"), 1);
		CHECK_EQ(hits, 1);
		CHECK_EQ(met, address + offset);
	}
	CHECK_OK(patch ? patch_unmake(patch) : PATCH_OK);
	CHECK_OK(patch_commit());
}

/* What is returned is what patch_last_error() tells: of the instruction that was tried first, in either direction. */
__asm__(".pushsection .text\n"
	".globl refused_range, refused_range_end\n.type refused_range,@function\n"
	"refused_range: .cfi_startproc\n nop\n mov $5, %eax\n jmp 1f\n .byte 0x06\n1: ret\n .cfi_endproc\n"
	"refused_range_end:\n.size refused_range, .-refused_range\n"
	".popsection\n");
extern char refused_range[], refused_range_end[];

static void refused(uintptr_t lower, int direction)
{
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE_CALL, procedure, NULL);
	struct patch_location location;
	struct patch_error error;
	patch_t patch;
	patch_status status;

	CONTEXT("refused, direction %d", direction);
	memset(&location, 0, sizeof(location));
	location.type = PATCH_LOCATION_RANGE;
	location.direction = direction;
	location.range.lower = lower;
	location.range.upper = (uintptr_t)refused_range_end;
	status = patch_make(&location, &model, NULL, &patch, NULL);
	CHECK(status != PATCH_OK);
	CHECK(patch == NULL);
	CHECK_EQ(patch_last_error(&error), status);
}

int main(void)
{
	const struct target *pushes = target_named("t_push_push"), *five = target_named("t_five_bytes");
	struct instructions list = target_decode(pushes);
	size_t last = list.address[list.count - 1] - list.address[0];
	ZydisDecodedInstruction first;
	ZydisDecoder decoder;

	harness_start();
	REQUIRE_OK(patch_init(NULL, 0));
	for (int direction = PATCH_LOCATION_FORWARD; direction <= PATCH_LOCATION_BACKWARD; direction++) {
		refused((uintptr_t)refused_range, direction);
		refused((uintptr_t)refused_range + 8, direction); /* no instruction */
	}
	range(pushes, 0, 0, PATCH_LOCATION_FORWARD, PATCH_TRAP_POLICY_ALLOW, 0);
	range(pushes, 1, 0, PATCH_LOCATION_FORWARD, PATCH_TRAP_POLICY_ALLOW, 1);
	range(pushes, 1, 0, PATCH_LOCATION_FORWARD, PATCH_TRAP_POLICY_FORCE, 1);
	range(pushes, 0, target_size(pushes), PATCH_LOCATION_FORWARD, PATCH_TRAP_POLICY_ALLOW, 0);
	range(pushes, 2, target_size(pushes), PATCH_LOCATION_FORWARD, PATCH_TRAP_POLICY_ALLOW, 2);
	range(pushes, 0, target_size(pushes), PATCH_LOCATION_BACKWARD, PATCH_TRAP_POLICY_FORCE, last);
	range(pushes, 0, 8, PATCH_LOCATION_BACKWARD, PATCH_TRAP_POLICY_FORCE, 5);
	range(five, 0, 5, PATCH_LOCATION_BACKWARD, PATCH_TRAP_POLICY_FORBID, 0);
	range(five, 0, 5, PATCH_LOCATION_FORWARD, PATCH_TRAP_POLICY_FORBID, 0);
	symbol("a64l", 0, true);
	ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	if (ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, NULL, dlsym(RTLD_DEFAULT, "a64l"), 16, &first)))
		symbol("a64l", first.length, false);
	else
		FAIL("a64l does not decode");
	CHECK_OK(patch_fini());
	CHECK_EQ(a64l("/"), 1);
	return harness_end();
}
