/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libc, the dynamic linker and the vDSO as targets, in a running program with threads. Functions that everything uses
 * are probed by procedures that use them: malloc() from a procedure of malloc(), printf() to a buffer, locks. They are
 * enabled, disabled, unmade and made again while threads allocate, lock, copy, read and write, and load and unload a
 * library. A commit does not run through what it changes: with traps on its memcpy() and the like, libc's, it takes
 * none. The vDSO is refused with a reason. Afterwards all of the text is as it was.
 */
#include "harness.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/auxv.h>

#define THREADS 3
#define ROUNDS 150
#define TEXTS 4

static const char *const names[] = {
	"malloc",    "free", "calloc", "realloc", "read",    "write", "pthread_mutex_lock", "pthread_mutex_unlock",
	"sigaction", "fork", "getenv", "dlopen",  "dlclose", "dlsym", "_dl_find_object",    "snprintf",
};
#define COUNT (sizeof(names) / sizeof(names[0]))

static patch_t patches[COUNT];
static uintptr_t addresses[COUNT];
static uint64_t hits[COUNT];
static atomic_bool stop;
static _Atomic uint64_t wrong, work;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static uint64_t guarded;
static int (*find_object)(void *address, void *result);

static struct {
	const uint8_t *address;
	uint8_t *copy;
	size_t size;
} texts[TEXTS];
static size_t text_count;

static int copy_text(struct dl_phdr_info *info, size_t size, void *data)
{
	(void)size;
	(void)data;
	if (!strstr(info->dlpi_name, "libc.so") && !strstr(info->dlpi_name, "ld-linux"))
		return 0;
	for (int i = 0; i < info->dlpi_phnum && text_count < TEXTS; ++i) {
		const ElfW(Phdr) *header = &info->dlpi_phdr[i];

		if (header->p_type != PT_LOAD || !(header->p_flags & PF_X))
			continue;
		texts[text_count].address = (const uint8_t *)(info->dlpi_addr + header->p_vaddr);
		texts[text_count].size = header->p_memsz;
		texts[text_count].copy = malloc(header->p_memsz);
		REQUIRE(texts[text_count].copy);
		memcpy(texts[text_count].copy, texts[text_count].address, header->p_memsz);
		++text_count;
	}
	return 0;
}

static void check_text(void)
{
	CHECK_EQ(text_count, 2);
	for (size_t i = 0; i < text_count; ++i)
		CHECK(memcmp(texts[i].address, texts[i].copy, texts[i].size) == 0);
}

/* Uses what it is called from. */
static void procedure(struct patch_exec_context *context, uint8_t post)
{
	char text[64];
	void *block;

	(void)post;
	__atomic_fetch_add((uint64_t *)context->user_data, 1, __ATOMIC_RELAXED);
	block = malloc(100);
	snprintf(text, sizeof(text), "%p %d", block, 42);
	if (!block || !strstr(text, " 42"))
		atomic_fetch_add(&wrong, 1);
	free(block);
}

static void make(size_t i, int policy)
{
	REQUIRE_OK(make_probe(addresses[i], procedure, &hits[i], policy, PATCH_ENABLED, &patches[i]));
}

/* What a child of a process with threads may call: they may have held other locks when it was forked. */
static void use_simply(unsigned int seed)
{
	char bytes[64], copy[64], room[256];
	int ends[2];
	void *block = malloc(seed % 4096 + 1);
	void *volatile zeroed;

	memset(block, (int)seed, seed % 4096 + 1);
	block = realloc(block, seed % 4096 + 2000);
	if (!block || ((uint8_t *)block)[0] != (uint8_t)seed)
		atomic_fetch_add(&wrong, 1);
	free(block);
	/* Else compilers leave both calls out. */
	zeroed = calloc(seed % 7 + 1, 8);
	free(zeroed);
	if (pipe2(ends, O_CLOEXEC) == 0) {
		memset(bytes, (int)seed, sizeof(bytes));
		if (write(ends[1], bytes, sizeof(bytes)) != sizeof(bytes) ||
		    read(ends[0], copy, sizeof(copy)) != sizeof(copy) || memcmp(bytes, copy, sizeof(copy)) != 0)
			atomic_fetch_add(&wrong, 1);
		close(ends[0]);
		close(ends[1]);
	}
	getenv("PATH");
	find_object(ends, room);
	snprintf(bytes, sizeof(bytes), "%u", seed);
}

/* Everything that is probed, but fork(). */
static void use(unsigned int seed)
{
	void *library;

	use_simply(seed);
	pthread_mutex_lock(&mutex);
	++guarded;
	pthread_mutex_unlock(&mutex);
	if (seed % 16 == 0) {
		library = dlopen("libm.so.6", RTLD_NOW | RTLD_LOCAL);
		if (!library || !dlsym(library, "cos"))
			atomic_fetch_add(&wrong, 1);
		if (library)
			dlclose(library);
	}
	atomic_fetch_add(&work, 1);
}

static void *run(void *argument)
{
	unsigned int seed = (unsigned int)(uintptr_t)argument;

	while (!atomic_load(&stop))
		use(seed = seed * 1103515245 + 12345);
	return NULL;
}

