/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the stress tests share: see stress.h. A stress program has one set of sites, whose only controller is its main
 * thread. */
#include "stress.h"

struct machine machine;
struct text_copy stress_text[TARGET_COUNT];
struct site sites[STRESS_MAX_SITES];
unsigned int site_count;
unsigned int site_first[TARGET_COUNT + 1];
struct stress stress;
__thread uint64_t stress_hits;

GP_ONLY void stress_procedure(struct patch_exec_context *context, uint8_t post)
{
	const struct site *site = (const struct site *)context->user_data;

	(void)post;
	stress_hits++;
	if (context->program_counter != site->address && !__atomic_fetch_add(&stress.wrong_pc, 1, __ATOMIC_RELAXED)) {
		stress.first_wrong_pc = context->program_counter;
		stress.wanted_pc = site->address;
	}
}

patch_status stress_make(struct site *site, int state)
{
	struct patch_location location = location_at(site->address);
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE, stress_procedure, site);
	patch_attr attr = attr_of(site->policy, state);
	patch_status status;

	model.probe.clobber_registers = site->address % 3 ? PATCH_REGS_GP_ONLY : PATCH_REGS_ALL;
	status = patch_make(&location, &model, &attr, &site->patch, NULL);
	site->enabled = status == PATCH_OK && state == PATCH_ENABLED;
	if (status != PATCH_OK)
		site->patch = NULL;
	return status;
}

void stress_prepare(void)
{
	machine_prepare(&machine);
	for (size_t t = 0; t < TARGET_COUNT; t++) {
		struct instructions list = target_decode(&targets[t]);

		stress_text[t] = text_of_target(&targets[t]);
		site_first[t] = site_count;
		for (unsigned int n = 0; n < list.count; n++) {
			REQUIRE(site_count < STRESS_MAX_SITES);
			sites[site_count].address = list.address[n];
			/* one policy for a target, so that its sites can share displaced ranges */
			sites[site_count].policy = t % 8 == 7 ? PATCH_TRAP_POLICY_FORCE : PATCH_TRAP_POLICY_ALLOW;
			site_count++;
		}
	}
	site_first[TARGET_COUNT] = site_count;
}

void stress_check_text(void)
{
	for (size_t t = 0; t < TARGET_COUNT; t++) {
		CONTEXT("text of %s at the end", targets[t].name);
		CHECK_TEXT_SAME(&stress_text[t]);
	}
}

void stress_note(patch_status status, const char *what)
{
	if (status == PATCH_OK)
		return;
	if (__atomic_fetch_add(&stress.failed_calls, 1, __ATOMIC_RELAXED) < 5)
		harness_say("%s: %s; %s\n", what, patch_status_string(status), harness_last_error());
}

void stress_call(size_t t, uint64_t a, uint64_t b)
{
	uint64_t value, wanted;

	if (!target_runs_here(&targets[t]))
		return;
	value = targets[t].function(a, b);
	wanted = targets[t].model(a, b);
	if (value != wanted && !(targets[t].flags & TARGET_VOID) &&
	    __atomic_fetch_add(&stress.wrong_results, 1, __ATOMIC_RELAXED) < 5)
		harness_say("%s(%#llx, %#llx) returned %#llx, wanted %#llx\n", targets[t].name, (unsigned long long)a,
			    (unsigned long long)b, (unsigned long long)value, (unsigned long long)wanted);
}

uint64_t stress_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

void *stress_thread(void *argument)
{
	uint64_t seed = 0x9e3779b97f4a7c15u * ((uint64_t)(uintptr_t)argument + 1), calls = 0;
	struct machine own = machine;
	bool yield = (uintptr_t)argument & 1;

	own.stack_top = machine_stack();
	while (!__atomic_load_n(&stress.stop, __ATOMIC_RELAXED)) {
		for (size_t t = 0; t < TARGET_COUNT; t++) {
			uint64_t a = (stress_random(&seed) & ~(uint64_t)0xff) | (seed >> 40 & 15) | 1;

			stress_call(t, a, stress_random(&seed));
			for (int n = 0; n < 8; n++)
				stress_call(__atomic_load_n(&stress.hot, __ATOMIC_RELAXED), a, seed + (unsigned int)n);
			calls += 9;
			if (yield && (seed & 63) == 0)
				sched_yield();
		}
		/* the traces know the address of the first machine's stack: compare what does not depend on it */
		for (size_t n = 0; n < 16; n++) {
			size_t t = stress_random(&seed) % TARGET_COUNT, i = stress_random(&seed) % TARGET_INPUTS;
			const struct machine_state *wanted = &machine.trace[t][i].final;
			uint64_t moved = (uint64_t)(own.stack_top - machine.stack_top);
			struct machine_state state;
			unsigned int wrong = 0;

			if (!target_runs_here(&targets[t]))
				continue;
			machine_call(targets[t].function, target_inputs[i][0], target_inputs[i][1], own.stack_top,
				     &state, machine_entry_flags(i));
			calls++;
			for (int r = 0; r < PATCH_ARCH_GREGS_COUNT; r++)
				wrong += state.registers[r] != wanted->registers[r] &&
					 state.registers[r] != wanted->registers[r] + moved;
			wrong += state.rsp != wanted->rsp + moved;
			wrong += ((state.flags ^ wanted->flags) & MACHINE_FLAGS) != 0;
			wrong += memcmp(state.xmm, wanted->xmm, sizeof(state.xmm)) != 0;
			if (wrong && __atomic_fetch_add(&stress.wrong_results, wrong, __ATOMIC_RELAXED) < 5)
				harness_say("%s, input %zu: %u registers are wrong at return\n", targets[t].name, i,
					    wrong);
		}
	}
	__atomic_fetch_add(&stress.calls, calls, __ATOMIC_RELAXED);
	__atomic_fetch_add(&stress.hits, stress_hits, __ATOMIC_RELAXED);
	return NULL;
}

