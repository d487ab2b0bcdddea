/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_recover_rot.c - recovery of damaged logs: rot (I11), read errors, and nonsense with good
 * checksums.
 */
#include "log_image.h"

/* --- I11: rot is not the end of the log --- */

/* First blocks of records 1 to 5. */
static const struct {
	u64 id;
	u32 position;
} headers[] = {{1, 0}, {1, 2}, {1, 4}, {2, 0}, {2, 2}};

static void a_rotten_header_that_the_superblock_knew_durable_is_refused(void **state)
{
	(void)state;
	make_durable_log(5);
	for (u32 i = 0; i < 5; i++) {
		rot(headers[i].id, headers[i].position);
		assert_refused(-EUCLEAN, "corrupt");
		rot(headers[i].id, headers[i].position);
	}
}

static void a_rotten_header_that_a_later_record_knew_durable_is_refused(void **state)
{
	unsigned lost = 0;

	(void)state;
	make_durable_log(0);
	for (u32 i = 0; i < 4; i++) {
		rot(headers[i].id, headers[i].position);
		if (recover() != -EUCLEAN) {
			print_error("record %u was durable and is cut without a word\n", i + 1);
			lost++;
		}
		rot(headers[i].id, headers[i].position);
	}
	assert_int_equal(lost, 0);
	rot(2, 2); /* nobody said that of record 5 */
	assert_recovers(4, 2);
}

/*
 * Whoever knows need not be easy to find: what no flush had covered at the crash arrives in any order. Record 11 is the
 * first one of its segment and did not arrive, record 12 behind it did, and says that 9 and 10 were durable. Found by reading
 * the code.
 */
static void a_later_record_is_heard_behind_a_header_that_did_not_arrive(void **state)
{
	u8 old[LC_BLOCK];

	(void)state;
	for (u64 id = 1; id <= 8; id++)
		add_full(id);
	memcpy(old, at(3, 0), LC_BLOCK);
	set_superblock(8, 9, 8);
	image.next.durable_seq = 8;
	add_full(9);
	add_full(10);
	begin(11);
	add(1, 90);
	image.next.durable_seq = 10;
	add(1, 91);
	for (u32 nothing = 0; nothing <= 1; nothing++) {
		memcpy(at(11, 0), old, LC_BLOCK); /* of the lap before */
		if (nothing)
			memset(at(11, 0), 0, LC_BLOCK);
		assert_recovers(10, 10);
		for (u64 id = 9; id <= 10; id++) {
			rot(id, 0);
			assert_refused(-EUCLEAN, "records up to 10 were durable");
			rot(id, 0);
		}
	}
}

/*
 * The third one who knows. If the log was cut below it, new records would get the seqs of those that are gone, and those
 * of the block void what clients wrote and flushed. Found by fuzzing, with a seq that was never reached.
 */
static void a_rotten_header_that_the_list_of_lost_blocks_knew_durable_is_refused(void **state)
{
	(void)state;
	make_durable_log(0);
	assert_true(lc_bad_add(&meta.bad, 1, 2, 0xff, 5) >= 0);
	write_page(LC_PAGE_BAD);
	assert_recovers(5, 2);
	rot(2, 2);
	assert_refused(-EUCLEAN, "record 5");
	rot(2, 2);
	assert_true(lc_bad_add(&meta.bad, 1, 2, 0xff, 1000) >= 0);
	write_page(LC_PAGE_BAD);
	assert_refused(-EUCLEAN, "record 6");
}

static void a_known_durable_record_keeps_its_rotten_data_for_the_reader(void **state)
{
	(void)state;
	make_durable_log(5);
	rot(1, 3); /* the data of record 2: found when it is read, and EIO then (I10) */
	assert_recovers(5, 2);
	assert_at(2, 1, 3);
}

/* --- read errors --- */

