/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_zero.c - lc_zero, lc_trim and lc_extent through a whole cache: what readers see, what the log
 * costs, and what the disk is told.
 *
 * The disks are full of noise, and never zero by themselves. test_zero_order.c has the races, test_zero_crash.c the crashes.
 */
#include "cache_life.h"

#define BLOCKS 1024u /* of the disk */

static int setup(void **state)
{
	int ret = life_setup(state);

	make(4 * MIB, 32768, 1, BLOCKS * LC_BLOCK);
	return ret;
}

static struct mem_store *const disk = &disks[0];

/* The disk has no means but writing. */
static void take_zero_away(void)
{
	static struct lc_store_ops ops;

	ops = *disk->store.ops;
	ops.zero = NULL;
	disk->store.ops = &ops;
	disk->store.can_zero = disk->store.can_punch = false;
}

/* --- what readers see --- */

static void zeros_are_read_without_asking_the_disk(void **state)
{
	(void)state;
	must_open();
	put(0, 90, 20, 0x11);
	zero(0, 100, 300);
	disk->read_error = -EIO;
	assert_reads(0, 90, 10, 0x11);
	for (u32 at = 100; at < 400; at += 100)
		assert_reads(0, at, 100, 0);
	assert_reads_bytes(0, 200 * LC_BLOCK + 77, 3 * LC_BLOCK + 1, 0);
	assert_int_equal(disk->zeroes, 0);
	/* the neighbours are not zeroed */
	assert_int_equal(lc_read(volume(0), client_buf, LC_BLOCK, 400 * LC_BLOCK), -EIO);
	disk->read_error = 0;
	assert_reads(0, 400, 8, noise(0));
	assert_int_equal(stats().pending_zero_blocks, 300);
	must_drain();
	assert_int_equal(stats().pending_zero_blocks, 0);
	assert_int_equal(disk->zeroes, 1);
	assert_reads(0, 90, 10, 0x11);
	for (u32 at = 100; at < 400; at += 100)
		assert_reads(0, at, 100, 0);
	assert_on_disk(0, 90, 10, 0x11);
	assert_on_disk(0, 100, 300, 0);
	assert_on_disk(0, 400, 8, noise(0));
	must_close();
}

/* Zeros whose edges are anywhere; short ones, long ones, up to an odd end. */
static void edges_are_exact(void **state)
{
	static const struct {
		u64 offset, len;
	} ranges[] = {
		{0, 1},
		{5, 4091},
		{4095, 2},
		{512, 512},
		{300, 40 * LC_BLOCK},
		{LC_BLOCK, 15 * LC_BLOCK},
		{LC_BLOCK, 16 * LC_BLOCK},
		{LC_BLOCK - 1, 16 * LC_BLOCK + 2},
		{LC_BLOCK - 512, 16 * LC_BLOCK + 1024},
		{50 * LC_BLOCK + 1, 49 * LC_BLOCK + 16}, /* to the end */
		{0, 99 * LC_BLOCK + 17},		 /* all of it */
		{99 * LC_BLOCK, 17},
		{99 * LC_BLOCK + 16, 1},
	};
	u64 size = 99 * LC_BLOCK + 17;

	(void)state;
	disk->store.size_bytes = size;
	memset(disk->data + size, 0xee, 8192); /* nobody's: no store has anything there */
	for (u32 i = 0; i < 2 * sizeof ranges / sizeof *ranges; i++) {
		u64 from = ranges[i / 2].offset, to = from + ranges[i / 2].len;

		memset(disk->data, noise(0), size);
		assert_int_equal(lc_cache_format(&ssd.store,
						 &(struct lc_format_options){.segment_bytes = 32768},
						 &error),
				 0);
		must_open();
		if (i % 2) /* from the cache, or from the disk */
			assert_int_equal(try_put(0, 0, size, noise(0)), 0);
		assert_int_equal(lc_zero(volume(0), to - from, from, 0), 0);
		for (u32 drained = 0; drained < 2; drained++) {
			assert_reads_bytes(0, 0, from, noise(0));
			assert_reads_bytes(0, from, to - from, 0);
			assert_reads_bytes(0, to, size - to, noise(0));
			must_drain();
		}
		must_close();
		assert_bytes(disk->data, from, noise(0), 0, "before");
		assert_bytes(disk->data + from, to - from, 0, from, "in it");
		assert_bytes(disk->data + to, size - to, noise(0), to, "behind");
		assert_bytes(disk->data + size, 8192, 0xee, size, "behind the end");
	}
}

