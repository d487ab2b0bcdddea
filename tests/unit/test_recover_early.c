/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_recover_early.c - entering segments while the scan goes on comes to the same as replaying them in order.
 *
 * A list of lost blocks that is not empty, even if it says nothing of any block that there is, makes recovery
 * replay everything in order: so each image is recovered in both ways.
 */
#define BLOCKS 16u
#include "log_image.h"

/* What a recovery came to. */
static struct {
	int ret;
	char text[sizeof error.text];
	struct lc_recovery found;
	u64 head_id, tail_id, free_id, dirty_blocks;
	u32 nr_free, nr_entries, nr_zeros;
	u32 live_of[LC_VOLUMES_MAX + 1], dirty_of[LC_VOLUMES_MAX + 1];
	struct lc_segment segments[NR];
	struct lc_zero zeros[128];
	u64 keys[NR * BLOCKS]; /* with their flags, where a segment is */
	u32 slots[3][VOLUME_BLOCKS];
} results[2];

static void take_result(unsigned way)
{
	const struct lc_ring *r = &core.ring;

	memset(&results[way], 0, sizeof results[way]);
	results[way].ret = recover();
	memcpy(results[way].text, error.text, sizeof error.text);
	results[way].found = found;
	results[way].found.early_segments = 0;
	if (results[way].ret)
		return; /* the ring is of no use then */
	results[way].head_id = r->head_id;
	results[way].tail_id = r->tail_id;
	results[way].free_id = r->free_id;
	results[way].dirty_blocks = r->dirty_blocks;
	results[way].nr_free = r->nr_free;
	results[way].nr_entries = r->index.nr_entries;
	results[way].nr_zeros = r->zeros.nr;
	memcpy(results[way].live_of, r->live_of, sizeof r->live_of);
	memcpy(results[way].dirty_of, r->dirty_of, sizeof r->dirty_of);
	memcpy(results[way].segments, r->segments, NR * sizeof *r->segments);
	assert_true(r->zeros.nr <= 128);
	memcpy(results[way].zeros, r->zeros.list, r->zeros.nr * sizeof *r->zeros.list);
	for (u32 i = 0; i < NR * BLOCKS; i++)
		if (r->segments[i / BLOCKS].id)
			results[way].keys[i] = r->index.slots[i].key;
	for (u8 v = 1; v <= 2; v++)
		for (u64 b = 0; b < VOLUME_BLOCKS; b++)
			results[way].slots[v][b] = lc_index_find(&r->index, v, b);
}

/* Something is lost of a volume that there is not: it concerns no block, and says of no record that it was durable. */
static void set_in_order(bool in_order)
{
	if (in_order)
		assert_true(lc_bad_add(&meta.bad, 9, 0, LC_MASK_FULL, 0) >= 0);
	else
		lc_bad_clear(&meta.bad, 9, 0, LC_MASK_FULL);
	write_page(LC_PAGE_BAD);
}

/* Recover in both ways; how many segments were entered early. */
static u64 both_ways(void)
{
	u64 early;

	set_in_order(true);
	take_result(0);
	assert_int_equal(found.early_segments, 0);
	set_in_order(false);
	take_result(1);
	early = found.early_segments;
	assert_int_equal(results[0].ret, results[1].ret);
	assert_string_equal(results[0].text, results[1].text);
	assert_memory_equal(&results[0], &results[1], sizeof results[0]);
	return early;
}

static void a_good_log_is_entered_early(void **state)
{
	(void)state;
	for (u64 id = 1; id <= 21; id++) {
		begin(id);
		add(5, id);
		add(8, id * 3);
		summarize();
	}
	set_superblock(17, 35, 42);
	assert_int_equal(both_ways(), NR);
	assert_int_equal(results[1].nr_free, 0);
	assert_int_equal(found.clean_segments, 4);
}

/* A gap, and everything before it is void, though it was entered. */
static void a_gap_takes_it_back(void **state)
{
	(void)state;
	for (u64 id = 1; id <= 6; id++)
		add_full(id);
	rot(3, 0);
	set_superblock(6, 7, 6);
	assert_int_equal(both_ways(), 0);
	assert_int_equal(found.clean_segments, 3);
	assert_int_equal(results[1].nr_free, 5);
}

static void a_range_that_is_zeroed_keeps_what_is_newer(void **state)
{
	(void)state;
	for (u64 id = 1; id <= 6; id++) {
		begin(id);
		add(7, 10);
		if (id == 3 || id == 5)
			add_zero(LC_ENTRY_ZERO, 1, 12, 80);
		add(id == 6 ? 2 : 4, 20);
		summarize();
	}
	set_superblock(4, 10, 14);
	assert_int_equal(both_ways(), 6);
	assert_at(16, 6, 7);
	assert_at(21, 6, 10);
	assert_at(22, 5, 13);
	assert_int_equal(results[1].nr_zeros, 1);
}

