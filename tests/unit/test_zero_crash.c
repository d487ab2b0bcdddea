/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_zero_crash.c - zeros and trims across crashes, at every step of write-back; when commits and
 * superblocks are written.
 */
#include "cache_life.h"

#include <pthread.h>

#define BLOCKS 1024u

static struct mem_store *const disk = &disks[0];

static int setup(void **state)
{
	int ret = life_setup(state);

	make(4 * MIB, 32768, 1, BLOCKS * LC_BLOCK);
	return ret;
}

/* --- a disk that takes a snapshot --- */

/* The synchronous calls of write-back count: each zero, write and flush of the disk. */
static struct {
	u32 nr, at; /* calls so far; snapshot before the AT-th one, 0: never */
} spy;

static void spy_see(void)
{
	if (++spy.nr == spy.at)
		snapshot();
}

static int spy_zero(struct lc_store *s, u64 len_bytes, u64 offset_bytes, bool punch)
{
	spy_see();
	return mem_zero(s, len_bytes, offset_bytes, punch);
}

static int spy_write(struct lc_store *s, const void *buf, u32 len_bytes, u64 offset_bytes)
{
	spy_see();
	return mem_write(s, buf, len_bytes, offset_bytes);
}

static int spy_flush(struct lc_store *s)
{
	spy_see();
	return mem_flush(s);
}

static void spy_on(u32 at)
{
	static struct lc_store_ops ops;

	ops = *disk->store.ops;
	ops.zero = spy_zero;
	ops.write = spy_write;
	ops.flush = spy_flush;
	disk->store.ops = &ops;
	spy.nr = 0;
	spy.at = at;
}

/* --- crashes --- */

static void assert_history(void)
{
	assert_reads(0, 90, 10, 0x11);
	assert_reads(0, 100, 10, 0);
	assert_reads(0, 110, 2, 0x22);
	assert_reads(0, 112, 28, 0);
	assert_reads_bytes(0, 140 * LC_BLOCK, LC_SECTOR, 0);
	assert_reads_bytes(0, 140 * LC_BLOCK + LC_SECTOR, LC_SECTOR, 0x33);
	assert_reads_bytes(0, 140 * LC_BLOCK + 2 * LC_SECTOR, 6 * LC_SECTOR, 0);
	assert_reads(0, 141, 59, 0);
	assert_reads(0, 200, 8, noise(0));
	assert_reads(0, 300, 20, 0);
	assert_reads(0, 320, 1, noise(0));
}

/* Old blocks, dirty and clean; zeros and a trim over them; newer blocks and a part in the zeros. */
static void make_history(void)
{
	put(0, 90, 30, 0x11);
	must_drain();
	put(0, 120, 30, 0x12);
	zero(0, 100, 60);
	put(0, 110, 2, 0x22);
	zero(0, 150, 50);
	assert_int_equal(try_put(0, 140 * LC_BLOCK + LC_SECTOR, LC_SECTOR, 0x33), 0);
	assert_int_equal(lc_trim(volume(0), 20 * LC_BLOCK, 300 * LC_BLOCK, 0), 0);
	flush();
	assert_history();
}

static void zeros_survive_a_crash_before_write_back(void **state)
{
	(void)state;
	must_open();
	make_history();
	crash();
	assert_on_disk(0, 100, 20, 0x11); /* it knows nothing yet */
	mem_forget(disk);
	must_open();
	assert_int_equal(stats().pending_zero_blocks, 120);
	disk->read_error = -EIO; /* and is not asked */
	assert_reads(0, 100, 10, 0);
	assert_reads(0, 110, 2, 0x22);
	assert_reads(0, 112, 28, 0);
	disk->read_error = 0;
	assert_history();
	must_drain();
	assert_history();
	must_close();
	assert_on_disk(0, 100, 10, 0);
}

