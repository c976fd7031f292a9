/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Several patches at one instruction share its hook: they are called in order of making, and in reverse behind the
 * instruction, whatever subset is enabled; each with its own user data, its own address and its own masks, whatever the
 * others ask for; and each goes while threads are in the others.
 */
#include "harness.h"

#include <pthread.h>

#define REG(name) ((uint64_t)1 << PATCH_X86_64_##name)

/* site(n) is n + 3: rbx and r12 are the caller's, and are looked at behind the instruction. */
struct seen_registers {
	unsigned long rax, rbx, r12;
};
unsigned long site(unsigned long n, struct seen_registers *seen);
extern const uint8_t site_start[], site_instruction[];
__asm__(".text\n"
	".p2align 6\n"
	".globl site\n.type site, @function\n"
	"site:\n"
	"site_start:\n"
	".cfi_startproc\n"
	"	endbr64\n"
	"site_instruction: lea 3(%rdi), %rax\n"
	"	nop\n"
	"	mov %rax, (%rsi)\n"
	"	mov %rbx, 8(%rsi)\n"
	"	mov %r12, 16(%rsi)\n"
	"	ret\n"
	".cfi_endproc\n"
	".size site, . - site\n"
	".p2align 6, 0xcc\n");

/* ---- order, masks and subsets ------------------------------------------------------------------------------------ */

#define USERS 5
#define CALLS_MAX 32

static struct user {
	uint64_t write;
	uint64_t clobber;
	int type;
	uintptr_t located;
	patch_t patch;
	bool enabled;
} users[USERS];

static struct call {
	const struct user *user;
	uint8_t post;
} calls[CALLS_MAX];
static unsigned int call_count;

static GP_ONLY void procedure(struct patch_exec_context *context, uint8_t post)
{
	const struct user *user = context->user_data;
	struct call *call = &calls[call_count < CALLS_MAX ? call_count++ : 0];
	uint64_t *rbx = &context->general_purpose_registers[PATCH_X86_64_RBX];
	bool wide = (user->clobber & PATCH_REGS_VECTOR) != 0;

	call->user = user;
	call->post = post;
	if (!post && context->program_counter != user->located)
		call->user = NULL;
	if ((context->extended_states != NULL) != wide)
		call->user = NULL;
	/* Of no effect, unless the patch may change it; then the next one sees it. */
	*rbx += 1;
	context->general_purpose_registers[PATCH_X86_64_R12] += 16;
}

static void make(unsigned int i, uint64_t write, uint64_t clobber, int type, const uint8_t *at)
{
	const struct patch_location location = location_at((uintptr_t)at);
	struct patch_exec_model model = model_of(type, procedure, &users[i]);
	patch_attr attr = attr_of(PATCH_TRAP_POLICY_ALLOW, PATCH_DISABLED);

	users[i] = (struct user){ .write = write, .clobber = clobber, .type = type, .located = (uintptr_t)at };
	model.probe.read_registers = REG(RBX) | REG(R12);
	model.probe.write_registers = write;
	model.probe.clobber_registers = clobber;
	REQUIRE_OK(patch_make(&location, &model, &attr, &users[i].patch, NULL));
}

static void expect_calls(void)
{
	unsigned int at = 0;

	for (unsigned int i = 0; i < USERS; i++)
		if (users[i].enabled)
			CHECK(at < call_count && calls[at].user == &users[i] && calls[at].post == 0 && ++at);
	for (unsigned int i = USERS; i-- > 0;)
		if (users[i].enabled && users[i].type == PATCH_EXEC_MODEL_PROBE_AROUND)
			CHECK(at < call_count && calls[at].user == &users[i] && calls[at].post == 1 && ++at);
	CHECK_EQ(call_count, at);
}

/* How often somebody who may change the register has changed it. */
static unsigned long changes(uint64_t mask)
{
	unsigned long n = 0;

	for (unsigned int i = 0; i < USERS; i++)
		if (users[i].enabled && ((users[i].write | users[i].clobber) & mask))
			n += users[i].type == PATCH_EXEC_MODEL_PROBE_AROUND ? 2 : 1;
	return n;
}

