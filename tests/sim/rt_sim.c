/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * rt_sim.c - fibers, the seeded scheduler and the virtual clock.
 *
 * Switching. A fiber is entered once with setcontext() and from then on with _longjmp(), which
 * costs no system call. Whoever gives up the processor picks the successor itself; there is no
 * scheduler fiber in between. AddressSanitizer is told of every switch, or it would take one
 * fiber's stack for an overflow of another's.
 *
 * Choosing. Uniform choice rarely produces the long delays that bugs need, so a history is run in
 * one of three ways:
 *	uniform	   any runnable fiber
 *	starving   as uniform, but one fiber does not run for a while, even if nothing else can: the
 *		   clock jumps past it instead, I/O completes and timers ring
 *	priority   always the runnable fiber of the highest random priority; priorities change at
 *		   random steps (after PCT, Burckhardt et al. 2010)
 * and exhaustive.c runs its own:
 *	calm	   one after the other, and no draw is random: the same program, the same history
 *
 * Time moves a little at every step, and jumps to the next event when no fiber can run. No event
 * and no runnable fiber is a deadlock.
 *
 * The mutexes, conditions and so on that the engine sees are in rt_api.c.
 */
#undef _FORTIFY_SOURCE /* its longjmp refuses to jump to another stack */

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "fiber.h"

#define STACK_BYTES (256u << 10)
#define GUARD_BYTES (16u << 10)
#define EVENTS_MAX 8192u

enum policy { POLICY_UNIFORM, POLICY_STARVE, POLICY_PRIORITY, POLICY_CALM };

/* Where a fiber's registers are. Apart from struct fiber: only this file needs setjmp.h. */
struct context {
	jmp_buf env;
	ucontext_t first;
	bool entered;
	void *stack; /* NULL until first used; kept for later lives */
	size_t stack_bytes;
	void *fake_stack; /* AddressSanitizer's */
};

static struct {
	u64 rng;
	u64 now_ns;
	u64 steps, step_limit, crash_step;

	struct fiber fibers[SIM_FIBERS_MAX];
	struct context contexts[SIM_FIBERS_MAX];
	u32 nr_fibers; /* high-water mark of this life */
	struct fiber *self, *previous;
	struct fiber root;
	struct context root_context;
	enum sim_outcome outcome;

	struct sim_event *heap[EVENTS_MAX + 1];
	u32 nr_events, nr_armed;

	enum policy policy;
	u32 switch_one_in; /* policy uniform and starve: how often a point is a switch */
	struct fiber *victim;
	u64 victim_until;
} sim;

bool sim_tracing, sim_brief;

static char failure[SIM_FAILURE_BYTES];
char *sim_failure = failure;

/* --- randomness --- */

void sim_seed(u64 seed)
{
	sim.rng = seed * 0x9e3779b97f4a7c15ull + 0x1234567;
}

