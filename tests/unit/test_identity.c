/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_identity.c - which backing store is taken for the one that the cache has unwritten data for, by what is on it.
 *
 * test_cache.c and test_volumes.c have the plain cases: one that was changed, one that has grown, two that are swapped.
 */
#include "cache_life.h"

#define BLOCKS 256u
#define BYTES (BLOCKS * LC_BLOCK)
/* Samples: with 256 blocks every fourth one, about; the first and the last. */
#define LAST (BLOCKS - 1)

static int setup(void **state)
{
	int ret = life_setup(state);

	make(4 * MIB, 32768, 2, BYTES + MIB);
	nr_specs = 1;
	disks[0].store.size_bytes = BYTES;
	return ret;
}

/* All of the volume is to be zeroed, and that is not done yet: nothing on the disk has to be as it was. */
static void make_zeros_pending(void)
{
	must_open();
	zero(0, 0, BLOCKS);
	flush();
	crash();
}

static void assert_refused(const char *says)
{
	static u8 before[BYTES + MIB];

	memcpy(before, disks[0].data, sizeof before);
	assert_int_equal(open_cache(), -EBUSY);
	assert_says(&error, says);
	assert_says(&error, "nothing was changed");
	assert_memory_equal(before, disks[0].data, sizeof before);
}

static void assert_accepted(void)
{
	must_open();
	must_drain();
	must_close();
}

static void what_is_to_be_zeroed_is_no_excuse_for_other_data(void **state)
{
	(void)state;
	make_zeros_pending();
	memset(disks[0].data, 0x77, BYTES);
	assert_refused("is not the backing store");
	memset(disks[0].data, noise(0), BYTES);
	assert_accepted();
	assert_on_disk(0, 0, BLOCKS, 0);
}

/* A power cut in the middle of it: in a block that is a sample some sectors are zeros, and others are not. */
static void what_was_zeroed_in_part_is_the_same(void **state)
{
	(void)state;
	make_zeros_pending();
	memset(disks[0].data, 0, BYTES / 2);
	memset(disks[0].data + (u64)LAST * LC_BLOCK + 3 * LC_SECTOR, 0, LC_SECTOR);
	assert_accepted();
	assert_on_disk(0, 0, BLOCKS, 0);
}

/* A copy that write-back may have written before it was superseded. */
static void what_was_written_before_it_was_to_be_zeroed_may_be_there(void **state)
{
	(void)state;
	must_open();
	put(0, 0, 1, 0x31);
	put(0, LAST, 1, 0x32);
	zero(0, 0, BLOCKS);
	flush();
	crash();
	memset(mem_block(&disks[0], 0), 0x31, LC_BLOCK);
	assert_accepted();
	assert_on_disk(0, 0, BLOCKS, 0);
}

/* The same, and by now the copy is below the tail: the crash was in the life before. */
static void what_was_written_in_an_earlier_life_may_be_there(void **state)
{
	(void)state;
	must_open();
	put(0, LAST, 1, 0x32);
	flush();
	crash();
	memset(mem_block(&disks[0], LAST), 0x32, LC_BLOCK); /* so far did write-back come */
	must_open();
	zero(0, 64, BLOCKS - 64);
	flush();
	put(0, 3, 200, 0x33); /* the segment of the first copy is closed */
	flush();
	disks[0].flush_error = -EIO; /* its tail moves; what is to be zeroed stays so */
	assert_int_equal(lc_cache_drain(cache), -EIO);
	assert_true(stats().tail_id >= 1);
	crash();
	disks[0].flush_error = 0;
	memset(mem_block(&disks[0], LAST), 0x32,
	       LC_BLOCK); /* the flush failed: the zeros did not arrive */
	assert_accepted();
}

static void a_blank_disk_may_be_larger(void **state)
{
	(void)state;
	memset(disks[0].data, 0, BYTES);
	must_open();
	put(0, 1, 2, 0x41); /* no samples */
	flush();
	crash();
	disks[0].store.size_bytes = BYTES + MIB;
	assert_accepted();
	assert_non_null(strstr(mem_log_text, "has grown"));
}