static void run(void)
{
	struct seen_registers seen;
	register unsigned long rbx __asm__("rbx") = 1000;
	register unsigned long r12 __asm__("r12") = 2000;
	unsigned long result = 5;
	struct seen_registers *at = &seen;

	call_count = 0;
	__asm__ volatile("lea -128(%%rsp), %%rsp; call site; lea 128(%%rsp), %%rsp"
			 : "=a"(result), "+r"(rbx), "+r"(r12), "+S"(at)
			 : "D"(5UL)
			 : "rcx", "rdx", "r8", "r9", "r10", "r11", "memory", "cc");
	CHECK_EQ(result, 8);
	CHECK_EQ(seen.rax, 8);
	CHECK_EQ(seen.rbx, 1000 + changes(REG(RBX)));
	CHECK_EQ(seen.r12, 2000 + 16 * changes(REG(R12)));
	expect_calls();
}

static void subsets(void *unused)
{
	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	make(0, 0, 0, PATCH_EXEC_MODEL_PROBE, site_instruction);
	make(1, REG(RBX), 0, PATCH_EXEC_MODEL_PROBE_AROUND, site_instruction);
	make(2, 0, PATCH_REGS_ALL, PATCH_EXEC_MODEL_PROBE, site_start);
	make(3, REG(R12) | REG(RBX), 0, PATCH_EXEC_MODEL_PROBE, site_instruction);
	make(4, REG(R12), REG(RBX), PATCH_EXEC_MODEL_PROBE_AROUND, site_start);
	for (unsigned int subset = 1; subset < 2U << USERS; subset++) {
		unsigned int gray = (subset ^ subset >> 1) & ((1U << USERS) - 1);

		CONTEXT("patches %#x", gray);
		for (unsigned int i = 0; i < USERS; i++) {
			users[i].enabled = gray >> i & 1;
			CHECK_OK(users[i].enabled ? patch_enable(users[i].patch) : patch_disable(users[i].patch));
		}
		CHECK_OK(patch_commit());
		run();
	}
	for (unsigned int i = 0; i < USERS; i++) {
		users[i].enabled = true;
		CHECK_OK(patch_enable(users[i].patch));
	}
	CHECK_OK(patch_commit());
	run();
	/* They go one by one, from the middle. */
	for (unsigned int n = 0; n < USERS; n++) {
		struct user *user = &users[(n * 2 + 2) % USERS];

		CONTEXT("without %zu", (size_t)(user - users));
		CHECK_OK(patch_unmake(user->patch));
		CHECK_OK(patch_commit());
		user->enabled = false;
		run();
	}
	CHECK_OK(patch_fini());
}

/* ---- what others write ------------------------------------------------------------------------------------------ */

static uint64_t read_rdi;

/* Of no effect: it has no mask. */
static GP_ONLY void write_all(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	for (unsigned int i = 0; i < PATCH_ARCH_GREGS_COUNT; i++)
		context->general_purpose_registers[i] = 0xdead;
}

static GP_ONLY void read_one(struct patch_exec_context *context, uint8_t post)
{
	(void)post;
	read_rdi = context->general_purpose_registers[PATCH_X86_64_RDI];
}

/* What a patch only reads is the program's, whoever was called before. */
static void readers(void *unused)
{
	const struct patch_location location = location_at((uintptr_t)site_instruction);
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE, write_all, NULL);
	patch_attr attr = attr_of(PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED);
	struct seen_registers seen;
	patch_t patches[2];

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	model.probe.read_registers = model.probe.write_registers = model.probe.clobber_registers = 0;
	REQUIRE_OK(patch_make(&location, &model, &attr, &patches[0], NULL));
	model.probe.procedure = read_one;
	model.probe.read_registers = REG(RDI);
	REQUIRE_OK(patch_make(&location, &model, &attr, &patches[1], NULL));
	CHECK_OK(patch_commit());
	CHECK_EQ(site(5, &seen), 8);
	CHECK_EQ(read_rdi, 5);
	CHECK_OK(patch_fini());
}

/* ---- going while others run -------------------------------------------------------------------------------------- */

static pthread_barrier_t barrier;
static unsigned int destroyed[3], entered[3];
static __thread unsigned int stays = 3;

