/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_recover.c - what recovery makes of a log: where it ends, what counts, what is void (I1, I5).
 */
#include "log_image.h"

/* --- the log as it should be --- */

static void an_empty_log_is_empty(void **state)
{
	(void)state;
	assert_recovers(0, 0);
	assert_int_equal(core.ring.index.nr_entries, 0);
	assert_int_equal(found.max_epoch, 1);
}

static void one_record_comes_back_dirty(void **state)
{
	(void)state;
	begin(1);
	add(2, 40);
	assert_recovers(1, 1);
	assert_at(40, 1, 1);
	assert_at(41, 1, 2);
	assert_at(42, 0, 0);
	assert_int_equal(core.ring.dirty_blocks, 2);
	assert_int_equal(found.dirty_records, 1);
	assert_int_equal(lc_ring_segment(&core.ring, 1)->state, LC_SEGMENT_CLOSED);
	assert_int_equal(lc_ring_segment(&core.ring, 1)->last_seq, 1);
}

static void several_records_come_back_with_and_without_summary(void **state)
{
	(void)state;
	for (u32 with = 0; with <= 1; with++) {
		image.next.seq = 1;
		begin(1);
		add(1, 10);
		add(2, 20);
		add(1, 10); /* the newest wins (I5) */
		if (with) {
			set_superblock(0, 1, 3);
			summarize();
			rot(1, 2); /* the summary counts: this header is not read */
		}
		assert_recovers(3, 1);
		assert_at(10, 1, 6);
		assert_at(20, 1, 3);
		assert_at(21, 1, 4);
		assert_int_equal(core.ring.dirty_blocks, 3);
		assert_int_equal(lc_ring_segment(&core.ring, 1)->last_seq, 3);
	}
}

static void a_chain_may_end_before_its_segment_is_full(void **state)
{
	(void)state;
	begin(1);
	add(1, 1);
	add(1, 2);
	begin(2);
	add(1, 3);
	begin(3);
	add(1, 1);
	assert_recovers(4, 3);
	assert_at(1, 3, 1);
	assert_at(2, 1, 3);
	assert_at(3, 2, 1);
	assert_int_equal(lc_ring_segment(&core.ring, 1)->last_seq, 2);
}

static void the_log_wraps_around_the_ring(void **state)
{
	(void)state;
	for (u64 id = 1; id <= 21; id++)
		add_full(id);
	set_superblock(17, 18, 21);
	assert_recovers(21, 21);
	for (u64 id = 14; id <= 21; id++)
		assert_at((id - 1) * 7 % 98, id, 1);
	assert_at((13 - 1) * 7, 0, 0); /* one lap ago */
	assert_int_equal(found.clean_segments, 4);
	assert_int_equal(core.ring.dirty_blocks, 4 * 7);
	assert_int_equal(core.ring.index.nr_entries, 8 * 7);
}

static void a_full_ring_comes_back(void **state)
{
	(void)state;
	for (u64 id = 1; id <= 16; id++)
		add_full(id);
	set_superblock(10, 11, 16); /* I4: two at or below the tail */
	assert_recovers(16, 16);
	assert_int_equal(found.clean_segments, 2);
	assert_int_equal(core.ring.dirty_blocks, 6 * 7);
}

static void dirty_data_overwrites_what_was_lost(void **state)
{
	(void)state;
	assert_true(lc_bad_add(&meta.bad, 1, 5, 0xff, 0) >= 0);
	assert_true(lc_bad_add(&meta.bad, 1, 50, 0x81, 0) >= 0);
	write_page(LC_PAGE_BAD);
	begin(1);
	add(1, 5);
	assert_recovers(1, 1);
	assert_int_equal(lc_bad_mask(&core.meta.bad, 1, 5), 0);
	assert_int_equal(lc_bad_mask(&core.meta.bad, 1, 50), 0x81);
}

/*
 * A lost dirty block was dropped, then a part of it was written, and the server crashed before the tail had passed
 * either: the new part hid the lost copy, and the other sectors came from the backing store, stale.
 */
static void a_lost_copy_stays_lost_under_a_newer_part(void **state)
{
	struct lc_slot *part;

	(void)state;
	begin(1);
	add(1, 5); /* record 1: it is lost */
	add(1, 6);
	assert_true(lc_bad_add(&meta.bad, 1, 5, 0xff, 2) >= 0);
	write_page(LC_PAGE_BAD);
	assert_recovers(2, 1);
	assert_int_equal(lc_index_find(&core.ring.index, 1, 5), 0);
	assert_int_equal(lc_bad_mask(&core.meta.bad, 1, 5), 0xff);

	add(1, 5); /* record 3: one sector of it is written */
	part = &image.entries[2];
	part->key = lc_key(1, 5, 0x01, LC_ENTRY_DATA);
	image.next.seq--;
	image.next.position -= 2;
	image.next.nr_entries = 1;
	lc_record_encode(at(1, image.next.position), &image.next, part);
	assert_recovers(3, 1);
	assert_int_equal(lc_index_find(&core.ring.index, 1, 5), slot_at(1, 5));
	assert_int_equal(lc_bad_mask(&core.meta.bad, 1, 5), 0xfe);
}

