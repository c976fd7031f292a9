/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A program that does the same each time, of many functions that call, and leave, in all the ways that compilers have:
 * recursion, tail calls, virtual and indirect ones, tables of jumps, functions without a frame, parts put elsewhere
 * (.cold), exceptions through several frames, jumps to the own entry. With no threads, and no work of a signal. It
 * must not know of libpatch. Prints how many frames exceptions and longjmp() have passed over, how often a
 * function has gone to its own entry, and a sum.
 *
 * calls ROUNDS
 */
#include <algorithm>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <memory>
#include <numeric>
#include <regex>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <unordered_map>
#include <vector>

#define NOINLINE __attribute__((noinline))

static uint64_t sum;
static unsigned long passed_over, again;

static void add(uint64_t value)
{
	sum = sum * 1099511628211UL + value;
}

/* ---- exits ------------------------------------------------------------------------------------------------------- */

static NOINLINE uint64_t fibonacci(uint64_t n)
{
	return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2);
}

/* Two that are each other's tail calls. */
static NOINLINE bool is_odd(uint64_t n);
static NOINLINE bool is_even(uint64_t n)
{
	__asm__ volatile("");
	return n == 0 || is_odd(n - 1);
}
static NOINLINE bool is_odd(uint64_t n)
{
	__asm__ volatile("");
	return n != 0 && is_even(n - 1);
}

static NOINLINE uint64_t with_table(uint64_t kind, uint64_t value)
{
	switch (kind) {
	case 0: return fibonacci(value % 12);
	case 1: return value * 3;
	case 2: return is_even(value % 50);
	case 3: return value / 7 + fibonacci(5);
	case 4: return is_odd(value % 50);
	case 5: return ~value;
	case 6: add(value); return value >> 3;
	case 7: return value << 2;
	default: return 0;
	}
}

static uint64_t (*volatile by_pointer)(uint64_t) = fibonacci;

static NOINLINE uint64_t tail_by_pointer(uint64_t n)
{
	return by_pointer(n % 10);
}

/* Jumps to its own first byte: neither a call nor a return. */
extern "C" uint64_t runs_again(uint64_t n);
extern "C" uint64_t leaves_by_branch(uint64_t n);
__asm__(".pushsection .text\n"
	".globl runs_again, leaves_by_branch\n"
	".type runs_again, @function\n"
	"runs_again:\n"
	"	.cfi_startproc\n"
	"	sub $1, %rdi\n"
	"	ja runs_again\n"
	"	lea 3(%rdi), %rax\n"
	"	ret\n"
	"	.cfi_endproc\n"
	".size runs_again, . - runs_again\n"
	".p2align 4\n"
	".type leaves_by_branch, @function\n"
	"leaves_by_branch:\n" /* which is a tail call where it is taken */
	"	.cfi_startproc\n"
	"	test $1, %dil\n"
	"	jne runs_again\n"
	"	mov %rdi, %rax\n"
	"	ret\n"
	"	.cfi_endproc\n"
	".size leaves_by_branch, . - leaves_by_branch\n"
	".popsection\n");

/* ---- what is thrown, and jumped over ----------------------------------------------------------------------------- */

struct counted {
	~counted()
	{
		add(1);
	}
};

static NOINLINE uint64_t throws_at_depth(unsigned int depth, unsigned int frames)
{
	counted here;

	if (depth == 0) {
		passed_over += frames;
		throw std::runtime_error("at the bottom");
	}
	return throws_at_depth(depth - 1, frames) + 1;
}

static NOINLINE uint64_t catches(unsigned int depth)
{
	try {
		return throws_at_depth(depth, depth + 1);
	} catch (const std::exception &error) {
		return error.what()[0];
	}
}

/* Catches, and throws on: the frame above is left by the same exception. */
static NOINLINE uint64_t throws_on(unsigned int depth)
{
	try {
		return throws_at_depth(depth, depth + 1);
	} catch (const std::runtime_error &) {
		passed_over += 1;
		throw;
	}
}

static jmp_buf out;

static void (*volatile by_depth)(unsigned int);

static NOINLINE void jumps(unsigned int depth)
{
	if (depth == 0)
		longjmp(out, 1);
	by_depth(depth - 1);
	__asm__ volatile("");
}

static NOINLINE void jumped_over(unsigned int depth)
{
	if (setjmp(out) == 0) {
		passed_over += depth + 1;
		by_depth = jumps;
		jumps(depth);
	}
}

/* ---- ordinary work ----------------------------------------------------------------------------------------------- */

struct shape {
	virtual ~shape() = default;
	virtual double area() const = 0;
	virtual std::string name() const { return "shape"; }
};
struct square : shape {
	double side;
	explicit square(double s) : side(s) {}
	double area() const override { return side * side; }
	std::string name() const override { return "square of " + std::to_string(side); }
};
struct row : shape {
	std::vector<std::unique_ptr<shape>> parts;
	double area() const override
	{
		return std::accumulate(parts.begin(), parts.end(), 0.0,
				       [](double all, const std::unique_ptr<shape> &part) {
					       return all + part->area();
				       });
	}
};

static void work(unsigned int round)
{
	static const std::regex word("([a-z]+)([0-9]*)(-(x|y)+)?");
	std::map<std::string, unsigned int> words;
	std::unordered_map<unsigned int, std::set<unsigned int>> sets;
	std::vector<unsigned int> numbers(64);
	std::function<uint64_t(uint64_t)> function = [&](uint64_t n) { return n + words.size(); };
	std::ostringstream text;
	row shapes;

	std::iota(numbers.begin(), numbers.end(), round);
	std::transform(numbers.begin(), numbers.end(), numbers.begin(), [](unsigned int n) { return n * 2654435761U; });
	std::sort(numbers.begin(), numbers.end());
	std::stable_sort(numbers.begin(), numbers.end(),
			 [](unsigned int a, unsigned int b) { return a % 97 < b % 97; });
	for (unsigned int number : numbers) {
		text << "n" << number % 31 << (number % 3 ? "-xyx " : " ");
		sets[number % 7].insert(number % 13);
		add(with_table(number % 9, number));
	}
	std::string line = text.str();
	for (std::sregex_iterator it(line.begin(), line.end(), word), end; it != end; ++it)
		words[it->str(2) + it->str(3)]++;
	for (const auto &[name, count] : words)
		add(count + name.size());
	for (unsigned int side = 0; side < 5; side++)
		shapes.parts.push_back(std::make_unique<square>(side));
	add((uint64_t)shapes.area() + shapes.parts[1]->name().size() + shapes.name().size());
	add(function(runs_again(round % 5 + 1)) + leaves_by_branch(round % 8) + tail_by_pointer(round));
	again += round % 5 + (round % 2 != 0 ? round % 8 - 1 : 0);
}

int main(int argc, char **argv)
{
	unsigned int rounds = argc > 1 ? (unsigned int)atoi(argv[1]) : 3;

	for (unsigned int round = 0; round < rounds; round++) {
		work(round);
		add(catches(round % 7));
		try {
			throws_on(round % 3);
		} catch (const std::exception &) {
			add(2);
		}
		jumped_over(round % 4);
	}
	printf("passed over %lu\nagain %lu\nsum %016lx\n", passed_over, again,
	       (unsigned long)sum);
	return 0;
}
