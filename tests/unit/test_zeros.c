/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_zeros.c - pending ranges against a model that is an array of blocks: each knows which entry
 * zeroes it, if any.
 */
#include "mem_store.h"

#include "segment.h"

#define ZONE 256u
#define BLOCKS 64u /* of a segment */
#define NR 8u
#define VOLUMES 3u
#define VOLUME_BLOCKS 200u

static struct lc_ring ring;
static struct {
	u32 slot; /* of the entry; 0: not pending */
	bool trim, done;
} model[VOLUMES + 1][VOLUME_BLOCKS];
/* Of each segment: how many slots are used. */
static u32 used[NR + 1];

static int setup(void **state)
{
	(void)state;
	memset(model, 0, sizeof model);
	memset(used, 0, sizeof used);
	assert_int_equal(lc_ring_init(&ring, ZONE, BLOCKS, NR), 0);
	for (u64 id = 1; id <= NR; id++)
		*lc_ring_segment(&ring, id) = (struct lc_segment){.id = id,
								  .buffer = -1,
								  .state = LC_SEGMENT_CLOSED};
	ring.head_id = NR;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	lc_ring_destroy(&ring);
	return 0;
}

static u32 add(u64 id, u8 volume, u64 block, u32 nr, bool trim)
{
	u32 slot = lc_ring_first_slot(&ring, id) + 1 + used[id]++;

	assert_true(used[id] < BLOCKS);
	*lc_index_slot(&ring.index,
		       slot) = (struct lc_slot){lc_key(volume, block, LC_MASK_FULL,
						       trim ? LC_ENTRY_TRIM : LC_ENTRY_ZERO),
						nr};
	lc_zeros_claim(&ring, slot);
	lc_zeros_add(&ring, slot);
	for (u64 b = block; b < block + nr && b < VOLUME_BLOCKS; b++) {
		model[volume][b].slot = slot;
		model[volume][b].trim = trim;
		model[volume][b].done = false;
	}
	return slot;
}

static void flushed(u8 volume, bool ok)
{
	lc_zeros_flushed(&ring, volume, ok);
	for (u64 b = 0; b < VOLUME_BLOCKS; b++) {
		if (model[volume][b].done && ok)
			model[volume][b].slot = 0;
		model[volume][b].done = false;
	}
}

/* Everything that can be asked, against the model. */
static void check(void)
{
	const struct lc_zeros *z = &ring.zeros;
	u32 per_segment[NR + 1] = {0}, covered = 0;
	u64 end = 0;

	assert_true(z->nr <= 2 * z->max);
	for (u32 i = 0; i < z->nr; i++) {
		const struct lc_zero *e = &z->list[i];
		u8 volume = lc_place_volume(e->place);

		assert_true(e->nr > 0 && e->place >= end); /* sorted, disjoint */
		end = e->place + e->nr;
		assert_int_equal(lc_place_volume(end - 1), volume);
		per_segment[lc_ring_segment_of(&ring, e->slot)->id]++;
		for (u64 b = lc_place_block(e->place); b < lc_place_block(e->place) + e->nr; b++) {
			const struct lc_segment *want =
				model[volume][b].slot ?
					lc_ring_segment_of(&ring, model[volume][b].slot) :
					NULL;

			/* neighbours of one segment may have become one, under one slot */
			assert_ptr_equal(lc_ring_segment_of(&ring, e->slot), want);
			assert_int_equal(e->trim, model[volume][b].trim);
			assert_int_equal(e->done, model[volume][b].done);
			covered++;
		}
	}
	for (u64 id = 1; id <= NR; id++)
		assert_int_equal(lc_ring_segment(&ring, id)->zeros, per_segment[id]);
	for (u8 v = 1; v <= VOLUMES; v++) {
		u32 nr = 0;

		for (u64 b = 0; b < VOLUME_BLOCKS; b++) {
			nr += model[v][b].slot != 0;
			assert_int_equal(lc_zeros_cover(z, lc_place(v, b)), model[v][b].slot != 0);
		}
		assert_int_equal(z->blocks_of[v], nr);
		covered -= nr;
	}
	assert_int_equal(covered, 0); /* nothing but what the model has */
	assert_int_equal(z->blocks, z->blocks_of[1] + z->blocks_of[2] + z->blocks_of[3]);
}