static void a_larger_disk_with_other_data_is_refused(void **state)
{
	(void)state;
	memset(disks[0].data, 0, BYTES);
	must_open();
	put(0, 0, 1, 0x41); /* the only sample that the other one could be told by */
	flush();
	crash();
	disks[0].store.size_bytes = BYTES + MIB;
	memset(mem_block(&disks[0], 0), 0x55, LC_BLOCK);
	assert_refused("losetup --sizelimit");
	/* of the same size it has to be taken for the right one, whose write-back was interrupted; but not silently */
	disks[0].store.size_bytes = BYTES;
	must_open();
	assert_non_null(strstr(mem_log_text, "nothing on it shows"));
	must_close();
}

/* A power cut can leave a sector that cannot be read until it is written again. It is to be overwritten: no reason to refuse the disk, */
static void what_is_to_be_zeroed_need_not_be_readable(void **state)
{
	(void)state;
	make_zeros_pending();
	mem_break_reads(&disks[0], LAST);
	must_open();
	disks[0].nr_bad_blocks = 0; /* a disk would see to that when it is written */
	must_drain();
	must_close();
	assert_on_disk(0, 0, BLOCKS, 0);
}

static void write_back_eagerly(void)
{
	settings.writeback = true;
	settings.dirty_low_percent = 0;
	settings.idle_ms = 20;
}

/* and none for not writing it, because it is a sample that may have changed: turns before that failed for ever. */
static void what_is_to_be_written_need_not_be_readable(void **state)
{
	(void)state;
	must_open();
	put(0, LAST, 1, 0x32);
	zero(0, 0, 128);
	put(0, 200, 16, 0x33);
	flush();
	crash();
	mem_break_reads(&disks[0], LAST);
	write_back_eagerly();
	must_open();
	must_become(mem_block(&disks[0], LAST)[0] == 0x32);
	disks[0].nr_bad_blocks = 0;
	must_drain();
	must_close();
}

/* What the fingerprint of a disk that has grown says must not be in the disk's cache alone. */
static void what_a_new_fingerprint_says_is_durable(void **state)
{
	u32 flushes;

	(void)state;
	make_zeros_pending();
	memset(disks[0].data, 0, BYTES / 2); /* the server was killed; the disk has that in its cache */
	disks[0].store.size_bytes = BYTES + MIB;
	flushes = disks[0].flushes;
	must_open();
	flushes = disks[0].flushes - flushes;
	crash();
	if (!flushes)
		memset(disks[0].data, noise(0), BYTES / 2);
	assert_accepted();
}

/*
 * After a flush that failed nothing is known of what was written before, also after one that succeeds: what is read
 * there may never have arrived.
 */
static void what_a_failed_flush_did_not_cover_is_unsure(void **state)
{
	u32 flushes;

	(void)state;
	write_back_eagerly();
	must_open();
	flushes = disks[0].flushes_begun;
	disks[0].flush_error = -EIO;
	put(0, LAST, 1, 0x32);
	put(0, 1, 6, 0x33); /* the segment is full */
	flush();
	must_become(disks[0].flushes_begun > flushes);
	assert_on_disk(0, LAST, 1, 0x32);
	zero(0, 64, BLOCKS - 64); /* in the next one, which stays open */
	disks[0].flush_error = 0;
	must_become(stats().tail_id == 1);
	crash();
	memset(mem_block(&disks[0], LAST), noise(0), LC_BLOCK);
	assert_accepted();
	assert_on_disk(0, 64, BLOCKS - 64, 0);
}

/* Where the SSD has a block full of WITH. */
static u64 on_ssd(u8 with)
{
	for (u64 block = ssd.store.size_bytes / LC_BLOCK; block-- > 0;)
		if (mem_block(&ssd, block)[0] == with &&
		    !memcmp(mem_block(&ssd, block), mem_block(&ssd, block) + 1, LC_BLOCK - 1))
			return block;
	fail_msg("no block of %02x on the SSD", with);
	return 0;
}

