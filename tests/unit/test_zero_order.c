/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_zero_order.c - zeros and blocks do not overtake each other (I8), neither in the log nor on the way to the disk, whatever
 * clients do while a turn of write-back is under way; and the tail passes no zeros that the disk may forget (I3).
 *
 * The disk is full of noise, and never zero by itself. A client comes in the middle of a turn.
 */
#include "cache_life.h"

#include <stdatomic.h>

#define BLOCKS 1024u /* of the disk */

static struct mem_store *const disk = &disks[0];

static int setup(void **state)
{
	int ret = life_setup(state);

	make(4 * MIB, 32768, 1, BLOCKS * LC_BLOCK);
	return ret;
}

/* A cache so large that one turn takes more than the belt has room for, in runs of up to 64 blocks. */
static int setup_large(void **state)
{
	int ret = life_setup(state);

	make(32 * MIB, 32768, 1, BLOCKS * LC_BLOCK);
	return ret;
}

/* --- in the log --- */

/* An overwrite in place must not find a block of before the zeros: it would lie before them in the log. */
static void a_write_right_after_the_zeros_is_newer(void **state)
{
	(void)state;
	settings.flush_interval_ms = 0;
	must_open();
	put(0, 110, 1, 0x11);
	assert_int_equal(try_put(0, 111 * LC_BLOCK, LC_SECTOR, 0x11), 0);
	zero(0, 100, 50);
	assert_int_equal(try_put(0, 110 * LC_BLOCK, LC_SECTOR, 0x22), 0);
	assert_int_equal(try_put(0, 111 * LC_BLOCK + LC_SECTOR, LC_SECTOR, 0x22), 0);
	flush();
	crash(); /* replay has nothing but the order in the log */
	must_open();
	assert_reads_bytes(0, 110 * LC_BLOCK, LC_SECTOR, 0x22);
	assert_reads_bytes(0, 110 * LC_BLOCK + LC_SECTOR, LC_BLOCK - LC_SECTOR, 0);
	assert_reads_bytes(0, 111 * LC_BLOCK, LC_SECTOR, 0);
	assert_reads_bytes(0, 111 * LC_BLOCK + LC_SECTOR, LC_SECTOR, 0x22);
	must_close();
}

/* --- on the way to the disk --- */

static void zeros_are_flushed_before_newer_blocks_are_written(void **state)
{
	(void)state;
	must_open();
	mem_forget(&disks[0]);
	put(0, 120, 1, 0x11); /* older: not written at all */
	zero(0, 100, 50);
	put(0, 110, 2, 0x22);
	put(0, 200, 1, 0x33);
	must_drain();
	assert_disk_did(0, MEM_IO_ZERO, 100, 50);
	assert_disk_did(1, LC_IO_FLUSH, 0, 0);
	assert_disk_did(2, LC_IO_WRITE, 110, 2);
	assert_disk_did(3, LC_IO_WRITE, 200, 1);
	assert_disk_did(4, LC_IO_FLUSH, 0, 0);
	assert_int_equal(disk->nr_trace, 5);
	assert_int_equal(stats().zeroed_blocks, 50);
	must_close();
}

/* I8: before zeros are durable in the log a crash may undo them, and the disk must have what was there. */
static void only_durable_zeros_reach_the_disk(void **state)
{
	(void)state;
	settings.writeback = true;
	settings.dirty_low_percent = 0;
	settings.batch_bytes = 32768; /* two sweeps */
	settings.flush_interval_ms = 0;
	must_open();
	lc_mutex_lock(&disk->lock); /* the disk hangs in the first one */
	put(0, 500, 14, 0x11);
	flush();
	sleep_ms(20);
	zero(0, 100, 50);
	lc_mutex_unlock(&disk->lock);
	must_become(stats().tail_id == 2);
	assert_int_equal(stats().sweeps, 2);
	assert_int_equal(disk->zeroes, 0);
	assert_on_disk(0, 100, 50, noise(0));
	must_drain();
	assert_on_disk(0, 100, 50, 0);
	must_close();
}

/* What a client does in the middle of a turn. */
static struct {
	atomic_bool due;
	u64 from, nr; /* blocks that it zeroes */
	u64 block;    /* then it writes this one */
} meanwhile;

/* The write-back thread fills up a part of a block: the belt is full, and the rest of its turn is before it. */
static int read_meanwhile(struct lc_store *s, void *buf, u32 len_bytes, u64 offset_bytes)
{
	if (atomic_exchange(&meanwhile.due, false)) {
		zero(0, meanwhile.from, meanwhile.nr);
		assert_reads(0, meanwhile.from, meanwhile.nr, 0);
		put(0, meanwhile.block, 1, 9);
		put(0, 900, 16, 1); /* closes the segment */
		flush();
	}
	return mem_read(s, buf, len_bytes, offset_bytes);
}

/* The next turn has parts of blocks to fill up: a client zeroes NR blocks from FROM on then, and writes to BLOCK. */
static void zero_meanwhile(u64 from, u64 nr, u64 block)
{
	static struct lc_store_ops ops;

	ops = *disk->store.ops;
	ops.read = read_meanwhile;
	disk->store.ops = &ops;
	disk->store.block_bytes = LC_BLOCK;
	must_open();
	meanwhile.from = from;
	meanwhile.nr = nr;
	meanwhile.block = block;
	atomic_store(&meanwhile.due, true);
}

