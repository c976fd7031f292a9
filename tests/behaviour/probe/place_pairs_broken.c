/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Several patches of PROBE_AROUND and PROBE share an instruction, and come and go while it is executed: in a first
 * call, in a second call, in a handler between both, and while the instruction waits in the kernel. Behind the
 * instruction are called, in reverse, just those of PROBE_AROUND that were called in front of it; none of them is
 * destroyed before; and a patch that was not called is destroyed at once.
 */
#include "harness.h"

#include <pthread.h>

#define PATCHES 4
#define NEVER 99 /* patches change at no point of an execution */

static char *page; /* what the instruction reads */

/* The instruction reads what rdi points to. */
unsigned long reading(const void *at);
extern const uint8_t reading_site[];
__asm__(".text\n.p2align 6\n.globl reading\n.type reading, @function\nreading:\n.cfi_startproc\n"
	"	nop\n"
	"reading_site: mov (%rdi), %rax\n"
	"	mov %rax, %rdx\n"
	"	ret\n.cfi_endproc\n.size reading, . - reading\n.p2align 6, 0xcc\n");

static struct user {
	int type;
	patch_t patch;
	unsigned int calls[2];
	unsigned int destroyed;
	unsigned int owed; /* second calls, in executions that are not complete */
} users[PATCHES];

static const int types[] = { PATCH_EXEC_MODEL_PROBE_AROUND, PATCH_EXEC_MODEL_PROBE, PATCH_EXEC_MODEL_PROBE_AROUND,
			     PATCH_EXEC_MODEL_PROBE_AROUND };

/* What is done to which patches, and in which call: of user `in`, the first or the second. */
enum change { DISABLE, ENABLE, UNMAKE, CHANGES };
static struct {
	enum change change;
	unsigned int which; /* bits of users */
	unsigned int in;
	uint8_t post;
} plan;
static bool is_open[PATCHES];
static unsigned int by_making[PATCHES]; /* users in order of making */
static unsigned int made;

/* The calls of one execution: user, and 16 for the second. */
static unsigned int order[4 * PATCHES];
static unsigned int count;

static void destroy(void *user_data)
{
	struct user *user = user_data;

	CHECK_EQ(user->owed, 0);
	user->destroyed++;
}

static void change(void)
{
	for (unsigned int i = 0; i < PATCHES; i++) {
		if (!(plan.which >> i & 1))
			continue;
		switch (plan.change) {
		case DISABLE:
			CHECK_OK(patch_disable(users[i].patch));
			break;
		case ENABLE:
			CHECK_OK(patch_enable(users[i].patch));
			break;
		default:
			CHECK_OK(patch_unmake(users[i].patch));
		}
	}
	CHECK_OK(patch_commit());
}

static void procedure(struct patch_exec_context *context, uint8_t post)
{
	struct user *user = context->user_data;
	unsigned int index = (unsigned int)(user - users);

	CHECK_EQ(user->destroyed, 0);
	user->calls[post]++;
	user->owed += user->type == PATCH_EXEC_MODEL_PROBE_AROUND ? (post ? -1U : 1U) : 0;
	if (count < sizeof(order) / sizeof(*order))
		order[count++] = index + (post ? 16 : 0);
	if (plan.in == index && plan.post == post)
		change();
}

/* It was made last. */
static void note_making(unsigned int i)
{
	unsigned int at = 0;

	if (made < PATCHES) {
		by_making[made++] = i;
		return;
	}
	while (by_making[at] != i)
		at++;
	memmove(&by_making[at], &by_making[at + 1], (PATCHES - 1 - at) * sizeof(*by_making));
	by_making[PATCHES - 1] = i;
}

static void make(unsigned int i, bool enabled)
{
	const struct patch_location location = location_at((uintptr_t)reading_site);
	struct patch_exec_model model = model_of(types[i], procedure, &users[i]);
	patch_attr attr = attr_of(PATCH_TRAP_POLICY_ALLOW, enabled ? PATCH_ENABLED : PATCH_DISABLED);

	users[i] = (struct user){ .type = types[i] };
	model.probe.destroy = destroy;
	REQUIRE_OK(patch_make(&location, &model, &attr, &users[i].patch, NULL));
	is_open[i] = enabled;
	note_making(i);
}