static void older_blocks_do_not_come_back(void **state)
{
	(void)state;
	must_open();
	put(0, 100, 40, 0x11);
	zero(0, 100, 40);
	flush();
	crash();
	must_open();
	assert_int_equal(stats().dirty_blocks, 0);
	assert_reads(0, 100, 40, 0);
	must_drain();
	must_close();
	assert_int_equal(disk->writes, 0);
	assert_on_disk(0, 100, 40, 0);
	assert_on_disk(0, 140, 1, noise(0));
	must_open();
	assert_int_equal(stats().cached_blocks, 0);
	/* it is the disk's now: block 101 is no sample, so nobody notices that it is changed */
	memset(mem_block(disk, 101), 0x66, LC_BLOCK);
	assert_reads(0, 101, 1, 0x66);
	must_close();
}

/* Crash before each call to the disk in a drain, and after all of them; recover, drain. */
static void zeros_survive_a_crash_anywhere_in_write_back(void **state)
{
	u32 crashes = 0;

	(void)state;
	for (u32 at = 1;; at++) {
		bool last;

		must_open();
		make_history();
		spy_on(at);
		must_drain();
		last = !have_snapshot();
		crash();
		spy_on(0);
		must_open();
		assert_history();
		if (at % 2) {
			/* with newer blocks: in front of the zeros that are done once more */
			put(0, 150, 1, 0x44);
			must_drain();
			assert_on_disk(0, 150, 1, 0x44);
			zero(0, 150, 1);
		}
		must_drain();
		assert_history();
		must_close();
		assert_on_disk(0, 112, 28, 0);
		must_open();
		assert_history();
		must_close();
		if (last)
			break;
		crashes++;
		mem_close(&disk->store);
		lc_store_close(&ssd.store);
		make(4 * MIB, 32768, 1, BLOCKS * LC_BLOCK);
	}
	/* zero, zero, punch, flush; writes are the queue's: block 140, flush; below it, in the next round, block 110, flush */
	assert_int_equal(crashes, 6);
}

/* The same with a disk to which zeros are written. */
static void written_zeros_survive_a_crash(void **state)
{
	(void)state;
	for (u32 at = 1; at <= 6; at++) {
		disk->zero_error = -EIO;
		must_open();
		make_history();
		spy_on(at);
		must_drain();
		assert_true(have_snapshot());
		crash();
		spy_on(0);
		must_open();
		assert_history();
		must_drain();
		must_close();
		assert_on_disk(0, 112, 28, 0);
		mem_close(&disk->store);
		lc_store_close(&ssd.store);
		make(4 * MIB, 32768, 1, BLOCKS * LC_BLOCK);
	}
}

static void zeros_in_the_clean_part_drop_older_blocks(void **state)
{
	(void)state;
	must_open();
	put(0, 100, 40, 0x11);
	must_drain();
	zero(0, 110, 20);
	must_drain();
	put(0, 115, 1, 0x22);
	must_drain();
	must_close();
	must_open();
	assert_int_equal(stats().pending_zero_blocks, 0);
	assert_int_equal(stats().cached_blocks, 21);
	assert_reads(0, 100, 10, 0x11);
	assert_reads(0, 110, 5, 0);
	assert_reads(0, 115, 1, 0x22);
	assert_reads(0, 116, 14, 0);
	assert_reads(0, 130, 10, 0x11);
	must_close();
}

/* The disk may be changed by nobody while zeros are pending; their own samples are no change. */
static void pending_zeros_are_dirty_data(void **state)
{
	(void)state;
	must_open();
	zero(0, 0, 100); /* sample 0 is in it, half done */
	flush();
	crash();
	memset(mem_block(disk, 0), 0, LC_BLOCK);
	must_open();
	assert_reads(0, 0, 100, 0);
	flush();
	crash();
	memset(mem_block(disk, BLOCKS - 1), 0x66, LC_BLOCK);
	assert_int_equal(open_cache(), -EBUSY);
	assert_says(&error, "100 blocks");
}

/* --- when it is durable --- */

#define FLUSHERS 8u

static struct {
	pthread_barrier_t barrier;
	u32 slowest_ms;
} flushers;

static void *flusher(void *arg)
{
	u64 before;

	(void)arg;
	pthread_barrier_wait(&flushers.barrier);
	before = now_ms();
	assert_int_equal(lc_flush(volume(0)), 0);
	if (now_ms() - before > 2000)
		flushers.slowest_ms = now_ms() - before;
	return NULL;
}