static void destroy(void *user_data)
{
	++*(unsigned int *)user_data;
}

/* The thread waits in one of them, until it is told to go on. */
static void waiting_procedure(struct patch_exec_context *context, uint8_t post)
{
	unsigned int which = (unsigned int)((unsigned int *)context->user_data - destroyed);

	(void)post;
	CHECK_EQ(destroyed[which], 0);
	__atomic_fetch_add(&entered[which], 1, __ATOMIC_SEQ_CST);
	if (which != stays)
		return;
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	CHECK_EQ(destroyed[which], 0);
}

static void *wait_inside(void *which)
{
	struct seen_registers seen;

	stays = *(unsigned int *)which;
	CHECK_EQ(site(5, &seen), 8);
	return NULL;
}

static void others_go(void *argument)
{
	const struct patch_location location = location_at((uintptr_t)site_instruction);
	patch_attr attr = attr_of(PATCH_TRAP_POLICY_ALLOW, PATCH_ENABLED);
	unsigned int which = *(unsigned int *)argument;
	patch_t patches[3];
	pthread_t thread;

	pthread_barrier_init(&barrier, NULL, 2);
	REQUIRE_OK(patch_init(NULL, 0));
	for (unsigned int i = 0; i < 3; i++) {
		struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE, waiting_procedure, &destroyed[i]);

		model.probe.destroy = destroy;
		REQUIRE_OK(patch_make(&location, &model, &attr, &patches[i], NULL));
	}
	CHECK_OK(patch_commit());
	REQUIRE(pthread_create(&thread, NULL, wait_inside, &which) == 0);
	pthread_barrier_wait(&barrier);
	for (unsigned int i = 0; i < 3; i++) {
		CHECK_OK(patch_unmake(patches[i]));
		CHECK_OK(patch_commit());
		CHECK_EQ(destroyed[i], i != which);
	}
	CHECK_STATUS(patch_synchronize(0), PATCH_EBUSY);
	pthread_barrier_wait(&barrier);
	pthread_join(thread, NULL);
	CHECK_OK(patch_synchronize(-1));
	/* Those behind it in the list are gone: the thread has passed them over. */
	for (unsigned int i = 0; i < 3; i++) {
		CHECK_EQ(destroyed[i], 1);
		CHECK_EQ(entered[i], i <= which);
	}
	CHECK_OK(patch_fini());
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

#define EARLY 2000
#define ROUNDS 20000

static uint64_t memory(void)
{
	struct patch_statistics statistics = { 0 };

	CHECK_OK(patch_statistics(&statistics, sizeof(statistics)));
	return statistics.heap_bytes + statistics.code_bytes;
}

static void come_and_go(void *unused)
{
	uint64_t early = 0;

	(void)unused;
	REQUIRE_OK(patch_init(NULL, 0));
	make(0, 0, 0, PATCH_EXEC_MODEL_PROBE, site_instruction);
	make(1, REG(RBX), 0, PATCH_EXEC_MODEL_PROBE_AROUND, site_instruction);
	for (unsigned int round = 0; round < ROUNDS; round++) {
		unsigned int i = 2 + round % (USERS - 2);

		if (users[i].patch != NULL)
			CHECK_OK(patch_unmake(users[i].patch));
		make(i, round & 8 ? REG(R12) : 0, round & 16 ? REG(RBX) : 0, PATCH_EXEC_MODEL_PROBE, site_instruction);
		users[i].enabled = true;
		CHECK_OK(patch_enable(users[i].patch));
		/* Many lists take each other's place without a commit in between, too. */
		if (round % 256 < 128)
			CHECK_OK(patch_commit());
		if (round % 64 == 0)
			call_count = 0;
		if (round == EARLY)
			early = memory();
	}
	CHECK_OK(patch_commit());
	CHECK(memory() <= early);
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	harness_isolated("subsets", subsets, NULL);
	harness_isolated("readers", readers, NULL);
	for (unsigned int which = 0; which < 3; which++)
		harness_isolated("others go", others_go, &which);
	harness_isolated("come and go", come_and_go, NULL);
	return harness_end();
}