static void make_all(bool enabled)
{
	for (unsigned int i = 0; i < PATCHES; i++)
		make(i, enabled || i == plan.in);
	CHECK_OK(patch_commit());
}

static void unmake_all(void)
{
	for (unsigned int i = 0; i < PATCHES; i++)
		if (users[i].destroyed == 0 && !(plan.change == UNMAKE && plan.which >> i & 1))
			CHECK_OK(patch_unmake(users[i].patch));
	CHECK_OK(patch_commit());
	CHECK_OK(patch_synchronize(-1));
	for (unsigned int i = 0; i < PATCHES; i++)
		CHECK_EQ(users[i].destroyed, 1);
}

/* ---- in a call --------------------------------------------------------------------------------------------------- */

static bool called_first(unsigned int i)
{
	for (unsigned int n = 0; n < count; n++)
		if (order[n] == i)
			return true;
	return false;
}

/*
 * What is to be called, as is_open[] was in front of the execution. Those that are enabled while others are called may
 * be called in this execution, or from the next one on.
 */
static unsigned int expect(unsigned int *wanted)
{
	bool open[PATCHES], called[PATCHES] = { false };
	unsigned int n = 0;

	memcpy(open, is_open, sizeof(open));
	for (unsigned int at = 0; at < PATCHES; at++) {
		unsigned int i = by_making[at];

		if (!open[i])
			continue;
		called[i] = true;
		wanted[n++] = i;
		for (unsigned int j = 0; plan.in == i && !plan.post && j < PATCHES; j++)
			if (plan.which >> j & 1)
				open[j] = plan.change == ENABLE && called_first(j);
	}
	for (unsigned int at = PATCHES; at-- > 0;)
		if (called[by_making[at]] && users[by_making[at]].type == PATCH_EXEC_MODEL_PROBE_AROUND)
			wanted[n++] = by_making[at] + 16;
	return n;
}

static void execute_once(void)
{
	unsigned int wanted[4 * PATCHES], n;
	const bool before[PATCHES] = { is_open[0], is_open[1], is_open[2], is_open[3] };

	count = 0;
	CHECK_EQ(reading(page), 42);
	memcpy(is_open, before, sizeof(before));
	n = expect(wanted);
	CHECK_EQ(count, n);
	for (unsigned int i = 0; i < n && i < count; i++)
		CHECK_EQ(order[i], wanted[i]);
	for (unsigned int i = 0; plan.in != NEVER && i < PATCHES; i++)
		if (plan.which >> i & 1)
			is_open[i] = plan.change == ENABLE;
}

static void in_a_call(void)
{
	CONTEXT("change %d of %#x in call %d of %u", plan.change, plan.which, plan.post, plan.in);
	make_all(plan.change != ENABLE);
	execute_once();
	plan.in = NEVER;
	execute_once();
	unmake_all();
}

static void in_calls(void *unused)
{
	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	for (int which_change = 0; which_change < CHANGES; which_change++)
		for (unsigned int which = 1; which < 1U << PATCHES; which++)
			for (unsigned int in = 0; in < PATCHES; in++)
				for (uint8_t post = 0; post < 2; post++) {
					plan.change = (enum change)which_change;
					plan.which = which;
					plan.in = in;
					plan.post = post;
					if (post == 0 || types[in] == PATCH_EXEC_MODEL_PROBE_AROUND)
						in_a_call();
				}
	CHECK_OK(patch_fini());
}

/* ---- in a handler between both calls ----------------------------------------------------------------------------- */

static unsigned int depth;
static unsigned int left; /* random */

static unsigned int random_below(unsigned int n)
{
	left = left * 1664525 + 1013904223;
	return (left >> 8) % n;
}

static void protect(int protection)
{
	REQUIRE(mprotect(page, 4096, protection) == 0);
}