/* --- where the log ends --- */

static void torn_blocks_at_the_end_are_cut(void **state)
{
	(void)state;
	for (u32 torn = 4; torn <= 6; torn++) { /* the header of record 2, and each of its blocks */
		image.next.seq = 1;
		begin(1);
		add(3, 1);
		add(2, 10);
		rot(1, torn);
		assert_recovers(1, 1);
		assert_at(3, 1, 3);
		assert_at(10, 0, 0);
	}
	/* the very first record */
	rot(1, 0);
	assert_recovers(0, 0);
	assert_int_equal(core.ring.index.nr_entries, 0);
}

static void nothing_behind_a_torn_record_counts(void **state)
{
	(void)state;
	begin(1);
	add(2, 1);
	add(2, 10);
	begin(2);
	add(2, 20);
	rot(1, 4);
	assert_recovers(1, 1);
	assert_at(1, 1, 1);
	assert_at(20, 0, 0);
}

static void only_a_record_that_belongs_continues_the_log(void **state)
{
	static const struct {
		const char *what;
		size_t at, bytes;
		u64 value;
	} list[] = {
		{"another cache's", 16, 1, 0},
		{"another segment's", 32, 8, 1 + NR},
		{"a seq too early", 40, 8, 1},
		{"a seq too late", 40, 8, 3},
		{"an epoch before the one of record 1", 48, 8, 4},
		{"another position", 72, 4, 0},
		{"more entries than the segment has room for", 76, 4, 6},
	};

	(void)state;
	image.next.epoch = meta.sb.epoch = 5;
	set_superblock(0, 1, 0);
	for (u32 i = 0; i < sizeof list / sizeof *list; i++) {
		image.next.seq = 1;
		begin(1);
		add(1, 1);
		add(1, 2);
		for (u32 k = 1; k < 6; k++) /* so that a larger count finds entries */
			memcpy(at(1, 2) + 256 + 12 * k, at(1, 2) + 256, 12);
		raw_put(at(1, 2), list[i].at, list[i].bytes,
			list[i].at == 16 ? meta.uuid[0] ^ 1u : list[i].value);
		raw_reseal(at(1, 2));
		if (recover() || found.cut_seq != 1)
			fail_msg("%s: cut at %u %s", list[i].what, (u32)found.cut_seq, error.text);
		assert_at(2, 0, 0);
	}
}

static void a_summary_beyond_durable_is_not_trusted(void **state)
{
	(void)state;
	begin(1);
	add(1, 1);
	image.next.durable_seq = 1;
	add(1, 2);
	add(1, 3); /* was being written, with the summary, when the power failed */
	summarize();
	rot(1, 5);
	assert_recovers(2, 1);
	assert_at(2, 1, 3);
	assert_at(3, 0, 0);
	/* intact, it is found without the summary's help */
	rot(1, 5);
	assert_recovers(3, 1);
	assert_at(3, 1, 5);
}

static void a_summary_that_does_not_go_with_the_first_header_is_ignored(void **state)
{
	(void)state;
	meta.sb.epoch = image.next.epoch = 2;
	set_superblock(0, 5, 6);
	for (u32 i = 0; i < 5; i++) {
		image.next.seq = 5;
		begin(1);
		add(1, 1);
		add(1, 2);
		image.entries[0].key = lc_key(1, 77, LC_MASK_FULL, LC_ENTRY_DATA);
		if (i == 0) { /* one lap ago: the place is the same */
			image.summary.segment_id = 1 + NR;
		} else if (i == 1) {
			image.summary.first_seq--;
			image.summary.last_seq--;
		} else if (i == 2) {
			image.summary.uuid[3] ^= 1;
		} else if (i == 3) {
			image.summary.epoch--;
		}
		lc_summary_encode(at(1, BLOCKS - 1), &image.summary, image.entries);
		assert_recovers(6, 1);
		assert_at(2, 1, 3);
		assert_at(1, i < 4, 1);
		assert_at(77, i == 4, 1); /* and this one goes with it */
	}
}

/* --- I1: what a recovery cut off never comes back --- */

