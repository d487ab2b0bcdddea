/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_settled.c - when the engine tells a backing store that nobody's earlier writes can be under way
 * (lc_store_trust): only for a volume that this cache served last, and if at the good end of that life the store was settled.
 */
#include <pthread.h>

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

/* --- a write that somebody asked for before, and that is executed late --- */

static u64 quiet_at_ns;

static u64 quiet_ns(struct lc_store *s)
{
	(void)s;
	return quiet_at_ns;
}

static void *late_write(void *arg)
{
	(void)arg;
	sleep_ms(300);
	memset(disks[0].data, 0xaa, LC_BLOCK); /* block 0 is a sample */
	return NULL;
}

/* An earlier user was killed a moment ago; opened and attached is what OPEN does, and the cache is used, and crashes. */
static void expect_no_refusal(void (*open)(void))
{
	struct lc_store_ops ops = *disks[0].store.ops;
	pthread_t thread;

	ops.quiet_ns = quiet_ns;
	disks[0].store.ops = &ops;
	quiet_at_ns = lc_now_ns() + 400 * LC_NS_PER_MS;
	assert_int_equal(pthread_create(&thread, NULL, late_write, NULL), 0);
	open();
	assert_int_equal(pthread_join(thread, NULL), 0);
	put(0, 10, 3, 1);
	flush();
	crash();
	must_open();
	assert_reads(0, 10, 3, 1);
	must_close();
}

/* A fingerprint that was taken before it came made the next start refuse the disk, with unwritten data for it in the cache. */
static void fingerprints_of_new_volumes_wait_for_late_writes(void **state)
{
	(void)state;
	expect_no_refusal(must_open);
}

static void open_and_attach(void)
{
	with_ssd = false;
	must_open();
	with_ssd = true;
	assert_int_equal(lc_cache_attach(cache, &ssd.store, &error), 0);
}

static void fingerprints_of_an_attach_wait_for_late_writes(void **state)
{
	(void)state;
	expect_no_refusal(open_and_attach);
}

/* It was detached and served without the cache, by a server that was killed. */
static void fingerprints_of_unverified_volumes_wait_for_late_writes(void **state)
{
	(void)state;
	settings.writeback = true;
	must_open();
	put(0, 10, 3, 1);
	assert_int_equal(lc_cache_detach(cache, &error), 0);
	settings.writeback = false;
	must_close();
	expect_no_refusal(must_open);
}

/* It was changed without the cache: the new fingerprint is no better before that. */
static void fingerprints_of_changed_volumes_wait_for_late_writes(void **state)
{
	(void)state;
	must_open();
	must_close();
	memset(disks[0].data, 0xbb, LC_BLOCK);
	expect_no_refusal(must_open);
}

static void *interrupt(void *arg)
{
	(void)arg;
	sleep_ms(50);
	lc_cache_interrupt(cache);
	return NULL;
}

static void an_attach_that_waits_can_be_interrupted(void **state)
{
	struct lc_store_ops ops = *disks[0].store.ops;
	pthread_t thread;

	(void)state;
	ops.quiet_ns = quiet_ns;
	disks[0].store.ops = &ops;
	quiet_at_ns = lc_now_ns() + 3600 * LC_NS_PER_S;
	with_ssd = false;
	must_open();
	with_ssd = true;
	assert_int_equal(pthread_create(&thread, NULL, interrupt, NULL), 0);
	assert_int_equal(lc_cache_attach(cache, &ssd.store, &error), -ECANCELED);
	assert_int_equal(pthread_join(thread, NULL), 0);
	must_close();
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, life_teardown)
	const struct CMUnitTest tests[] = {
		T(new_volumes_are_not_trusted),
		T(unsettled_end_is_not_trusted),
		T(crash_is_not_trusted),
		T(volume_left_out_is_not_trusted),
		T(fingerprints_of_new_volumes_wait_for_late_writes),
		T(fingerprints_of_an_attach_wait_for_late_writes),
		T(fingerprints_of_unverified_volumes_wait_for_late_writes),
		T(fingerprints_of_changed_volumes_wait_for_late_writes),
		T(an_attach_that_waits_can_be_interrupted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