/* One execution, which faults, and is looked at for itself. */
static void execute_faulting(void)
{
	unsigned int before[4 * PATCHES], before_count = count, wanted[4 * PATCHES], n;

	memcpy(before, order, sizeof(order));
	n = expect(wanted);
	count = 0;
	protect(PROT_NONE);
	CHECK_EQ(reading(page), 42);
	CHECK_EQ(count, n);
	for (unsigned int i = 0; i < n && i < count; i++)
		CHECK_EQ(order[i], wanted[i]);
	memcpy(order, before, sizeof(order));
	count = before_count;
}

/* Patches open, close, go and come back, and the same instruction is executed, as long as it lasts. */
static void on_fault(int signo)
{
	(void)signo;
	depth++;
	for (unsigned int n = random_below(3); n > 0; n--) {
		unsigned int i = random_below(PATCHES);

		if (random_below(4) == 0 && users[i].owed == 0) {
			CHECK_OK(patch_unmake(users[i].patch));
			CHECK_OK(patch_commit());
			CHECK_EQ(users[i].destroyed, 1);
			make(i, random_below(2) != 0);
		} else {
			is_open[i] = random_below(2) != 0;
			CHECK_OK(is_open[i] ? patch_enable(users[i].patch) : patch_disable(users[i].patch));
		}
		CHECK_OK(patch_commit());
		if (depth < 5)
			execute_faulting();
	}
	depth--;
	protect(PROT_READ | PROT_WRITE);
}

