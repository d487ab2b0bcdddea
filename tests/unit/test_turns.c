/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_turns.c - volumes that take turns in write-back while the store of one of them fails: what the others
 * have to do must not keep anybody from hearing of it, nor keep the one that failed from its next attempt.
 */
#include "cache_life.h"
#include <pthread.h>
#include <stdatomic.h>

#define NR_OTHERS 40u

static atomic_bool drained;
static int drain_result;

static void *drain(void *arg)
{
	(void)arg;
	drain_result = lc_cache_drain(cache);
	atomic_store(&drained, true);
	return NULL;
}

/* A drain is under way, and waits for a store that fails. */
static pthread_t begin_drain(void)
{
	pthread_t t;
	u64 errors = stats().backing_errors;

	atomic_store(&drained, false);
	pthread_create(&t, NULL, drain, NULL);
	must_become(stats().backing_errors > errors);
	return t;
}

/* It hears of the failure, before the store works again; and CLIENT ends with it. */
static void must_fail(pthread_t t, const pthread_t *client)
{
	u64 end_ms = now_ms() + 4000;
	bool in_time;

	while (!atomic_load(&drained) && now_ms() < end_ms)
		sleep_ms(5);
	in_time = atomic_load(&drained);
	disks[0].write_error = 0;
	pthread_join(t, NULL);
	if (client)
		pthread_join(*client, NULL);
	assert_true(in_time);
	assert_int_equal(drain_result, -EIO);
}

static int slow_flush(struct lc_store *s)
{
	sleep_ms(100);
	return mem_flush(s);
}

/* Two volumes; the first one's store fails, the second one's is slow. */
static void make_two(void)
{
	static struct lc_store_ops ops;

	make(32 * MIB, 32768, 2, MIB); /* room for all that is written meanwhile */
	ops = *disks[1].store.ops;
	ops.flush = slow_flush;
	disks[1].store.ops = &ops;
	settings.retry_ms = 100;
	must_open();
	disks[0].write_error = -EIO;
	put(0, 0, 1, 1);
	put(1, 0, 1, 1);
}

/*
 * One block of another volume, written after the drain began, stands in the open segment, which nobody closes: that volume
 * had something to write back for ever, and the drain (a detach, too) never ended.
 */
static void a_block_in_the_open_segment_does_not_hide_a_failure(void **state)
{
	pthread_t t;

	(void)state;
	make_two();
	t = begin_drain();
	put(1, 9, 1, 2); /* while the second volume has its turn */
	must_fail(t, NULL);
	must_close();
}

/*
 * Both stores need longer to fail than they are left alone for: one of them was always due again when the other one's turn
 * ended, so no turn was without an error, and only such a one told who drains. A drain (a detach, too) never ended.
 */
static void stores_that_take_turns_in_failing_do_not_hide_it(void **state)
{
	u64 end_ms;
	bool in_time;
	pthread_t t;

	(void)state;
	make(32 * MIB, 32768, 2, MIB);
	must_open();
	for (unsigned i = 0; i < 2; i++) {
		disks[i].flush_error = -EIO;
		disks[i].flush_ms = settings.retry_ms * 20; /* the longest pause is 16 times that */
		put(i, 0, 1, 1);
	}
	t = begin_drain();
	for (end_ms = now_ms() + 4000; !atomic_load(&drained) && now_ms() < end_ms;)
		sleep_ms(5);
	in_time = atomic_load(&drained);
	disks[0].flush_error = disks[1].flush_error = 0;
	pthread_join(t, NULL);
	assert_true(in_time);
	assert_int_equal(drain_result, -EIO);
	must_drain();
	must_close();
}

static void *writer(void *arg)
{
	(void)arg;
	for (u32 i = 0; !atomic_load(&drained); i++) {
		put(1, i % 200, 8, 2);
		sleep_ms(5);
	}
	return NULL;
}

/* The same while clients keep the other volume busy: there is always something that could be done first. */
static void a_busy_volume_does_not_hide_a_failure(void **state)
{
	pthread_t t, client;

	(void)state;
	make_two();
	t = begin_drain();
	pthread_create(&client, NULL, writer, NULL);
	must_fail(t, &client);
	must_close();
}

