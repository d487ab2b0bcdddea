/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_segment.c - the ring: where ids live, when the head may enter (I4), and that the newest
 * copy of a block wins wherever the ring happens to wrap (I5); what holds the tail.
 */
#include "mem_store.h"

#include "segment.h"

#define ZONE 256u
#define BLOCKS 8u
#define NR 6u

static struct lc_ring ring;

static int setup(void **state)
{
	(void)state;
	return lc_ring_init(&ring, ZONE, BLOCKS, NR);
}

static int teardown(void **state)
{
	(void)state;
	lc_ring_destroy(&ring);
	return 0;
}

/* Segment ID is the head now; what was in its place is gone. */
static void open_segment(u64 id)
{
	for (u32 i = 0; i < BLOCKS; i++)
		if (lc_index_slot(&ring.index, lc_ring_first_slot(&ring, id) + i)->key & LC_SLOT_LIVE)
			lc_block_drop(&ring, lc_ring_first_slot(&ring, id) + i);
	*lc_ring_segment(&ring, id) = (struct lc_segment){
		.id = id,
		.buffer = -1,
		.state = LC_SEGMENT_OPEN,
	};
	ring.head_id = id;
}

static u32 slot_at(u64 id, u32 position)
{
	return lc_ring_first_slot(&ring, id) + position;
}

static bool publish(u64 id, u32 position, u64 block, u32 *old)
{
	lc_index_slot(&ring.index, slot_at(id, position))->key = lc_key(1, block, LC_MASK_FULL,
									LC_ENTRY_DATA);
	return lc_block_publish(&ring, slot_at(id, position), old);
}

static u64 flags_of(u32 slot)
{
	return lc_index_slot(&ring.index, slot)->key & LC_KEY_FLAGS;
}

static void assert_counts(u64 id, u32 live, u32 dirty)
{
	assert_int_equal(lc_ring_segment(&ring, id)->live, live);
	assert_int_equal(lc_ring_segment(&ring, id)->dirty, dirty);
}

/* --- places --- */

static void a_new_ring_is_free_and_empty(void **state)
{
	(void)state;
	for (u32 i = 0; i < NR; i++) {
		assert_int_equal(ring.segments[i].state, LC_SEGMENT_FREE);
		assert_int_equal(ring.segments[i].buffer, -1);
		assert_int_equal(ring.segments[i].id, 0);
	}
	assert_int_equal(ring.head_id, 0);
	assert_int_equal(ring.dirty_blocks, 0);
	assert_int_equal(ring.index.nr_slots, NR * BLOCKS);
}

static void ids_wrap_around_the_ring(void **state)
{
	(void)state;
	assert_int_equal(lc_ring_first_slot(&ring, 1), ZONE);
	assert_int_equal(lc_ring_first_slot(&ring, NR), ZONE + (NR - 1) * BLOCKS);
	assert_int_equal(lc_ring_first_slot(&ring, NR + 1), ZONE);
	assert_int_equal(lc_ring_first_slot(&ring, 1000 * (u64)NR + 3), ZONE + 2 * BLOCKS);
	/* 3 * 2^40 is a multiple of 6, and far beyond 32 bits */
	assert_int_equal(lc_ring_first_slot(&ring, (3ull << 40) + 2), ZONE + BLOCKS);
	assert_ptr_equal(lc_ring_segment(&ring, 2), lc_ring_segment(&ring, 2 + 7 * NR));
	assert_ptr_not_equal(lc_ring_segment(&ring, 2), lc_ring_segment(&ring, 3));
}

static void slots_know_their_segment_and_position(void **state)
{
	(void)state;
	for (u64 id = 1; id <= 2 * NR; id++)
		for (u32 i = 0; i < BLOCKS; i++) {
			assert_ptr_equal(lc_ring_segment_of(&ring, slot_at(id, i)),
					 lc_ring_segment(&ring, id));
			assert_int_equal(lc_ring_position(&ring, slot_at(id, i)), i);
		}
	assert_true(lc_slot_offset_bytes(UINT32_MAX) == (u64)UINT32_MAX * LC_BLOCK);
}

