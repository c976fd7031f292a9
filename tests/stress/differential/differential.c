/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The relocator, by execution: instructions are run natively and as relocated copies from the same random registers,
 * flags, extended state and memory, and everything they leave is compared: registers, flags, extended state, memory,
 * where control goes, and faults with the pc mapped back.
 *
 *   single instructions as they occur in installed binaries,
 *   others, generated, of every encoding that the decoder knows and no binary has,
 *   windows of instructions in a row as they occur, displaced together and entered at each of them.
 *
 * differential [seconds [seed]]; up to 30 seconds read a part of each binary, keep fewer instructions of an encoding
 * and generate fewer addressing modes. One half of the time goes to single instructions, the other one to windows.
 * LIBPATCH_DIFFERENTIAL_FAR=1 copies single instructions as for code far from free memory.
 * LIBPATCH_DIFFERENTIAL_AROUND=1 runs of single instructions only branches, calls and returns, all with holes.
 * LIBPATCH_DIFFERENTIAL_FORMS=1 lists what was executed of each form (+: generated only); LIBPATCH_DIFFERENTIAL_KNOWN=1
 * looks for differences that are known, too.
 */
#include "differential.h"

#include <time.h>

#define BURST 16
#define FIRST_BURST 4 /* so that everything is run early */
#define WINDOW_BURST 12 /* for each entry */
#define XSAVE_EVERY 64 /* runs of instructions that do not touch extended state */
#define DIFFERENCES_MAX 5
#define CHUNK 1024 /* patterns between two looks at the clock */

static struct files files;
static struct corpus corpus;
static struct windows windows;
static struct tally found, generated, displaced;
static uint64_t window_entries;
static unsigned int differences;

/* Of its own time: on a busy machine, too, it runs what it has read. */
static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
	return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void choose_components(const struct subject *subject, uint64_t *seed)
{
	start.components = subject->flags & P_VECTOR || random_next(seed) % XSAVE_EVERY == 0 ? machine_components : 0;
}

/* ---- single instructions ----------------------------------------------------------------------------------------- */

static void build_patterns(uint64_t seed)
{
	const char *why;
	size_t i, n;

	for (i = n = 0; i < corpus.pattern_count; i++) {
		corpus.patterns[n] = corpus.patterns[i];
		why = machine_build(&corpus.patterns[n], mix(seed + i));
		if (why) {
			skip_note(&corpus.skips, why);
			continue;
		}
		corpus.patterns[n++].subject.flags |= P_FAULTS;
	}
	corpus.pattern_count = n;
	machine_built();
}

/* The same states whenever it is run with this seed. */
static void burst(struct pattern *pattern, uint64_t seed, unsigned int count)
{
	struct tally *tally = pattern->generated ? &generated : &found;
	struct form *form = &corpus.forms[pattern->form];
	struct subject *subject = &pattern->subject;
	enum verdict verdict;
	unsigned int i;

	start_burst(subject, &seed);
	memcpy((void *)subject->data, start_memory, DATA_SIZE);
	for (i = 0; i < count; i++) {
		start_registers(subject, 0, &seed);
		choose_components(subject, &seed);
		verdict = compare(subject, 0, tally);
		form->executions += 2;
		if (verdict == DIFFERENT) {
			differences++;
			return;
		}
		if (verdict == SAME_EXIT) {
			form->completed += 2;
			subject->flags &= (uint16_t)~P_FAULTS;
		}
		/* not an instruction of this processor */
		if (verdict == SAME_ILLEGAL && subject->flags & P_FAULTS && i == 1)
			return;
	}
}

/* One chunk more; a round is all of them. */
static void run_patterns(uint64_t seed)
{
	static uint64_t round;
	static size_t next;
	size_t end = MIN(next + CHUNK, corpus.pattern_count);
	struct pattern *pattern;
	bool few;

	for (; next < end && differences < DIFFERENCES_MAX; next++) {
		pattern = &corpus.patterns[next];
		few = pattern->step.flags & P_SLOW || (round != 0 && pattern->subject.flags & P_FAULTS);
		if (!few || round % 64 <= 1)
			burst(pattern, mix(seed ^ mix(round << 32 | next)), few ? 2 : round == 0 ? FIRST_BURST : BURST);
	}
	if (next == corpus.pattern_count) {
		next = 0;
		round++;
	}
}

/* ---- windows ----------------------------------------------------------------------------------------------------- */

static void run_window(struct displaced *window, uint64_t seed)
{
	struct subject *subject = &window->subject;
	const unsigned int count = subject->flags & P_SLOW ? 1 : WINDOW_BURST;
	unsigned int entry, i;
	enum verdict verdict;

	start_burst(subject, &seed);
	memcpy((void *)subject->data, start_memory, DATA_SIZE);
	for (entry = 0; entry < subject->count; entry++) {
		window_entries++;
		for (i = 0; i < count; i++) {
			start_registers(subject, entry, &seed);
			choose_components(subject, &seed);
			verdict = compare(subject, entry, &displaced);
			if (verdict == DIFFERENT) {
				differences++;
				return;
			}
			/* it takes as long as thousands of others */
			if (verdict == TIMED_OUT && ++window->timeouts == 2)
				return;
		}
	}
}