static void writes_into_a_pending_range_are_seen(void **state)
{
	(void)state;
	must_open();
	zero(0, 100, 100);
	put(0, 150, 3, 0x22);
	/* parts: what is missing of their blocks is zeros, not what the disk has */
	assert_int_equal(try_put(0, 160 * LC_BLOCK + LC_SECTOR, 2 * LC_SECTOR, 0x33), 0);
	assert_int_equal(try_put(0, 170 * LC_BLOCK + 100, 7, 0x44), 0);
	for (u32 drained = 0; drained < 2; drained++) {
		assert_reads(0, 100, 50, 0);
		assert_reads(0, 150, 3, 0x22);
		assert_reads(0, 153, 7, 0);
		assert_reads_bytes(0, 160 * LC_BLOCK, LC_SECTOR, 0);
		assert_reads_bytes(0, 160 * LC_BLOCK + LC_SECTOR, 2 * LC_SECTOR, 0x33);
		assert_reads_bytes(0, 160 * LC_BLOCK + 3 * LC_SECTOR, 5 * LC_SECTOR, 0);
		assert_reads_bytes(0, 170 * LC_BLOCK, 100, 0);
		assert_reads_bytes(0, 170 * LC_BLOCK + 100, 7, 0x44);
		assert_reads_bytes(0, 170 * LC_BLOCK + 107, LC_BLOCK - 107, 0);
		if (!drained) {
			flush();
			must_drain();
		}
	}
	must_close();
	assert_on_disk(0, 150, 3, 0x22);
	assert_bytes(mem_block(disk, 160) + LC_SECTOR, 2 * LC_SECTOR, 0x33, 0, "part");
	assert_bytes(mem_block(disk, 160) + 3 * LC_SECTOR, 5 * LC_SECTOR, 0, 0, "its rest");
	assert_bytes(mem_block(disk, 170) + 107, LC_BLOCK - 107, 0, 0, "the other rest");
}

/* --- what it costs --- */

static void a_few_blocks_are_logged_as_data(void **state)
{
	(void)state;
	must_open();
	zero(0, 0, 15);
	assert_int_equal(stats().dirty_blocks, 15);
	assert_int_equal(stats().pending_zero_blocks, 0);
	assert_int_equal(stats().zeros, 1);
	assert_true(stats().zero_bytes == 15 * LC_BLOCK);
	assert_int_equal(stats().writes, 0); /* nobody wrote */
	must_drain();
	assert_int_equal(disk->zeroes, 0);
	assert_on_disk(0, 0, 15, 0);
	/* but one block alone may be given back, if that is what is wanted */
	assert_int_equal(lc_zero(volume(0), LC_BLOCK, 20 * LC_BLOCK, LC_MAY_TRIM), 0);
	assert_int_equal(stats().pending_zero_blocks, 1);
	must_drain();
	assert_int_equal(disk->punches, 1);
	must_close();
}

static void a_large_range_is_one_entry(void **state)
{
	const u64 large = LC_ZERO_BLOCKS_MAX + 100u;
	u64 before;

	(void)state;
	mem_close(&disk->store);
	mem_open(disk, "/dev/slow0", large * LC_BLOCK); /* sparse */
	settings.flush_interval_ms = 0;
	must_open();
	zero(0, 0, LC_ZERO_BLOCKS_MAX);
	flush();
	assert_int_equal(stats().records, 1);
	assert_int_equal(stats().log_bytes, 2 * LC_BLOCK);
	assert_int_equal(stats().dirty_blocks, 0);
	assert_int_equal(stats().pending_zero_blocks, LC_ZERO_BLOCKS_MAX);
	before = stats().log_bytes;
	zero(0, 0, large); /* two, in one record */
	flush();
	assert_int_equal(stats().log_bytes - before, 3 * LC_BLOCK);
	assert_int_equal(stats().pending_zero_blocks, large);
	crash();
	must_open();
	assert_int_equal(stats().pending_zero_blocks, large);
	must_close();
}

/* --- what the disk is told --- */