static void assert_range(u32 i, u8 volume, u64 block, u32 nr)
{
	assert_true(i < ring.zeros.nr);
	assert_true(ring.zeros.list[i].place == lc_place(volume, block));
	assert_int_equal(ring.zeros.list[i].nr, nr);
}

/* --- by hand --- */

static void nothing_is_pending_at_first(void **state)
{
	struct lc_zero out;

	(void)state;
	check();
	assert_null(lc_zeros_at(&ring.zeros, 0));
	assert_false(lc_zeros_next(&ring, 1, lc_place(1, 0), UINT64_MAX, &out));
	assert_int_equal(lc_zeros_bytes(&ring.zeros), 2 * 64 * sizeof(struct lc_zero));
}

static void there_is_room_for_one_in_1024_blocks(void **state)
{
	static const struct {
		u32 blocks, max;
	} sizes[] = {{1, 64},	      {65536, 64},	 {65536 + 1024, 65},
		     {1 << 20, 1024}, {16 << 20, 16384}, {UINT32_MAX, 16384}};
	struct lc_zeros z;

	(void)state;
	for (u32 i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		assert_int_equal(lc_zeros_init(&z, sizes[i].blocks), 0);
		assert_int_equal(z.max, sizes[i].max);
		lc_zeros_destroy(&z);
	}
}

static void a_newer_range_splits_an_older_one(void **state)
{
	(void)state;
	add(1, 1, 10, 30, false);
	add(2, 1, 20, 5, false);
	check();
	assert_int_equal(ring.zeros.nr, 3);
	assert_range(0, 1, 10, 10);
	assert_range(1, 1, 20, 5);
	assert_range(2, 1, 25, 15);
	add(3, 1, 5, 100, true); /* swallows them all */
	check();
	assert_int_equal(ring.zeros.nr, 1);
	add(3, 1, 5, 100, true); /* and itself */
	check();
	assert_int_equal(ring.zeros.nr, 1);
	assert_int_equal(lc_ring_segment(&ring, 3)->zero_entries, 2);
	assert_int_equal(ring.zeros.entries, 4);
}

static void only_what_goes_on_in_the_same_segment_joins(void **state)
{
	struct lc_zero what;

	(void)state;
	add(1, 1, 10, 10, false);
	add(1, 1, 20, 10, false);
	assert_int_equal(ring.zeros.nr, 1);
	assert_range(0, 1, 10, 20);
	add(1, 1, 30, 10, true); /* gives space back */
	add(2, 1, 40, 10, true); /* another segment: the tail may pass the one before it */
	add(2, 1, 5, 5, false);	 /* comes before: not worth the trouble, but right */
	check();
	assert_int_equal(ring.zeros.nr, 4);
	/* what is done already does not grow */
	assert_true(lc_zeros_next(&ring, 1, lc_place(1, 40), 9, &what));
	lc_zeros_done(&ring, &what);
	for (u32 b = 40; b < 50; b++)
		model[1][b].done = true;
	add(2, 1, 50, 10, true);
	check();
	assert_int_equal(ring.zeros.nr, 5);
	/* nor does the last one of a volume into the next */
	add(3, 2, 0, 10, false);
	add(3, 1, VOLUME_BLOCKS - 10, 10, false);
	check();
	assert_int_equal(ring.zeros.nr, 7);
}

static void volumes_end_where_they_end(void **state)
{
	struct lc_zero out;

	(void)state;
	add(1, 1, 190, 10, false);
	add(1, 3, 0, 10, false);
	check();
	assert_int_equal(lc_zeros_at(&ring.zeros, lc_place(2, 7))->place, lc_place(3, 0));
	assert_false(lc_zeros_cover(&ring.zeros, lc_place(2, 7)));
	assert_false(lc_zeros_next(&ring, 2, lc_place(2, 0), 9, &out));
	assert_true(lc_zeros_next(&ring, 3, lc_place(3, 9), 9, &out));
	assert_true(out.place == lc_place(3, 0));
	assert_false(lc_zeros_next(&ring, 3, lc_place(3, 10), 9, &out));
	assert_false(lc_zeros_next(&ring, 1, lc_place(1, 0), 0, &out)); /* not durable */
	assert_true(lc_zeros_next(&ring, 1, lc_place(1, 0), 1, &out));
}

