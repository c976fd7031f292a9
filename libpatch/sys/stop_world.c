/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * By a child that traces them (tracer.h): it goes through the threads until it finds none that has not stopped. One
 * that has not been found may have made others meanwhile; those that have stopped make none.
 */
#include "sys/stop_world.h"

#include "base/heap.h"
#include "sys/tasks.h"
#include "sys/tracer.h"

struct stopped {
	pid_t tid;
	pid_t number;
	struct tracer_event event; /* not stopped: it is on its way */
};

struct world {
	void (*run)(void *);
	void *data;
	pid_t self;
	size_t visited; /* in this round */
	size_t met;     /* for the first time */
	bool failed;
	bool done;
	struct tracer_patience patience;
};

static struct stopped *threads GUARDED_BY(library_lock);
static size_t count GUARDED_BY(library_lock), room GUARDED_BY(library_lock);

static bool stop_world_knows(pid_t tid) REQUIRES(library_lock)
{
	for (size_t i = 0; i < count; ++i)
		if (threads[i].tid == tid)
			return true;
	return false;
}

/* A tasks_visit_fn. */
static bool stop_world_meet(pid_t tid, void *data) REQUIRES(library_lock)
{
	struct world *world = data;
	struct stopped thread = { .tid = tid };

	++world->visited;
	if (tid == world->self || stop_world_knows(tid) || !tasks_may_run(tid))
		return true;
	if (heap_reserve(&threads, &room, count + 1, sizeof(*threads)))
		thread.number = tracer_interrupt(tid);
	/* It may have ended since. */
	if (thread.number == 0)
		world->failed = tasks_may_run(tid);
	else
		threads[count++] = thread;
	++world->met;
	return !world->failed;
}

static size_t stop_world_find(pid_t number) REQUIRES(library_lock)
{
	size_t i = 0;

	while (i < count && threads[i].number != number)
		++i;
	return i;
}

/* Takes note of those that have stopped or ended. Were there any? */
static bool stop_world_note_stopped(void) REQUIRES(library_lock)
{
	struct tracer_event event;
	bool any = false;
	long number;

	for (; (number = tracer_look(-1, &event)) > 0; any = true) {
		const size_t i = stop_world_find((pid_t)number);

		if (i < count && event.stopped)
			threads[i].event = event;
		else if (i < count)
			threads[i] = threads[--count];
	}
	return any;
}

static bool stop_world_all_have_stopped(void) REQUIRES(library_lock)
{
	for (size_t i = 0; i < count; ++i)
		if (!threads[i].event.stopped)
			return false;
	return true;
}

static bool stop_world_is_hopeless(void) REQUIRES(library_lock)
{
	for (size_t i = 0; i < count; ++i)
		if (!threads[i].event.stopped && tracer_is_hopeless(threads[i].tid, threads[i].number))
			return true;
	return false;
}

/* False: one will not stop, or has not for too long. */
static bool stop_world_wait(struct tracer_patience *patience) REQUIRES(library_lock)
{
	for (;;) {
		const bool any = stop_world_note_stopped();

		if (stop_world_all_have_stopped())
			return true;
		if (any)
			continue;
		if (!tracer_is_patient(patience))
			return false;
		tracer_nap(patience);
		if (stop_world_is_hopeless())
			return false;
	}
}

/*
 * Nobody begins or ends once all that are there have stopped, so that a round that finds no other has found all. It has
 * to find as many as there are: where some come and go, the directory may skip others.
 */
static bool stop_world_stop(struct world *world) REQUIRES(library_lock)
{
	bool all = false;

	do {
		const size_t there = tasks_count_of(world->self);

		world->visited = 0;
		world->met = 0;
		if (!tasks_visit_of(world->self, stop_world_meet, world) || world->failed ||
		    !stop_world_wait(&world->patience))
			return false;
		all = world->met == 0 && world->visited == there && tasks_count_of(world->self) == there;
	} while (!all && tracer_is_patient(&world->patience));
	return all;
}

/* In the child. */
static void stop_world_child(void *data) REQUIRES(library_lock)
{
	struct world *world = data;

	count = 0;
	tracer_begin_to_wait(&world->patience);
	world->done = stop_world_stop(world);
	if (world->done)
		world->run(world->data);
	for (size_t i = 0; i < count; ++i)
		tracer_let_go(threads[i].number, &threads[i].event);
}

bool stop_world_and_run(void (*run)(void *), void *data)
{
	struct world world = { .run = run, .data = data, .self = tasks_self() };

	tracer_run(stop_world_child, &world);
	return world.done;
}
