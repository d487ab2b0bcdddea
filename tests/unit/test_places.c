/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_places.c - what a sweep will visit: ascending, complete, once each, however small the list is.
 */
#include "mem_store.h"

#include <string.h>

#include "places.h"

#define ZONE 256u
#define BLOCKS 16u
#define NR 64u
#define DISK_BLOCKS 4096u

static struct lc_core core;
static bool dirty[2][DISK_BLOCKS]; /* by volume 1, 2 */

static int setup(void **state)
{
	(void)state;
	memset(&core, 0, sizeof core);
	memset(dirty, 0, sizeof dirty);
	lc_mutex_init(&core.lock);
	return lc_ring_init(&core.ring, ZONE, BLOCKS, NR);
}

static int teardown(void **state)
{
	(void)state;
	lc_ring_destroy(&core.ring);
	lc_mutex_destroy(&core.lock);
	return 0;
}

/* A log with blocks at random places of two volumes, some of them overwritten, some clean. */
static void fill(u64 seed)
{
	struct lc_ring *r = &core.ring;

	for (u64 id = 1; id <= NR; id++) {
		*lc_ring_segment(r, id) = (struct lc_segment){
			.id = id,
			.buffer = -1,
			.state = LC_SEGMENT_CLOSED,
		};
		r->head_id = id;
		for (u32 i = 1; i < BLOCKS; i++) {
			u32 slot = lc_ring_first_slot(r, id) + i, old;
			u64 block = (seed = seed * 6364136223846793005u + 1442695040888963407u) >> 52;
			u8 volume = 1 + (seed >> 40) % 2;

			lc_index_slot(&r->index, slot)->key = lc_key(volume, block, LC_MASK_FULL,
								     LC_ENTRY_DATA);
			assert_true(lc_block_publish(r, slot, &old));
			dirty[volume - 1][block] = (seed >> 30) % 4;
			if (!dirty[volume - 1][block])
				lc_block_clean(r, slot);
		}
	}
}

/* One round over a volume in key ranges of at most WANTED: each dirty block is met once, in order. */
static void a_round(u32 max, u32 wanted)
{
	static bool met[DISK_BLOCKS];
	struct lc_places p;
	u64 after = lc_place(2, 0) - 1;

	memset(met, 0, sizeof met);
	assert_int_equal(lc_places_init(&p, max), 0);
	for (;;) {
		lc_places_collect(&p, &core, 2, after, core.ring.head_id, wanted);
		if (!p.nr)
			break;
		assert_true(p.nr <= wanted && p.nr <= max);
		for (u32 i = 0; i < p.nr; i++) {
			assert_true(p.list[i] > after);
			after = p.list[i];
			assert_int_equal(lc_place_volume(after), 2);
			met[lc_place_block(after)] = true;
		}
	}
	lc_places_destroy(&p);
	assert_memory_equal(met, dirty[1], sizeof met);
}

static void each_dirty_block_is_met_once_in_order(void **state)
{
	(void)state;
	fill(1);
	a_round(4096, UINT32_MAX);
	a_round(16, UINT32_MAX);
	a_round(16, 3);
	a_round(2, 1);
	a_round(300, 100);
}

static void segments_above_the_limit_and_below_the_tail_do_not_count(void **state)
{
	struct lc_places p;
	u64 tail = 20, upto = 30;
	u32 expected = 0;

	(void)state;
	fill(2);
	core.ring.tail_id = tail;
	for (u64 id = tail + 1; id <= upto; id++)
		for (u32 i = 0; i < BLOCKS; i++) {
			u64 key = lc_index_slot(&core.ring.index,
						lc_ring_first_slot(&core.ring, id) + i)
					  ->key;

			expected += key & LC_SLOT_DIRTY && lc_key_volume(key) == 1;
		}
	assert_int_equal(lc_places_init(&p, 4096), 0);
	lc_places_collect(&p, &core, 1, lc_place(1, 0) - 1, upto, UINT32_MAX);
	assert_true(expected > 20);
	assert_int_equal(p.nr, expected);
	lc_places_destroy(&p);
}

/* Many places that share all their upper bits, and the highest and lowest ones there are. */
static void places_at_the_ends_are_sorted(void **state)
{
	struct lc_places p;
	struct lc_ring *r = &core.ring;
	u32 slot = lc_ring_first_slot(r, 1), old;

	(void)state;
	*lc_ring_segment(r, 1) = (struct lc_segment){.id = 1, .buffer = -1};
	lc_ring_segment(r, 1)->state = LC_SEGMENT_CLOSED;
	r->head_id = 1;
	for (u32 i = 0; i < 8; i++) {
		u64 block = i % 2 ? LC_BLOCK_NR_MAX - i : 7 - i;

		lc_index_slot(&r->index, slot + i)->key = lc_key(255, block, LC_MASK_FULL,
								 LC_ENTRY_DATA);
		assert_true(lc_block_publish(r, slot + i, &old));
	}
	assert_int_equal(lc_places_init(&p, 64), 0);
	lc_places_collect(&p, &core, 255, lc_place(255, 0) - 1, 1, UINT32_MAX);
	assert_int_equal(p.nr, 8);
	for (u32 i = 0; i < 4; i++) {
		assert_int_equal(lc_place_block(p.list[i]), 1 + 2 * i);
		assert_int_equal(lc_place_block(p.list[4 + i]), LC_BLOCK_NR_MAX - 7 + 2 * i);
	}
	lc_places_destroy(&p);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(each_dirty_block_is_met_once_in_order),
		T(segments_above_the_limit_and_below_the_tail_do_not_count),
		T(places_at_the_ends_are_sorted),
	};

	return cmocka_run_group_tests(tests, mem_quiet, NULL);
}
