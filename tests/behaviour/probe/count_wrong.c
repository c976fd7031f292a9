/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * PATCH_EXEC_MODEL_COUNT: every hit counts, exactly, at a jump and at a trap, alone and beside probes, in several
 * threads for the kinds that promise it, while a procedure runs, and not while the patch is disabled. Registers, flags
 * and the red zone are the program's. What cannot be a counter is refused.
 */
#include "targets.h"

#include <pthread.h>
#include <unistd.h>

#define THREADS 4
#define CALLS 3000000

static uint64_t counters[2][2] __attribute__((aligned(16)));
static _Thread_local uint64_t thread_counter[2] __attribute__((tls_model("initial-exec")));
static uint8_t *stack_top;

static const uint64_t entry[PATCH_ARCH_GREGS_COUNT] = {
	0x0a0a0a0a0a0a0a0a, 0x0b0b0b0b0b0b0b0b, 0x0c0c0c0c0c0c0c0c, 0x0d0d0d0d0d0d0d0d, 0x6666666666666666,
	0x5555555555555555, 0x0505050505050505, 0x0808080808080808, 0x0909090909090909, 0x1010101010101010,
	0x1111111111111111, 0x1212121212121212, 0x1313131313131313, 0x1414141414141414, 0x1515151515151515
};

static struct patch_exec_model count_model(uint64_t *counter, uint32_t kind, uint32_t flags)
{
	struct patch_exec_model model;

	/* What belongs to other models may hold anything. */
	memset(&model, 0xff, sizeof(model));
	model.type = PATCH_EXEC_MODEL_COUNT;
	model.count.counter = counter;
	model.count.kind = kind;
	model.count.flags = flags;
	return model;
}

static patch_t make(target_function function, int policy, const struct patch_exec_model *model)
{
	struct patch_location location = location_at((uintptr_t)function);
	patch_attr attr = attr_of(policy, PATCH_ENABLED);
	patch_t patch = NULL;

	REQUIRE_OK(patch_make(&location, model, &attr, &patch, NULL));
	return patch;
}

static void unmake(patch_t patch)
{
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
}

/* All combinations of flags; the red zone is looked at by targets that use it (stress tests). */
static void try_kind(target_function function, int policy, uint32_t kind, uint32_t flags)
{
	static const unsigned int bits[] = { 0, 2, 4, 6, 7, 10, 11 };
	uint64_t *counter = kind == PATCH_COUNT_THREAD ? thread_counter : counters[0];
	struct patch_exec_model model = count_model(counter, kind, flags);
	patch_t patch = make(function, policy, &model);
	struct machine_state state;

	CONTEXT("%s, %s, kind %u, flags %u", function == t_nops ? "t_nops" : "t_long_nop", policy_name(policy), kind,
		flags);
	CHECK_OK(patch_commit());
	counter[0] = 0xfffffffeu;
	counter[1] = 4711;
	for (unsigned int i = 0; i < 128; i++) {
		uint64_t before = __builtin_ia32_rdtsc(), rflags = 0x202;

		for (unsigned int b = 0; b < 7; b++)
			rflags |= (uint64_t)(i >> b & 1) << bits[b];
		machine_call(function, entry[PATCH_X86_64_RDI], entry[PATCH_X86_64_RSI], stack_top, &state, rflags);
		CHECK_EQ(counter[0], 0xffffffffULL + i);
		if (flags & PATCH_COUNT_TSC)
			CHECK(counter[1] > before && counter[1] < __builtin_ia32_rdtsc());
		else
			CHECK_EQ(counter[1], 4711);
		CHECK_EQ(state.flags & MACHINE_FLAGS, rflags & MACHINE_FLAGS);
		for (int r = 0; r < PATCH_ARCH_GREGS_COUNT; r++)
			if (state.registers[r] != entry[r])
				FAIL("%s is %#llx behind the site", machine_register_name[r],
				     (unsigned long long)state.registers[r]);
	}
	unmake(patch);
	machine_call(function, 1, 2, stack_top, &state, 0x202);
	CHECK_EQ(counter[0], 0xfffffffeULL + 128);
}

/* ---- beside others ----------------------------------------------------------------------------------------------- */

static unsigned int hits;

static GP_ONLY void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	hits++;
	/* A probe that is met here is passed over; a counter counts. */
	if (context->user_data != NULL)
		((void (*)(void))(uintptr_t)context->user_data)();
}

