/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_index.c - the hash over the slot table, against a model that is one array.
 */
#include "mem_store.h"

#include "index.h"

#define BASE 256u

/* --- a model: which slot holds a place --- */

#define PLACES 4000u /* of three volumes, in turn */

struct model {
	struct lc_index ix;
	u32 slot_of[PLACES]; /* 0: none */
	bool *used;	     /* [nr_slots] */
	u32 nr;
};

static u8 volume_of(u32 place)
{
	return place % 3 == 2 ? 255 : place % 3 + 1;
}

/* Neighbours, and numbers with only high bits: neither may cluster so that anything breaks. */
static u64 block_of(u32 place)
{
	return place % 2 ? place : (u64)place << 24 | 1;
}

static void model_init(struct model *m, u32 nr_slots)
{
	memset(m, 0, sizeof *m);
	assert_int_equal(lc_index_init(&m->ix, BASE, nr_slots), 0);
	m->used = calloc(nr_slots, sizeof *m->used);
	assert_non_null(m->used);
}

static void model_destroy(struct model *m)
{
	lc_index_destroy(&m->ix);
	free(m->used);
}

static void model_check(const struct model *m)
{
	assert_int_equal(m->ix.nr_entries, m->nr);
	for (u32 place = 0; place < PLACES; place++) {
		u8 volume = volume_of(place);
		u64 block = block_of(place);
		u32 slot = m->slot_of[place], from = BASE + place % 5, end = from + place % 7;

		if (lc_index_find(&m->ix, volume, block) != slot)
			fail_msg("place %u is not where it should be", place);
		assert_int_equal(lc_index_find_in(&m->ix, volume, block, from, end),
				 slot >= from && slot < end ? slot : 0);
	}
}

/* Enter a slot whose key is set. */
static void put(struct lc_index *ix, u32 slot)
{
	u64 key = lc_index_slot(ix, slot)->key;

	lc_index_put(ix, lc_index_bucket(ix, lc_key_volume(key), lc_key_block(key)), slot);
}

static void model_put(struct model *m, u32 place, u32 slot)
{
	u32 old = m->slot_of[place];

	lc_index_slot(&m->ix, slot)->key = lc_key(volume_of(place), block_of(place), 0xff, 1);
	put(&m->ix, slot);
	if (old)
		m->used[old - BASE] = false;
	else
		m->nr++;
	m->used[slot - BASE] = true;
	m->slot_of[place] = slot;
}

static void model_remove(struct model *m, u32 place)
{
	u32 slot = m->slot_of[place];

	lc_index_remove(&m->ix, slot);
	m->used[slot - BASE] = false;
	m->slot_of[place] = 0;
	m->nr--;
}

static void random_changes_agree_with_the_model(void **state)
{
	static const u32 sizes[] = {1, 2, 7, 64, 1000, 3001};
	u64 seed = 1;

	(void)state;
	for (u32 i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		struct model m;
		u32 nr_slots = sizes[i];

		model_init(&m, nr_slots);
		for (u32 step = 0; step < 60000; step++) {
			u32 place = rnd_below(&seed, PLACES);
			u32 slot = BASE + rnd_below(&seed, nr_slots);
			/* waves: fill up to the brim, then drain to nothing */
			bool fill = step / 10000 % 2 == 0 ? rnd_below(&seed, 8) :
							    !rnd_below(&seed, 8);

			if (fill && !m.used[slot - BASE])
				model_put(&m, place, slot);
			else if (!fill && m.slot_of[place])
				model_remove(&m, place);
			if (step % 2000 == 0)
				model_check(&m);
		}
		model_check(&m);
		model_destroy(&m);
	}
}

static void every_slot_can_have_an_entry(void **state)
{
	struct model m;

	(void)state;
	model_init(&m, PLACES);
	for (u32 i = 0; i < PLACES; i++)
		model_put(&m, i, BASE + PLACES - 1 - i);
	model_check(&m);
	/* a load of 0.8, and never above it */
	assert_true(m.ix.nr_entries * 100ull >= m.ix.nr_buckets * 79ull);
	assert_true(m.ix.nr_entries * 5ull <= m.ix.nr_buckets * 4ull);
	/* and all of them can go again, in another order */
	for (u32 i = 0; i < PLACES; i++) {
		model_remove(&m, i * 1009u % PLACES); /* 1009 is prime */
		if (i % 500 == 0)
			model_check(&m);
	}
	model_check(&m);
	for (u32 b = 0; b < m.ix.nr_buckets; b++)
		assert_int_equal(m.ix.buckets[b], 0);
	model_destroy(&m);
}

static void a_full_index_survives_endless_replacement(void **state)
{
	struct model m;
	u64 seed = 2;

	(void)state;
	/* One slot is unused, as in a log at steady state: remove one, insert one, for ever. */
	model_init(&m, 1001);
	for (u32 i = 0; i < 1000; i++)
		model_put(&m, i, BASE + i);
	for (u32 i = 0; i < 100000; i++) {
		u32 gone = rnd_below(&seed, PLACES), come = rnd_below(&seed, PLACES), slot;

		if (!m.slot_of[gone] || m.slot_of[come])
			continue;
		slot = m.slot_of[gone];
		model_remove(&m, gone);
		model_put(&m, come, slot);
	}
	assert_int_equal(m.nr, 1000);
	model_check(&m);
	model_destroy(&m);
}

/* --- clusters --- */

