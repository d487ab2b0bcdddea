/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_bulk.c - many blocks into the index at once: what comes of it does not depend on the order (I5), nor on how many
 * bins there are, nor on when they are full.
 */
#include "mem_store.h"

#include "bulk.h"

#define ZONE 256u
#define BLOCKS 64u

static struct lc_ring ring;
static struct lc_bulk bulk;
static u32 nr; /* segments */

static void init(u32 nr_segments)
{
	nr = nr_segments;
	assert_int_equal(lc_ring_init(&ring, ZONE, BLOCKS, nr), 0);
	assert_int_equal(lc_bulk_init(&bulk, &ring), 0);
}

static void destroy(void)
{
	lc_bulk_destroy(&bulk);
	lc_ring_destroy(&ring);
}

/* For segments that are gone through out of order: prime to all numbers of segments here. */
#define STRIDE 7919u

/* Is there an entry at this position of a segment, which begins with a header? */
static bool has_entry(u32 slot)
{
	return lc_ring_position(&ring, slot) != 0;
}

/*
 * Segments FIRST .. FIRST + nr - 1, whose blocks are any of PLACES ones of two volumes, are added in scrambled order. *NEWEST
 * [place] becomes the slot that holds it.
 */
static void add_segments(u64 first, u32 places, u32 *newest)
{
	for (u64 id = first; id < first + nr; id++)
		lc_ring_set_segment(&ring, id,
				    (struct lc_segment){.id = id,
							.buffer = -1,
							.state = LC_SEGMENT_CLOSED});
	for (u64 id = first; id < first + nr; id++)
		for (u32 i = 0; i < BLOCKS; i++) {
			u32 slot = lc_ring_first_slot(&ring, id) + i;
			u32 place = (u32)((id * BLOCKS + i) * 2654435761u >> 7) % places;

			lc_index_slot(&ring.index, slot)->key = has_entry(slot) ?
									lc_key(1 + place % 2, place,
									       LC_MASK_FULL,
									       LC_ENTRY_DATA) :
									0;
			if (has_entry(slot))
				newest[place] = slot; /* ids and positions ascend here */
		}
	for (u32 k = 0; k < nr; k++) {
		u64 id = first + (u64)k * STRIDE % nr;

		for (u32 i = 0; i < BLOCKS; i++)
			if (has_entry(lc_ring_first_slot(&ring, id) + i))
				lc_bulk_add(&bulk, lc_ring_first_slot(&ring, id) + i);
	}
}

/* The index has just NEWEST, and the flags and counts are what follows from that. */
static void check(u32 places, const u32 *newest)
{
	u32 *live = calloc(nr, sizeof *live), live_of[3] = {0}, entries = 0;

	for (u32 place = 0; place < places; place++) {
		u32 slot = lc_index_find(&ring.index, 1 + place % 2, place);

		if (slot != newest[place])
			fail_msg("block %u is in slot %u instead of %u", place, slot, newest[place]);
		if (!slot)
			continue;
		live[(slot - ZONE) / BLOCKS]++;
		live_of[1 + place % 2]++;
		entries++;
	}
	assert_int_equal(ring.index.nr_entries, entries);
	for (u32 slot = ZONE; slot < ZONE + nr * BLOCKS; slot++) {
		u64 key = lc_index_slot(&ring.index, slot)->key;
		bool is_newest = key && newest[lc_key_block(key)] == slot;

		assert_int_equal(key & LC_KEY_FLAGS, is_newest ? LC_SLOT_LIVE : 0);
	}
	for (u32 i = 0; i < nr; i++)
		assert_int_equal(ring.segments[i].live, live[i]);
	for (u8 v = 1; v <= 2; v++)
		assert_int_equal(ring.live_of[v], live_of[v]);
	assert_int_equal(ring.dirty_blocks, 0);
	free(live);
}

static void load(u64 first, u32 places)
{
	u32 *newest = calloc(places, sizeof *newest);

	add_segments(first, places, newest);
	lc_bulk_finish(&bulk);
	check(places, newest);
	free(newest);
}

static void the_newest_copy_wins_in_any_order(void **state)
{
	(void)state;
	init(13);
	load(1, 300);
	destroy();
	init(13);
	load(9, 300); /* the newest segments are those at the beginning of the ring */
	destroy();
}

/* Three bins, of which each is full many times; in the second run there is hardly a block twice. */
static void several_bins(void **state)
{
	(void)state;
	init(2400);
	assert_true(bulk.nr_bins == 3 && nr * BLOCKS > 5 * bulk.nr_bins * bulk.bin_size);
	load(1000, 40000);
	destroy();
	init(2400);
	load(1000, 4000000);
	destroy();
}

/* What is in the bins is not in the index before they are emptied; each finish is one, however often. */
static void finish_is_needed_and_may_come_again(void **state)
{
	u32 newest[100] = {0};

	(void)state;
	init(5);
	assert_int_equal(bulk.nr_bins, 1);
	lc_ring_set_segment(&ring, 1,
			    (struct lc_segment){.id = 1, .buffer = -1, .state = LC_SEGMENT_CLOSED});
	for (u32 i = 1; i <= 4; i++) {
		u32 slot = lc_ring_first_slot(&ring, 1) + i;

		lc_index_slot(&ring.index, slot)->key = lc_key(1, 2 * (i / 2), LC_MASK_FULL,
							       LC_ENTRY_DATA);
		newest[2 * (i / 2)] = slot;
		lc_bulk_add(&bulk, slot);
		assert_int_equal(lc_index_find(&ring.index, 1, 2 * (i / 2)), 0);
		if (i % 2)
			lc_bulk_finish(&bulk);
	}
	lc_bulk_finish(&bulk);
	lc_bulk_finish(&bulk);
	check(100, newest);
	destroy();
}

/* bulk.h promises a byte for each block of a cache that is not tiny, and 32 MiB at most. */
static void memory_is_bounded(void **state)
{
	static const u32 blocks[] = {1u << 12, 1u << 16, 1u << 22};

	(void)state;
	for (u32 i = 0; i < sizeof blocks / sizeof *blocks; i++) {
		init(blocks[i] / BLOCKS);
		assert_true((u64)bulk.nr_bins * bulk.bin_size * sizeof *bulk.entries <= blocks[i]);
		assert_true((bulk.nr_bins - 1ull) << bulk.stretch_log2 < ring.index.nr_buckets &&
			    (u64)bulk.nr_bins << bulk.stretch_log2 >= ring.index.nr_buckets);
		destroy();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_newest_copy_wins_in_any_order),
		cmocka_unit_test(several_bins),
		cmocka_unit_test(finish_is_needed_and_may_come_again),
		cmocka_unit_test(memory_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