static void a_read_error_in_the_dirty_part_is_refused_never_cut(void **state)
{
	(void)state;
	make_durable_log(0);
	for (u32 i = 0; i < 5; i++) {
		mem_break_reads(&ssd, slot_at(headers[i].id, headers[i].position));
		assert_refused(-EIO, "cannot be read");
		mem_revive(&ssd);
	}
	/* data of the last record: torn or not, it cannot be known */
	mem_break_reads(&ssd, slot_at(2, 3));
	assert_refused(-EIO, "cannot be read");
	mem_revive(&ssd);
	/* where the next record would begin, and the next segment */
	mem_break_reads(&ssd, slot_at(2, 4));
	assert_refused(-EIO, "cannot be read");
	mem_revive(&ssd);
	mem_break_reads(&ssd, slot_at(3, 0));
	assert_refused(-EIO, "cannot be read");
}

static void a_read_error_in_the_clean_part_is_merely_colder(void **state)
{
	(void)state;
	for (u64 id = 1; id <= 6; id++)
		add_full(id);
	set_superblock(5, 6, 6);
	mem_break_reads(&ssd, slot_at(3, 0));
	assert_recovers(6, 6);
	assert_int_equal(found.clean_segments, 2);
	assert_at(2 * 7, 0, 0);
	assert_at(3 * 7, 4, 1);
	mem_revive(&ssd);
	/* in a chain that has to be walked, too */
	image.next.seq = 4;
	begin(4);
	add(1, 60);
	image.next.seq = 5;
	begin(5);
	add(1, 61);
	add(1, 62);
	begin(6);
	add(1, 63);
	set_superblock(5, 7, 7);
	assert_recovers(7, 6);
	assert_int_equal(found.clean_segments, 5);
	mem_break_reads(&ssd, slot_at(5, 2));
	assert_recovers(7, 6);
	assert_int_equal(found.clean_segments, 0);
}

static void an_unreadable_summary_is_no_loss(void **state)
{
	(void)state;
	make_durable_log(5);
	/* the block right before segment 2's first header, and read together with it */
	mem_break_reads(&ssd, slot_at(1, BLOCKS - 1));
	assert_recovers(5, 2);
	assert_at(3, 1, 5);
}

/* --- hostile images: a good crc proves nothing --- */

/*
 * As long as its last record is not known to be durable a segment is what its headers say, afterwards what its summary says. Found
 * by fuzzing: a sector was the backing store's before a restart, and the cache's after it.
 */
static void a_summary_that_contradicts_its_headers_is_refused(void **state)
{
	(void)state;
	for (u32 what = 0; what < 6; what++) {
		image.next.seq = 1;
		begin(1);
		add(1, 1);
		image.next.durable_seq = 1;
		add(1, 2);
		add(1, 3);
		image.next.durable_seq = 0;
		if (what == 1) { /* other sectors, */
			image.entries[1].key = lc_key(1, 2, 0x0f, LC_ENTRY_DATA);
		} else if (what == 2) { /* another block, */
			image.entries[2].key = lc_key(1, 4, LC_MASK_FULL, LC_ENTRY_DATA);
		} else if (what == 3) { /* another content, */
			image.entries[0].crc++;
		} else if (what == 4) { /* a longer record, */
			image.entries[3] = image.entries[2];
			image.summary.nr_blocks[2]++;
			image.summary.nr_entries++;
		} else if (what == 5) { /* one record less */
			image.summary.nr_records--;
			image.summary.nr_entries--;
			image.summary.last_seq--;
		}
		summarize();
		if (what)
			assert_refused(-EUCLEAN, "segment 1 and its headers contradict");
		else
			assert_recovers(3, 1);
	}
	/* It names a third record, where the next segment goes on with that. */
	image.next.seq = 1;
	begin(1);
	add(1, 1);
	add(1, 2);
	add(1, 3);
	summarize();
	rot(1, 4);
	image.next.seq = 3;
	begin(2);
	add(1, 4);
	assert_recovers(2, 1);
	image.next.durable_seq = 3;
	add(1, 5);
	assert_refused(-EUCLEAN, "record 3");
}

static void a_record_that_leaves_its_segment_is_no_record(void **state)
{
	(void)state;
	begin(1);
	add(7, 0);
	assert_recovers(1, 1);
	raw_put(at(1, 0), 76, 4, 8);
	memcpy(at(1, 0) + 256 + 7 * 12, at(1, 0) + 256, 12);
	raw_reseal(at(1, 0));
	assert_recovers(0, 0);
}

