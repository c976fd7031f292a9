/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Modules that come and go while symbols are located, and modules of other namespaces: a patch is made in the module
 * that was meant, or not at all.
 */
#include "locate.h"

#include "base/inject.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#define UNLOADED "the module was unloaded meanwhile"

static const char *first_path, *second_path;
static struct locate_module loaded;
static const char *successor;
static uintptr_t old_place;

/* Another build: one bit of the build id differs. */
static void change_build_id(const char *path)
{
	static const uint8_t head[] = { 4, 0, 0, 0, 20, 0, 0, 0, 3, 0, 0, 0, 'G', 'N', 'U', 0 };
	FILE *file = fopen(path, "r+");
	uint8_t bytes[16384];
	uint8_t *note;
	size_t size;

	REQUIRE(file != NULL);
	size = fread(bytes, 1, sizeof(bytes), file);
	note = memmem(bytes, size, head, sizeof(head));
	REQUIRE(note != NULL);
	note += sizeof(head);
	REQUIRE(fseek(file, note - bytes, SEEK_SET) == 0 && fputc(*note ^ 1, file) != EOF && fclose(file) == 0);
}

/* The symbol was found; then its module goes. */
static int unload(enum inject_point point)
{
	if (point != INJECT_LOCATED || loaded.handle == NULL)
		return 0;
	CHECK(dlclose(loaded.handle) == 0);
	loaded.handle = NULL;
	if (successor != NULL)
		loaded = locate_load(successor, RTLD_LOCAL);
	return 0;
}

static void unloaded(const char *name, const char *other, patch_status status, const char *message)
{
	loaded = locate_load(first_path, RTLD_LOCAL);
	old_place = (uintptr_t)loaded.address(LOCATED_EXPORTED);
	successor = other;
	libpatch_inject = unload;
	locate_refused(name, status, message);
	libpatch_inject = NULL;
	CHECK(other != NULL || loaded.handle == NULL);
}

static void goes(void *name)
{
	REQUIRE_OK(patch_init(NULL, 0));
	unloaded(name, NULL, PATCH_EFAULT, "the address is not mapped");
	CHECK_OK(patch_fini());
}

/* Another module is where it was. */
static void is_followed(void *name)
{
	struct locate_module module;

	/* Whether it is there is the kernel's choice. */
	module = locate_load(first_path, RTLD_LOCAL);
	old_place = (uintptr_t)module.address(LOCATED_EXPORTED);
	REQUIRE(dlclose(module.handle) == 0);
	module = locate_load(second_path, RTLD_LOCAL);
	if ((uintptr_t)module.address(LOCATED_EXPORTED) != old_place)
		SKIP("modules are loaded at other addresses");
	REQUIRE(dlclose(module.handle) == 0);
	REQUIRE_OK(patch_init(NULL, 0));
	unloaded(name, second_path, PATCH_ENEXIST, UNLOADED);
	CHECK_OK(patch_fini());
}

static void in_other_namespaces(void *unused)
{
	void *one = dlmopen(LM_ID_NEWLM, first_path, RTLD_NOW), *two;
	void *(*address)(enum located_function);

	(void)unused;
	if (one == NULL)
		SKIP("dlmopen: %s", dlerror());
	*(void **)&address = dlsym(one, "located_address");
	REQUIRE_OK(patch_init(NULL, 0));
	locate_expect("located_exported", address(LOCATED_EXPORTED));
	locate_expect("liblocate:located_static", address(LOCATED_STATIC));
	locate_expect("liblocate:located_versioned@V_1", address(LOCATED_OLD));
	/* There is another libc there. */
	locate_expect("libc:a64l", dlsym(RTLD_DEFAULT, "a64l"));
	locate_expect("main:in_other_namespaces", (const void *)in_other_namespaces);
	two = dlmopen(LM_ID_NEWLM, second_path, RTLD_NOW);
	REQUIRE(two != NULL);
	locate_refused("located_exported", PATCH_EAMBIGUOUS, "the name stands for several functions");
	locate_refused("located_static", PATCH_EAMBIGUOUS, "the name stands for several functions");
	locate_expect("liblocate:located_static", address(LOCATED_STATIC));
	loaded = locate_load(first_path, RTLD_LOCAL);
	CHECK(loaded.address(LOCATED_STATIC) != address(LOCATED_STATIC));
	locate_expect("liblocate:located_static", loaded.address(LOCATED_STATIC));
	locate_expect("located_exported", loaded.address(LOCATED_EXPORTED));
	CHECK_OK(patch_fini());
}

/* ---- unmapped, and the linker does not know yet ----------------------------------------------------------------- */

