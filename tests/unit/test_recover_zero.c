/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_recover_zero.c - recovery of logs with ZERO and TRIM entries: what is pending again, what
 * older blocks they drop, and what no engine has written.
 */
#define BLOCKS 32u /* so that there is room for more entries than there may be */
#include "log_image.h"

/* The pending ranges, as NR pairs of first block and length. */
static void assert_pending(const u32 (*want)[2], u32 nr)
{
	const struct lc_zeros *z = &core.ring.zeros;
	u64 sum = 0;

	assert_int_equal(z->nr, nr);
	for (u32 i = 0; i < nr; i++) {
		assert_true(z->list[i].place == lc_place(1, want[i][0]));
		assert_int_equal(z->list[i].nr, want[i][1]);
		assert_false(z->list[i].done);
		sum += want[i][1];
	}
	assert_int_equal(z->blocks, sum);
	assert_int_equal(z->blocks_of[1], sum);
}

#define PENDING(...)                                  \
	assert_pending((const u32[][2]){__VA_ARGS__}, \
		       sizeof((const u32[][2]){__VA_ARGS__}) / (2 * sizeof(u32)))

static void entries_above_the_tail_are_pending_again(void **state)
{
	(void)state;
	begin(1);
	add(3, 10);
	add_zero(LC_ENTRY_ZERO, 1, 11, 20);
	add(1, 15);
	begin(2);
	add_zero(LC_ENTRY_TRIM, 1, 50, 49);
	assert_recovers(4, 2);
	PENDING({11, 20}, {50, 49});
	assert_at(10, 1, 1);
	assert_at(11, 0, 0); /* dropped */
	assert_at(12, 0, 0);
	assert_at(15, 1, 7); /* newer */
	assert_int_equal(core.ring.dirty_blocks, 2);
	assert_int_equal(core.ring.zeros.entries, 2);
	assert_false(core.ring.zeros.list[0].trim);
	assert_true(core.ring.zeros.list[1].trim);
	assert_int_equal(lc_ring_segment(&core.ring, 1)->zeros, 1);
	assert_int_equal(lc_ring_segment(&core.ring, 2)->zero_entries, 1);
	assert_false(lc_ring_written_back(&core.ring, 2));
}

static void the_newest_of_overlapping_ranges_stands(void **state)
{
	(void)state;
	begin(1);
	add_zero(LC_ENTRY_ZERO, 1, 0, 90);
	begin(2);
	add_zero(LC_ENTRY_TRIM, 1, 30, 30);
	begin(3);
	add_zero(LC_ENTRY_ZERO, 1, 50, 10);
	assert_recovers(3, 3);
	PENDING({0, 30}, {30, 20}, {50, 10}, {60, 30});
	assert_int_equal(lc_ring_segment(&core.ring, 1)->zeros, 2);
	assert_int_equal(lc_ring_segment(&core.ring, 2)->zeros, 1);
}

/* At or below the tail the disk is zero already; but older blocks there must not come back. */
static void entries_below_the_tail_only_drop_older_blocks(void **state)
{
	(void)state;
	begin(1);
	add(4, 10);
	begin(2);
	add_zero(LC_ENTRY_ZERO, 1, 11, 2);
	add(1, 12);
	begin(3);
	add(1, 90);
	set_superblock(2, 4, 4);
	assert_recovers(4, 3);
	assert_int_equal(found.clean_segments, 2);
	assert_int_equal(core.ring.zeros.nr, 0);
	assert_int_equal(core.ring.zeros.entries, 0);
	assert_at(10, 1, 1);
	assert_at(11, 0, 0);
	assert_at(12, 2, 3);
	assert_at(13, 1, 4);
	assert_at(90, 3, 1);
	assert_int_equal(lc_ring_segment(&core.ring, 2)->zero_entries, 0);
}

/* Blocks below the tail, zeros above it. */
static void pending_ranges_drop_clean_blocks(void **state)
{
	(void)state;
	begin(1);
	add(4, 10);
	begin(2);
	add_zero(LC_ENTRY_ZERO, 1, 0, 12);
	set_superblock(1, 2, 2);
	assert_recovers(2, 2);
	PENDING({0, 12});
	assert_at(10, 0, 0);
	assert_at(11, 0, 0);
	assert_at(12, 1, 3);
	assert_int_equal(core.ring.live_of[1], 2);
}

static void a_summary_says_the_same(void **state)
{
	(void)state;
	begin(1);
	add(3, 10);
	add_zero(LC_ENTRY_ZERO, 1, 11, 20);
	add_zero(LC_ENTRY_TRIM, 1, 60, 10);
	add(1, 15);
	summarize();
	set_superblock(0, 1, 4);
	rot(1, 4); /* the header of record 2: nobody looks at it */
	assert_recovers(4, 1);
	PENDING({11, 20}, {60, 10});
	assert_at(11, 0, 0);
	assert_at(15, 1, 9);
}

