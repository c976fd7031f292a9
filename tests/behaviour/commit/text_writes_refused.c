/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Kernels that do not let /proc/self/mem be written: patch_init() takes another way, page swap by default and
 * mprotect() where pages may be writable and executable, and the whole job works by it: threads run the awkward
 * functions while probes on them are toggled thousands of times. By default no mapping is writable and executable at
 * any step. Text that the program mapped writable stays so. With every way refused, patch_init() says so.
 */
#include "targets.h"

#include "base/inject.h"
#include "seccomp.h"
#include "sys/text.h"

#include <fcntl.h>
#include <pthread.h>

#define THREADS 3
#define PROBES 512
#define TOGGLES 4000
#define SAMPLE_EVERY 97

static uintptr_t sites[PROBES];
static patch_t patches[PROBES];
static bool enabled[PROBES];
static size_t site_count;
static unsigned int stop, wrong, writable_executable, samples;
static uint64_t hits, rounds;

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	__atomic_fetch_add(&hits, 1, __ATOMIC_RELAXED);
	if (context->program_counter != *(const uintptr_t *)context->user_data)
		__atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED);
}

static void call_all(void)
{
	for (size_t t = 0; t < TARGET_COUNT; t++) {
		const struct target *target = &targets[t];

		if (target_runs_here(target) && target->function(5, 7) != target->model(5, 7) &&
		    !(target->flags & TARGET_VOID))
			__atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED);
	}
}

static void *run(void *argument)
{
	(void)argument;
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		call_all();
		__atomic_fetch_add(&rounds, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

/* Is there a mapping that is writable and executable? Without stdio: called under the library lock. */
static bool seen_writable_executable(void)
{
	static char text[1 << 18];
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
	size_t size = 0;
	ssize_t got;

	REQUIRE(fd >= 0);
	while (size < sizeof(text) - 1 && (got = read(fd, text + size, sizeof(text) - 1 - size)) > 0)
		size += (size_t)got;
	close(fd);
	text[size] = '\0';
	return strstr(text, " rwx") != NULL;
}

/* Between the steps of the protocol, and before each write, mapping and synchronisation. */
static int sample(enum inject_point point)
{
	static unsigned int passed;

	if (point != INJECT_TRAP && passed++ % SAMPLE_EVERY == 0) {
		writable_executable += seen_writable_executable();
		samples++;
	}
	return 0;
}

static void make_probes(void)
{
	for (size_t t = 0; t < TARGET_COUNT; t++) {
		struct instructions list = target_decode(&targets[t]);

		for (unsigned int n = 0; n < list.count && site_count < PROBES; n += 2)
			sites[site_count++] = list.address[n];
	}
	for (size_t s = 0; s < site_count; s++)
		CHECK_OK(make_probe(sites[s], procedure, &sites[s],
				    s % 5 == 4 ? PATCH_TRAP_POLICY_FORCE : PATCH_TRAP_POLICY_ALLOW, PATCH_DISABLED,
				    &patches[s]));
}

static void toggle(size_t s)
{
	if (!patches[s])
		return;
	enabled[s] = !enabled[s];
	CHECK_OK(enabled[s] ? patch_enable(patches[s]) : patch_disable(patches[s]));
}

static void whole_job(bool writable_executable_allowed)
{
	struct patch_option option = { .type = PATCH_OPT_ENABLE_WXE, .enable_wxe = false };
	struct text_copy before[TARGET_COUNT];
	uint64_t seed = 0x2545f4914f6cdd1d, until;
	pthread_t threads[THREADS];

	for (size_t t = 0; t < TARGET_COUNT; t++)
		before[t] = text_of_target(&targets[t]);
	CHECK(!seen_writable_executable());
	refuse(SYS_pwrite64, EPERM);
	REQUIRE_OK(patch_init(&option, writable_executable_allowed ? 1 : 0));
	CHECK_EQ(text_way(), writable_executable_allowed ? TEXT_MPROTECT : TEXT_PAGE_SWAP);
	libpatch_inject = sample;
	make_probes();
	for (int n = 0; n < THREADS; n++)
		REQUIRE(pthread_create(&threads[n], NULL, run, NULL) == 0);
	for (unsigned int done = 0; done < TOGGLES && harness_failures == 0; done++) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		CONTEXT("toggle %u", done);
		if (done % 64 == 0)
			for (size_t s = 0; s < site_count; s++)
				toggle(s);
		else
			toggle((seed >> 33) % site_count);
		CHECK_OK(patch_commit());
	}
	until = __atomic_load_n(&rounds, __ATOMIC_RELAXED) + 50;
	while (__atomic_load_n(&rounds, __ATOMIC_RELAXED) < until)
		sched_yield();
	CONTEXT("%s", "at the end");
	CHECK_OK(patch_fini());
	libpatch_inject = NULL;
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int n = 0; n < THREADS; n++)
		pthread_join(threads[n], NULL);
	call_all();
	CHECK_EQ(wrong, 0);
	CHECK(hits > 0);
	CHECK(samples > 100);
	if (!writable_executable_allowed)
		CHECK_EQ(writable_executable, 0);
	for (size_t t = 0; t < TARGET_COUNT; t++)
		CHECK_TEXT_SAME(&before[t]);
	CHECK(!seen_writable_executable());
	harness_say("%zu sites, %llu hits, %u samples\n", site_count, (unsigned long long)hits, samples);
}

