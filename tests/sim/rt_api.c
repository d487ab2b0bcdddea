/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * rt_api.c - rt.h on fibers: what the engine believes to be mutexes, threads, time and memory.
 *
 * Everything that the contract leaves open is used against the engine: a signal wakes any waiter, a
 * wait may end without a cause, a mutex goes to whoever comes first, a copy stops in its middle.
 * Everything that the contract forbids ends the history: unlocking what another fiber locked,
 * locking twice, freeing with another size, sleeping with a mutex held.
 *
 * Freed memory is filled with rubbish, so that a late reader notices without AddressSanitizer too.
 */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fiber.h"

#define MUTEX_MAGIC 0x6d757478u
#define COND_MAGIC 0x636f6e64u
#define THREAD_MAGIC 0x74687264u
#define ALLOCATIONS_MAX 4096u

struct mutex {
	u32 magic;
	u32 waiters;
	struct fiber *owner;
};

struct cond {
	u32 magic;
	u32 waiters;
};

struct thread {
	u32 magic;
	struct fiber *fiber;
};

static_assert(sizeof(struct mutex) <= sizeof(struct lc_mutex), "fits");
static_assert(sizeof(struct cond) <= sizeof(struct lc_cond), "fits");
static_assert(sizeof(struct thread) <= sizeof(struct lc_thread), "fits");

/* The life's allocations, in no order. */
static struct {
	void *p;
	size_t n;
	void *chunk; /* what is to be freed */
} allocations[ALLOCATIONS_MAX];
static u32 nr_allocations;

static const char wait_mutex[] = "a mutex";

static struct mutex *mutex_of(struct lc_mutex *m)
{
	struct mutex *x = (struct mutex *)m->opaque;

	if (x->magic != MUTEX_MAGIC)
		sim_fail("a mutex that is not initialised, or was destroyed, is used");
	return x;
}

static struct cond *cond_of(struct lc_cond *c)
{
	struct cond *x = (struct cond *)c->opaque;

	if (x->magic != COND_MAGIC)
		sim_fail("a condition that is not initialised, or was destroyed, is used");
	return x;
}

/* Wake any one of the fibers that wait for OBJ. */
static void wake_any(const void *obj)
{
	struct fiber *f, *chosen = NULL;
	u32 i, n = 0;

	for (i = 0; (f = fiber_at(i)); i++)
		if (f->state == FIBER_BLOCKED && f->wait_obj == obj && sim_one_in(++n))
			chosen = f;
	if (chosen)
		sim_wake(chosen);
}

void wait_describe(const struct fiber *f)
{
	const struct mutex *m = f->wait_obj;

	if (f->wait_what == wait_mutex)
		fprintf(stderr, " held by %s", sim_fiber_name(m->owner));
}

void sim_assert_unlocked(const char *what)
{
	if (sim_self()->held)
		sim_fail("%s called %s while it holds a mutex", sim_fiber_name(sim_self()), what);
}

/* --- mutex --- */

void lc_mutex_init(struct lc_mutex *m)
{
	struct mutex *x = (struct mutex *)m->opaque;

	*x = (struct mutex){.magic = MUTEX_MAGIC};
}

void lc_mutex_destroy(struct lc_mutex *m)
{
	struct mutex *x = mutex_of(m);

	if (x->owner || x->waiters)
		sim_fail("a mutex is destroyed while %s",
			 x->owner ? "it is locked" : "somebody waits for it");
	x->magic = 0;
}

static void acquire(struct mutex *x)
{
	struct fiber *f = sim_self();

	if (x->owner == f)
		sim_fail("%s locks a mutex that it holds already", sim_fiber_name(f));
	while (x->owner) {
		x->waiters++;
		sim_block(wait_mutex, x, LC_FOREVER);
		x->waiters--;
	}
	x->owner = f;
	f->held++;
}

static void release(struct mutex *x)
{
	struct fiber *f = sim_self();

	if (x->owner != f)
		sim_fail("%s unlocks a mutex that %s holds", sim_fiber_name(f),
			 x->owner ? sim_fiber_name(x->owner) : "nobody");
	x->owner = NULL;
	f->held--;
	if (x->waiters)
		wake_any(x);
}

void lc_mutex_lock(struct lc_mutex *m)
{
	struct mutex *x = mutex_of(m);

	sim_point();
	acquire(x);
}

void lc_mutex_unlock(struct lc_mutex *m)
{
	release(mutex_of(m));
	sim_point();
}

/* --- condition --- */

void lc_cond_init(struct lc_cond *c)
{
	struct cond *x = (struct cond *)c->opaque;

	*x = (struct cond){.magic = COND_MAGIC};
}

void lc_cond_destroy(struct lc_cond *c)
{
	struct cond *x = cond_of(c);

	if (x->waiters)
		sim_fail("a condition is destroyed while somebody waits for it");
	x->magic = 0;
}

int lc_cond_wait(struct lc_cond *c, struct lc_mutex *m, u64 deadline_ns)
{
	struct cond *x = cond_of(c);
	struct mutex *mx = mutex_of(m);
	bool late;

	if (sim_self()->held != 1)
		sim_fail("%s waits for a condition with %u mutexes held",
			 sim_fiber_name(sim_self()), sim_self()->held);
	release(mx);
	if (deadline_ns <= sim_now()) {
		sim_point();
		late = true;
	} else if (sim_one_in(32)) {
		sim_point(); /* a wake-up without a cause */
		late = false;
	} else {
		x->waiters++;
		late = sim_block("a condition", x, deadline_ns);
		x->waiters--;
	}
	acquire(mx);
	return late ? -ETIMEDOUT : 0;
}

