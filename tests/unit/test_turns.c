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

/*
 * A sample of the fingerprint lies in a block that could not be written. It was to be read again before the tail might pass
 * what another volume had written back: one store that is gone altogether held up all of them.
 */
static void a_store_that_is_gone_does_not_hold_what_others_have_done(void **state)
{
	(void)state;
	make(4 * MIB, 32768, 2, MIB);
	settings.writeback = true;
	settings.dirty_low_percent = 0;
	settings.idle_ms = 20;
	must_open();
	put(1, 0, 7, 1);
	put(0, 0, 7, 2);
	disks[0].write_error = disks[0].read_error = -EIO;
	flush();
	must_become(stats().tail_id == 1);
	disks[0].write_error = disks[0].read_error = 0;
	must_become(stats().tail_id == 2);
	must_close();
}

static atomic_bool snap;

static void *fill(void *arg)
{
	(void)arg;
	while (atomic_load(&snap)) /* it is about to be written */
		sleep_ms(1);
	for (u32 i = 0; i < 60; i++)
		put(0, 200 + i * 16 % 800, 16, 4);
	return NULL;
}

/* The superblock with the new tail is about to be written: clients have time to go on, then the power goes. */
static int write_late(struct lc_store *s, const void *buf, u32 len_bytes, u64 offset_bytes)
{
	if (offset_bytes < 2 * LC_BLOCK && atomic_exchange(&snap, false)) {
		sleep_ms(300);
		snapshot();
	}
	return mem_write(s, buf, len_bytes, offset_bytes);
}

/* I3: a segment is not used again before the tail that passed it is durable. */
static void no_segment_is_used_again_before_the_superblock(void **state)
{
	static struct lc_store_ops ops;
	pthread_t client, drainer;

	(void)state;
	make(MIB + 32 * 32768, 32768, 1, 8 * MIB);
	ops = *ssd.store.ops;
	ops.write = write_late;
	ssd.store.ops = &ops;
	must_open();
	for (u32 i = 140;
	     i--;) /* 20 of 32 segments, which the tail passes all at once: the oldest has the last blocks */
		put(0, i, 1, 3);
	flush();
	atomic_store(&snap, true);
	atomic_store(&drained, false);
	pthread_create(&drainer, NULL, drain, NULL);
	pthread_create(&client, NULL, fill, NULL);
	pthread_join(drainer, NULL);
	pthread_join(client, NULL);
	assert_true(have_snapshot());
	crash();
	must_open();
	for (u32 i = 0; i < 140; i++)
		assert_reads(0, i, 1, 3);
	must_close();
}

/* A queue that hands out its completions one at a time, and in order, as a disk does; each after so long. */
static atomic_uint completion_ms;

struct single {
	struct lc_queue queue;
	struct lc_queue *inner;
	struct lc_io *held;
};

static void single_submit(struct lc_queue *q, struct lc_io *io)
{
	lc_queue_submit(((struct single *)q)->inner, io);
}

static void single_start(struct lc_queue *q)
{
	lc_queue_start(((struct single *)q)->inner);
}

static struct lc_io *single_wait(struct lc_queue *q, u64 deadline_ns)
{
	struct single *s = (struct single *)q;
	struct lc_io **oldest, *io;

	if (!s->held)
		s->held = lc_queue_wait(s->inner, deadline_ns);
	if (!s->held)
		return NULL;
	sleep_ms(atomic_load(&completion_ms));
	for (oldest = &s->held; (*oldest)->next; oldest = &(*oldest)->next)
		; /* which the inner queue has last */
	io = *oldest;
	*oldest = NULL;
	return io;
}

static void single_kick(struct lc_queue *q)
{
	lc_queue_kick(((struct single *)q)->inner);
}

static void single_close(struct lc_queue *q)
{
	lc_queue_close(((struct single *)q)->inner);
	free(q);
}

static int single_open(struct lc_store *s, unsigned depth, const struct lc_area *areas,
		       unsigned nr_areas, struct lc_queue **out, struct lc_error *err)
{
	static const struct lc_queue_ops ops = {
		single_submit, single_start, single_wait, single_kick, single_close,
	};
	struct single *q = calloc(1, sizeof *q);
	int ret = mem_queue_open(s, depth, areas, nr_areas, &q->inner, err);

	q->queue.ops = &ops;
	q->inner->store = s;
	*out = &q->queue;
	return ret;
}

/*
 * Adjacent blocks make the longest runs, which fill the belt to its last frame when it has gone round. It then looked empty, and
 * what was on its way was built over.
 */
static void a_belt_that_is_full_to_the_last_frame(void **state)
{
	static struct lc_store_ops ops;
	u32 nr = 4096; /* four times as many as frames */

	(void)state;
	make(256 * MIB, 1 << 20, 1, 64 * MIB); /* a turn takes more than the belt has */
	ops = *disks[0].store.ops;
	ops.queue_open = single_open;
	disks[0].store.ops = &ops;
	settings.nr_buffers = 4; /* so that it is read from the SSD */
	must_open();
	for (u32 i = 0; i < nr; i += 32)
		put(0, i, 32, 1 + i / 32);
	assert_int_equal(lc_cache_drain(cache), 0);
	assert_int_equal(stats().dirty_blocks, 0);
	must_close();
	for (u32 i = 0; i < nr; i += 32)
		assert_on_disk(0, i, 32, 1 + i / 32);
}

/*
 * What holds the tail lies below the position of the elevator, and a long stream above it. It followed the stream to its end, and a
 * client who went on writing there would have kept it away until the log was full.
 */
static void a_stream_does_not_keep_away_from_the_tail(void **state)
{
	static struct lc_store_ops ops;
	pthread_t t;
	u64 tail, dirty;

	(void)state;
	make(16 * MIB, 32768, 1, 64 * MIB);
	ops = *disks[0].store.ops;
	ops.queue_open = single_open;
	disks[0].store.ops = &ops;
	must_open();
	put(0, 5000, 1, 1);
	must_drain();
	tail = stats().tail_id;
	put(0, 0, 7, 2);
	for (u32 i = 0; i < 1500; i += 30)
		put(0, 5001 + i, 30, 3);
	flush();
	atomic_store(&completion_ms, 10);
	pthread_create(&t, NULL, drain, NULL);
	must_become(stats().tail_id > tail);
	dirty = stats().dirty_blocks;
	atomic_store(&completion_ms, 0);
	pthread_join(t, NULL);
	assert_int_equal(drain_result, 0);
	assert_true(dirty > 750);
	must_close();
}

#define T(n) LIFE_TEST(n)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_block_in_the_open_segment_does_not_hide_a_failure),
		T(a_busy_volume_does_not_hide_a_failure),
		T(a_retry_does_not_wait_for_turns_that_change_nothing),
		T(the_rate_is_that_of_writes_and_flushes),
		T(who_slows_writers_has_something_to_write_back),
		T(a_store_that_is_gone_does_not_hold_what_others_have_done),
		T(no_segment_is_used_again_before_the_superblock),
		T(a_belt_that_is_full_to_the_last_frame),
		T(a_stream_does_not_keep_away_from_the_tail),
	};

	return cmocka_run_group_tests(tests, mem_quiet, NULL);
}