static void void_records_are_not_replayed(void **state)
{
	(void)state;
	begin(1);
	add(1, 1);
	add(1, 2); /* was in flight; it lands after the log was cut at record 1 */
	begin(2);
	add(1, 3);
	new_epoch(1);
	assert_recovers(1, 1);
	assert_at(2, 0, 0);
	assert_at(3, 0, 0);
	/* the next epoch goes on in a fresh segment; its headers know what is void, too */
	begin(2);
	add(1, 4);
	meta.sb.epoch = 3;
	meta.sb.first = 3;
	set_superblock(0, 1, 2);
	assert_recovers(2, 2);
	assert_at(1, 1, 1);
	assert_at(2, 0, 0);
	assert_at(4, 2, 1);
	assert_int_equal(found.max_epoch, 3);
}

static void void_records_are_no_evidence(void **state)
{
	(void)state;
	begin(1);
	add(1, 1);
	add(1, 2);
	image.next.durable_seq = 2;
	begin(2);
	add(1, 3); /* says that record 2 was durable; then the epoch was cut at 1 */
	rot(1, 2);
	assert_refused(-EUCLEAN, "record 2");
	new_epoch(1);
	assert_recovers(1, 1);
}

static void a_summary_that_reaches_into_the_void_does_not_count(void **state)
{
	(void)state;
	begin(1);
	add(1, 1);
	add(1, 2);
	add(1, 3);
	summarize();
	new_epoch(2);
	begin(2);
	add(1, 4);
	set_superblock(0, 1, 3); /* this epoch's record 3 is durable */
	assert_recovers(3, 2);
	assert_at(2, 1, 3);
	assert_at(3, 0, 0);
	assert_at(4, 2, 1);
}

/*
 * Found by fuzzing: a whole record lay in a place that the log had not reached. An opening that does not read it cannot
 * make it void; when the log came near it said that records were durable which never were, and the opening after was refused.
 */
static void a_record_of_an_epoch_that_nobody_knows_is_no_evidence(void **state)
{
	(void)state;
	begin(3);
	image.next.position = 2;
	image.next.seq = 20;
	image.next.durable_seq = 19;
	image.next.epoch = 3;
	add(1, 50);
	image.next = (struct lc_record_info){.seq = 1, .epoch = 1, .first = 1};
	memcpy(image.next.uuid, meta.uuid, LC_UUID_BYTES);
	begin(1);
	add(1, 1);
	set_superblock(0, 1, 1);
	assert_recovers(1, 1);
	assert_int_equal(found.max_epoch, 1);
	new_epoch(1);
	begin(2);
	add(1, 2);
	assert_recovers(2, 2);
	assert_at(50, 0, 0);
	/* When its epoch comes that does not begin where it says. */
	new_epoch(2);
	assert_int_equal(meta.sb.epoch, 3);
	assert_recovers(2, 2);
	/* Nor does the log go on with it. */
	begin(2);
	image.next.seq = 3;
	image.next.position = 2;
	image.next.first = 1;
	add(1, 51);
	assert_recovers(2, 2);
	raw_put(at(2, 2), 56, 8, meta.sb.first);
	raw_reseal(at(2, 2));
	assert_recovers(3, 2);
	memset(at(2, 2), 0, LC_BLOCK);
	/* This is evidence that does, and it says the truth. */
	raw_put(at(3, 2), 56, 8, meta.sb.first);
	raw_reseal(at(3, 2));
	assert_refused(-EUCLEAN, "record 3");
}

/* Nor does it go on with the log: what the next opening writes is of an epoch before it, and would not follow. */
static void a_record_of_an_epoch_that_nobody_knows_ends_the_log(void **state)
{
	(void)state;
	for (u32 with = 0; with <= 1; with++) { /* a record says so; a summary does */
		u64 cut = with ? 3 : 2;

		image.next = (struct lc_record_info){.seq = 1, .epoch = 1, .first = 1};
		memcpy(image.next.uuid, meta.uuid, LC_UUID_BYTES);
		meta.sb.epoch = meta.sb.first = 1;
		memset(at(2, 0), 0, LC_BLOCK);
		begin(1);
		add(1, 1);
		add(1, 2);
		image.next.epoch = with ? 1 : 9;
		add(1, 3);
		image.summary.epoch = 9;
		if (with)
			summarize();
		set_superblock(0, 1, cut);
		assert_recovers(cut, 1);
		assert_int_equal(found.max_epoch, 1);
		image.next.epoch = 1;
		new_epoch(cut);
		begin(2);
		add(1, 4);
		assert_recovers(cut + 1, 2);
		assert_at(3, with, 5);
		assert_at(4, 2, 1);
	}
}

/* --- the clean part --- */

