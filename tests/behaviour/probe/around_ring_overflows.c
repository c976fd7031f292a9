/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * PROBE_AROUND at an instruction that more handlers execute, each having interrupted the one before, than there is room
 * for pairs: only the oldest lose their second calls. An execution whose first call was passed over has no second one,
 * and an execution that the first call has led elsewhere forgets its own pair, wherever handlers interrupt it. When all
 * of them are left at once, the next execution clears what they have left. Without memory there is room for one pair.
 */
#include "targets.h"

#include "arch/upcalls.h"

#include <pthread.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <sys/resource.h>

uint64_t site(const uint64_t *from);
uint64_t other_site(const uint64_t *from);
extern const uint8_t site_behind[];

#define SITE(name) \
	".p2align 6, 0xcc\n.globl " name "\n.type " name ", @function\n" name ":\n.cfi_startproc\n" \
	" mov (%rdi), %rax\n" name "_behind: nop\n nop\n nop\n nop\n ret\n" \
	".cfi_endproc\n.size " name ", . - " name "\n"

__asm__(".text\n" SITE("site") SITE("other_site") ".p2align 6, 0xcc\n");

static uint64_t there = 1;
static uint64_t *page;
static patch_t patch;
static int level, levels, calls[2], faults, steps;
static bool moves;
static void (*innermost)(void);

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	calls[post]++;
	if (!moves || post)
		return;
	moves = false;
	context->program_counter = (uintptr_t)site_behind;
	/* From here to the end of the hook a handler comes behind every instruction. */
	__asm__ volatile("pushfq\n orq $0x100, (%%rsp)\n popfq\n" ::: "memory", "cc");
}

static void on_fault(int signo)
{
	(void)signo;
	faults++;
	if (++level < levels) {
		site(page);
	} else {
		innermost();
		REQUIRE(mprotect(page, 4096, PROT_READ) == 0);
	}
}

static void on_step(int signo)
{
	(void)signo;
	steps++;
	site(&there);
}

/* As many executions as there is room for, one within the other; what the innermost one's handler does. */
static void nest(int count, void (*function)(void))
{
	struct sigaction action = { .sa_handler = on_fault, .sa_flags = SA_NODEFER };

	innermost = function;
	levels = count;
	level = calls[0] = calls[1] = faults = 0;
	REQUIRE(sigaction(SIGSEGV, &action, NULL) == 0);
	REQUIRE(mprotect(page, 4096, PROT_NONE) == 0);
	site(page);
	CHECK_EQ(faults, count);
}

static void neighbour(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static void begin(void)
{
	struct patch_location location = location_at((uintptr_t)site);
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE_AROUND, procedure, NULL);
	patch_attr attr = attr_of(PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED);
	patch_t other;

	REQUIRE_OK(patch_init(NULL, 0));
	page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(page != MAP_FAILED);
	REQUIRE_OK(patch_make(&location, &model, &attr, &patch, NULL));
	/* Its hook is in the same code, which stays when the patch is disabled. */
	REQUIRE_OK(make_probe((uintptr_t)site_behind, neighbour, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &other));
	REQUIRE_OK(patch_commit());
}

static void end(void)
{
	calls[0] = calls[1] = 0;
	for (int i = 0; i < 3 * HOOK_PAIRS; i++)
		site(&there);
	CHECK_EQ(calls[0], 3 * HOOK_PAIRS);
	CHECK_EQ(calls[1], 3 * HOOK_PAIRS);
	CHECK_OK(patch_fini());
}

static void once_more(void)
{
	site(&there);
	CHECK_EQ(calls[0], HOOK_PAIRS + 1);
	CHECK_EQ(calls[1], 1);
}

static void once_more_and_closed(void)
{
	once_more();
	CHECK_OK(patch_disable(patch));
	CHECK_OK(patch_commit());
	for (int i = 0; i < 3; i++)
		site(&there);
	CHECK_EQ(calls[0], HOOK_PAIRS + 1);
	CHECK_EQ(calls[1], 1);
}

