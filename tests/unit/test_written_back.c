/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_written_back.c - blocks that a crash has made dirty again, though their backing store has them, and that the SSD
 * has lost since.
 *
 * Volume 1, whose disk fails, holds the tail, so that everything above it comes back dirty. What of volume 0 was written back
 * before is not lost with its copy on the SSD: the checksum proves that the disk has the same. (It was called lost, and
 * answered with errors.)
 */
#include "cache_life.h"

#define DISK_BLOCKS 512u

static int setup(void **state)
{
	int ret = life_setup(state);

	make(4 * MIB, 32768, 2, DISK_BLOCKS * LC_BLOCK);
	disks[1].write_error = -ENXIO;
	must_open();
	put(1, 0, 1, 0x99); /* holds the tail */
	return ret;
}

/* Volume 0 is written back; the power is cut. Everything comes back dirty. */
static void write_back_and_crash(void)
{
	assert_true(lc_cache_drain(cache) < 0);
	crash();
	disks[1].write_error = -ENXIO;
	must_open();
	assert_true(stats().dirty_blocks > 1);
}

/* The copies on the SSD that begin with a sector full of WHAT rot, or cannot be read any more. */
static void lose(u8 what, bool rot)
{
	u8 sector[LC_SECTOR];
	unsigned found = 0;

	memset(sector, what, sizeof sector);
	for (u64 block = 0; block < 4 * MIB / LC_BLOCK; block++) {
		if (memcmp(mem_block(&ssd, block), sector, sizeof sector) != 0)
			continue;
		if (rot)
			mem_block(&ssd, block)[LC_BLOCK - 1] ^= 1;
		else
			mem_break_reads(&ssd, block);
		found++;
	}
	assert_int_equal(found, 1);
}

static void what_was_written_back_is_not_lost(void **state)
{
	(void)state;
	for (unsigned rot = 0; rot < 2; rot++) {
		u64 block = 10 + 10 * rot;

		put(0, block, 1, 0x10 + rot);
		assert_int_equal(try_put(0, (block + 2) * LC_BLOCK, 3 * LC_SECTOR, 0x20 + rot), 0);
		put(0, block + 4, 1, 0x30 + rot);
		assert_int_equal(try_put(0, (block + 6) * LC_BLOCK, 3 * LC_SECTOR, 0x40 + rot), 0);
		write_back_and_crash();
		for (u8 what = 0x10; what <= 0x40; what += 0x10)
			lose(what + rot, rot);
		/* by reading, */
		assert_reads(0, block, 1, 0x10 + rot);
		assert_reads_bytes(0, (block + 2) * LC_BLOCK, 3 * LC_SECTOR, 0x20 + rot);
		assert_reads_bytes(0, (block + 2) * LC_BLOCK + 3 * LC_SECTOR, 5 * LC_SECTOR,
				   noise(0));
		/* by writing a part, */
		assert_int_equal(try_put(0, (block + 4) * LC_BLOCK + LC_SECTOR, LC_SECTOR, 0x77), 0);
		assert_reads_bytes(0, (block + 4) * LC_BLOCK + 2 * LC_SECTOR, 6 * LC_SECTOR,
				   0x30 + rot);
		/* and by write-back */
		assert_true(lc_cache_drain(cache) < 0);
		assert_int_equal(stats().lost_blocks, 0);
		assert_int_equal(stats().crc_errors > 0, rot);
		mem_revive(&ssd);
		assert_on_disk(0, block, 1, 0x10 + rot);
		assert_reads_bytes(0, (block + 6) * LC_BLOCK, 3 * LC_SECTOR, 0x40 + rot);
		assert_reads_bytes(0, (block + 6) * LC_BLOCK + 3 * LC_SECTOR, 5 * LC_SECTOR,
				   noise(0));
		assert_reads_bytes(0, (block + 4) * LC_BLOCK + LC_SECTOR, LC_SECTOR, 0x77);
	}
	disks[1].write_error = 0;
	must_drain();
	must_close();
}

/* What was not is, although something else was there. */
static void what_was_not_written_back_is_lost(void **state)
{
	(void)state;
	put(0, 10, 1, 0x10);
	assert_true(lc_cache_drain(cache) < 0);
	put(0, 10, 1, 0x11);
	flush();
	crash();
	must_open();
	lose(0x11, true);
	assert_int_equal(lc_read(volume(0), client_buf, LC_BLOCK, 10 * LC_BLOCK), -EIO);
	must_drain();
	assert_int_equal(stats().lost_blocks, 1);
	assert_int_equal(lc_read(volume(0), client_buf, LC_BLOCK, 10 * LC_BLOCK), -EIO);
	must_close();
}

/* Nor is what the disk may have, as long as it cannot be asked: it was called lost for good. */
static void what_cannot_be_compared_is_not_lost_yet(void **state)
{
	static const int errors[] = {-ENOTCONN, -EIO};

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		put(0, 10, 1, 0x10 + i);
		write_back_and_crash();
		lose(0x10 + i, true);
		disks[0].read_error = disks[0].write_error = disks[0].flush_error = errors[i];
		assert_true(lc_cache_drain(cache) < 0);
		assert_int_equal(lc_read(volume(0), client_buf, LC_BLOCK, 10 * LC_BLOCK), -EIO);
		assert_int_equal(stats().lost_blocks, 0);
		mem_revive(&disks[0]);
		assert_reads(0, 10, 1, 0x10 + i);
	}
	mem_revive(&disks[1]);
	must_drain();
	assert_int_equal(stats().lost_blocks, 0);
	assert_reads(0, 10, 1, 0x11);
	must_close();
}

/* If it is the disk's own block that cannot be read, there is nothing to wait for. */
static void what_the_disk_has_lost_as_well_is_lost(void **state)
{
	(void)state;
	put(0, 10, 1, 0x10);
	write_back_and_crash();
	lose(0x10, true);
	mem_break_reads(&disks[0], 10);
	mem_revive(&disks[1]);
	must_drain();
	assert_int_equal(stats().lost_blocks, 1);
	assert_int_equal(lc_read(volume(0), client_buf, LC_BLOCK, 10 * LC_BLOCK), -EIO);
	must_close();
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, life_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(what_was_written_back_is_not_lost),
		T(what_was_not_written_back_is_lost),
		T(what_cannot_be_compared_is_not_lost_yet),
		T(what_the_disk_has_lost_as_well_is_lost),
	};

	return cmocka_run_group_tests(tests, mem_quiet, NULL);
}