static void idle(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static void in_handlers(void *unused)
{
	const struct sigaction action = { .sa_handler = on_fault, .sa_flags = SA_NODEFER };
	patch_t other; /* keeps the hooks in the text: else the instruction would be executed once more */

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	sigaction(SIGSEGV, &action, NULL);
	REQUIRE_OK(make_probe((uintptr_t)reading_site, idle, NULL, PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED, &other));
	plan.in = NEVER;
	plan.change = DISABLE;
	make_all(true);
	for (unsigned int round = 0; round < 500; round++) {
		CONTEXT("round %u", round);
		left = round;
		execute_faulting();
		for (unsigned int i = 0; i < PATCHES; i++)
			CHECK_EQ(users[i].owed, 0);
	}
	unmake_all();
	CHECK_OK(patch_fini());
}

/* ---- while the instruction waits --------------------------------------------------------------------------------- */

static int pipes[2];

/* The instruction is a system call. */
long waiting(int fd, void *buffer, size_t size);
extern const uint8_t waiting_site[];
__asm__(".text\n.p2align 6\n.globl waiting\n.type waiting, @function\nwaiting:\n.cfi_startproc\n"
	"	xor %eax, %eax\n" /* SYS_read */
	"waiting_site: syscall\n"
	"	nop\n	nop\n	nop\n	ret\n.cfi_endproc\n.size waiting, . - waiting\n.p2align 6, 0xcc\n");

static void *wait_in_read(void *unused)
{
	char byte;

	(void)unused;
	CHECK_EQ(waiting(pipes[0], &byte, 1), 1);
	return NULL;
}

static pthread_barrier_t inside;

static void tell_inside(struct patch_exec_context *context, uint8_t post)
{
	procedure(context, post);
	if (!post && context->user_data == &users[PATCHES - 1])
		pthread_barrier_wait(&inside);
}

/* Of a thread that is in the kernel, `begun` were called; the others are made when it is there already. */
static void waits_with(unsigned int begun)
{
	const struct patch_location location = location_at((uintptr_t)waiting_site);
	patch_attr attr = attr_of(PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED);
	pthread_t thread;

	CONTEXT("begun %#x", begun);
	for (int pass = 1; pass >= 0; pass--) {
		for (unsigned int i = 0; i < PATCHES; i++) {
			struct patch_exec_model model = model_of(types[i], tell_inside, &users[i]);

			if ((int)(begun >> i & 1) != pass)
				continue;
			users[i] = (struct user){ .type = types[i] };
			model.probe.destroy = destroy;
			REQUIRE_OK(patch_make(&location, &model, &attr, &users[i].patch, NULL));
		}
		CHECK_OK(patch_commit());
		if (pass == 0)
			break;
		REQUIRE(pthread_create(&thread, NULL, wait_in_read, NULL) == 0);
		pthread_barrier_wait(&inside);
	}
	for (unsigned int i = 0; i < PATCHES; i++)
		CHECK_OK(patch_unmake(users[i].patch));
	CHECK_OK(patch_commit());
	/* The first looks may come before the thread has left the first hook. */
	while (users[PATCHES - 1].calls[0] > 0 && users[1].destroyed == 0 && (begun & 2) != 0)
		CHECK_STATUS(patch_synchronize(0), PATCH_EBUSY);
	for (unsigned int i = 0; i < PATCHES; i++)
		CHECK_EQ(users[i].destroyed, types[i] == PATCH_EXEC_MODEL_PROBE || !(begun >> i & 1));
	CHECK_STATUS(patch_synchronize(0), PATCH_EBUSY);
	REQUIRE(write(pipes[1], "", 1) == 1);
	pthread_join(thread, NULL);
	CHECK_OK(patch_synchronize(-1));
	for (unsigned int i = 0; i < PATCHES; i++) {
		CHECK_EQ(users[i].destroyed, 1);
		CHECK_EQ(users[i].calls[0], begun >> i & 1);
		CHECK_EQ(users[i].calls[1], (begun >> i & 1) && types[i] == PATCH_EXEC_MODEL_PROBE_AROUND);
	}
}

static void while_it_waits(void *unused)
{
	(void)unused;
	REQUIRE(pipe(pipes) == 0);
	pthread_barrier_init(&inside, NULL, 2);
	REQUIRE_OK(patch_init(NULL, 0));
	plan.in = NEVER;
	for (unsigned int begun = 0; begun < 1U << (PATCHES - 1); begun++)
		waits_with(begun | 1U << (PATCHES - 1));
	CHECK_OK(patch_fini());
}

/* ---- many -------------------------------------------------------------------------------------------------------- */

#define AROUND_MAX 64

static unsigned int many_calls[2 * AROUND_MAX][2];

static void note(struct patch_exec_context *context, uint8_t post)
{
	++((unsigned int *)context->user_data)[post];
}

/* So many of PROBE_AROUND, and any number of others. */
static void many(void *unused)
{
	const struct patch_location location = location_at((uintptr_t)reading_site);
	patch_attr attr = attr_of(PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED);
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE, note, NULL);
	static patch_t patches[2 * AROUND_MAX];
	struct patch_error error;
	patch_t extra;

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	for (unsigned int i = 0; i < 2 * AROUND_MAX; i++) {
		model.type = i % 2 ? PATCH_EXEC_MODEL_PROBE_AROUND : PATCH_EXEC_MODEL_PROBE;
		model.probe.user_data = many_calls[i];
		REQUIRE_OK(patch_make(&location, &model, &attr, &patches[i], NULL));
	}
	model.probe.user_data = many_calls[0];
	CHECK_STATUS(patch_make(&location, &model, &attr, &extra, NULL), PATCH_ENOTSUP);
	patch_last_error(&error);
	CHECK(strstr(error.message, "64 patches") != NULL);
	CHECK_OK(patch_commit());
	CHECK_EQ(reading(page), 42);
	for (unsigned int i = 0; i < 2 * AROUND_MAX; i++) {
		CHECK_EQ(many_calls[i][0], 1);
		CHECK_EQ(many_calls[i][1], i % 2);
	}
	/* One goes, and there is room for another. */
	CHECK_OK(patch_unmake(patches[1]));
	CHECK_OK(patch_commit());
	CHECK_OK(patch_make(&location, &model, &attr, &extra, NULL));
	CHECK_OK(patch_commit());
	CHECK_EQ(reading(page), 42);
	CHECK_EQ(many_calls[0][0], 3);
	CHECK_EQ(many_calls[0][1], 1);
	CHECK_EQ(many_calls[1][0], 1);
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	REQUIRE(page != MAP_FAILED);
	*page = 42;
	harness_isolated("in calls", in_calls, NULL);
	harness_isolated("in handlers", in_handlers, NULL);
	harness_isolated("while it waits", while_it_waits, NULL);
	harness_isolated("many", many, NULL);
	return harness_end();
}