static void try_shared(int policy)
{
	struct patch_exec_model probe = model_of(PATCH_EXEC_MODEL_PROBE, procedure, (void *)(uintptr_t)t_long_nop);
	struct patch_exec_model first = count_model(counters[0], PATCH_COUNT_PLAIN, 0);
	struct patch_exec_model second = count_model(counters[1], PATCH_COUNT_ATOMIC, 0);
	struct patch_exec_model own = count_model(thread_counter, PATCH_COUNT_THREAD, 0);
	patch_t patches[] = { make(t_nops, policy, &first), make(t_nops, policy, &probe), make(t_nops, policy, &second),
			      make(t_long_nop, policy, &own) };
	struct machine_state state;

	CONTEXT("beside others, %s", policy_name(policy));
	CHECK_OK(patch_commit());
	memset(counters, 0, sizeof(counters));
	thread_counter[0] = 0;
	hits = 0;
	for (unsigned int round = 0; round < 16; round++) {
		uint64_t before[] = { counters[0][0], counters[1][0], hits, thread_counter[0] };

		for (unsigned int i = 0; i < 4; i++)
			CHECK_OK(round >> i & 1 ? patch_enable(patches[i]) : patch_disable(patches[i]));
		CHECK_OK(patch_commit());
		for (int i = 0; i < 10; i++)
			machine_call(t_nops, 1, 2, stack_top, &state, 0x202);
		CHECK_EQ(counters[0][0] - before[0], round & 1 ? 10 : 0);
		CHECK_EQ(hits - before[2], round & 2 ? 10 : 0);
		CHECK_EQ(counters[1][0] - before[1], round & 4 ? 10 : 0);
		/* Met in the procedure. */
		CHECK_EQ(thread_counter[0] - before[3], (round & 10) == 10 ? 10 : 0);
	}
	for (unsigned int i = 0; i < 4; i++)
		unmake(patches[i]);
}

/* ---- threads ----------------------------------------------------------------------------------------------------- */

static uint64_t sum;
static pthread_barrier_t barrier;

static void *count_in_thread(void *function)
{
	pthread_barrier_wait(&barrier);
	for (int i = 0; i < CALLS; i++)
		((void (*)(void))(uintptr_t)function)();
	__atomic_fetch_add(&sum, thread_counter[0], __ATOMIC_SEQ_CST);
	return NULL;
}

static void try_threads(void)
{
	struct patch_exec_model atomic = count_model(counters[0], PATCH_COUNT_ATOMIC, PATCH_COUNT_TSC);
	struct patch_exec_model own = count_model(thread_counter, PATCH_COUNT_THREAD, 0);
	patch_t patches[] = { make(t_nops, PATCH_TRAP_POLICY_ALLOW, &atomic),
			      make(t_nops, PATCH_TRAP_POLICY_ALLOW, &own) };
	pthread_t threads[THREADS];

	CONTEXT("in threads");
	CHECK_OK(patch_commit());
	counters[0][0] = 0;
	pthread_barrier_init(&barrier, NULL, THREADS);
	for (int i = 0; i < THREADS; i++)
		REQUIRE(pthread_create(&threads[i], NULL, count_in_thread, (void *)(uintptr_t)t_nops) == 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	CHECK_EQ(counters[0][0], THREADS * CALLS);
	CHECK_EQ(sum, THREADS * CALLS);
	unmake(patches[0]);
	unmake(patches[1]);
}

/* ------------------------------------------------------------------------------------------------------------------ */

static void refused(uint64_t *counter, uint32_t kind, uint32_t flags)
{
	struct patch_location location = location_at((uintptr_t)t_nops);
	struct patch_exec_model model = count_model(counter, kind, flags);
	patch_t patch;

	CONTEXT("counter %p, kind %u, flags %u", (void *)counter, kind, flags);
	CHECK_EQ(patch_make(&location, &model, NULL, &patch, NULL), PATCH_EINVAL);
}

int main(void)
{
	static const target_function functions[] = { t_nops, t_long_nop };
	uint64_t on_stack, *on_heap = malloc(sizeof(*on_heap));
	struct patch_exec_model last = count_model(counters[0], PATCH_COUNT_PLAIN, 0);
	struct machine_state state;

	harness_start();
	stack_top = machine_stack();
	REQUIRE_OK(patch_init(NULL, 0));
	for (unsigned int f = 0; f < 2; f++)
		for (int policy = PATCH_TRAP_POLICY_ALLOW; policy <= PATCH_TRAP_POLICY_FORCE; policy++)
			for (uint32_t kind = PATCH_COUNT_PLAIN; kind <= PATCH_COUNT_THREAD; kind++)
				for (uint32_t flags = 0; flags <= PATCH_COUNT_TSC; flags++)
					try_kind(functions[f], policy, kind, flags);
	for (int policy = PATCH_TRAP_POLICY_ALLOW; policy <= PATCH_TRAP_POLICY_FORCE; policy++)
		try_shared(policy);
	try_threads();

	refused(NULL, PATCH_COUNT_PLAIN, 0);
	refused((uint64_t *)((uintptr_t)counters[0] + 4), PATCH_COUNT_PLAIN, 0);
	refused(counters[0], PATCH_COUNT_THREAD + 1, 0);
	refused(counters[0], PATCH_COUNT_PLAIN, 2);
	refused(counters[0], PATCH_COUNT_THREAD, 0);
	refused(&on_stack, PATCH_COUNT_THREAD, 0);
	refused(on_heap, PATCH_COUNT_THREAD, 0);

	make(t_nops, PATCH_TRAP_POLICY_ALLOW, &last);
	CHECK_OK(patch_commit());
	counters[0][0] = 0;
	machine_call(t_nops, 1, 2, stack_top, &state, 0x202);
	CHECK_EQ(counters[0][0], 1);
	CHECK_OK(patch_fini());
	machine_call(t_nops, 1, 2, stack_top, &state, 0x202);
	CHECK_EQ(counters[0][0], 1);
	return harness_end();
}
