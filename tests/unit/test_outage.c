/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_outage.c - stores that fail for a while, and what the cache makes of it. Each of these was a
 * history that lost data or service once.
 */
#include "mem_store.h"

#include <time.h>

#include "logcache/logcache.h"

#define MIB (1ull << 20)

static struct mem_store ssd, disk;
static struct lc_settings settings;
static struct lc_error error;
static struct lc_cache *cache;
static struct lc_volume *volume;
static u8 buf[128 << 10];

static void start(void)
{
	struct lc_volume_spec spec = {"", &disk.store};

	if (lc_cache_open(&ssd.store, &spec, 1, &settings, &cache, &error) ||
	    lc_cache_start(cache, &error))
		fail_msg("%s", error.text);
	volume = lc_cache_volume(cache, 0);
}

static void make(u64 ssd_bytes, u64 disk_bytes, u32 segment_bytes)
{
	struct lc_format_options o = {.segment_bytes = segment_bytes};

	mem_open(&ssd, "/dev/fast", ssd_bytes);
	mem_open(&disk, "/dev/slow", disk_bytes);
	assert_int_equal(lc_cache_format(&ssd.store, &o, &error), 0);
	start();
}

static int setup(void **state)
{
	(void)state;
	lc_settings_init(&settings);
	settings.nr_buffers = 4;
	settings.retry_ms = 10;
	settings.stall_timeout_ms = 100;
	settings.flush_interval_ms = 20;
	memset(buf, 7, sizeof buf);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	disk.write_error = ssd.read_error = 0;
	(void)lc_cache_close(cache); /* the test is over, whatever it says */
	lc_store_close(&ssd.store);
	lc_store_close(&disk.store);
	return 0;
}

static void sleep_ms(u32 ms)
{
	struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	(void)nanosleep(&t, NULL);
}

static int put(u64 block, u32 len_bytes)
{
	return lc_write(volume, buf, len_bytes, block * LC_BLOCK, 0);
}

static struct lc_stats stats(void)
{
	struct lc_stats s;

	lc_cache_stats(cache, &s);
	return s;
}

/*
 * Writers that needed a buffer, or the next reclaimed segment, got the disk's error though the ring was nearly
 * empty: the cache failed in the very outage that it is there to absorb.
 */
static void an_outage_is_absorbed_while_there_is_room(void **state)
{
	(void)state;
	settings.idle_ms = 20;
	make(64 * MIB, 64 * MIB, 32768);
	assert_int_equal(put(0, LC_BLOCK), 0);
	assert_int_equal(put(9, sizeof buf), 0);
	assert_int_equal(lc_flush(lc_cache_volume(cache, 0)), 0);
	disk.write_error = -EIO;
	sleep_ms(400);
	assert_true(stats().backing_errors > 0);
	for (u64 i = 0; i < 200; i++)
		assert_int_equal(put(i * 32, sizeof buf), 0);
}

/* One failed sweep was remembered for ever if the client became busy and there was no reason for another. */
static void a_failure_is_forgotten_when_the_store_works_again(void **state)
{
	(void)state;
	settings.idle_ms = 50;
	settings.dirty_low_percent = 90;
	make(64 * MIB, 64 * MIB, 32768);
	assert_int_equal(put(9, sizeof buf), 0);
	assert_int_equal(lc_flush(lc_cache_volume(cache, 0)), 0);
	disk.write_error = -EIO;
	sleep_ms(300);
	assert_true(stats().backing_errors > 0);
	disk.write_error = 0;
	for (u32 i = 0; i < 30; i++) {
		assert_int_equal(lc_read(volume, buf, LC_BLOCK, 0), 0);
		sleep_ms(10);
	}
	assert_true(stats().tail_id > 0);
}

/* After the writers had got their error and gone, nothing started another sweep: writes failed for ever. */
static void service_resumes_by_itself_with_writeback_off(void **state)
{
	u64 block = 0;

	(void)state;
	settings.writeback = false;
	make(3 * MIB, 64 * MIB, 32768);
	disk.write_error = -EIO;
	while (!put(block++ % 16000, LC_BLOCK))
		;
	disk.write_error = 0;
	sleep_ms(300);
	for (u32 i = 0; i < 20; i++)
		assert_int_equal(put(i * 32, sizeof buf), 0);
}