static void by_page_swap(void *argument)
{
	(void)argument;
	whole_job(false);
}

static void by_mprotect(void *argument)
{
	(void)argument;
	whole_job(true);
}

/* A page of generated code of the program's own, with data that it writes all the time. */
static void writable_text(void *argument)
{
	static const uint8_t code[] = { 0xb8, 1, 0, 0, 0, 0xc3 }; /* mov $1, %eax; ret */
	struct patch_option option = { .type = PATCH_OPT_ENABLE_WXE, .enable_wxe = *(const bool *)argument };
	uint8_t *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	volatile uint8_t *data = page + 100;
	uintptr_t site = (uintptr_t)page;
	patch_status status;
	patch_t patch;

	if (page == MAP_FAILED)
		SKIP("no page is writable and executable here");
	memcpy(page, code, sizeof(code));
	refuse(SYS_pwrite64, EPERM);
	REQUIRE_OK(patch_init(&option, 1));
	REQUIRE_OK(make_probe(site, procedure, &site, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &patch));
	for (int round = 0; round < 4; round++) {
		status = patch_commit();
		/* swapping the page would lose what the program writes to it meanwhile */
		if (option.enable_wxe && round % 2 == 0)
			CHECK_EQ(status, PATCH_EFAIL);
		else
			CHECK_EQ(status, PATCH_OK);
		*data = (uint8_t)(round + 1); /* faults where the page is not writable any more */
		hits = 0;
		CHECK_EQ(call_code(page), 1);
		CHECK_EQ(hits, status == PATCH_OK && round % 2 == 0);
		CHECK_EQ(*data, round + 1);
		CHECK_OK(round % 2 ? patch_enable(patch) : patch_disable(patch));
	}
	CHECK_OK(patch_disable(patch));
	CHECK_OK(patch_commit());
	CHECK_OK(patch_fini());
	CHECK(!memcmp(page, code, sizeof(code)));
	*data = 9;
	CHECK_EQ(wrong, 0);
}

static void every_way_refused(void *argument)
{
	struct patch_option option = { .type = PATCH_OPT_ENABLE_WXE, .enable_wxe = *(const bool *)argument };
	struct patch_error error;

	refuse(SYS_mprotect, EACCES);
	refuse(SYS_pwrite64, EPERM);
	CHECK_STATUS(patch_init(&option, 1), PATCH_ENOTSUP);
	CHECK_EQ(patch_last_error(&error), PATCH_ENOTSUP);
	CHECK(error.message[0]);
	call_all();
	CHECK_EQ(wrong, 0);
}

int main(void)
{
	bool no = false, yes = true;

	harness_start();
	require_filters();
	harness_isolated("page swap", by_page_swap, NULL);
	harness_isolated("mprotect", by_mprotect, NULL);
	harness_isolated("writable text, mprotect", writable_text, &no);
	harness_isolated("writable text, page swap", writable_text, &yes);
	harness_isolated("every way refused", every_way_refused, &yes);
	harness_isolated("every way refused, writable and executable allowed", every_way_refused, &no);
	return harness_end();
}