static void overlapping_ranges_are_zeroed_once(void **state)
{
	(void)state;
	must_open();
	mem_forget(&disks[0]);
	zero(0, 100, 40);
	assert_int_equal(lc_trim(volume(0), 40 * LC_BLOCK, 120 * LC_BLOCK, 0), 0);
	zero(0, 110, 20);
	put(0, 125, 1, 0x22);
	assert_int_equal(stats().pending_zero_blocks, 60);
	must_drain();
	/* (100, 10) and (110, 20) are two entries of one segment, and one range */
	assert_disk_did(0, MEM_IO_ZERO, 100, 10);
	assert_disk_did(1, MEM_IO_ZERO, 110, 20);
	assert_disk_did(2, MEM_IO_PUNCH, 130, 30);
	assert_disk_did(3, LC_IO_FLUSH, 0, 0);
	assert_disk_did(4, LC_IO_WRITE, 125, 1);
	assert_int_equal(stats().zeroed_blocks, 60);
	assert_on_disk(0, 100, 25, 0);
	assert_on_disk(0, 125, 1, 0x22);
	assert_on_disk(0, 126, 34, 0);
	assert_on_disk(0, 160, 1, noise(0));
	must_close();
}

static void adjacent_ranges_are_zeroed_as_one(void **state)
{
	(void)state;
	must_open();
	mem_forget(&disks[0]);
	for (u32 i = 0; i < 5; i++)
		zero(0, 100 + 20 * i, 20);
	must_drain();
	assert_disk_did(0, MEM_IO_ZERO, 100, 100);
	assert_disk_did(1, LC_IO_FLUSH, 0, 0);
	must_close();
}

static void a_disk_that_cannot_zero_is_written_to(void **state)
{
	u64 size = 600 * LC_BLOCK + 700;

	(void)state;
	disk->store.size_bytes = size;
	for (u32 i = 0; i < 3; i++) {
		memset(disk->data, noise(0), size);
		mem_forget(disk);
		if (i == 0)
			disk->zero_error = -EIO; /* it says that it can */
		else if (i == 1)
			disk->zero_error = -EOPNOTSUPP;
		else
			take_zero_away();
		must_open();
		zero(0, 100, 300);
		put(0, 150, 1, 0x22);
		assert_int_equal(lc_zero(volume(0), size - 500 * LC_BLOCK, 500 * LC_BLOCK, 0), 0);
		must_drain();
		assert_int_equal(disk->zeroes + disk->punches, 0);
		assert_int_equal(stats().backing_errors, 0);
		assert_int_equal(stats().pending_zero_blocks, 0);
		must_close();
		assert_on_disk(0, 99, 1, noise(0));
		assert_on_disk(0, 100, 50, 0);
		assert_on_disk(0, 150, 1, 0x22);
		assert_on_disk(0, 151, 249, 0);
		assert_on_disk(0, 400, 100, noise(0));
		assert_bytes(mem_block(disk, 500), size - 500 * LC_BLOCK, 0, 0, "the end");
		mem_revive(disk);
	}
}

static void fast_only_is_refused_where_it_is_slow(void **state)
{
	(void)state;
	take_zero_away();
	must_open();
	assert_false(lc_volume_can_fast_zero(volume(0)));
	assert_false(lc_volume_can_trim(volume(0)));
	assert_int_equal(lc_zero(volume(0), 50 * LC_BLOCK, 0, LC_FAST_ONLY), -EOPNOTSUPP);
	assert_int_equal(lc_zero(volume(0), 5, 0, LC_FAST_ONLY | LC_FUA), -EOPNOTSUPP);
	assert_int_equal(stats().zeros, 0);
	assert_int_equal(stats().seq, 0);
	assert_reads(0, 0, 50, noise(0));
	zero(0, 0, 50);
	assert_reads(0, 0, 50, 0);
	must_close();
	disk->store.can_zero = true;
	must_open();
	assert_true(lc_volume_can_fast_zero(volume(0)));
	assert_int_equal(lc_zero(volume(0), 50 * LC_BLOCK, 100 * LC_BLOCK, LC_FAST_ONLY), 0);
	assert_reads(0, 100, 50, 0);
	must_close();
}

/* --- trim --- */