/* Write-back has a range in hand, and newer ones cut pieces out of it: those are not done. */
static void what_is_cut_out_meanwhile_is_not_done(void **state)
{
	struct lc_zero what;

	(void)state;
	add(1, 1, 10, 30, false);
	assert_true(lc_zeros_next(&ring, 1, lc_place(1, 0), 9, &what));
	add(2, 1, 20, 5, false);
	lc_zeros_done(&ring, &what);
	for (u32 b = 10; b < 40; b++)
		model[1][b].done = b < 20 || b >= 25;
	check();
	assert_true(lc_zeros_next(&ring, 1, lc_place(1, 0), 9, &what));
	assert_true(what.place == lc_place(1, 20) && what.nr == 5);
	flushed(1, true);
	check();
	assert_int_equal(ring.zeros.nr, 1);
	assert_true(lc_ring_written_back(&ring, 1));
	assert_false(lc_ring_written_back(&ring, 2));
}

/* The same entry's place covered again from the same segment: what was in hand was the older one. */
static void a_range_that_was_zeroed_again_meanwhile_is_not_done(void **state)
{
	struct lc_zero what;

	(void)state;
	add(1, 1, 10, 30, false);
	assert_true(lc_zeros_next(&ring, 1, lc_place(1, 0), 9, &what));
	add(1, 1, 10, 30, false);
	lc_zeros_done(&ring, &what);
	check();
	flushed(1, true);
	check();
	assert_int_equal(ring.zeros.nr, 1);
}

static void a_failed_flush_leaves_all_pending(void **state)
{
	struct lc_zero what;

	(void)state;
	add(1, 1, 10, 30, false);
	add(1, 2, 10, 30, false);
	for (u8 v = 1; v <= 2; v++) {
		assert_true(lc_zeros_next(&ring, v, lc_place(v, 0), 9, &what));
		lc_zeros_done(&ring, &what);
		assert_false(lc_zeros_next(&ring, v, lc_place(v, 0), 9, &what));
		for (u32 b = 10; b < 40; b++)
			model[v][b].done = true;
	}
	flushed(1, false);
	check();
	assert_true(lc_zeros_next(&ring, 1, lc_place(1, 0), 9, &what));
	assert_false(lc_zeros_next(&ring, 2, lc_place(2, 0), 9, &what)); /* not its business */
	flushed(2, true);
	check();
	assert_int_equal(ring.zeros.nr, 1);
}

/* As many ranges as `max` entries can make: each newer one splits the first. 2 * max - 1. */
static void the_list_holds_what_entries_can_cut_up(void **state)
{
	u32 max = ring.zeros.max;

	(void)state;
	assert_int_equal(max, 64);
	add(1, 1, 0, 200, false);
	for (u32 i = 1; i < max; i++)
		add(1 + i / 40, 1, 3 * i, 1, i % 2);
	check();
	assert_int_equal(ring.zeros.entries, max);
	assert_int_equal(ring.zeros.nr, 2 * max - 1);
}

/* --- at random --- */

/* Write-back of a volume up to a segment: each range in turn, while clients add others. */
static void sweep(u64 *seed, u8 volume, u64 upto)
{
	struct lc_zero what = {.place = lc_place(volume, 0)};
	bool fails = rnd_below(seed, 5) == 0;

	while (lc_zeros_next(&ring, volume, what.place + what.nr, upto, &what)) {
		u64 block = lc_place_block(what.place);

		assert_true(lc_ring_segment_of(&ring, what.slot)->id <= upto);
		for (u64 b = block; b < block + what.nr; b++)
			assert_true(model[volume][b].slot && !model[volume][b].done);
		if (rnd_below(seed, 3) == 0 && ring.zeros.entries < ring.zeros.max &&
		    used[ring.head_id] + 2 < BLOCKS) {
			u64 first = rnd_below(seed, VOLUME_BLOCKS - 20);

			add(ring.head_id, volume, first, 1 + rnd_below(seed, 20), rnd(seed) & 1);
		}
		lc_zeros_done(&ring, &what);
		/* done is what of it has not been zeroed again */
		for (u64 b = block; b < block + what.nr; b++)
			if (model[volume][b].slot && lc_ring_segment_of(&ring, model[volume][b].slot) ==
							     lc_ring_segment_of(&ring, what.slot)) {
				const struct lc_zero *e = lc_zeros_at(&ring.zeros,
								      lc_place(volume, b));

				model[volume][b].done = e->done;
				/* never more than that entry's own, and all of it unless it grew */
				if (e->done)
					assert_int_equal(e->slot, what.slot);
			}
		check();
	}
	flushed(volume, !fails);
	check();
}