static GP_ONLY void procedure(struct patch_exec_context *context, uint8_t post)
{
	(void)context;
	(void)post;
}

static void *make_there(void *unused)
{
	struct patch_location location = location_at(old_place);
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE, procedure, NULL);
	patch_t patch;

	(void)unused;
	CHECK_STATUS(patch_make(&location, &model, NULL, &patch, NULL), PATCH_EFAULT);
	return NULL;
}

/* Somebody else's code, where the module had the function: there is no module around it any more. */
static void *make_in_other_code(void *unused)
{
	void *page = (void *)(old_place & -4096UL);
	struct patch_location location = location_at(old_place);
	struct patch_exec_model model = model_of(PATCH_EXEC_MODEL_PROBE, procedure, NULL);
	patch_t patch;

	(void)unused;
	REQUIRE(mmap(page, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) ==
		page);
	memset(page, 0x90, 4096);
	REQUIRE(mprotect(page, 4096, PROT_READ | PROT_EXEC) == 0);
	CHECK_OK(patch_make(&location, &model, NULL, &patch, NULL));
	CHECK_OK(patch_unmake(patch));
	REQUIRE(munmap(page, 4096) == 0);
	return NULL;
}

static void *(*meanwhile)(void *);
static bool unmapped;

static int when_unmapped(enum inject_point point)
{
	unsigned char resident;
	pthread_t thread;

	/* The linker unmaps other things, too. */
	if (point != INJECT_UNMAPPED || unmapped || mincore((void *)(old_place & -4096UL), 4096, &resident) == 0)
		return 0;
	unmapped = true;
	REQUIRE(pthread_create(&thread, NULL, meanwhile, NULL) == 0);
	pthread_join(thread, NULL);
	return 0;
}

static void made_while_unmapped(void *function)
{
	*(void **)&meanwhile = function;
	loaded = locate_load(first_path, RTLD_LOCAL);
	old_place = (uintptr_t)loaded.address(LOCATED_EXPORTED);
	REQUIRE_OK(patch_init(NULL, 0));
	locate("liblocate:located_exported");
	libpatch_inject = when_unmapped;
	CHECK(dlclose(loaded.handle) == 0);
	libpatch_inject = NULL;
	CHECK(unmapped);
	CHECK_OK(patch_commit());
	CHECK_OK(patch_fini());
}

/* ---- threads ---------------------------------------------------------------------------------------------------- */

static _Atomic bool done;

static void *come_and_go(void *unused)
{
	(void)unused;
	while (!done) {
		void *handle = dlopen(second_path, RTLD_NOW | RTLD_LOCAL);

		CHECK(handle != NULL && dlclose(handle) == 0);
	}
	return NULL;
}

static void *locate_again(void *unused)
{
	(void)unused;
	for (int i = 0; i < 200; i++) {
		uintptr_t found = locate("liblocate:located_static");

		if (found != (uintptr_t)loaded.address(LOCATED_STATIC))
			FAIL("found %#lx: %s", (unsigned long)found, harness_last_error());
		/* It is there or not. */
		locate("libother:located_static");
		locate("libother:located_exported");
	}
	return NULL;
}

static void many_threads(void *unused)
{
	pthread_t threads[3], other;

	(void)unused;
	loaded = locate_load(first_path, RTLD_LOCAL);
	REQUIRE_OK(patch_init(NULL, 0));
	REQUIRE(pthread_create(&other, NULL, come_and_go, NULL) == 0);
	for (size_t i = 0; i < 3; i++)
		REQUIRE(pthread_create(&threads[i], NULL, locate_again, NULL) == 0);
	for (size_t i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	done = true;
	pthread_join(other, NULL);
	CHECK_EQ(loaded.call(LOCATED_STATIC), LOCATED_STATIC);
	CHECK_OK(patch_fini());
}

int main(void)
{
	harness_start();
	first_path = strdup(locate_copy("liblocate.so.1"));
	second_path = strdup(locate_copy("libother.so.1"));
	change_build_id(second_path);
	harness_isolated("dynamic symbol, goes", goes, "liblocate:located_exported");
	harness_isolated("static function, goes", goes, "liblocate:located_static");
	harness_isolated("dynamic symbol, another module", is_followed, "liblocate:located_exported");
	harness_isolated("static function, another module", is_followed, "liblocate:located_static");
	harness_isolated("namespaces", in_other_namespaces, NULL);
	harness_isolated("made while unmapped", made_while_unmapped, (void *)make_there);
	harness_isolated("made in other code", made_while_unmapped, (void *)make_in_other_code);
	harness_isolated("threads", many_threads, NULL);
	return harness_end();
}