/* The pair of the innermost is where the oldest was, which has no second call. */
static void one_too_many(void *argument)
{
	(void)argument;
	begin();
	nest(HOOK_PAIRS, once_more);
	CHECK_EQ(calls[0], HOOK_PAIRS + 1);
	CHECK_EQ(calls[1], HOOK_PAIRS);
	end();
}

static void passed_over(void *argument)
{
	(void)argument;
	begin();
	nest(HOOK_PAIRS, once_more_and_closed);
	CHECK_EQ(calls[0], HOOK_PAIRS + 1);
	CHECK_EQ(calls[1], HOOK_PAIRS);
	CHECK_OK(patch_enable(patch));
	CHECK_OK(patch_commit());
	end();
}

static void move_stepped(void)
{
	calls[1] = 0;
	moves = true;
	site(&there);
	CHECK(!moves);
	CHECK(steps > 20);
	/* Handlers execute it before the pair is noted, and after the guard is cleared. */
	CHECK(calls[1] > 0);
	calls[1] = 0;
}

/* With no pairs, and with so many that the last place in the ring is the one that is forgotten. */
static void forgotten(void *count)
{
	int outer = *(const int *)count;

	begin();
	REQUIRE(signal(SIGTRAP, on_step) == SIG_DFL);
	if (outer == 0)
		move_stepped();
	else
		nest(outer, move_stepped);
	/* The handlers do not see the hooks, and take no place of theirs. */
	CHECK_EQ(calls[1], outer);
	end();
}

/*
 * What the kernel calls itself, as there are more actions than thunks: nothing is known of it before its hook notes the
 * second pair.
 */
static void unknown_to_us(void *argument)
{
	struct sigaction action = { .sa_handler = on_step };

	(void)argument;
	begin();
	for (int i = 0; i < 1100; i++) {
		for (int bit = 0; bit < 12; bit++)
			(i >> bit & 1 ? sigaddset : sigdelset)(&action.sa_mask, SIGRTMIN + bit);
		REQUIRE(sigaction(SIGUSR1, &action, NULL) == 0);
	}
	nest(HOOK_PAIRS, once_more);
	CHECK_EQ(calls[0], HOOK_PAIRS + 1);
	CHECK_EQ(calls[1], HOOK_PAIRS);
	end();
}

/* A handler that comes while the second pair is about to be noted has it noted for the thread, without more memory. */
static void has_room(void)
{
	CHECK(thread_block_known() != NULL);
}

static void has_room_in_time(void *argument)
{
	(void)argument;
	begin();
	CHECK(thread_block_known() == NULL);
	nest(1, has_room);
	CHECK_EQ(calls[1], 1);
	end();
}

static pthread_barrier_t barrier;

/* What tells the thread's last error is in its block. */
static void *have_block(void *unused)
{
	REQUIRE(patch_make(NULL, NULL, NULL, NULL, NULL) != PATCH_OK);
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	return unused;
}

static void refuse_memory(bool refused)
{
	struct rlimit limit;

	REQUIRE(getrlimit(RLIMIT_AS, &limit) == 0);
	limit.rlim_cur = refused ? 1 << 20 : limit.rlim_max;
	REQUIRE(setrlimit(RLIMIT_AS, &limit) == 0);
}

/* There are 8 blocks in the library's own data. */
static void without_memory(void *argument)
{
	pthread_t threads[8];

	(void)argument;
	begin();
	REQUIRE(pthread_barrier_init(&barrier, NULL, ARRAY_SIZE(threads) + 1) == 0);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		REQUIRE(pthread_create(&threads[i], NULL, have_block, NULL) == 0);
	pthread_barrier_wait(&barrier);
	refuse_memory(true);
	nest(HOOK_PAIRS, once_more);
	CHECK_EQ(calls[0], HOOK_PAIRS + 1);
	CHECK_EQ(calls[1], 1);
	refuse_memory(false);
	nest(HOOK_PAIRS, once_more);
	CHECK_EQ(calls[0], HOOK_PAIRS + 1);
	CHECK_EQ(calls[1], HOOK_PAIRS);
	pthread_barrier_wait(&barrier);
	for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
		pthread_join(threads[i], NULL);
	end();
}

static sigjmp_buf outermost;
static int destroyed;

static void once_more_and_out(void)
{
	site(&there);
	siglongjmp(outermost, 1);
}