/*
 * What such a cache went on to write was no longer valid at the next opening. Numbers like these come from a damaged
 * device or from malice alone. Found while looking for siblings of what was found by fuzzing.
 */
static void counters_near_their_end_are_refused(void **state)
{
	const u64 end = LC_COUNT_MAX / 2;

	(void)state;
	for (u32 what = 0; what < 3; what++) {
		for (u32 ok = 0; ok <= 1; ok++) {
			image.next.epoch = image.next.first = image.next.seq = 1;
			meta.sb.epoch = 1;
			set_superblock(0, 1, 0);
			if (what == 0) { /* the seq of the last record */
				image.next.seq = end - ok;
				set_superblock(0, end - ok, end - ok);
			} else if (what == 1) { /* the id of the head */
				set_superblock(end - ok - 1, 1, 0);
			} else { /* an epoch in a first header: nobody knows it before */
				image.next.epoch = end - ok;
			}
			begin(meta.sb.tail_id + 1);
			add(1, 1);
			if (ok && recover())
				fail_msg("%s", error.text);
			if (!ok)
				assert_refused(-EUCLEAN, "a number that no cache reaches");
			memset(at(meta.sb.tail_id + 1, 0), 0, LC_BLOCK);
		}
	}
}

/* Good structures with random numbers in their fields: recovery survives them, whatever it says. */
static void nonsense_never_crashes(void **state)
{
	static const u8 fields[] = {32, 40, 48, 56, 64, 68, 72, 76, 128, 130};
	u64 seed = 8;

	(void)state;
	for (u32 round = 0; round < 3000; round++) {
		u64 tail = rnd_below(&seed, 5);

		image.next.seq = image.next.epoch = image.next.first = 1;
		image.next.durable_seq = 0;
		for (u64 id = 1; id <= 6; id++) {
			begin(id);
			for (u32 i = 0; i < 2 + id % 2; i++)
				add(1, rnd_below(&seed, VOLUME_BLOCKS));
			summarize();
		}
		for (u32 i = rnd_below(&seed, 4) + 1; i > 0; i--) {
			u64 id = 1 + rnd_below(&seed, 6);
			u8 *block = at(id, rnd(&seed) & 1 ? BLOCKS - 1 : 2 * rnd_below(&seed, 3));
			u8 field = fields[rnd_below(&seed, sizeof fields)];
			u64 value = rnd(&seed) >> rnd_below(&seed, 64);

			raw_put(block, field,
				field < 64  ? 8 :
				field < 128 ? 4 :
					      2,
				rnd(&seed) & 1 ? value : raw_get32(block, field) + value % 5 - 2);
			raw_reseal(block);
		}
		set_superblock(tail, tail * 5 / 2 + 1, tail * 5 / 2 + rnd_below(&seed, 9));
		(void)recover(); /* any answer will do */
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		IMAGE_TEST(a_rotten_header_that_the_superblock_knew_durable_is_refused),
		IMAGE_TEST(a_rotten_header_that_a_later_record_knew_durable_is_refused),
		IMAGE_TEST(a_later_record_is_heard_behind_a_header_that_did_not_arrive),
		IMAGE_TEST(a_rotten_header_that_the_list_of_lost_blocks_knew_durable_is_refused),
		IMAGE_TEST(a_known_durable_record_keeps_its_rotten_data_for_the_reader),
		IMAGE_TEST(a_read_error_in_the_dirty_part_is_refused_never_cut),
		IMAGE_TEST(a_read_error_in_the_clean_part_is_merely_colder),
		IMAGE_TEST(an_unreadable_summary_is_no_loss),
		IMAGE_TEST(a_summary_that_contradicts_its_headers_is_refused),
		IMAGE_TEST(a_record_that_leaves_its_segment_is_no_record),
		IMAGE_TEST(counters_near_their_end_are_refused),
		IMAGE_TEST(nonsense_never_crashes),
	};

	return cmocka_run_group_tests(tests, mem_quiet, NULL);
}