/* An error that may pass (no memory) was taken for lost data: intact blocks were given up for good. */
static void a_passing_read_error_loses_nothing(void **state)
{
	(void)state;
	settings.writeback = false;
	make(8 * MIB, 64 * MIB, 32768);
	for (u64 i = 0; i < 256; i++)
		assert_int_equal(put(i * 2, LC_BLOCK), 0);
	assert_int_equal(lc_flush(lc_cache_volume(cache, 0)), 0);
	ssd.read_error = -ENOMEM;
	assert_int_equal(lc_cache_drain(cache), -ENOMEM);
	lc_cache_drain_error(cache, -ENOMEM, &error);
	assert_says(&error, ssd.store.name);
	ssd.read_error = 0;
	assert_int_equal(stats().lost_blocks, 0);
	assert_int_equal(lc_cache_drain(cache), 0);
	for (u64 i = 0; i < 256; i++) {
		assert_int_equal(lc_read(volume, buf, LC_BLOCK, i * 2 * LC_BLOCK), 0);
		assert_int_equal(buf[17], 7);
	}
}

/* A disk that somebody else had written to (one byte) turned lost blocks into what was on it before. */
static void lost_blocks_stay_lost_when_the_disk_was_changed(void **state)
{
	u64 lost = 0;

	(void)state;
	settings.writeback = false;
	settings.nr_buffers = 2;
	make(8 * MIB, 64 * MIB, 32768);
	for (u64 i = 0; i < 64; i++)
		assert_int_equal(put(i * 2 + 1, LC_BLOCK), 0);
	assert_int_equal(lc_flush(lc_cache_volume(cache, 0)), 0);
	ssd.read_error = -EIO;
	(void)lc_cache_drain(cache); /* what is still in buffers gets through */
	ssd.read_error = 0;
	assert_true(stats().lost_blocks > 0);
	assert_int_equal(lc_read(volume, buf, LC_BLOCK, LC_BLOCK), -EIO);
	assert_int_equal(lc_cache_drain(cache), 0);
	assert_int_equal(lc_cache_close(cache), 0);
	disk.data[disk.store.size_bytes - 1] ^= 1;
	start();
	for (u64 i = 0; i < 64; i++)
		if (lc_read(volume, buf, LC_BLOCK, (i * 2 + 1) * LC_BLOCK))
			lost++;
		else
			assert_int_equal(buf[17], 7);
	assert_true(lost > 0);
	/* Overwriting heals. */
	memset(buf, 7, sizeof buf);
	assert_int_equal(put(1, LC_BLOCK), 0);
	assert_int_equal(lc_read(volume, buf, LC_BLOCK, LC_BLOCK), 0);
}

/* One unreadable block in the head segment, data or never written, kept the whole cache from opening. */
static void an_unreadable_block_in_the_head_segment_costs_that_block(void **state)
{
	static const u32 places[] = {5, 200};

	(void)state;
	settings.writeback = false;
	settings.flush_interval_ms = 0; /* all of it in one record, however slow this machine is */
	make(8 * MIB, 64 * MIB, 1 << 20);
	for (u64 i = 0; i < 16; i++)
		assert_int_equal(put(i * 2, LC_BLOCK), 0);
	assert_int_equal(lc_flush(lc_cache_volume(cache, 0)), 0);
	for (u32 i = 0; i < 2; i++) {
		assert_int_equal(lc_cache_close(cache), 0);
		mem_revive(&ssd);
		mem_break_reads(&ssd, 256 + places[i]);
		start();
		assert_int_equal(lc_read(volume, buf, LC_BLOCK, 0), 0);
	}
	mem_revive(&ssd);
}

/* A run that began at a partial neighbour below left out the whole block that it was for. */
static void a_whole_block_above_a_part_is_swept(void **state)
{
	(void)state;
	settings.writeback = false;
	make(8 * MIB, 64 * MIB, 8192);
	assert_int_equal(put(10, LC_BLOCK), 0);
	assert_int_equal(put(20, LC_BLOCK), 0);
	assert_int_equal(put(9, LC_SECTOR), 0);
	assert_int_equal(lc_cache_drain(cache), 0);
	assert_int_equal(stats().sweeps, 1);
	assert_int_equal(stats().dirty_blocks, 0);
	assert_int_equal(disk.data[10 * LC_BLOCK], 7);
}

#define OUTAGE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		OUTAGE_TEST(an_outage_is_absorbed_while_there_is_room),
		OUTAGE_TEST(a_failure_is_forgotten_when_the_store_works_again),
		OUTAGE_TEST(service_resumes_by_itself_with_writeback_off),
		OUTAGE_TEST(a_passing_read_error_loses_nothing),
		OUTAGE_TEST(lost_blocks_stay_lost_when_the_disk_was_changed),
		OUTAGE_TEST(an_unreadable_block_in_the_head_segment_costs_that_block),
		OUTAGE_TEST(a_whole_block_above_a_part_is_swept),
	};

	return cmocka_run_group_tests(tests, mem_quiet, NULL);
}