/*
 * Others have blocks in the open segment, so turns that change nothing: write-back went to sleep after each of them, and
 * the store that worked again was tried only when all others had had theirs, a second for each.
 */
static void a_retry_does_not_wait_for_turns_that_change_nothing(void **state)
{
	u64 began_ms;

	(void)state;
	make(8 * MIB, 1 << 20, NR_OTHERS + 1, MIB);
	settings.writeback = true;
	settings.dirty_low_percent = 0;
	settings.idle_ms = 500;
	settings.retry_ms = 50;
	must_open();
	disks[0].write_error = -EIO;
	put(0, 0, 255, 1); /* a segment */
	for (u32 i = 1; i <= NR_OTHERS; i++)
		put(i, 0, 1, 1);
	flush();
	must_become(stats().backing_errors > 2);
	sleep_ms(100);
	disks[0].write_error = 0;
	began_ms = now_ms();
	must_become(stats().tail_id == 1);
	assert_true(now_ms() < began_ms + 50 * 16 + 1000); /* the longest pause, and some more */
	must_close();
}

static atomic_bool refused, enough;
static int refusal;

static void *fill_until_refused(void *arg)
{
	u32 i = 0;

	(void)arg;
	do
		refusal = try_put(0, 100 * LC_BLOCK + i++ % 200 * LC_BLOCK, LC_BLOCK, 5);
	while (!refusal && !atomic_load(&enough));
	atomic_store(&refused, true);
	return NULL;
}

/*
 * The SSD cannot be read, and the log fills up. The other volume's only block is younger than what write-back looks at: its turns
 * find nothing, and so do not fail. Each of them was taken for a proof that everything works again, and the time
 * after which writers get the error began anew: they waited for ever. Found by fuzzing, with a full list of lost blocks.
 */
static void a_turn_that_finds_nothing_does_not_hide_a_failure(void **state)
{
	bool in_time;
	pthread_t t;
	u64 end_ms;

	(void)state;
	make(MIB + 32 * 32768, 32768, 2, 8 * MIB);
	settings.nr_buffers = 2;
	settings.batch_bytes = 32768; /* a segment */
	must_open();
	for (u32 i = 0; i < 70; i++)
		put(0, i, 1, 3);
	put(1, 0, 1, 4);
	ssd.read_error = -ENOMEM;
	atomic_store(&refused, false);
	atomic_store(&enough, false);
	pthread_create(&t, NULL, fill_until_refused, NULL);
	for (end_ms = now_ms() + 10000; !atomic_load(&refused) && now_ms() < end_ms;)
		sleep_ms(5);
	in_time = atomic_load(&refused);
	ssd.read_error = 0;
	atomic_store(&enough, true);
	pthread_join(t, NULL);
	assert_true(in_time);
	assert_int_equal(refusal, -ENOMEM);
	must_become(!try_put(0, 0, LC_BLOCK, 6));
	must_drain();
	must_close();
}

/*
 * A disk with a cache of its own takes writes at once, and works in the flush: the rate, and with it what writers pay, was that
 * of its cache.
 */
static void the_rate_is_that_of_writes_and_flushes(void **state)
{
	u64 began_ms, took_ms;

	(void)state;
	make_two();
	disks[0].write_error = 0;
	must_drain();
	began_ms = now_ms();
	for (u32 i = 0; i < 8; i++) {
		put(1, i * 20, 20, 3);
		must_drain();
	}
	took_ms = now_ms() - began_ms;
	assert_true(took_ms >= 8 * 100);
	assert_true(stats().writeback_rate_blocks >= 160 * 1000 / took_ms / 2);
	assert_true(stats().writeback_rate_blocks <= 160 * 10 / 8 + 20);
	must_close();
}

/*
 * Nobody flushes, no interval either, and the ring has less than what all buffers hold: nothing was durable, so write-back had
 * nothing to do, and writers were slowed all the same, until the last of the reserve was gone.
 */
