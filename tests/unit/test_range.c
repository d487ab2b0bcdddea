/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_range.c - ranges of blocks that are being changed: who has to wait for whom.
 */
#include "mem_store.h"

#include <pthread.h>
#include <time.h>

#include "range.h"

static struct lc_mutex lock;
static struct lc_ranges ranges;

static int setup(void **state)
{
	(void)state;
	lc_mutex_init(&lock);
	lc_ranges_init(&ranges, &lock);
	lc_mutex_lock(&lock);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	lc_mutex_unlock(&lock);
	lc_ranges_destroy(&ranges); /* asserts that everybody left */
	lc_mutex_destroy(&lock);
	return 0;
}

static void enter(struct lc_range *r, u64 block, u32 nr, bool exclusive)
{
	*r = (struct lc_range){.block = block, .nr = nr, .exclusive = exclusive};
	lc_range_enter(&ranges, r);
}

/* --- shared ones --- */

static void shared_ranges_do_not_mind_each_other(void **state)
{
	struct lc_range a, b;

	(void)state;
	enter(&a, 10, 20, false);
	assert_int_equal(lc_ranges_free(&ranges, 0, 100), 100);
	enter(&b, 15, 20, false);
	assert_int_equal(lc_ranges_free(&ranges, 15, 20), 20);
	lc_range_leave(&ranges, &a); /* in any order */
	lc_range_leave(&ranges, &b);
}

static void a_shared_range_ends_before_an_exclusive_one(void **state)
{
	static const struct {
		u64 block;
		u32 nr, free;
	} wanted[] = {
		{0, 10, 10},  /* before it */
		{0, 11, 10},  /* cut short */
		{9, 100, 1},  /* so far */
		{10, 1, 0},   /* its first block */
		{19, 50, 0},  /* its last */
		{20, 30, 30}, /* behind it, up to the next one */
		{20, 31, 30}, /* which begins at 50 */
		{0, 60, 10},  /* the first of two counts */
		{60, UINT32_MAX, UINT32_MAX},
		{1ull << 39, 7, 7},
	};
	struct lc_range first, second, shared;

	(void)state;
	for (u32 order = 0; order < 2; order++) {
		enter(order ? &second : &first, order ? 50 : 10, 10, true);
		enter(&shared, 60, 5, false);
		enter(order ? &first : &second, order ? 10 : 50, 10, true);
		for (u32 i = 0; i < sizeof wanted / sizeof *wanted; i++)
			assert_int_equal(lc_ranges_free(&ranges, wanted[i].block, wanted[i].nr),
					 wanted[i].free);
		lc_range_leave(&ranges, &first);
		assert_int_equal(lc_ranges_free(&ranges, 0, 60), 50);
		lc_range_leave(&ranges, &shared);
		lc_range_leave(&ranges, &second);
		assert_int_equal(lc_ranges_free(&ranges, 0, 60), 60);
	}
}

/* --- with threads --- */

/* Somebody who enters in a thread of its own; its steps, in the order in which they happened. */
static char steps[16];
static u32 nr_steps; /* guarded by lock */

static void step(char c)
{
	assert_true(nr_steps < sizeof steps - 1);
	steps[nr_steps++] = c;
	steps[nr_steps] = 0;
}

struct visitor {
	pthread_t thread;
	char name; /* small when it begins, large when it is in */
	void (*enter)(struct lc_ranges *rs, struct lc_range *r);
	struct lc_range range;
};

static void *visit(void *arg)
{
	struct visitor *v = arg;

	lc_mutex_lock(&lock);
	step(v->name);
	v->enter(&ranges, &v->range);
	step(v->name + 'A' - 'a');
	lc_range_leave(&ranges, &v->range);
	lc_mutex_unlock(&lock);
	return NULL;
}

/* Let others run, until somebody waits or a while has passed. Returns how many wait. */
static u32 wait_for_waiters(u32 nr)
{
	for (u32 i = 0; i < 500 && ranges.waiters < nr; i++) {
		struct timespec t = {.tv_nsec = 1000000};

		lc_mutex_unlock(&lock);
		(void)nanosleep(&t, NULL);
		lc_mutex_lock(&lock);
	}
	return ranges.waiters;
}

static void begin(struct visitor *v, char name, void (*fn)(struct lc_ranges *, struct lc_range *),
		  u64 block, u32 nr)
{
	*v = (struct visitor){.name = name,
			      .enter = fn,
			      .range = {.block = block, .nr = nr, .exclusive = true}};
	assert_int_equal(pthread_create(&v->thread, NULL, visit, v), 0);
}

static void end(struct visitor *v)
{
	lc_mutex_unlock(&lock);
	assert_int_equal(pthread_join(v->thread, NULL), 0);
	lc_mutex_lock(&lock);
}

static void forget_steps(void)
{
	nr_steps = 0;
	steps[0] = 0;
}

static void alone_waits_until_nobody_overlaps(void **state)
{
	struct lc_range a, b, other;
	struct visitor v;

	(void)state;
	forget_steps();
	enter(&a, 10, 10, false);
	enter(&b, 15, 10, true);
	enter(&other, 25, 10, true); /* touches it: no matter */
	begin(&v, 'v', lc_range_enter_alone, 19, 6);
	assert_int_equal(wait_for_waiters(1), 1);
	/* it does not keep anybody out while it waits */
	assert_int_equal(lc_ranges_free(&ranges, 0, 30), 15);
	lc_range_leave(&ranges, &b);
	assert_int_equal(lc_ranges_free(&ranges, 15, 10), 10);
	assert_int_equal(wait_for_waiters(1), 1); /* for the other one */
	assert_string_equal(steps, "v");
	lc_range_leave(&ranges, &a);
	end(&v);
	assert_string_equal(steps, "vV");
	lc_range_leave(&ranges, &other);
}