/* Log, sweep, tail, for many laps of the ring. */
static void random_work_agrees_with_the_model(void **state)
{
	u64 seed = 11;
	u32 moved = 0;

	(void)state;
	for (u64 id = 1; id <= NR; id++)
		*lc_ring_segment(&ring, id) = (struct lc_segment){.buffer = -1};
	ring.head_id = 0;
	for (u32 round = 0; round < 1500; round++) {
		u64 id = ring.head_id + 1;

		if (id <= ring.tail_id + NR - 2 && id <= NR) { /* the model counts slots once */
			*lc_ring_segment(&ring, id) = (struct lc_segment){.id = id,
									  .buffer = -1,
									  .state = LC_SEGMENT_CLOSED};
			ring.head_id = id;
			used[id] = 0;
		}
		for (u32 i = rnd_below(&seed, 12);
		     i && used[ring.head_id] + 4 < BLOCKS && ring.zeros.entries < ring.zeros.max;
		     i--) {
			u8 volume = 1 + rnd_below(&seed, VOLUMES);
			u32 most = rnd_below(&seed, 4) ? 16 : VOLUME_BLOCKS;
			u64 first = rnd_below(&seed, VOLUME_BLOCKS);
			u32 nr = 1 + rnd_below(&seed, most);

			if (nr > VOLUME_BLOCKS - first)
				nr = VOLUME_BLOCKS - first;
			add(ring.head_id, volume, first, nr, rnd_below(&seed, 3) == 0);
			check();
		}
		sweep(&seed, 1 + rnd_below(&seed, VOLUMES), rnd_below(&seed, NR + 2));
		while (ring.tail_id + 1 < ring.head_id &&
		       lc_ring_written_back(&ring, ring.tail_id + 1)) {
			lc_ring_set_tail(&ring, ring.tail_id + 1);
			moved++;
		}
		if (ring.head_id == NR && ring.tail_id == NR - 1) {
			/* a lap is over: begin anew, with what is still pending done */
			for (u8 v = 1; v <= VOLUMES; v++) {
				struct lc_zero what = {.place = lc_place(v, 0)};

				while (lc_zeros_next(&ring, v, 0, NR, &what))
					lc_zeros_done(&ring, &what);
				lc_zeros_flushed(&ring, v, true);
			}
			lc_ring_set_tail(&ring, NR);
			assert_int_equal(ring.zeros.nr, 0);
			assert_int_equal(ring.zeros.blocks, 0);
			assert_int_equal(ring.zeros.entries, 0);
			memset(model, 0, sizeof model);
			for (u64 k = 1; k <= NR; k++)
				assert_int_equal(lc_ring_segment(&ring, k)->zeros, 0);
			ring.head_id = ring.tail_id = 0;
		}
	}
	assert_true(moved > 50);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(nothing_is_pending_at_first),
		T(there_is_room_for_one_in_1024_blocks),
		T(a_newer_range_splits_an_older_one),
		T(only_what_goes_on_in_the_same_segment_joins),
		T(volumes_end_where_they_end),
		T(what_is_cut_out_meanwhile_is_not_done),
		T(a_range_that_was_zeroed_again_meanwhile_is_not_done),
		T(a_failed_flush_leaves_all_pending),
		T(the_list_holds_what_entries_can_cut_up),
		T(random_work_agrees_with_the_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
