// SPDX-License-Identifier: MIT
// C++: a patch that lives as long as an object, and whose procedure is a lambda that captures what it likes. For the
// library a procedure is a plain function; user_data leads it to the object.
#include <cstdio>
#include <stdexcept>
#include <string>

#include <libpatch/patch.h>

static void check(patch_status status)
{
	patch_error error;

	if (status != PATCH_OK && patch_last_error(&error) != PATCH_OK)
		throw std::runtime_error(std::string(error.message) + " " + error.irritant);
}

template <class F> class probe {
	F function;
	patch_t patch;

public:
	probe(uintptr_t address, uint64_t registers, F f) : function(f)
	{
		patch_location where = {};
		patch_exec_model what = {};

		where.type = PATCH_LOCATION_ADDRESS;
		where.address = address;
		what.type = PATCH_EXEC_MODEL_PROBE;
		what.probe.read_registers = registers;
		what.probe.user_data = this;
		// This lambda captures nothing, so it is a function, too.
		what.probe.procedure = [](patch_exec_context *context, uint8_t) {
			static_cast<probe *>(context->user_data)->function(*context);
		};
		check(patch_make(&where, &what, nullptr, &patch, nullptr));
	}

	// A thread may be in the procedure still, and use this object.
	~probe()
	{
		patch_unmake(patch);
		patch_commit();
		patch_synchronize(-1);
	}

	void enable()
	{
		check(patch_enable(patch));
		check(patch_commit());
	}

	probe(const probe &) = delete;
};

__attribute__((noinline)) int square(int n)
{
	__asm__ volatile("" : "+r"(n));
	return n * n;
}

int main()
{
	int sum = 0;

	check(patch_init(nullptr, 0));
	{
		probe watch((uintptr_t)square, 1 << PATCH_X86_64_RDI, [&](patch_exec_context &context) {
			sum += static_cast<int>(context.general_purpose_registers[PATCH_X86_64_RDI]);
		});

		watch.enable();
		std::printf("%d\n", square(3) + square(4));
	}
	std::printf("%d\n", square(1000)); // nobody watches
	std::printf("the sum of the arguments is %d\n", sum);
	return sum != 7;
}
