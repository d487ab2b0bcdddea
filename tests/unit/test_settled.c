/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_settled.c - when the engine tells a backing store that nobody's earlier writes can be under way
 * (lc_store_trust): only for a volume that this cache served last, and if at the good end of that life the store was settled.
 */
#include "cache_life.h"

#define BLOCKS 512u /* of a disk */

static unsigned nr_trusted[2];
static bool is_settled[2];

static unsigned number_of(const struct lc_store *s)
{
	return s == &disks[1].store;
}

static void count_trust(struct lc_store *s)
{
	nr_trusted[number_of(s)]++;
}

static bool settled(struct lc_store *s)
{
	return is_settled[number_of(s)];
}

static int setup(void **state)
{
	static struct lc_store_ops ops;
	int ret = life_setup(state);

	make(4 * MIB, 32768, 2, BLOCKS * LC_BLOCK);
	ops = *disks[0].store.ops;
	ops.trust = count_trust;
	ops.settled = settled;
	for (unsigned i = 0; i < 2; i++) {
		disks[i].store.ops = &ops;
		is_settled[i] = true;
	}
	return ret;
}

static void open_and_count(void)
{
	memset(nr_trusted, 0, sizeof nr_trusted);
	must_open();
}

/* A life in which the log grows. */
static void live(void)
{
	open_and_count();
	put(0, 10, 3, 1);
	flush();
	assert_int_equal(close_cache(), 0);
}

static void new_volumes_are_not_trusted(void **state)
{
	(void)state;
	live();
	assert_int_equal(nr_trusted[0] + nr_trusted[1], 0);
	/* They began in that life, which looks as if they had been left out before. */
	live();
	assert_int_equal(nr_trusted[0] + nr_trusted[1], 0);
	live();
	assert_int_equal(nr_trusted[0], 1);
	assert_int_equal(nr_trusted[1], 1);
}

static void unsettled_end_is_not_trusted(void **state)
{
	(void)state;
	live();
	live();
	is_settled[1] = false;
	live();
	assert_int_equal(nr_trusted[0], 1);
	/* The superblock has one word for all of them. */
	live();
	assert_int_equal(nr_trusted[0] + nr_trusted[1], 0);
	is_settled[1] = true;
	live();
	assert_int_equal(nr_trusted[0] + nr_trusted[1], 0);
	live();
	assert_int_equal(nr_trusted[0], 1);
	assert_int_equal(nr_trusted[1], 1);
}

static void crash_is_not_trusted(void **state)
{
	(void)state;
	live();
	live();
	open_and_count();
	assert_int_equal(nr_trusted[0], 1);
	crash();
	open_and_count();
	assert_int_equal(nr_trusted[0] + nr_trusted[1], 0);
	assert_int_equal(close_cache(), 0);
	live();
	assert_int_equal(nr_trusted[0], 1);
}

static void volume_left_out_is_not_trusted(void **state)
{
	(void)state;
	live();
	live();
	settings.writeback = true;
	open_and_count();
	must_drain();
	assert_int_equal(close_cache(), 0);
	nr_specs = 1;
	live();
	assert_int_equal(nr_trusted[0], 1);
	nr_specs = 2;
	live();
	assert_int_equal(nr_trusted[0], 1);
	assert_int_equal(nr_trusted[1], 0);
	live();
	assert_int_equal(nr_trusted[1], 1);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, life_teardown)
	const struct CMUnitTest tests[] = {
		T(new_volumes_are_not_trusted),
		T(unsettled_end_is_not_trusted),
		T(crash_is_not_trusted),
		T(volume_left_out_is_not_trusted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