static void destroy(void *user_data)
{
	(void)user_data;
	++destroyed;
}

static void left(void *argument)
{
	struct patch_location location = location_at((uintptr_t)site);
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE_AROUND, procedure, NULL);
	patch_attr attr = attr_of(PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED);

	(void)argument;
	begin();
	CHECK_OK(patch_unmake(patch));
	model.probe.destroy = destroy;
	REQUIRE_OK(patch_make(&location, &model, &attr, &patch, NULL));
	REQUIRE_OK(patch_commit());
	if (sigsetjmp(outermost, 1) == 0)
		nest(HOOK_PAIRS, once_more_and_out);
	site(&there);
	CHECK_OK(patch_unmake(patch));
	CHECK_OK(patch_commit());
	CHECK_OK(patch_synchronize(1000000000));
	CHECK_EQ(destroyed, 1);
	CHECK_OK(patch_fini());
}

/* The second of two pairs is the only one of a patch that goes; who looks is another thread, or the thread itself. */
static patch_t second;
static const bool *by_another;

static void *unmake_second(void *unused)
{
	CHECK_OK(patch_unmake(second));
	CHECK_OK(patch_commit());
	CHECK_OK(patch_commit());
	CHECK_EQ(destroyed, 0);
	/* The thread does not wait for itself. */
	CHECK_STATUS(patch_synchronize(*by_another ? 0 : -1), PATCH_EBUSY);
	return unused;
}

static void second_goes(int signo)
{
	pthread_t thread;

	(void)signo;
	if (*by_another) {
		REQUIRE(pthread_create(&thread, NULL, unmake_second, NULL) == 0);
		pthread_join(thread, NULL);
	} else {
		unmake_second(NULL);
	}
	REQUIRE(mprotect(page, 4096, PROT_READ) == 0);
}

static void execute_other(int signo)
{
	struct sigaction action = { .sa_handler = second_goes, .sa_flags = SA_NODEFER };

	(void)signo;
	REQUIRE(sigaction(SIGSEGV, &action, NULL) == 0);
	other_site(page);
}

static void in_use(void *another)
{
	struct patch_location location = location_at((uintptr_t)other_site);
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE_AROUND, procedure, NULL);
	patch_attr attr = attr_of(PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED);
	struct sigaction action = { .sa_handler = execute_other, .sa_flags = SA_NODEFER };
	patch_t other;

	by_another = another;
	begin();
	model.probe.destroy = destroy;
	REQUIRE_OK(patch_make(&location, &model, &attr, &second, NULL));
	/* For its sake the code stays. */
	model = model_of(PATCH_EXEC_MODEL_PROBE_AROUND, neighbour, NULL);
	REQUIRE_OK(patch_make(&location, &model, &attr, &other, NULL));
	REQUIRE_OK(patch_commit());
	REQUIRE(sigaction(SIGSEGV, &action, NULL) == 0);
	REQUIRE(mprotect(page, 4096, PROT_NONE) == 0);
	site(page);
	CHECK_EQ(calls[0], 2);
	CHECK_EQ(calls[1], 2);
	CHECK_OK(patch_synchronize(1000000000));
	CHECK_EQ(destroyed, 1);
	end();
}

int main(void)
{
	static const bool another = true, itself = false;
	static const int none = 0, some = 3, all_but_one = HOOK_PAIRS - 1;

	harness_start();
	harness_isolated("one too many", one_too_many, NULL);
	harness_isolated("passed over", passed_over, NULL);
	harness_isolated("forgotten", forgotten, (void *)&none);
	harness_isolated("forgotten above some", forgotten, (void *)&some);
	harness_isolated("forgotten at the end of the ring", forgotten, (void *)&all_but_one);
	harness_isolated("of what the kernel calls", unknown_to_us, NULL);
	harness_isolated("in time", has_room_in_time, NULL);
	harness_isolated("without memory", without_memory, NULL);
	harness_isolated("left", left, NULL);
	harness_isolated("in use, another looks", in_use, (void *)&another);
	harness_isolated("in use, the thread looks", in_use, (void *)&itself);
	return harness_end();
}