/* --- I4 --- */

static void head_enters_only_with_two_places_in_reserve(void **state)
{
	(void)state;
	ring.free_id = UINT64_MAX;
	for (u64 tail = 0; tail < 3 * NR; tail++) {
		ring.tail_id = tail;
		for (u64 id = tail + 1; id < tail + 2 * NR; id++) {
			/* what lies in the places of id + 1 and id + 2 */
			bool reserve = id + 2 <= NR || id + 2 - NR <= tail;

			if (lc_ring_may_enter(&ring, id) != reserve)
				fail_msg("tail %llu, segment %llu", (unsigned long long)tail,
					 (unsigned long long)id);
		}
	}
	/* in words: of six segments, at most four are dirty */
	ring.tail_id = 10;
	assert_true(lc_ring_may_enter(&ring, 14));
	assert_false(lc_ring_may_enter(&ring, 15));
}

static void head_enters_only_what_was_reclaimed(void **state)
{
	(void)state;
	ring.tail_id = 10;
	ring.free_id = 11;
	assert_true(lc_ring_may_enter(&ring, 11));
	assert_false(lc_ring_may_enter(&ring, 12));
	ring.free_id = 12;
	assert_true(lc_ring_may_enter(&ring, 12));
	assert_false(lc_ring_may_enter(&ring, 13));
}

static void smallest_ring_still_turns(void **state)
{
	struct lc_ring small;

	(void)state;
	assert_int_equal(lc_ring_init(&small, ZONE, 2, LC_SEGMENTS_MIN), 0);
	small.free_id = UINT64_MAX;
	for (u64 tail = 0; tail < 20; tail++) {
		small.tail_id = tail;
		assert_true(lc_ring_may_enter(&small, tail + 1));
		assert_true(lc_ring_may_enter(&small, tail + 2));
		assert_false(lc_ring_may_enter(&small, tail + 3));
	}
	lc_ring_destroy(&small);
}

/* --- I5 --- */

static void newer_is_the_later_log_position(void **state)
{
	(void)state;
	open_segment(6);
	open_segment(7); /* place 0: below segment 6 on the device, but newer */
	assert_true(lc_slot_newer(&ring, slot_at(7, 1), slot_at(6, 7)));
	assert_false(lc_slot_newer(&ring, slot_at(6, 7), slot_at(7, 1)));
	assert_true(lc_slot_newer(&ring, slot_at(6, 5), slot_at(6, 4)));
	assert_false(lc_slot_newer(&ring, slot_at(6, 4), slot_at(6, 5)));
	assert_false(lc_slot_newer(&ring, slot_at(6, 4), slot_at(6, 4)));
}

static void the_newer_copy_supersedes_the_older(void **state)
{
	u32 old;

	(void)state;
	open_segment(1);
	assert_true(publish(1, 1, 77, &old));
	assert_int_equal(old, 0);
	assert_true(publish(1, 4, 77, &old));
	assert_int_equal(old, slot_at(1, 1));
	assert_int_equal(lc_index_find(&ring.index, 1, 77), slot_at(1, 4));
	assert_int_equal(flags_of(slot_at(1, 1)), 0);
	assert_int_equal(flags_of(slot_at(1, 4)), LC_SLOT_LIVE | LC_SLOT_DIRTY);
	assert_counts(1, 1, 1);
	assert_int_equal(ring.dirty_blocks, 1);
}

static void a_late_publish_of_an_older_copy_is_dead_on_arrival(void **state)
{
	u32 old;

	(void)state;
	open_segment(1);
	open_segment(2);
	assert_true(publish(2, 1, 77, &old));
	assert_false(publish(1, 6, 77, &old));
	assert_int_equal(old, 0);
	assert_int_equal(lc_index_find(&ring.index, 1, 77), slot_at(2, 1));
	assert_int_equal(flags_of(slot_at(1, 6)), 0);
	assert_counts(1, 0, 0);
	assert_counts(2, 1, 1);
	/* within one segment as well */
	assert_true(publish(2, 5, 78, &old));
	assert_false(publish(2, 4, 78, &old));
	assert_int_equal(lc_index_find(&ring.index, 1, 78), slot_at(2, 5));
}

