/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_when.c - when write-back and the superblock are due: each test shows what once was forgotten.
 */
#include "cache_life.h"
#include <pthread.h>
#include <stdatomic.h>

static atomic_bool reading;

static int slow_read(struct lc_store *s, void *buf, u32 len_bytes, u64 offset_bytes)
{
	if (atomic_load(&reading))
		sleep_ms(20);
	return mem_read(s, buf, len_bytes, offset_bytes);
}

static void *reader(void *arg)
{
	u8 *buf = malloc(LC_BLOCK);
	u64 v = (uintptr_t)arg;

	while (atomic_load(&reading))
		assert_int_equal(lc_read(volume(v), buf, LC_BLOCK, 900 * LC_BLOCK), 0);
	free(buf);
	return NULL;
}

/* Both disks are kept busy by readers; dirty data of both volumes in each sweep */
static void two_busy_volumes_get_way(void **state)
{
	static struct lc_store_ops ops;
	pthread_t t[2];
	u64 end, tail;

	(void)state;
	make(4 * MIB, 32768, 2, 4 * MIB);
	ops = *disks[0].store.ops;
	ops.read = slow_read;
	disks[0].store.ops = disks[1].store.ops = &ops;
	settings.writeback = true;
	settings.dirty_low_percent = 0;
	settings.batch_bytes = 32768;
	settings.idle_ms = 50;
	must_open();
	atomic_store(&reading, true);
	for (uintptr_t i = 0; i < 2; i++)
		pthread_create(&t[i], NULL, reader, (void *)i);
	put(0, 50, 7, 1);
	put(1, 50, 7, 1);
	flush();
	must_become(stats().tail_id == 2);
	sleep_ms(150);
	for (u32 i = 0; i < 10; i++) {
		put(0, 100 + 5 * i, 4, 1);
		put(1, 100 + 5 * i, 3, 1);
	} /* 10 segments */
	flush();
	end = now_ms() + 600;
	while (now_ms() < end && stats().tail_id < 12)
		sleep_ms(5);
	tail = stats().tail_id;
	atomic_store(&reading, false);
	pthread_join(t[0], NULL);
	pthread_join(t[1], NULL);
	must_close();
	assert_true(tail < 12);
}

static u64 durable_on_ssd(void)
{
	u64 newest = 0, durable = 0;

	lc_mutex_lock(&ssd.lock);
	for (u32 i = 0; i < 2; i++) {
		u64 generation, seq;

		memcpy(&generation, mem_block(&ssd, i) + 32, 8);
		memcpy(&seq, mem_block(&ssd, i) + 144, 8);
		if (generation > newest) {
			durable = seq;
			newest = generation;
		}
	}
	lc_mutex_unlock(&ssd.lock);
	return durable;
}

/* idle_ms is longer than the interval: nobody wakes the write-back thread within a segment */
static void superblock_interval_with_long_idle(void **state)
{
	(void)state;
	make(4 * MIB, 32768, 1, MIB);
	settings.idle_ms = 60000;
	settings.superblock_interval_ms = 50;
	must_open();
	sleep_ms(20);
	put(0, 0, 1, 1);
	flush();
	must_become(durable_on_ssd() >= 1);
	must_close();
}

/* a disk that fails: the superblock is not written any more */
static void superblock_interval_in_an_outage(void **state)
{
	(void)state;
	make(4 * MIB, 32768, 1, MIB);
	settings.writeback = true;
	settings.dirty_low_percent = 0;
	settings.idle_ms = 20;
	settings.superblock_interval_ms = 50;
	must_open();
	disks[0].write_error = -EIO;
	put(0, 0, 7, 1);
	flush();
	must_become(stats().backing_errors > 0);
	put(0, 20, 1, 1);
	flush();
	must_become(durable_on_ssd() >= stats().durable_seq);
	must_close();
}

/* a disk that fails holds the tail, and sweeps begin at the tail: newer segments of others are never written */
static void others_beyond_the_batch(void **state)
{
	(void)state;
	make(4 * MIB, 32768, 2, MIB);
	settings.writeback = true;
	settings.dirty_low_percent = 0;
	settings.idle_ms = 20;
	settings.batch_bytes = 32768;
	must_open();
	disks[0].write_error = -EIO;
	put(0, 0, 7, 1);
	put(1, 0, 7, 2);
	flush();
	must_become(mem_block(&disks[1], 0)[5] == 2);
	must_close();
}

#define T(n) LIFE_TEST(n)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(two_busy_volumes_get_way),
		T(superblock_interval_with_long_idle),
		T(superblock_interval_in_an_outage),
		T(others_beyond_the_batch),
	};

	return cmocka_run_group_tests(tests, mem_quiet, NULL);
}