static u64 draw(void)
{
	u64 z = sim.rng += 0x9e3779b97f4a7c15ull; /* splitmix64 */

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

/* Calm: sim_below() is n-1, so that nothing rare happens and every range gives one end of it. */
#define CALM_DRAW 0xffffffffa50003ffull

u64 sim_rand(void)
{
	if (sim.policy == POLICY_CALM)
		return CALM_DRAW;
	return draw();
}

u32 sim_below(u32 n)
{
	return (u32)(((sim_rand() >> 32) * n) >> 32);
}

u32 sim_between(u32 lo, u32 hi)
{
	return lo + sim_below(hi - lo + 1);
}

u32 sim_log_between(u32 lo, u32 hi)
{
	u32 top = hi, bits = 0, cap;

	while ((top >> bits) > lo && bits < 31)
		bits++;
	cap = top >> sim_below(bits + 1);
	return sim_between(lo, cap > lo ? cap : lo);
}

/* --- events: a binary heap ordered by time --- */

static bool earlier(const struct sim_event *a, const struct sim_event *b)
{
	return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->tie < b->tie;
}

static void heap_put(struct sim_event *ev, u32 pos)
{
	sim.heap[pos] = ev;
	ev->pos = pos;
}

static void heap_settle(struct sim_event *ev, u32 pos)
{
	u32 child;

	while (pos > 1 && earlier(ev, sim.heap[pos / 2])) {
		heap_put(sim.heap[pos / 2], pos);
		pos /= 2;
	}
	while ((child = 2 * pos) <= sim.nr_events) {
		if (child < sim.nr_events && earlier(sim.heap[child + 1], sim.heap[child]))
			child++;
		if (!earlier(sim.heap[child], ev))
			break;
		heap_put(sim.heap[child], pos);
		pos = child;
	}
	heap_put(ev, pos);
}

void sim_event_arm(struct sim_event *ev, u64 at_ns)
{
	if (ev->pos)
		sim_event_cancel(ev);
	if (sim.nr_events == EVENTS_MAX)
		sim_fail("the simulator ran out of events: %u I/Os and timers pending", EVENTS_MAX);
	ev->at_ns = at_ns;
	/* Calm: in the order of their arming. */
	ev->tie = sim.policy == POLICY_CALM ? ++sim.nr_armed : (u32)sim_rand();
	sim.nr_events++;
	heap_settle(ev, sim.nr_events);
}

void sim_event_cancel(struct sim_event *ev)
{
	u32 pos = ev->pos;
	struct sim_event *last;

	if (!pos)
		return;
	ev->pos = 0;
	last = sim.heap[sim.nr_events--];
	if (last != ev)
		heap_settle(last, pos);
}

static void fire_due(void)
{
	while (sim.nr_events && sim.heap[1]->at_ns <= sim.now_ns) {
		struct sim_event *ev = sim.heap[1];

		sim_event_cancel(ev);
		ev->fire(ev);
	}
}

/* --- switching --- */

static struct context *context_of(struct fiber *f)
{
	return f == &sim.root ? &sim.root_context : &sim.contexts[f - sim.fibers];
}

/* First thing on a stack that was just switched to. */
static void arrived(struct context *c)
{
#ifdef SIM_ASAN
	const void *bottom;
	size_t bytes;

	__sanitizer_finish_switch_fiber(c->fake_stack, &bottom, &bytes);
	if (sim.previous == &sim.root) {
		sim.root_context.stack = (void *)(uintptr_t)bottom;
		sim.root_context.stack_bytes = bytes;
	}
#else
	(void)c;
#endif
}

/* Go to where SELF is, or begins. Its own function: nothing may live in registers across setjmp. */
static _Noreturn void __attribute__((noinline)) jump(void)
{
	struct context *c = context_of(sim.self);

	if (c->entered)
		_longjmp(c->env, 1);
	c->entered = true;
	setcontext(&c->first);
	abort();
}

static void __attribute__((noinline)) switch_to(struct fiber *to)
{
	struct context *from_c = context_of(sim.self);

	sim.previous = sim.self;
	sim.self = to;
#ifdef SIM_ASAN
	/* A NULL save tells it that this stack will never be returned to. */
	__sanitizer_start_switch_fiber(sim.previous->state == FIBER_DONE ? NULL : &from_c->fake_stack,
				       context_of(to)->stack, context_of(to)->stack_bytes);
#endif
	if (!_setjmp(from_c->env))
		jump();
	arrived(context_of(sim.self));
}

static _Noreturn void leave_to_root(enum sim_outcome outcome)
{
	sim.outcome = outcome;
	switch_to(&sim.root);
	abort();
}

/* --- choosing --- */

static void new_victim(void)
{
	u32 i = sim.nr_fibers ? sim_below(sim.nr_fibers) : 0;

	/* Half of the time nobody is starved, or everything would be equally slow. */
	sim.victim = sim_one_in(2) ? &sim.fibers[i] : NULL;
	sim.victim_until = sim.steps + sim_log_between(4, 2000);
}

static struct fiber *next_in_turn(void)
{
	u32 i, at = (u32)(sim.self - sim.fibers);

	for (i = 1; i <= sim.nr_fibers; i++) {
		struct fiber *f = &sim.fibers[(at + i) % sim.nr_fibers];

		if (f->state == FIBER_RUNNABLE)
			return f;
	}
	return NULL;
}

/* The fiber to run; NULL: none, let time pass. */
static struct fiber *pick(void)
{
	struct fiber *runnable[SIM_FIBERS_MAX], *best = NULL;
	u32 i, n = 0;

	if (sim.policy == POLICY_STARVE && sim.steps >= sim.victim_until)
		new_victim();
	if (sim.policy == POLICY_CALM)
		return next_in_turn();
	for (i = 0; i < sim.nr_fibers; i++) {
		struct fiber *f = &sim.fibers[i];

		if (f->state != FIBER_RUNNABLE)
			continue;
		if (sim.policy == POLICY_STARVE && f == sim.victim && sim.nr_events)
			continue;
		if (!best || f->priority > best->priority)
			best = f;
		runnable[n++] = f;
	}
	if (sim.policy == POLICY_PRIORITY || n <= 1)
		return best;
	return runnable[sim_below(n)];
}

static void count_step(void)
{
	sim.steps++;
	if (sim.steps == sim.crash_step)
		leave_to_root(SIM_CRASHED);
	if (sim.steps > sim.step_limit)
		sim_fail("no end after %llu steps: livelock, or waiting for something that never "
			 "comes",
			 (unsigned long long)sim.steps);
}

static void schedule(void)
{
	struct fiber *next;

	while (!(next = pick())) {
		if (!sim.nr_events)
			sim_fail("deadlock: no fiber can run and nothing is pending");
		if (sim.heap[1]->at_ns > sim.now_ns)
			sim.now_ns = sim.heap[1]->at_ns;
		fire_due();
		count_step();
	}
	if (next != sim.self)
		switch_to(next);
}

void sim_point(void)
{
	u64 r = sim_rand();

	count_step();
	sim.now_ns += r & 2047; /* about a microsecond per step */
	fire_due();
	if (sim.policy == POLICY_PRIORITY) {
		if ((r >> 32) % 64 == 0)
			sim.self->priority = (u32)sim_rand();
		schedule();
	} else if (sim.policy == POLICY_CALM || (r >> 32) % sim.switch_one_in == 0 ||
		   sim.self == sim.victim) {
		schedule();
	}
}

bool sim_block(const char *what, const void *obj, u64 deadline_ns)
{
	struct fiber *f = sim.self;

	f->state = FIBER_BLOCKED;
	f->wait_what = what;
	f->wait_obj = obj;
	f->wait_since_ns = sim.now_ns;
	f->timed_out = false;
	if (deadline_ns != LC_FOREVER)
		sim_event_arm(&f->timer, deadline_ns);
	count_step();
	schedule();
	f->wait_what = NULL;
	f->wait_obj = NULL;
	return f->timed_out;
}

void sim_wake(struct fiber *f)
{
	if (f->state != FIBER_BLOCKED)
		return;
	sim_event_cancel(&f->timer);
	f->state = FIBER_RUNNABLE;
}

static void timer_fired(struct sim_event *ev)
{
	struct fiber *f = (struct fiber *)((char *)ev - offsetof(struct fiber, timer));

	f->timed_out = true;
	sim_wake(f);
}

void sim_sleep(u64 ns)
{
	sim_block("sleep", NULL, sim.now_ns + ns);
}

/* --- fibers --- */

static void fiber_main(void)
{
	struct fiber *f = sim.self;
	u32 i;

	arrived(context_of(f));
	f->fn(f->arg);
	if (f->held)
		sim_fail("fiber %s returned with a mutex locked", f->name);
	f->state = FIBER_DONE;
	if (f == &sim.fibers[0])
		leave_to_root(SIM_RETURNED);
	for (i = 0; i < sim.nr_fibers; i++)
		if (sim.fibers[i].wait_obj == f)
			sim_wake(&sim.fibers[i]);
	count_step();
	schedule();
	abort();
}

static void context_prepare(struct context *c)
{
	if (!c->stack) {
		char *p = mmap(NULL, STACK_BYTES + GUARD_BYTES, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (p == MAP_FAILED || mprotect(p, GUARD_BYTES, PROT_NONE)) {
			perror("logcache-sim: stack");
			exit(2);
		}
		c->stack = p + GUARD_BYTES;
		c->stack_bytes = STACK_BYTES;
	}
#ifdef SIM_ASAN
	/* The last life's frames were never unwound. */
	__asan_unpoison_memory_region(c->stack, c->stack_bytes);
#endif
	getcontext(&c->first);
	c->first.uc_stack.ss_sp = c->stack;
	c->first.uc_stack.ss_size = c->stack_bytes;
	c->first.uc_link = NULL;
	makecontext(&c->first, fiber_main, 0);
	c->entered = false;
	c->fake_stack = NULL;
}

struct fiber *fiber_new(const char *name, void (*fn)(void *), void *arg, bool engine)
{
	struct fiber *f;
	u32 i;

	for (i = 0; i < SIM_FIBERS_MAX && sim.fibers[i].state != FIBER_FREE; i++)
		;
	if (i == SIM_FIBERS_MAX)
		sim_fail("more than %u threads", SIM_FIBERS_MAX);
	if (i >= sim.nr_fibers)
		sim.nr_fibers = i + 1;
	f = &sim.fibers[i];
	memset(f, 0, sizeof(*f));
	f->name = name;
	f->fn = fn;
	f->arg = arg;
	f->engine = engine;
	f->priority = (u32)sim_rand();
	f->timer.fire = timer_fired;
	f->state = FIBER_RUNNABLE;
	context_prepare(context_of(f));
	return f;
}

u32 fiber_number(const struct fiber *f)
{
	return (u32)(f - sim.fibers);
}

struct fiber *fiber_at(u32 i)
{
	return i < sim.nr_fibers ? &sim.fibers[i] : NULL;
}

struct fiber *sim_fiber_start(const char *name, void (*fn)(void *), void *arg)
{
	struct fiber *f = fiber_new(name, fn, arg, false);

	sim_point();
	return f;
}

void sim_fiber_join(struct fiber *f)
{
	while (f->state != FIBER_DONE)
		sim_block("the end of a thread", f, LC_FOREVER);
	f->state = FIBER_FREE;
}

struct fiber *sim_self(void)
{
	return sim.self;
}

const char *sim_fiber_name(const struct fiber *f)
{
	return f ? f->name : "-";
}

u64 sim_now(void)
{
	return sim.now_ns;
}

u64 sim_steps(void)
{
	return sim.steps;
}

/* Reading the clock takes time as well; a loop that waits for it to move must not hang. */
u64 fiber_clock(void)
{
	return sim.now_ns += 20;
}

/* --- lives --- */

void sim_history_begin(u64 step_limit)
{
	static const u32 one_in[] = {1, 2, 2, 8, 32};

	sim.policy = POLICY_UNIFORM;
	sim.self = &sim.root;
	sim.root.name = "root";
	sim.root.state = FIBER_RUNNABLE;
	sim.root_context.entered = true;
	sim.now_ns = sim_below(1000000);
	sim.steps = 0;
	sim.step_limit = step_limit;
	sim.crash_step = 0;
	sim.policy = (enum policy)sim_below(3);
	sim.switch_one_in = one_in[sim_below(5)];
	sim.victim = NULL;
	sim.victim_until = 0;
}

void sim_history_begin_calm(u64 step_limit)
{
	sim_history_begin(step_limit);
	sim.policy = POLICY_CALM;
	sim.now_ns = 0;
	sim.nr_armed = 0;
}

void sim_crash_now(void)
{
	leave_to_root(SIM_CRASHED);
}

void sim_plan_crash(u64 steps)
{
	sim.crash_step = steps ? sim.steps + steps : 0;
}

enum sim_outcome sim_life(const char *name, void (*fn)(void *), void *arg)
{
	struct fiber *f = fiber_new(name, fn, arg, false);

	switch_to(f);
	sim.crash_step = 0;
	return sim.outcome;
}

struct sim_leftover sim_life_end(void)
{
	struct sim_leftover left = {0};
	u32 i;

	for (i = 1; i < sim.nr_fibers; i++)
		left.fibers += sim.fibers[i].state != FIBER_FREE;
	for (i = 0; i < sim.nr_fibers; i++) {
		sim_event_cancel(&sim.fibers[i].timer);
		sim.fibers[i].state = FIBER_FREE;
	}
	sim.nr_fibers = 0;
	sim.victim = NULL;
	memory_drop(&left);
	return left;
}

/* --- saying what happened --- */

void sim_dump_fibers(void)
{
	u32 i;

	fprintf(stderr, "fibers at %.6f ms, step %llu:\n", (double)sim.now_ns / 1e6,
		(unsigned long long)sim.steps);
	for (i = 0; i < sim.nr_fibers; i++) {
		struct fiber *f = &sim.fibers[i];

		if (f->state == FIBER_FREE)
			continue;
		fprintf(stderr, "  %-15s %s", f->name,
			f == sim.self		   ? "running" :
			f->state == FIBER_RUNNABLE ? "runnable" :
			f->state == FIBER_DONE	   ? "returned, not joined" :
						     "waits for ");
		if (f->state == FIBER_BLOCKED && f != sim.self) {
			fprintf(stderr, "%s", f->wait_what);
			wait_describe(f);
			fprintf(stderr, ", since %.6f ms", (double)f->wait_since_ns / 1e6);
		}
		fprintf(stderr, "%s\n", f->held ? ", holds a mutex" : "");
	}
}

void sim_fail(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fprintf(stderr, "\nFAILED: ");
	va_start(ap, fmt);
	vsnprintf(sim_failure, SIM_FAILURE_BYTES, fmt, ap);
	va_end(ap);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n  noticed on fiber %s\n", sim_fiber_name(sim.self));
	sim_dump_fibers();
	sim_report_and_exit();
}

void sim_trace_line(const char *fmt, ...)
{
	static const char *const hidden[] = {"%s: submit", "%s: done", "log %s"};
	va_list ap;
	size_t i;

	for (i = 0; sim_brief && i < sizeof(hidden) / sizeof(hidden[0]); i++)
		if (!strncmp(fmt, hidden[i], strlen(hidden[i])))
			return;
	printf("%12.6f %-12s ", (double)sim.now_ns / 1e6, sim_fiber_name(sim.self));
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
}