static void newest_wins_across_the_wrap_in_any_order(void **state)
{
	u32 old;

	(void)state;
	for (u64 id = NR - 1; id <= NR + 2; id++)
		open_segment(id);
	ring.tail_id = NR - 2;
	assert_true(publish(NR, 7, 5, &old));
	assert_true(publish(NR + 1, 1, 5, &old)); /* a lower slot, a newer copy */
	assert_int_equal(old, slot_at(NR, 7));
	assert_false(publish(NR - 1, 3, 5, &old));
	assert_int_equal(lc_index_find(&ring.index, 1, 5), slot_at(NR + 1, 1));
	assert_true(publish(NR + 2, 1, 6, &old));
	assert_false(publish(NR, 6, 6, &old)); /* a higher slot, an older copy */
	assert_int_equal(lc_index_find(&ring.index, 1, 6), slot_at(NR + 2, 1));
	assert_int_equal(ring.dirty_blocks, 2);
}

static void volumes_do_not_supersede_each_other(void **state)
{
	u32 old;

	(void)state;
	open_segment(1);
	assert_true(publish(1, 1, 9, &old));
	lc_index_slot(&ring.index, slot_at(1, 2))->key = lc_key(2, 9, LC_MASK_FULL, LC_ENTRY_DATA);
	assert_true(lc_block_publish(&ring, slot_at(1, 2), &old));
	assert_int_equal(old, 0);
	assert_counts(1, 2, 2);
}

/* --- counts --- */

static void a_clean_block_stays_live(void **state)
{
	u32 old;

	(void)state;
	open_segment(1);
	assert_true(publish(1, 1, 3, &old));
	lc_block_clean(&ring, slot_at(1, 1));
	assert_counts(1, 1, 0);
	assert_int_equal(ring.dirty_blocks, 0);
	assert_int_equal(flags_of(slot_at(1, 1)), LC_SLOT_LIVE);
	lc_block_clean(&ring, slot_at(1, 1)); /* twice is once */
	assert_counts(1, 1, 0);
	assert_int_equal(lc_index_find(&ring.index, 1, 3), slot_at(1, 1));
	/* superseded while clean: only what is live goes down */
	open_segment(2);
	assert_true(publish(2, 1, 3, &old));
	assert_counts(1, 0, 0);
	assert_counts(2, 1, 1);
	assert_int_equal(ring.dirty_blocks, 1);
}

static void cleaning_a_superseded_block_does_nothing(void **state)
{
	u32 old;

	(void)state;
	open_segment(1);
	assert_true(publish(1, 1, 3, &old));
	assert_true(publish(1, 2, 3, &old));
	lc_block_clean(&ring, slot_at(1, 1));
	assert_counts(1, 1, 1);
	assert_int_equal(ring.dirty_blocks, 1);
}

static void a_dropped_block_is_forgotten(void **state)
{
	u32 old;

	(void)state;
	open_segment(1);
	assert_true(publish(1, 1, 3, &old));
	assert_true(publish(1, 2, 4, &old));
	lc_block_clean(&ring, slot_at(1, 2));
	lc_block_drop(&ring, slot_at(1, 1));
	lc_block_drop(&ring, slot_at(1, 2));
	assert_counts(1, 0, 0);
	assert_int_equal(ring.dirty_blocks, 0);
	assert_int_equal(ring.index.nr_entries, 0);
	assert_int_equal(lc_index_find(&ring.index, 1, 3), 0);
}

/* --- by volume; ranges that zero --- */