static void first_keeps_others_out_while_it_waits(void **state)
{
	struct lc_range writer;
	struct visitor zero, part;

	(void)state;
	forget_steps();
	enter(&writer, 10, 10, false);
	begin(&zero, 'z', lc_range_enter_first, 0, 100);
	assert_int_equal(wait_for_waiters(1), 1);
	assert_int_equal(lc_ranges_free(&ranges, 50, 10), 0); /* no new writer */
	assert_int_equal(lc_ranges_free(&ranges, 100, 10), 10);
	begin(&part, 'p', lc_range_enter_alone, 50, 1);
	assert_int_equal(wait_for_waiters(2), 2);
	assert_string_equal(steps, "zp");
	lc_range_leave(&ranges, &writer);
	end(&zero);
	end(&part);
	assert_string_equal(steps, "zpZP");
	assert_int_equal(lc_ranges_free(&ranges, 50, 10), 10);
}

/* Two that enter first and overlap: the one that came first goes first; there is no circle. */
static void of_two_first_ones_the_older_goes_first(void **state)
{
	struct lc_range writers[2];
	struct visitor a, b;

	(void)state;
	for (u32 round = 0; round < 20; round++) {
		forget_steps();
		enter(&writers[0], 10, 1, false);
		enter(&writers[1], 90, 1, true);
		begin(&a, 'a', lc_range_enter_first, 0, 60);
		assert_int_equal(wait_for_waiters(1), 1);
		begin(&b, 'b', lc_range_enter_first, 50, 50);
		assert_int_equal(wait_for_waiters(2), 2);
		/* B has nobody but A before it, once this one is gone */
		lc_range_leave(&ranges, &writers[1]);
		assert_int_equal(wait_for_waiters(2), 2);
		assert_string_equal(steps, "ab");
		lc_range_leave(&ranges, &writers[0]);
		end(&a);
		end(&b);
		assert_string_equal(steps, "abAB");
	}
}

/* Who wants a shared range waits until some range was left, and looks again. */
static void *shared_visit(void *arg)
{
	struct lc_range r = {.block = 5, .nr = 10};

	(void)arg;
	lc_mutex_lock(&lock);
	while (!(r.nr = lc_ranges_free(&ranges, r.block, 10)))
		lc_ranges_wait(&ranges);
	lc_range_enter(&ranges, &r);
	step('S');
	assert_int_equal(r.nr, 10);
	lc_range_leave(&ranges, &r);
	lc_mutex_unlock(&lock);
	return NULL;
}

static void a_shared_range_waits_for_an_exclusive_one(void **state)
{
	struct lc_range a, far;
	pthread_t thread;

	(void)state;
	forget_steps();
	enter(&a, 5, 1, true);
	enter(&far, 500, 1, true);
	assert_int_equal(pthread_create(&thread, NULL, shared_visit, NULL), 0);
	assert_int_equal(wait_for_waiters(1), 1);
	lc_range_leave(&ranges, &far); /* wakes it in vain */
	assert_string_equal(steps, "");
	lc_range_leave(&ranges, &a);
	lc_mutex_unlock(&lock);
	assert_int_equal(pthread_join(thread, NULL), 0);
	lc_mutex_lock(&lock);
	assert_string_equal(steps, "S");
}

/* --- many at once --- */

#define THREADS 6u
#define BLOCKS 40u

/* Guarded by lock: how many shared and exclusive holders each block has. */
static struct {
	u32 shared, exclusive;
} holders[BLOCKS];

static void hold(const struct lc_range *r, int sign)
{
	for (u64 b = r->block; b < r->block + r->nr; b++) {
		if (r->exclusive)
			holders[b].exclusive += sign;
		else
			holders[b].shared += sign;
		assert_true(!holders[b].exclusive ||
			    (holders[b].exclusive == 1 && !holders[b].shared));
	}
}

static void *crowd(void *arg)
{
	u64 seed = (uintptr_t)arg;

	for (u32 i = 0; i < 3000; i++) {
		struct lc_range r = {.block = rnd_below(&seed, BLOCKS),
				     .exclusive = rnd_below(&seed, 2)};

		r.nr = 1 + rnd_below(&seed, BLOCKS - r.block);
		lc_mutex_lock(&lock);
		if (r.exclusive && rnd_below(&seed, 2)) {
			lc_range_enter_first(&ranges, &r);
		} else if (r.exclusive) {
			lc_range_enter_alone(&ranges, &r);
		} else {
			u32 wanted = r.nr;

			while (!(r.nr = lc_ranges_free(&ranges, r.block, wanted)))
				lc_ranges_wait(&ranges);
			lc_range_enter(&ranges, &r);
		}
		hold(&r, 1);
		lc_mutex_unlock(&lock);
		lc_mutex_lock(&lock);
		hold(&r, -1);
		lc_range_leave(&ranges, &r);
		lc_mutex_unlock(&lock);
	}
	return NULL;
}

static void no_two_change_what_one_has_for_itself(void **state)
{
	pthread_t threads[THREADS];

	(void)state;
	lc_mutex_unlock(&lock);
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, crowd, (void *)(i + 1)), 0);
	for (u32 i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	lc_mutex_lock(&lock);
	assert_int_equal(ranges.nr_exclusive, 0);
	assert_int_equal(ranges.waiters, 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(shared_ranges_do_not_mind_each_other),
		T(a_shared_range_ends_before_an_exclusive_one),
		T(alone_waits_until_nobody_overlaps),
		T(first_keeps_others_out_while_it_waits),
		T(of_two_first_ones_the_older_goes_first),
		T(a_shared_range_waits_for_an_exclusive_one),
		T(no_two_change_what_one_has_for_itself),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