static void trim_gives_whole_blocks_back(void **state)
{
	u64 offset = 100 * LC_BLOCK - 700, len = 10 * LC_BLOCK + 1400;

	(void)state;
	must_open();
	mem_forget(&disks[0]);
	assert_true(lc_volume_can_trim(volume(0)));
	put(0, 104, 1, 0x11);
	assert_int_equal(lc_trim(volume(0), len, offset, LC_FUA), 0);
	assert_int_equal(stats().trims, 1);
	assert_true(stats().trim_bytes == len);
	assert_int_equal(stats().pending_zero_blocks, 10);
	assert_true(stats().durable_seq == stats().seq);
	assert_reads(0, 100, 10, 0);
	/* the edges are left alone, and so is a trim without a whole block */
	assert_reads_bytes(0, offset, 700, noise(0));
	assert_reads_bytes(0, 110 * LC_BLOCK, 700, noise(0));
	assert_int_equal(lc_trim(volume(0), 2 * LC_BLOCK - 2, 200 * LC_BLOCK + 1, 0), 0);
	assert_int_equal(stats().pending_zero_blocks, 10);
	must_drain();
	assert_int_equal(disk->zeroes, 0);
	assert_disk_did(0, MEM_IO_PUNCH, 100, 10);
	assert_on_disk(0, 100, 10, 0);
	assert_on_disk(0, 99, 1, noise(0));
	assert_false(mem_is_taken(disk, 104));
	must_close();
}

static void trim_does_nothing_where_no_space_comes_back(void **state)
{
	(void)state;
	disk->store.can_punch = false;
	must_open();
	put(0, 104, 1, 0x11);
	flush();
	mem_forget(&ssd);
	assert_int_equal(lc_trim(volume(0), 50 * LC_BLOCK, 100 * LC_BLOCK, LC_FUA), 0);
	assert_int_equal(stats().trims, 0);
	assert_int_equal(ssd.writes, 0);
	assert_reads(0, 104, 1, 0x11);
	assert_reads(0, 105, 10, noise(0));
	/* zeros that may be a trim are zeros all the same */
	assert_int_equal(lc_zero(volume(0), 50 * LC_BLOCK, 100 * LC_BLOCK, LC_MAY_TRIM), 0);
	assert_reads(0, 100, 50, 0);
	must_drain();
	assert_int_equal(disk->punches, 0);
	assert_int_equal(disk->zeroes, 1);
	must_close();
}

/* --- trouble --- */

/* 768 blocks of cache: 64 entries at most. With write-back off it runs for who waits. */
static void more_entries_than_there_is_room_for_wait_for_the_tail(void **state)
{
	(void)state;
	must_open();
	for (u32 i = 0; i < 300; i++) {
		zero(0, i % 40 * 20, 17);
		if (i % 3 == 0)
			put(0, i % 40 * 20, 1, i);
	}
	assert_true(stats().sweeps >= 3);
	assert_true(stats().zeroed_blocks >= 17);
	must_drain();
	assert_int_equal(stats().pending_zero_blocks, 0);
	assert_on_disk(0, 1, 16, 0);
	assert_on_disk(0, 17, 3, noise(0));
	must_close();
}

static void too_many_entries_fail_with_the_disk_that_fails(void **state)
{
	u32 nr = 0;
	int err;

	(void)state;
	disk->zero_error = disk->write_error = -ENXIO;
	must_open();
	while (!(err = lc_zero(volume(0), 16 * LC_BLOCK, nr % 64 * 16 * LC_BLOCK, 0)))
		nr++;
	assert_int_equal(err, -ENXIO);
	assert_int_equal(nr, 64);
	/* data has room, and is taken; a read is served */
	put(0, 1000, 1, 0x11);
	assert_reads(0, 0, 16, 0);
	disk->zero_error = disk->write_error = 0;
	must_become(!lc_zero(volume(0), 16 * LC_BLOCK, 0, 0));
	must_drain();
	must_close();
}