static bool publish_for(u8 volume, u64 id, u32 position, u64 block)
{
	u32 old;

	lc_index_slot(&ring.index, slot_at(id, position))->key = lc_key(volume, block, LC_MASK_FULL,
									LC_ENTRY_DATA);
	return lc_block_publish(&ring, slot_at(id, position), &old);
}

static void blocks_are_counted_by_volume(void **state)
{
	(void)state;
	open_segment(1);
	open_segment(2);
	assert_true(publish_for(7, 1, 1, 3));
	assert_true(publish_for(7, 1, 2, 4));
	assert_true(publish_for(255, 1, 3, 3));
	assert_true(publish_for(7, 2, 1, 3)); /* supersedes */
	assert_int_equal(ring.live_of[7], 2);
	assert_int_equal(ring.dirty_of[7], 2);
	assert_int_equal(ring.live_of[255], 1);
	lc_block_clean(&ring, slot_at(2, 1));
	lc_block_clean(&ring, slot_at(1, 1)); /* long superseded */
	assert_int_equal(ring.live_of[7], 2);
	assert_int_equal(ring.dirty_of[7], 1);
	lc_block_drop(&ring, slot_at(1, 2));
	assert_int_equal(ring.live_of[7], 1);
	assert_int_equal(ring.dirty_of[7], 0);
	assert_int_equal(ring.dirty_of[255], 1);
	assert_int_equal(ring.live_of[1], 0);
}

/* In steps, of so many look-ups each: blocks of others and outside the range stay. */
static void a_range_of_blocks_is_dropped_in_steps(void **state)
{
	u64 block = 10;
	u32 steps = 1;

	(void)state;
	open_segment(1);
	for (u32 i = 1; i < BLOCKS; i++)
		assert_true(publish_for(1, 1, i, 8 + i)); /* blocks 9 .. 15 */
	open_segment(2);
	assert_true(publish_for(2, 2, 1, 11));
	while (!lc_blocks_drop(&ring, 1, &block, 14, 3))
		steps++;
	assert_int_equal(steps, 2);
	for (u64 b = 9; b <= 15; b++)
		assert_int_equal(!lc_index_find(&ring.index, 1, b), b >= 10 && b < 14);
	assert_int_equal(lc_index_find(&ring.index, 2, 11), slot_at(2, 1));
	assert_int_equal(ring.live_of[1], 3);
	assert_int_equal(ring.dirty_blocks, 4);
	/* a volume of which there is nothing is looked up no further, however large the range is */
	block = 0;
	assert_true(lc_blocks_drop(&ring, 3, &block, UINT64_MAX, 3));
}

/* The entry at a position of a segment zeroes NR blocks of volume 1 from BLOCK on. */
static u32 zero_at(u64 id, u32 position, u64 block, u32 nr)
{
	*lc_index_slot(&ring.index, slot_at(id, position)) =
		(struct lc_slot){lc_key(1, block, LC_MASK_FULL, LC_ENTRY_ZERO), nr};
	lc_zeros_claim(&ring, slot_at(id, position));
	lc_zeros_add(&ring, slot_at(id, position));
	return slot_at(id, position);
}

static void the_tail_does_not_pass_a_pending_range(void **state)
{
	struct lc_zero what;

	(void)state;
	open_segment(1);
	open_segment(2);
	zero_at(1, 1, 0, 10);
	zero_at(2, 1, 5, 10);
	assert_false(lc_ring_written_back(&ring, 1));
	zero_at(2, 2, 0, 5); /* the first one is superseded altogether */
	assert_true(lc_ring_written_back(&ring, 1));
	assert_false(lc_ring_written_back(&ring, 2));
	for (u64 at = 0; lc_zeros_next(&ring, 1, at, 2, &what); at = what.place + what.nr)
		lc_zeros_done(&ring, &what);
	assert_false(lc_ring_written_back(&ring, 2)); /* not flushed yet */
	lc_zeros_flushed(&ring, 1, true);
	assert_true(lc_ring_written_back(&ring, 2));
}