/* Not known to be durable by the superblock or a header before, only by one that comes much later. */
static void what_is_durable_by_a_later_header_is_entered(void **state)
{
	(void)state;
	for (u64 id = 1; id <= 5; id++) {
		image.next.durable_seq = id == 5 ? 8 : 0;
		begin(id);
		add(7, 10 * id);
		add(5, 20);
		summarize();
	}
	set_superblock(0, 1, 0);
	assert_int_equal(both_ways(), 4);
}

/* --- awkward images at random --- */

static u32 chance; /* reproducible: the seed is the number of the image */

static u32 draw(u32 n)
{
	chance = chance * 1664525u + 1013904223u;
	return (chance >> 8) % n;
}

/* One in N. */
static bool one_in(u32 n)
{
	return draw(n) == 0;
}

static void add_some(void)
{
	u32 room = BLOCKS - 1 - image.next.position, nr;

	if (one_in(12) && room >= 3) {
		u64 block = draw(VOLUME_BLOCKS);

		add_zero(one_in(2) ? LC_ENTRY_ZERO : LC_ENTRY_TRIM, 1, block,
			 1 + draw(VOLUME_BLOCKS - block));
		return;
	}
	nr = 1 + draw(room > 7 ? 7 : room - 1);
	add(nr, draw(VOLUME_BLOCKS + (one_in(200) ? 1 : 0) - nr));
}

static void add_segment(u64 id)
{
	bool whole = !one_in(8);

	memset(at(id, 0), 0, BLOCKS * LC_BLOCK);
	if (one_in(4)) {
		begin(id);
		add(BLOCKS - 1, draw(VOLUME_BLOCKS + 1 - BLOCKS));
		return;
	}
	begin(id);
	do {
		add_some();
		if (!one_in(3))
			image.next.durable_seq = image.next.seq - 1 - draw(2);
	} while (BLOCKS - image.next.position >= 3 && (whole || !one_in(3)));
	if (image.summary.nr_records >= 2 && !one_in(6))
		summarize();
}

static void make_awkward_image(void)
{
	u64 nr_ids = 1 + draw(20), first_seq[24] = {0}, tail, durable;

	first_seq[1] = 1;
	for (u64 id = 1; id <= nr_ids; id++) {
		add_segment(id);
		if (one_in(12)) { /* a crash: some of it is cut off, and stands there still */
			u64 newest = image.next.seq - 1;

			new_epoch(newest - draw(newest < 4 ? newest : 4));
		}
		first_seq[id + 1] = image.next.seq;
		if (one_in(40)) /* a gap, of an old id or of nothing */
			first_seq[++id + 1] = image.next.seq;
	}
	tail = draw(nr_ids + 1);
	if (nr_ids > NR - 1 && tail < nr_ids - (NR - 1))
		tail = nr_ids - (NR - 1);
	if (one_in(4))
		meta.volumes[1].from_seq = draw(image.next.seq);
	write_page(LC_PAGE_VOLUMES);
	durable = one_in(3) ? 0 : image.next.durable_seq;
	if (durable < first_seq[tail + 1] - 1)
		durable = first_seq[tail + 1] - 1;
	if (durable < meta.sb.first - 1)
		durable = meta.sb.first - 1;
	set_superblock(tail, first_seq[tail + 1], durable);
	for (u32 n = one_in(2) ? draw(3) : 0; n; n--)
		rot(1 + draw(NR), one_in(2) ? 0 : draw(BLOCKS));
}

static void awkward_images_come_out_the_same(void **state)
{
	u32 refused = 0, early = 0, partly = 0, taken_back = 0;

	(void)state;
	for (u32 number = 0; number < 1000; number++) {
		u64 entered;

		chance = number * 2654435761u;
		make_awkward_image();
		entered = both_ways();
		if (results[1].ret)
			refused++;
		else if (entered == NR - results[1].nr_free)
			early += entered > 0;
		else if (entered)
			partly++;
		else
			taken_back++;
		assert_int_equal(teardown(NULL), 0);
		assert_int_equal(setup(NULL), 0);
	}
	/* All of them were met, and often. */
	if (refused < 20 || early < 20 || partly < 20 || taken_back < 20)
		fail_msg("%u refused, %u early, %u partly, %u taken back", refused, early, partly,
			 taken_back);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IMAGE_TEST(a_good_log_is_entered_early),
		IMAGE_TEST(a_gap_takes_it_back),
		IMAGE_TEST(a_range_that_is_zeroed_keeps_what_is_newer),
		IMAGE_TEST(what_is_durable_by_a_later_header_is_entered),
		IMAGE_TEST(awkward_images_come_out_the_same),
	};

	return cmocka_run_group_tests(tests, mem_quiet, NULL);
}