/* A block was written, then again, and that is lost, and nothing else is dirty: what is on the disk is the first one, for all we know. */
static void lose_what_was_written_before(void)
{
	must_open();
	put(0, LAST, 1, 0x32);
	flush();
	put(0, LAST, 1, 0x33);
	flush();
	crash();
	memset(mem_block(&disks[0], LAST), 0x32, LC_BLOCK); /* so far did write-back come */
	must_open();
	mem_break_reads(&ssd, on_ssd(0x33));
	ssd.dies_at_write = ssd.writes +
			    3; /* the list of lost blocks is durable; the fingerprint is not */
	ssd.torn_mask = 0;
	assert_int_not_equal(lc_cache_drain(cache), 0);
	crash();
}

static void what_was_written_before_it_was_lost_may_be_there(void **state)
{
	(void)state;
	lose_what_was_written_before();
	must_open();
	must_drain(); /* the tail passes all of it */
	zero(0, 0, BLOCKS);
	flush();
	crash();
	assert_accepted();
}

/* The tail passes it while the volume is left out; and then it is zeroed, and does not count as lost any more. */
static void what_was_lost_explains_until_it_is_overwritten(void **state)
{
	struct lc_volume_spec spec = specs[0];

	(void)state;
	lose_what_was_written_before();
	specs[0] = specs[1];
	must_open();
	put(0, 1, 1, 0x34);
	must_drain();
	must_close();
	specs[0] = spec;
	make_zeros_pending();
	assert_accepted();
}

/*
 * The SSD failed when a detach had written one copy of the table, which says that nothing in the cache counts, and that
 * the fingerprint says nothing. The cache stayed, and has new data.
 */
static void use_after_a_failed_detach(void)
{
	must_open();
	ssd.dies_at_write = ssd.writes + 2;
	ssd.torn_mask = 0;
	assert_true(lc_cache_detach(cache, &error) < 0);
	mem_revive(&ssd);
	while (lc_flush(volume(0))) /* until the log is written again */
		sleep_ms(2);
	put(0, 1, 2, 0x41); /* no samples */
	flush();
}

static void a_failed_detach_does_not_hide_another_disk(void **state)
{
	(void)state;
	use_after_a_failed_detach();
	crash();
	memset(disks[0].data, 0x77, BYTES);
	assert_refused("is not the backing store");
	memset(disks[0].data, noise(0), BYTES);
	must_open();
	assert_reads(0, 1, 2, 0x41);
	must_drain();
	must_close();
}

/* What is lost after it is our affair. */
static void a_failed_detach_does_not_hide_what_is_lost(void **state)
{
	(void)state;
	use_after_a_failed_detach();
	for (u32 i = 0; i < 12; i++)
		put(0, 100 + i * 8, 7, 0x42); /* so many segments that it is read from the SSD */
	flush();
	mem_break_reads(&ssd, on_ssd(0x41));
	ssd.dies_at_write = ssd.writes + 3; /* the list of lost blocks is durable */
	assert_int_not_equal(lc_cache_drain(cache), 0);
	crash();
	must_open();
	assert_int_equal(lc_read(volume(0), client_buf, LC_BLOCK, 2 * LC_BLOCK), -EIO);
	must_close();
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, life_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(what_is_to_be_zeroed_is_no_excuse_for_other_data),
		T(what_was_zeroed_in_part_is_the_same),
		T(what_was_written_before_it_was_to_be_zeroed_may_be_there),
		T(what_was_written_in_an_earlier_life_may_be_there),
		T(a_blank_disk_may_be_larger),
		T(a_larger_disk_with_other_data_is_refused),
		T(what_is_to_be_zeroed_need_not_be_readable),
		T(what_is_to_be_written_need_not_be_readable),
		T(what_a_new_fingerprint_says_is_durable),
		T(what_a_failed_flush_did_not_cover_is_unsure),
		T(what_was_written_before_it_was_lost_may_be_there),
		T(what_was_lost_explains_until_it_is_overwritten),
		T(a_failed_detach_does_not_hide_another_disk),
		T(a_failed_detach_does_not_hide_what_is_lost),
	};

	return cmocka_run_group_tests(tests, mem_quiet, NULL);
}