/* How many entries there are above the tail is what counts, whatever became of their ranges. */
static void entries_that_zero_count_until_the_tail_passes(void **state)
{
	u32 max = ring.zeros.max;

	(void)state;
	assert_true(max >= 64);
	ring.head_id = 2;
	open_segment(1);
	open_segment(2);
	for (u32 i = 0; i < max; i++) {
		assert_false(lc_ring_zeros_full(&ring));
		zero_at(1 + i % 2, 1, 0, 10); /* each supersedes the one before */
	}
	assert_int_equal(ring.zeros.nr, 1);
	assert_true(lc_ring_zeros_full(&ring));
	lc_ring_set_tail(&ring, 1);
	assert_int_equal(ring.tail_id, 1);
	assert_int_equal(ring.zeros.entries, max / 2);
	assert_false(lc_ring_zeros_full(&ring));
	assert_int_equal(lc_ring_segment(&ring, 1)->zero_entries, 0);
	assert_int_equal(lc_ring_segment(&ring, 2)->zero_entries, max / 2);
	lc_ring_set_tail(&ring, 2);
	assert_int_equal(ring.zeros.entries, 0);
}

/* Turn the ring many times with random blocks; recount everything by hand. */
static void counts_agree_with_a_recount(void **state)
{
	u64 seed = 3;

	(void)state;
	for (u64 id = 1; id < 200; id++) {
		u32 nr = 0, dirty = 0;

		if (id > 4)
			for (u32 i = 1; i < BLOCKS; i++) /* write segment id - 4 back */
				lc_block_clean(&ring, slot_at(id - 4, i));
		ring.tail_id = id > 4 ? id - 4 : 0;
		open_segment(id);
		for (u32 i = 1; i < BLOCKS; i++) {
			u32 old;

			assert_true(publish(id, i, rnd_below(&seed, 20), &old));
			if (!rnd_below(&seed, 10))
				lc_block_drop(&ring, slot_at(id, i));
		}
		for (u32 k = 0; k < NR; k++) {
			const struct lc_segment *seg = &ring.segments[k];
			u32 l = 0, d = 0;

			for (u32 i = 0; i < BLOCKS; i++) {
				u64 flags = ring.index.slots[k * BLOCKS + i].key;

				l += !!(flags & LC_SLOT_LIVE);
				d += !!(flags & LC_SLOT_DIRTY);
			}
			assert_int_equal(seg->live, l);
			assert_int_equal(seg->dirty, d);
			assert_true(seg->id > ring.tail_id || !d);
			nr += l;
			dirty += d;
		}
		assert_int_equal(ring.index.nr_entries, nr);
		assert_int_equal(ring.dirty_blocks, dirty);
	}
}

#define RING_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		RING_TEST(a_new_ring_is_free_and_empty),
		RING_TEST(ids_wrap_around_the_ring),
		RING_TEST(slots_know_their_segment_and_position),
		RING_TEST(head_enters_only_with_two_places_in_reserve),
		RING_TEST(head_enters_only_what_was_reclaimed),
		RING_TEST(smallest_ring_still_turns),
		RING_TEST(newer_is_the_later_log_position),
		RING_TEST(the_newer_copy_supersedes_the_older),
		RING_TEST(a_late_publish_of_an_older_copy_is_dead_on_arrival),
		RING_TEST(newest_wins_across_the_wrap_in_any_order),
		RING_TEST(volumes_do_not_supersede_each_other),
		RING_TEST(a_clean_block_stays_live),
		RING_TEST(cleaning_a_superseded_block_does_nothing),
		RING_TEST(a_dropped_block_is_forgotten),
		RING_TEST(blocks_are_counted_by_volume),
		RING_TEST(a_range_of_blocks_is_dropped_in_steps),
		RING_TEST(the_tail_does_not_pass_a_pending_range),
		RING_TEST(entries_that_zero_count_until_the_tail_passes),
		RING_TEST(counts_agree_with_a_recount),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