static void flushes_wait_for_company(void **state)
{
	pthread_t threads[FLUSHERS];
	u64 before, commits;

	(void)state;
	settings.flush_deadline_ms = 200;
	settings.flush_interval_ms = 0;
	must_open();
	/* all alone: it waits, but not for ever */
	put(0, 0, 1, 0x11);
	before = now_ms();
	flush();
	assert_in_range(now_ms() - before, 190, 2000);
	/* nothing to do: at once */
	before = now_ms();
	flush();
	assert_in_range(now_ms() - before, 0, 100);
	commits = stats().commits;
	put(0, 1, 1, 0x11);
	assert_int_equal(pthread_barrier_init(&flushers.barrier, NULL, FLUSHERS), 0);
	for (u32 i = 0; i < FLUSHERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, flusher, NULL), 0);
	for (u32 i = 0; i < FLUSHERS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	pthread_barrier_destroy(&flushers.barrier);
	assert_int_equal(stats().commits - commits, 1);
	assert_int_equal(flushers.slowest_ms, 0);
	assert_int_equal(stats().durable_seq, stats().seq);
	must_close();
}

/* FUA joins too, and what is written while a flush waits is in its record. */
static void writes_join_a_waiting_flush(void **state)
{
	pthread_t thread;
	u64 commits;

	(void)state;
	settings.flush_deadline_ms = 300;
	settings.flush_interval_ms = 0;
	must_open();
	put(0, 0, 1, 0x11);
	commits = stats().commits;
	assert_int_equal(pthread_barrier_init(&flushers.barrier, NULL, 1), 0);
	assert_int_equal(pthread_create(&thread, NULL, flusher, NULL), 0);
	sleep_ms(50);
	for (u32 i = 1; i < 5; i++)
		put(0, i, 1, 0x11);
	assert_int_equal(lc_zero(volume(0), 50 * LC_BLOCK, 50 * LC_BLOCK, LC_FUA), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	pthread_barrier_destroy(&flushers.barrier);
	assert_int_equal(stats().records, 1);
	assert_int_equal(stats().commits - commits, 1);
	must_close();
}

/* The durable seq of the superblock on the device: of the copy with the higher generation. */
static u64 durable_on_ssd(void)
{
	u64 newest = 0, durable = 0;

	lc_mutex_lock(&ssd.lock);
	for (u32 i = 0; i < 2; i++) {
		u64 generation, seq;

		memcpy(&generation, mem_block(&ssd, i) + 32, 8);
		memcpy(&seq, mem_block(&ssd, i) + 144, 8);
		if (generation > newest)
			durable = seq;
		if (generation > newest)
			newest = generation;
	}
	lc_mutex_unlock(&ssd.lock);
	return durable;
}

static void the_superblock_follows_the_log(void **state)
{
	u64 seq;

	(void)state;
	settings.superblock_interval_ms = 50;
	must_open();
	for (u32 i = 0; i < 3; i++) {
		put(0, i, 1, 0x11);
		flush();
		seq = stats().durable_seq;
		must_become(durable_on_ssd() >= seq);
	}
	sleep_ms(100); /* for the other copy */
	/* an idle log costs nothing */
	mem_forget(&ssd);
	sleep_ms(200);
	assert_int_equal(ssd.writes, 0);
	must_close();
}

static void the_superblock_stays_where_nobody_asks(void **state)
{
	(void)state;
	settings.superblock_interval_ms = 0;
	must_open();
	put(0, 0, 1, 0x11);
	flush();
	sleep_ms(150);
	assert_int_equal(durable_on_ssd(), 0);
	must_close();
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, life_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(zeros_survive_a_crash_before_write_back),
		T(older_blocks_do_not_come_back),
		T(zeros_survive_a_crash_anywhere_in_write_back),
		T(written_zeros_survive_a_crash),
		T(zeros_in_the_clean_part_drop_older_blocks),
		T(pending_zeros_are_dirty_data),
		T(flushes_wait_for_company),
		T(writes_join_a_waiting_flush),
		T(the_superblock_follows_the_log),
		T(the_superblock_stays_where_nobody_asks),
	};

	return cmocka_run_group_tests(tests, mem_quiet, NULL);
}