static void run_windows(uint64_t seed, double end)
{
	static uint64_t generation;
	size_t i;

	seed = mix(seed ^ mix(++generation));
	windows_draw(&windows, &files, seed);
	for (i = 0; i < windows.count && differences < DIFFERENCES_MAX && (i % 64 != 0 || now() < end); i++)
		run_window(&windows.list[i], mix(seed + i));
}

/* ---- what was done ----------------------------------------------------------------------------------------------- */

#define N(number) ((unsigned long long)(number))

static void print_skips(const char *what, const struct skips *skips)
{
	size_t i;

	for (i = 0; i < skips->count; i++)
		printf("%s left out, %llu: %s\n", what, N(skips->list[i].count), skips->list[i].reason);
}

static void print_tally(const char *what, const struct tally *tally)
{
	printf("%s: %llu executions, %llu ended by a fault, %llu late in a call; left out %llu without memory below, "
	       "%llu overwritten pointers, %llu single steps, %llu timeouts, %llu stack pointers that the kernel "
	       "cannot return to; %llu repeated\n",
	       what, N(tally->executions), N(tally->faults), N(tally->late_call_faults), N(tally->below),
	       N(tally->overwritten), N(tally->single_steps), N(tally->timeouts), N(tally->unreturnable),
	       N(tally->retries));
}

static void summary(double reading, double running)
{
	const uint64_t executions = found.executions + generated.executions + displaced.executions;
	size_t i, k, forms[2] = { 0 }, run[2] = { 0 }, complete[2] = { 0 };

	for (i = 0; i < corpus.form_count; i++) {
		k = !corpus.forms[i].found;
		forms[k]++;
		run[k] += corpus.forms[i].executions != 0;
		complete[k] += corpus.forms[i].completed != 0;
		if (getenv("LIBPATCH_DIFFERENTIAL_FORMS"))
			printf("%12llu %12llu %c %s\n", N(corpus.forms[i].executions), N(corpus.forms[i].completed),
			       "-+"[k], corpus.forms[i].text);
	}
	print_skips("instructions", &corpus.skips);
	print_skips("windows", &windows.skips);
	printf("%llu instructions of %zu files read, %llu encodings tried, in %.1f s: %zu different instructions\n",
	       N(corpus.instructions), files.count, N(corpus.enumerated), reading, corpus.pattern_count);
	printf("in binaries: %zu encodings, %zu forms, %zu of them run, %zu without a fault, too\n",
	       corpus.encodings_found, forms[0], run[0], complete[0]);
	printf("generated only: %zu encodings, %zu forms, %zu of them run, %zu without a fault, too\n",
	       corpus.encodings_generated, forms[1], run[1], complete[1]);
	print_tally("in binaries", &found);
	print_tally("generated only", &generated);
	printf("%llu windows, %llu with a branch inside, %llu with a call inside; %llu entries\n", N(windows.built),
	       N(windows.inner_branches), N(windows.calls_inside), N(window_entries));
	print_tally("windows", &displaced);
	printf("windows: %llu ways back to an instruction in place, trapped and led to the copy\n", N(displaced.traps));
	printf("%llu holes passed on ways out of branches, calls and returns\n", N(found.holes + generated.holes));
	printf("%llu executions, %.0f/s\n", N(executions), (double)executions / running);
}

int main(int argc, char **argv)
{
	const char *text = argc > 1 ? argv[1] : getenv("LIBPATCH_STRESS_SECONDS");
	const double seconds = text ? strtod(text, NULL) : 12, begin = now(), end = begin + seconds;
	const char *seed_text = argc > 2 ? argv[2] : getenv("LIBPATCH_STRESS_SEED");
	const uint64_t seed = seed_text ? strtoull(seed_text, NULL, 0) : 1;
	const bool thorough = seconds > 30;
	double ready, time, windows_time = 0;

	machine_far = getenv("LIBPATCH_DIFFERENTIAL_FAR");
	corpus_around = getenv("LIBPATCH_DIFFERENTIAL_AROUND");
	known_differences = getenv("LIBPATCH_DIFFERENTIAL_KNOWN");
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("seed %llu\n", N(seed));
	files_open(&files);
	corpus_read(&corpus, &files, mix(seed), thorough ? SIZE_MAX : 2UL << 20, thorough ? 16 : 4, thorough);
	machine_prepare();
	build_patterns(seed);
	ready = now();
	while (differences < DIFFERENCES_MAX && (time = now()) < end) {
		if (files.text_count == 0 || time - ready <= 2 * windows_time) {
			run_patterns(seed);
		} else {
			run_windows(seed, end);
			windows_time += now() - time;
		}
	}
	summary(ready - begin, now() - ready);
	return differences != 0;
}