static void a_lost_block_that_is_zeroed_is_found_again(void **state)
{
	(void)state;
	settings.nr_buffers = 2;
	must_open();
	for (u32 i = 0; i < 40; i++)
		put(0, 100 + i, 1, 0x11);
	flush();
	ssd.read_error = -EIO;
	(void)lc_cache_drain(cache); /* what is in buffers gets through */
	ssd.read_error = 0;
	assert_true(stats().lost_blocks > 0);
	assert_int_equal(lc_read(volume(0), client_buf, LC_BLOCK, 100 * LC_BLOCK), -EIO);
	must_close();
	must_open();
	assert_int_equal(lc_read(volume(0), client_buf, LC_BLOCK, 100 * LC_BLOCK), -EIO);
	zero(0, 96, 40); /* the last ones stay lost, if they are */
	assert_reads(0, 96, 40, 0);
	flush();
	crash();
	must_open();
	assert_reads(0, 96, 40, 0);
	must_drain();
	must_close();
	assert_on_disk(0, 96, 40, 0);
	must_open();
	assert_reads(0, 96, 40, 0);
	must_close();
}

/* --- extents --- */

static void assert_extent(u64 offset, u64 len, u64 want, bool hole)
{
	struct lc_extent e = {0};

	assert_int_equal(lc_extent(volume(0), len, offset, &e), 0);
	if (e.len_bytes != want || e.hole != hole)
		fail_msg("%llu+%llu: %s of %llu bytes, not %s of %llu", (unsigned long long)offset,
			 (unsigned long long)len, e.hole ? "a hole" : "data",
			 (unsigned long long)e.len_bytes, hole ? "a hole" : "data",
			 (unsigned long long)want);
}

static void extents_know_the_cache_and_the_disk(void **state)
{
	const u64 b = LC_BLOCK;

	(void)state;
	disk->store.size_bytes = 1000 * b + 100;
	assert_int_equal(lc_store_zero(&disk->store, 100 * b, 300 * b, true), 0);
	must_open();
	/* nothing cached: as the disk says */
	assert_extent(0, 1000 * b + 100, 300 * b, false);
	assert_extent(299 * b + 9, 50 * b, b - 9, false);
	assert_extent(310 * b, 500 * b, 90 * b, true);
	assert_extent(310 * b + 1, 7, 7, true);
	/* data in the hole */
	put(0, 350, 2, 0x11);
	assert_extent(310 * b, 500 * b, 40 * b, true);
	assert_extent(350 * b, 500 * b, 2 * b, false);
	assert_extent(351 * b + 4095, 500 * b, 1, false);
	assert_extent(352 * b, 500 * b, 48 * b, true);
	/* a hole in data, part of which is written again */
	zero(0, 600, 50);
	assert_extent(500 * b, 500 * b, 100 * b, false);
	assert_extent(600 * b, 400 * b + 100, 50 * b, true);
	assert_int_equal(try_put(0, 620 * b, LC_SECTOR, 0x11), 0);
	assert_extent(600 * b + 3, 400 * b, 20 * b - 3, true);
	assert_extent(620 * b, 380 * b, b, false);
	assert_extent(621 * b, 379 * b, 29 * b, true);
	assert_extent(1000 * b + 99, 1, 1, false);
	/* what the disk cannot say nobody needs to know, unless it is asked */
	disk->extent_error = -EIO;
	assert_extent(600 * b, 400 * b, 20 * b, true);
	assert_int_equal(lc_extent(volume(0), b, 0, &(struct lc_extent){0}), -EIO);
	disk->extent_error = 0;
	must_drain();
	assert_extent(600 * b, 20 * b, 20 * b, false); /* allocated zeros */
	must_close();
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, life_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(zeros_are_read_without_asking_the_disk),
		T(edges_are_exact),
		T(writes_into_a_pending_range_are_seen),
		T(a_few_blocks_are_logged_as_data),
		T(a_large_range_is_one_entry),
		T(overlapping_ranges_are_zeroed_once),
		T(adjacent_ranges_are_zeroed_as_one),
		T(a_disk_that_cannot_zero_is_written_to),
		T(fast_only_is_refused_where_it_is_slow),
		T(trim_gives_whole_blocks_back),
		T(trim_does_nothing_where_no_space_comes_back),
		T(more_entries_than_there_is_room_for_wait_for_the_tail),
		T(too_many_entries_fail_with_the_disk_that_fails),
		T(a_lost_block_that_is_zeroed_is_found_again),
		T(extents_know_the_cache_and_the_disk),
	};

	return cmocka_run_group_tests(tests, mem_quiet, NULL);
}
