/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_sweep.c - turns of write-back: what is on the belt at a time, where the elevator goes next, and what has to come before the
 * segments that the tail passed are used again.
 */
#include "cache_life.h"

#include <pthread.h>
#include <stdatomic.h>

static int drain_result;

static void *drain(void *arg)
{
	(void)arg;
	drain_result = lc_cache_drain(cache);
	return NULL;
}

/* --- the belt, and the elevator --- */

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

/* --- the tail --- */

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		LIFE_TEST(a_belt_that_is_full_to_the_last_frame),
		LIFE_TEST(a_stream_does_not_keep_away_from_the_tail),
		LIFE_TEST(no_segment_is_used_again_before_the_superblock),
	};

	return cmocka_run_group_tests(tests, mem_quiet, NULL);
}