static void who_slows_writers_has_something_to_write_back(void **state)
{
	u64 began_ms;

	(void)state;
	make(8 * MIB, 262144, 1, 64 * MIB); /* 28 segments */
	settings.nr_buffers = 64;
	settings.flush_interval_ms = 0;
	must_open();
	began_ms = now_ms();
	for (u32 i = 0; i < 2000; i++) {
		put(0, i * 3 % 16384, 1, 1);
		if (i % 8 == 0)
			sleep_ms(2); /* so slow that nobody waits for a reclaimed segment: that would flush */
	}
	assert_true(now_ms() < began_ms + 6000);
	must_close();
}

/* Two volumes, and write-back of whatever is dirty. */
static void make_two_eager(void)
{
	make(4 * MIB, 32768, 2, MIB);
	settings.writeback = true;
	settings.dirty_low_percent = 0;
	settings.idle_ms = 20;
	must_open();
}

/*
 * A sample of the fingerprint lies in a block that could not be written. It was to be read again before the tail might pass
 * what another volume had written back: one store that is gone altogether held up all of them.
 */
static void a_store_that_is_gone_does_not_hold_what_others_have_done(void **state)
{
	(void)state;
	make_two_eager();
	put(1, 0, 7, 1);
	put(0, 0, 7, 2);
	disks[0].write_error = disks[0].read_error = -EIO;
	flush();
	must_become(stats().tail_id == 1);
	disks[0].write_error = disks[0].read_error = 0;
	must_become(stats().tail_id == 2);
	must_close();
}

/*
 * The same for a block that was written and flushed, and so is clean, before its store went away; what held the tail then was the
 * other volume's. The store that is gone has nothing to do any more.
 */
static void a_store_that_is_gone_after_its_turn_does_not_hold_the_others(void **state)
{
	(void)state;
	make_two_eager();
	disks[1].write_error = -EIO;
	put(1, 0, 3, 1);
	put(0, 0, 4, 2);
	flush();
	must_become(disks[0].flushes > 0 && stats().dirty_blocks == 3);
	disks[0].write_error = disks[0].read_error = -EIO;
	disks[1].write_error = 0;
	must_become(stats().tail_id == 1);
	disks[0].write_error = disks[0].read_error = 0;
	must_close();
}

static atomic_bool slow_once;

static int flush_slow_once(struct lc_store *s)
{
	if (atomic_exchange(&slow_once, false))
		sleep_ms(1500);
	return mem_flush(s);
}

/*
 * The block that could not be written was written anew: what fails holds nothing any more, and there is no reason for another attempt.
 * So nothing ended the failure, and the time after which writers get its error ran on. It was over when the log filled
 * up long after the store worked again, before the first turn had ended: writers got an error for no reason.
 */
static void a_failure_that_holds_nothing_is_over(void **state)
{
	static struct lc_store_ops ops;

	(void)state;
	make(MIB + 32 * 32768, 32768, 1, 4 * MIB);
	ops = *disks[0].store.ops;
	ops.flush = flush_slow_once;
	disks[0].store.ops = &ops;
	settings.writeback = true;
	must_open();
	put(0, 0, 1, 1);
	disks[0].write_error = -EIO;
	assert_int_equal(lc_cache_drain(cache), -EIO);
	put(0, 0, 1, 2);
	must_become(stats().tail_id == 1);
	disks[0].write_error = 0;
	sleep_ms(settings.stall_timeout_ms + 100);
	atomic_store(&slow_once, true);
	for (u32 i = 0; i < 40; i++)
		put(0, 1 + i * 7, 7, 3);
	assert_false(atomic_load(&slow_once));
	must_drain();
	must_close();
}

#define T(n) LIFE_TEST(n)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_block_in_the_open_segment_does_not_hide_a_failure),
		T(stores_that_take_turns_in_failing_do_not_hide_it),
		T(a_busy_volume_does_not_hide_a_failure),
		T(a_retry_does_not_wait_for_turns_that_change_nothing),
		T(a_turn_that_finds_nothing_does_not_hide_a_failure),
		T(the_rate_is_that_of_writes_and_flushes),
		T(who_slows_writers_has_something_to_write_back),
		T(a_store_that_is_gone_does_not_hold_what_others_have_done),
		T(a_store_that_is_gone_after_its_turn_does_not_hold_the_others),
		T(a_failure_that_holds_nothing_is_over),
	};

	return cmocka_run_group_tests(tests, mem_quiet, NULL);
}