static void a_gap_in_the_clean_part_forgets_what_is_older(void **state)
{
	(void)state;
	for (u64 id = 1; id <= 6; id++)
		add_full(id);
	set_superblock(5, 6, 6);
	rot(3, 0);
	assert_recovers(6, 6);
	assert_int_equal(found.clean_segments, 2);
	assert_at(7, 0, 0);
	rot(3, 0);
	/* segment 10 has begun to overwrite segment 2: segment 1 may be half gone, too */
	image.next.seq = 9;
	begin(10);
	add(1, 99);
	assert_recovers(6, 6);
	assert_int_equal(found.clean_segments, 3);
	assert_at(0, 0, 0);
	assert_at(99, 0, 0);
}

static void a_clean_segment_counts_only_up_to_the_seq_of_the_next(void **state)
{
	(void)state;
	begin(1);
	add(1, 1);
	begin(2);
	add(1, 2);
	add(1, 3);
	begin(3);
	add(1, 4);
	set_superblock(2, 4, 4);
	assert_recovers(4, 3);
	assert_int_equal(found.clean_segments, 2);
	rot(2, 2); /* record 3 is gone, and who knows what it overwrote */
	assert_recovers(4, 3);
	assert_int_equal(found.clean_segments, 0);
	assert_at(1, 0, 0);
	assert_at(4, 3, 1);
}

/* Epochs rise within a segment whose end was written again after a failure (I10). */
static void an_epoch_never_falls_within_a_segment(void **state)
{
	(void)state;
	for (u32 epoch = 3; epoch >= 2; epoch--) {
		image.next.seq = image.next.epoch = image.next.first = 1;
		begin(1);
		add(1, 1);
		image.next.epoch = 3;
		image.next.first = 2;
		add(1, 2);
		image.next.epoch = epoch;
		add(1, 3);
		meta.sb.epoch = meta.sb.first = 4;
		set_superblock(1, 4, 3);
		assert_recovers(3, 1);
		assert_int_equal(found.clean_segments, epoch == 3);
	}
}

/* --- volumes --- */

static void entries_before_from_seq_are_void(void **state)
{
	(void)state;
	make_durable_log(5);
	meta.volumes[1].from_seq = 3;
	write_page(LC_PAGE_VOLUMES);
	assert_recovers(5, 2);
	assert_at(2, 0, 0);
	assert_at(3, 1, 5);
	assert_at(5, 2, 3);
}

static void entries_of_no_volume_are_void(void **state)
{
	(void)state;
	make_durable_log(5);
	meta.volumes[1].id = 0;
	write_page(LC_PAGE_VOLUMES);
	assert_recovers(5, 2);
	assert_int_equal(core.ring.index.nr_entries, 0);
}

static void an_entry_beyond_the_end_of_its_volume_is_refused(void **state)
{
	(void)state;
	begin(1);
	add(1, VOLUME_BLOCKS - 1); /* the short last block is inside */
	assert_recovers(1, 1);
	add(1, VOLUME_BLOCKS);
	assert_refused(-EUCLEAN, "block 100");
	assert_says(&error, "segment 1");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IMAGE_TEST(an_empty_log_is_empty),
		IMAGE_TEST(one_record_comes_back_dirty),
		IMAGE_TEST(several_records_come_back_with_and_without_summary),
		IMAGE_TEST(a_chain_may_end_before_its_segment_is_full),
		IMAGE_TEST(the_log_wraps_around_the_ring),
		IMAGE_TEST(a_full_ring_comes_back),
		IMAGE_TEST(dirty_data_overwrites_what_was_lost),
		IMAGE_TEST(a_lost_copy_stays_lost_under_a_newer_part),
		IMAGE_TEST(torn_blocks_at_the_end_are_cut),
		IMAGE_TEST(nothing_behind_a_torn_record_counts),
		IMAGE_TEST(only_a_record_that_belongs_continues_the_log),
		IMAGE_TEST(a_summary_beyond_durable_is_not_trusted),
		IMAGE_TEST(a_summary_that_does_not_go_with_the_first_header_is_ignored),
		IMAGE_TEST(void_records_are_not_replayed),
		IMAGE_TEST(void_records_are_no_evidence),
		IMAGE_TEST(a_summary_that_reaches_into_the_void_does_not_count),
		IMAGE_TEST(a_record_of_an_epoch_that_nobody_knows_is_no_evidence),
		IMAGE_TEST(a_record_of_an_epoch_that_nobody_knows_ends_the_log),
		IMAGE_TEST(a_gap_in_the_clean_part_forgets_what_is_older),
		IMAGE_TEST(a_clean_segment_counts_only_up_to_the_seq_of_the_next),
		IMAGE_TEST(an_epoch_never_falls_within_a_segment),
		IMAGE_TEST(entries_before_from_seq_are_void),
		IMAGE_TEST(entries_of_no_volume_are_void),
		IMAGE_TEST(an_entry_beyond_the_end_of_its_volume_is_refused),
	};

	return cmocka_run_group_tests(tests, mem_quiet, NULL);
}