static void test_vdso(void)
{
	const Elf64_Ehdr *vdso = (const Elf64_Ehdr *)getauxval(AT_SYSINFO_EHDR);
	struct patch_error error;
	patch_t patch;
	patch_status status;

	if (!vdso)
		return;
	CONTEXT("vDSO");
	status = make_probe((uintptr_t)vdso + vdso->e_entry, procedure, &hits[0], PATCH_TRAP_POLICY_ALLOW,
			    PATCH_ENABLED, &patch);
	patch_last_error(&error);
	CHECK_EQ(status, PATCH_ENOTSUP);
	CHECK_MSG(strstr(error.message, "kernel maps") != NULL, "%s", error.message);
}

/* A commit that changes nothing, changes other code, or takes these away, is none of libc's callers. */
static void test_commit_alone(void)
{
	static const char *const used[] = { "memcpy", "memmove", "memset", "memcmp", "memchr", "strchr", "getauxval",
					    "__errno_location", "malloc" };
	patch_t traps[sizeof(used) / sizeof(used[0])];
	struct patch_statistics before, after;
	static uint64_t count;

	CONTEXT("traps met by a commit");
	for (size_t i = 0; i < sizeof(used) / sizeof(used[0]); ++i) {
		/* What ld.so binds callers to: one of several, by processor. */
		uintptr_t address = (uintptr_t)dlsym(RTLD_DEFAULT, used[i]);

		REQUIRE_OK(make_probe(address, procedure, &count, PATCH_TRAP_POLICY_FORCE, PATCH_ENABLED, &traps[i]));
	}
	REQUIRE_OK(patch_commit());
	CHECK_OK(patch_statistics(&before, sizeof(before)));
	for (int i = 0; i < 20; ++i) {
		CHECK_OK(patch_disable(patches[0]));
		CHECK_OK(patch_commit());
		CHECK_OK(patch_enable(patches[0]));
		CHECK_OK(patch_commit());
	}
	CHECK_OK(patch_statistics(&after, sizeof(after)));
	CHECK_EQ(after.traps, before.traps);
	for (size_t i = 0; i < sizeof(used) / sizeof(used[0]); ++i)
		CHECK_OK(patch_unmake(traps[i]));
	CHECK_OK(patch_commit());
}

static void fork_and_patch(void)
{
	int status;
	pid_t pid = fork();

	REQUIRE(pid >= 0);
	if (pid == 0) {
		use_simply(16);
		for (size_t i = 0; i < COUNT; ++i)
			if (patch_unmake(patches[i]) != PATCH_OK)
				_exit(2);
		if (patch_commit() != PATCH_OK)
			_exit(3);
		use_simply(32);
		_exit(patch_fini() == PATCH_OK ? 0 : 4);
	}
	REQUIRE(waitpid(pid, &status, 0) == pid);
	CHECK_EQ(status, 0);
}

int main(void)
{
	pthread_t threads[THREADS];

	harness_start();
	for (size_t i = 0; i < COUNT; ++i) {
		addresses[i] = (uintptr_t)dlsym(RTLD_DEFAULT, names[i]);
		if (addresses[i] == 0)
			SKIP("libc has no %s()", names[i]);
	}
	find_object = (int (*)(void *, void *))dlsym(RTLD_DEFAULT, "_dl_find_object");
	dl_iterate_phdr(copy_text, NULL);
	REQUIRE_OK(patch_init(NULL, 0));
	test_vdso();
	for (size_t i = 0; i < THREADS; ++i)
		REQUIRE(pthread_create(&threads[i], NULL, run, (void *)(i + 1)) == 0);
	for (size_t i = 0; i < COUNT; ++i)
		make(i, PATCH_TRAP_POLICY_ALLOW);
	REQUIRE_OK(patch_commit());
	for (unsigned int round = 0; round < ROUNDS; ++round) {
		uint64_t before = atomic_load(&work);

		CONTEXT("round %u", round);
		for (size_t i = round % 3; i < COUNT; i += 3)
			CHECK_OK(round % 2 ? patch_enable(patches[i]) : patch_disable(patches[i]));
		CHECK_OK(patch_commit());
		if (round % 10 == 9) {
			for (size_t i = 0; i < COUNT; ++i)
				CHECK_OK(patch_unmake(patches[i]));
			CHECK_OK(patch_commit());
			for (size_t i = 0; i < COUNT; ++i)
				make(i, round % 20 == 9 ? PATCH_TRAP_POLICY_FORCE : PATCH_TRAP_POLICY_ALLOW);
			CHECK_OK(patch_commit());
			fork_and_patch();
		}
		while (atomic_load(&work) < before + THREADS)
			sched_yield();
	}
	for (size_t i = 0; i < COUNT; ++i)
		CHECK_OK(patch_enable(patches[i]));
	CHECK_OK(patch_commit());
	use(16);
	fork_and_patch();
	{
		struct sigaction action;

		CHECK(sigaction(SIGUSR1, NULL, &action) == 0);
	}
	atomic_store(&stop, true);
	for (size_t i = 0; i < THREADS; ++i)
		REQUIRE(pthread_join(threads[i], NULL) == 0);
	test_commit_alone();
	CHECK_EQ(atomic_load(&wrong), 0);
	for (size_t i = 0; i < COUNT; ++i)
		CHECK_MSG(hits[i] > 0, "%s was never met", names[i]);
	CHECK_OK(patch_fini());
	check_text();
	return harness_end();
}