/* An entry's own block holds nothing, so nothing in it can be wrong; its header can. */
static void the_block_of_an_entry_does_not_matter(void **state)
{
	(void)state;
	begin(1);
	add_zero(LC_ENTRY_ZERO, 1, 11, 20);
	add(1, 50);
	memset(at(1, 1), 0x77, LC_BLOCK);
	assert_recovers(2, 1);
	PENDING({11, 20});
	rot(1, 0);
	assert_recovers(0, 0);
	assert_int_equal(core.ring.zeros.nr, 0);
}

static void zeros_of_a_volume_that_began_anew_are_void(void **state)
{
	(void)state;
	begin(1);
	add(1, 10);
	add_zero(LC_ENTRY_ZERO, 1, 5, 20);
	add_zero(LC_ENTRY_ZERO, 3, 5, 20); /* no such volume */
	add(1, 12);
	meta.volumes[1].from_seq = 4;
	write_page(LC_PAGE_VOLUMES);
	assert_recovers(4, 1);
	assert_int_equal(core.ring.zeros.nr, 0);
	assert_int_equal(core.ring.zeros.entries, 0);
	assert_at(10, 0, 0);
	assert_at(12, 1, 7);
}

static void zeros_find_lost_blocks_again(void **state)
{
	(void)state;
	assert_true(lc_bad_add(&meta.bad, 1, 10, 0xff, 1) >= 0); /* lost before the zeros */
	assert_true(lc_bad_add(&meta.bad, 1, 11, 0x81, 0) >= 0);
	assert_true(lc_bad_add(&meta.bad, 1, 12, 0xff, 2) >= 0); /* in that record, or later */
	assert_true(lc_bad_add(&meta.bad, 1, 13, 0xff, 3) >= 0);
	assert_true(lc_bad_add(&meta.bad, 1, 40, 0xff, 0) >= 0); /* elsewhere */
	write_page(LC_PAGE_BAD);
	begin(1);
	add(1, 10);
	add_zero(LC_ENTRY_ZERO, 1, 10, 10);
	add(1, 13);
	assert_recovers(3, 1);
	assert_int_equal(lc_bad_mask(&core.meta.bad, 1, 10), 0);
	assert_int_equal(lc_bad_mask(&core.meta.bad, 1, 11), 0);
	assert_int_equal(lc_bad_mask(&core.meta.bad, 1, 12), 0xff);
	assert_int_equal(lc_bad_mask(&core.meta.bad, 1, 13), 0xff);
	assert_int_equal(lc_bad_mask(&core.meta.bad, 1, 40), 0xff);
	assert_at(13, 0, 0); /* void */
}

/* --- what no engine has written --- */

static void a_range_behind_the_end_of_its_volume_is_refused(void **state)
{
	static const struct {
		u64 block;
		u32 nr;
	} ranges[] = {{0, VOLUME_BLOCKS + 1}, {99, 2}, {100, 1}, {1ull << 39, 1}, {0, 65536}};

	(void)state;
	for (u32 i = 0; i < sizeof ranges / sizeof *ranges; i++) {
		image.next.seq = 1;
		begin(1);
		add_zero(i % 2 ? LC_ENTRY_TRIM : LC_ENTRY_ZERO, 1, ranges[i].block, ranges[i].nr);
		assert_refused(-EUCLEAN, "has only");
	}
	image.next.seq = 1;
	begin(1);
	add_zero(LC_ENTRY_ZERO, 1, 0, VOLUME_BLOCKS); /* its last block is short, but there */
	assert_recovers(1, 1);
}

static void more_entries_above_the_tail_than_there_may_be_are_refused(void **state)
{
	u32 nr = 0;

	(void)state;
	assert_int_equal(recover(), 0);
	assert_int_equal(core.ring.zeros.max, 64);
	for (u64 id = 1; id <= 6; id++) {
		begin(id);
		for (u32 i = 0; i < 12 && nr < 64; i++, nr++)
			add_zero(LC_ENTRY_ZERO, 1, nr, 30); /* they overlap: that does not help */
	}
	assert_recovers(64, 6);
	assert_int_equal(core.ring.zeros.entries, 64);
	assert_true(lc_ring_starved(&core.ring));
	add_zero(LC_ENTRY_ZERO, 1, 0, 1);
	assert_refused(-EUCLEAN, "zeroes a range");
	/* when the tail is behind some of them, they do not count */
	set_superblock(1, 13, 65);
	assert_recovers(65, 6);
	assert_int_equal(core.ring.zeros.entries, 53);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IMAGE_TEST(entries_above_the_tail_are_pending_again),
		IMAGE_TEST(the_newest_of_overlapping_ranges_stands),
		IMAGE_TEST(entries_below_the_tail_only_drop_older_blocks),
		IMAGE_TEST(pending_ranges_drop_clean_blocks),
		IMAGE_TEST(a_summary_says_the_same),
		IMAGE_TEST(the_block_of_an_entry_does_not_matter),
		IMAGE_TEST(zeros_of_a_volume_that_began_anew_are_void),
		IMAGE_TEST(zeros_find_lost_blocks_again),
		IMAGE_TEST(a_range_behind_the_end_of_its_volume_is_refused),
		IMAGE_TEST(more_entries_above_the_tail_than_there_may_be_are_refused),
	};

	return cmocka_run_group_tests(tests, mem_quiet, NULL);
}