double stress_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

bool stress_set(struct site *site, bool enabled)
{
	if (!site->patch || site->enabled == enabled)
		return false;
	stress_note(enabled ? patch_enable(site->patch) : patch_disable(site->patch), "enable or disable");
	site->enabled = enabled;
	return true;
}

unsigned int stress_change(uint64_t *seed)
{
	uint64_t choice = stress_random(seed);
	unsigned int changed = 0;
	size_t t;

	if ((choice >> 48) % 64 == 0)
		__atomic_store_n(&stress.hot, (unsigned int)((choice >> 20) % TARGET_COUNT), __ATOMIC_RELAXED);

	t = (choice >> 54) % 4 ? stress.hot : (choice >> 8) % TARGET_COUNT;
	switch (choice % 16) {
	case 0: /* all on or off */
		for (unsigned int s = 0; s < site_count; s++)
			changed += stress_set(&sites[s], choice >> 32 & 1);
		break;
	case 1: /* a random subset of all */
		for (unsigned int s = 0; s < site_count; s++)
			changed += stress_set(&sites[s], stress_random(seed) >> 32 & 1);
		break;
	case 2: /* release everything of one target and make it again, in another order */
		for (unsigned int s = site_first[t]; s < site_first[t + 1]; s++) {
			if (!sites[s].patch)
				continue;
			changed += sites[s].enabled;
			stress_note(patch_unmake(sites[s].patch), "patch_unmake");
			sites[s].patch = NULL;
			sites[s].enabled = false;
		}
		if (choice >> 32 & 1)
			stress_note(patch_commit(), "patch_commit");
		for (unsigned int s = site_first[t + 1]; s-- > site_first[t];) {
			stress_note(stress_make(&sites[s], choice >> 33 & 1 ? PATCH_ENABLED : PATCH_DISABLED),
				    "patch_make");
			changed += sites[s].enabled;
		}
		break;
	case 3: /* one target, all of it */
	case 4:
	case 5:
		for (unsigned int s = site_first[t]; s < site_first[t + 1]; s++)
			changed += stress_set(&sites[s], choice >> 32 & 1);
		break;
	case 6: /* a random subset of one target */
	case 7:
	case 8:
		for (unsigned int s = site_first[t]; s < site_first[t + 1]; s++)
			changed += stress_set(&sites[s], stress_random(seed) >> 32 & 1);
		break;
	default: /* one alone */
		changed += stress_set(&sites[site_first[t] + (choice >> 16) % (site_first[t + 1] - site_first[t])],
				      choice >> 32 & 1);
		break;
	}
	stress_note(patch_commit(), "patch_commit");
	return changed;
}

void stress_report(uint64_t toggles, uint64_t commits, double seconds, unsigned int threads)
{
	struct patch_statistics statistics;

	memset(&statistics, 0, sizeof(statistics));
	CHECK_OK(patch_statistics(&statistics, sizeof(statistics)));
	printf("%u sites, %u threads, %.1f s\n", site_count, threads, seconds);
	printf("%llu toggles, %.0f/s; %llu commits, %.0f/s; %llu core syncs\n", (unsigned long long)toggles,
	       (double)toggles / seconds, (unsigned long long)commits, (double)commits / seconds,
	       (unsigned long long)statistics.core_syncs);
	printf("%llu calls, %llu probe hits, %llu KiB of code, %llu KiB retired\n", (unsigned long long)stress.calls,
	       (unsigned long long)stress.hits, (unsigned long long)statistics.code_bytes / 1024,
	       (unsigned long long)statistics.retired_bytes / 1024);
	printf("%llu wrong results, %llu wrong program counters, %llu failed calls\n",
	       (unsigned long long)stress.wrong_results, (unsigned long long)stress.wrong_pc,
	       (unsigned long long)stress.failed_calls);
	fflush(stdout);
	CONTEXT("%s", "");
	if (stress.wrong_pc)
		FAIL("a procedure was called with program_counter %#llx at %#llx",
		     (unsigned long long)stress.first_wrong_pc, (unsigned long long)stress.wanted_pc);
	CHECK_EQ(stress.wrong_results, 0);
	CHECK_EQ(stress.failed_calls, 0);
	CHECK(toggles > 0);
	CHECK(stress.hits > 0);
}

void stress_end(void)
{
	struct patch_statistics statistics;

	for (unsigned int s = 0; s < site_count; s++)
		stress_set(&sites[s], false);
	CHECK_OK(patch_commit());
	stress_check_text();
	for (unsigned int s = 0; s < site_count; s++)
		if (sites[s].patch)
			CHECK_OK(patch_unmake(sites[s].patch));
	CHECK_OK(patch_commit());
	CHECK_OK(patch_statistics(&statistics, sizeof(statistics)));
	CHECK_EQ(statistics.patches, 0);
	CHECK_EQ(statistics.regions_installed, 0);
	CHECK_OK(patch_fini());
	stress_check_text();
}

void stress_arguments(int argc, char **argv, unsigned int *seconds, unsigned int *threads)
{
	*seconds = argc > 1 ? (unsigned int)strtoul(argv[1], NULL, 0)
			    : harness_seconds("LIBPATCH_STRESS_SECONDS", *seconds);
	*threads = argc > 2 ? (unsigned int)strtoul(argv[2], NULL, 0)
			    : harness_seconds("LIBPATCH_STRESS_THREADS", *threads);
	if (*threads > STRESS_MAX_THREADS)
		*threads = STRESS_MAX_THREADS;
}