/* The bucket that a block's entry has in an index that is empty otherwise: its home. */
static u32 home_of(struct lc_index *ix, u64 block)
{
	u32 b = 0;

	lc_index_slot(ix, BASE)->key = lc_key(1, block, 0xff, 1);
	put(ix, BASE);
	while (lc_index_at(ix, b) != BASE)
		b++;
	lc_index_remove(ix, BASE);
	return b;
}

/* NR blocks whose homes are bucket WANT and those behind it, WIDTH of them in turn. */
static void find_homes(struct lc_index *ix, u32 want, u32 width, u64 *blocks, u32 nr)
{
	u64 block = 0;

	for (u32 i = 0; i < nr; i++) {
		while (home_of(ix, block) != (want + i % width) % ix->nr_buckets)
			block++;
		blocks[i] = block++;
	}
}

#define CLUSTER 6u

/* Insert BLOCKS, take them out in the order ORDER: what is left must be found after each step. */
static void check_order(struct lc_index *ix, const u64 *blocks, const u32 *order)
{
	bool there[CLUSTER] = {false};

	for (u32 i = 0; i < CLUSTER; i++) {
		lc_index_slot(ix, BASE + i)->key = lc_key(1, blocks[i], 0xff, 1);
		put(ix, BASE + i);
		there[i] = true;
	}
	for (u32 i = 0; i < CLUSTER; i++) {
		lc_index_remove(ix, BASE + order[i]);
		there[order[i]] = false;
		for (u32 k = 0; k < CLUSTER; k++)
			assert_int_equal(lc_index_find(ix, 1, blocks[k]), there[k] ? BASE + k : 0);
	}
	assert_int_equal(ix->nr_entries, 0);
	for (u32 b = 0; b < ix->nr_buckets; b++)
		assert_int_equal(ix->buckets[b], 0);
}

static void permute(struct lc_index *ix, const u64 *blocks, u32 *order, u32 at)
{
	if (at == CLUSTER)
		check_order(ix, blocks, order);
	for (u32 i = at; i < CLUSTER; i++) {
		u32 t = order[at];

		order[at] = order[i];
		order[i] = t;
		permute(ix, blocks, order, at + 1);
		order[i] = order[at];
		order[at] = t;
	}
}

/* All orders of removal, for clusters of different shape at every bucket where one can begin. */
static void clusters_survive_any_order_of_removal(void **state)
{
	struct lc_index ix;

	(void)state;
	assert_int_equal(lc_index_init(&ix, BASE, 8), 0);
	for (u32 want = 0; want < ix.nr_buckets; want++)
		for (u32 width = 1; width <= 4; width++) {
			u32 order[CLUSTER] = {0, 1, 2, 3, 4, 5};
			u64 blocks[CLUSTER];

			find_homes(&ix, want, width, blocks, CLUSTER);
			permute(&ix, blocks, order, 0);
		}
	lc_index_destroy(&ix);
}

static void a_cluster_wraps_around_the_end_of_the_buckets(void **state)
{
	struct lc_index ix;
	u64 blocks[CLUSTER];

	(void)state;
	assert_int_equal(lc_index_init(&ix, BASE, 8), 0);
	find_homes(&ix, ix.nr_buckets - 1, 1, blocks, CLUSTER);
	for (u32 i = 0; i < CLUSTER; i++) {
		lc_index_slot(&ix, BASE + i)->key = lc_key(1, blocks[i], 0xff, 1);
		put(&ix, BASE + i);
	}
	assert_int_equal(lc_index_at(&ix, ix.nr_buckets - 1), BASE);
	assert_int_equal(lc_index_at(&ix, 0), BASE + 1);
	assert_int_equal(lc_index_at(&ix, CLUSTER - 2), BASE + CLUSTER - 1);
	lc_index_remove(&ix, BASE);
	assert_int_equal(lc_index_at(&ix, ix.nr_buckets - 1), BASE + 1);
	assert_int_equal(lc_index_at(&ix, CLUSTER - 2), 0);
	lc_index_destroy(&ix);
}

/* --- odds and ends --- */

static void absent_blocks_are_not_found(void **state)
{
	struct lc_index ix;

	(void)state;
	assert_int_equal(lc_index_init(&ix, BASE, 100), 0);
	assert_int_equal(lc_index_find(&ix, 1, 0), 0);
	assert_int_equal(lc_index_find(&ix, 255, LC_BLOCK_NR_MAX), 0);
	lc_index_slot(&ix, BASE + 7)->key = lc_key(1, 42, 0x01, 1) | LC_SLOT_DIRTY;
	put(&ix, BASE + 7);
	assert_int_equal(lc_index_find(&ix, 1, 42), BASE + 7);
	assert_int_equal(lc_index_find(&ix, 2, 42), 0);
	assert_int_equal(lc_index_find(&ix, 1, 43), 0);
	assert_int_equal(lc_index_find(&ix, 1, 42 + (1ull << 32)), 0);
	lc_index_destroy(&ix);
}

static void it_costs_17_bytes_per_block(void **state)
{
	struct lc_index ix;

	(void)state;
	assert_int_equal(lc_index_init(&ix, BASE, 100000), 0);
	assert_in_range(lc_index_bytes(&ix), 16 * 100000, 17 * 100000 + 64);
	lc_index_destroy(&ix);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_changes_agree_with_the_model),
		cmocka_unit_test(every_slot_can_have_an_entry),
		cmocka_unit_test(a_full_index_survives_endless_replacement),
		cmocka_unit_test(clusters_survive_any_order_of_removal),
		cmocka_unit_test(a_cluster_wraps_around_the_end_of_the_buckets),
		cmocka_unit_test(absent_blocks_are_not_found),
		cmocka_unit_test(it_costs_17_bytes_per_block),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