/* The disk has done this; its number. */
static u32 did(enum lc_io_op op, u64 block, u64 nr)
{
	u32 n = 0;

	while (n < disk->nr_trace &&
	       (disk->trace[n].op != op || disk->trace[n].offset_bytes != block * LC_BLOCK))
		n++;
	assert_disk_did(n, op, block, nr);
	return n;
}

/* Write-back has blocks in hand when the zeros come: it writes them, and zeroes afterwards. */
static void newer_zeros_are_not_undone_by_older_blocks(void **state)
{
	(void)state;
	zero_meanwhile(100, 16, 110);
	assert_int_equal(try_put(0, 0, LC_SECTOR, 1), 0);
	put(0, 100, 20, 5);
	flush();
	must_drain();
	assert_false(atomic_load(&meanwhile.due));
	must_drain();
	assert_true(did(LC_IO_WRITE, 100, 20) < did(MEM_IO_ZERO, 100, 16)); /* it was so */
	assert_on_disk(0, 100, 10, 0);
	assert_on_disk(0, 110, 1, 9);
	assert_on_disk(0, 111, 5, 0);
	assert_on_disk(0, 116, 4, 5);
	must_close();
}

/*
 * The turn is to write 280 runs, which is more than the belt has room for, when zeros come, and a block in them that lies right
 * behind its last one. The zeros are for the next turn, so the block is, too.
 */
static void newer_blocks_wait_for_their_zeros(void **state)
{
	u64 last = 2 * 279;

	(void)state;
	zero_meanwhile(last + 1, 20, last + 1);
	assert_int_equal(try_put(0, 0, LC_SECTOR, 1), 0);
	for (u64 block = 2; block <= last; block += 2)
		put(0, block, 1, 1);
	flush();
	must_drain();
	assert_false(atomic_load(&meanwhile.due));
	must_drain();
	assert_on_disk(0, last, 1, 1);
	assert_on_disk(0, last + 1, 1, 9);
	assert_on_disk(0, last + 2, 19, 0);
	assert_true(did(LC_IO_WRITE, last, 1) < did(MEM_IO_ZERO, last + 1, 20)); /* it was so */
	must_close();
}

/*
 * A range can become pending and durable while a turn is on its way there, and what was written over it, too. Block 500 on the
 * list of the turn is not what it was then: it must wait until the range has been zeroed.
 */
static void what_is_zeroed_during_a_turn_is_left_for_the_next(void **state)
{
	(void)state;
	zero_meanwhile(480, 64, 500);
	for (u32 i = 0; i < 220; i++) /* more parts of blocks than the belt has room for */
		assert_int_equal(try_put(0, i * 2 * LC_BLOCK, LC_SECTOR, 1), 0);
	put(0, 500, 1, 5);
	flush();
	must_drain();
	assert_false(atomic_load(&meanwhile.due));
	must_drain();
	assert_on_disk(0, 500, 1, 9);
	assert_on_disk(0, 501, 1, 0);
	assert_int_equal(stats().superseded_blocks, 1); /* it was so: the turn had met it, and left it */
	must_close();
}

/* --- the tail --- */

static void the_tail_waits_for_the_zeros(void **state)
{
	(void)state;
	must_open();
	put(0, 500, 1, 0x11);
	must_drain(); /* the tail is behind this one */
	assert_int_equal(stats().tail_id, stats().head_id);
	zero(0, 100, 50);
	put(0, 110, 1, 0x22);
	disk->zero_error = disk->write_error = -EIO;
	assert_int_equal(lc_cache_drain(cache), -EIO);
	assert_int_equal(stats().tail_id, 1);
	assert_int_equal(stats().pending_zero_blocks, 50);
	assert_true(stats().backing_errors > 0);
	disk->zero_error = disk->write_error = 0;
	/* zeroed, but who knows for how long */
	disk->flush_error = -EIO;
	assert_int_equal(lc_cache_drain(cache), -EIO);
	assert_int_equal(stats().tail_id, 1);
	assert_int_equal(stats().pending_zero_blocks, 50);
	assert_on_disk(0, 100, 50, 0);
	disk->flush_error = 0;
	mem_forget(disk);
	must_drain();
	assert_disk_did(0, MEM_IO_ZERO, 100, 50); /* once more */
	assert_int_equal(stats().tail_id, stats().head_id);
	assert_on_disk(0, 110, 1, 0x22);
	must_close();
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, life_teardown)
#define LARGE(name) cmocka_unit_test_setup_teardown(name, setup_large, life_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_write_right_after_the_zeros_is_newer),
		T(zeros_are_flushed_before_newer_blocks_are_written),
		LARGE(newer_zeros_are_not_undone_by_older_blocks),
		LARGE(newer_blocks_wait_for_their_zeros),
		T(only_durable_zeros_reach_the_disk),
		LARGE(what_is_zeroed_during_a_turn_is_left_for_the_next),
		T(the_tail_waits_for_the_zeros),
	};

	return cmocka_run_group_tests(tests, mem_quiet, NULL);
}