void lc_cond_signal(struct lc_cond *c)
{
	wake_any(cond_of(c));
	sim_point();
}

void lc_cond_broadcast(struct lc_cond *c)
{
	struct cond *x = cond_of(c);
	struct fiber *f;
	u32 i;

	for (i = 0; (f = fiber_at(i)); i++)
		if (f->wait_obj == x)
			sim_wake(f);
	sim_point();
}

/* --- threads --- */

int lc_thread_start(struct lc_thread *t, const char *name, void (*fn)(void *), void *arg)
{
	struct thread *x = (struct thread *)t->opaque;

	if (strlen(name) > 15)
		sim_fail("the thread name \"%s\" is longer than 15 characters", name);
	*x = (struct thread){.magic = THREAD_MAGIC, .fiber = fiber_new(name, fn, arg, true)};
	sim_point();
	return 0;
}

void lc_thread_join(struct lc_thread *t)
{
	struct thread *x = (struct thread *)t->opaque;

	if (x->magic != THREAD_MAGIC)
		sim_fail("a thread that was not started, or is joined already, is joined");
	sim_assert_unlocked("lc_thread_join");
	sim_fiber_join(x->fiber);
	x->magic = 0;
}

/* --- time and chance --- */

u64 lc_now_ns(void)
{
	return fiber_clock();
}

void lc_random(void *buf, size_t n)
{
	u8 *p = buf;

	while (n--)
		*p++ = (u8)(sim_rand() >> 24);
}

/* --- memory --- */

#ifdef SIM_ASAN
/*
 * AddressSanitizer maps each large chunk afresh, and keeps it for a while when it was freed. A tiny cache touches
 * little of what is sized for real ones, so nothing is filled here: that would be most of all page faults. What
 * is before, behind, or free already is known to the sanitizer, byte for byte.
 */
static void *zeroed(size_t n, void **chunk)
{
	size_t align = n >= 4096 ? 4096 : 16;
	u8 *c = calloc(1, n + align), *p;

	if (!c)
		return NULL;
	*chunk = c;
	p = c + (-(uintptr_t)c & (align - 1));
	__asan_poison_memory_region(c, p - c);
	__asan_poison_memory_region(p + n, c + align - p);
	return p;
}

static void spoil(void *p, size_t n)
{
	(void)p;
	(void)n;
}
#else
static void *zeroed(size_t n, void **chunk)
{
	if (posix_memalign(chunk, n >= 4096 ? 4096 : 16, n ? n : 1))
		return NULL;
	return memset(*chunk, 0, n);
}

static void spoil(void *p, size_t n)
{
	memset(p, 0xdd, n);
}
#endif

void *lc_alloc(size_t n)
{
	void *p, *chunk;

	sim_assert_unlocked("lc_alloc");
	if (nr_allocations == ALLOCATIONS_MAX)
		sim_fail("more than %u allocations in one life", ALLOCATIONS_MAX);
	p = zeroed(n, &chunk);
	if (!p)
		return NULL;
	allocations[nr_allocations].p = p;
	allocations[nr_allocations].chunk = chunk;
	allocations[nr_allocations++].n = n;
	return p;
}

void lc_free(void *p, size_t n)
{
	void *chunk;
	u32 i;

	if (!p)
		return;
	for (i = nr_allocations; i > 0 && allocations[i - 1].p != p; i--)
		;
	if (!i)
		sim_fail("lc_free of memory that lc_alloc did not give, or that is free already");
	if (allocations[i - 1].n != n)
		sim_fail("lc_free with %zu bytes of what was allocated with %zu", n,
			 allocations[i - 1].n);
	chunk = allocations[i - 1].chunk;
	allocations[i - 1] = allocations[--nr_allocations];
	spoil(p, n);
	free(chunk);
}

void memory_drop(struct sim_leftover *left)
{
	left->allocations = nr_allocations;
	while (nr_allocations) {
		nr_allocations--;
		left->bytes += allocations[nr_allocations].n;
		free(allocations[nr_allocations].chunk);
	}
}

/* --- copies --- */

void lc_copy(void *dst, const void *src, size_t n)
{
	u8 *d = dst;
	const u8 *s = src;
	size_t cut;

	sim_assert_unlocked("lc_copy");
	if (n < 2) {
		memcpy(d, s, n);
		return;
	}
	/* Between sectors, or inside one; either half first. */
	cut = 1 + sim_below((u32)n - 1);
	if (n > LC_SECTOR && sim_one_in(2))
		cut = LC_SECTOR * (1 + sim_below((u32)((n - 1) / LC_SECTOR)));
	if (sim_one_in(2)) {
		memcpy(d, s, cut);
		sim_point();
		memcpy(d + cut, s + cut, n - cut);
	} else {
		memcpy(d + cut, s + cut, n - cut);
		sim_point();
		memcpy(d, s, cut);
	}
	sim_point();
}

/* --- messages --- */

void lc_log(enum lc_log_level level, const char *fmt, ...)
{
	static const char *const names[] = {"debug", "info", "warning", "error"};
	char line[512];
	va_list ap;

	if (!sim_tracing)
		return;
	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	sim_trace_line("log %s: %s", names[level], line);
}
