/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_format.c - what is on disk: checksums, keys, and that every structure comes back as it was
 * written.
 */
#include "format_samples.h"

/* --- crc --- */

static void crc_is_crc32c(void **state)
{
	(void)state;
	assert_int_equal(lc_crc32c("123456789", 9), 0xe3069283);
}

static void crc_of_zeros_is_not_zero(void **state)
{
	(void)state;
	memset(block, 0, sizeof block);
	assert_int_not_equal(lc_crc32c(block, LC_BLOCK), 0);
	assert_int_not_equal(lc_crc32c(block, LC_BLOCK), lc_crc32c(block, LC_SECTOR));
}

/* --- keys --- */

static void keys_keep_their_parts(void **state)
{
	u64 key = lc_key(255, LC_BLOCK_NR_MAX, 0x81, LC_ENTRY_DATA);

	(void)state;
	assert_int_equal(lc_key_volume(key), 255);
	assert_true(lc_key_block(key) == LC_BLOCK_NR_MAX);
	assert_int_equal(lc_key_mask(key), 0x81);
	assert_int_equal(lc_key_type(key), LC_ENTRY_DATA);
	key = lc_key(1, 0, LC_MASK_FULL, LC_ENTRY_ZERO);
	assert_int_equal(lc_key_volume(key), 1);
	assert_true(lc_key_block(key) == 0);
	assert_int_equal(lc_key_type(key | LC_KEY_FLAGS), LC_ENTRY_ZERO);
	assert_true(lc_key(3, 0x123456789a, 0xff, 1) == 0x03123456789aff01ull);
}

static void keys_sort_by_volume_then_block(void **state)
{
	(void)state;
	assert_true(lc_key(1, LC_BLOCK_NR_MAX, 0xff, 1) < lc_key(2, 0, 1, 1));
	assert_true(lc_key(7, 41, 0xff, 15) < lc_key(7, 42, 0, 0));
	assert_true(lc_key(128, 0, 0, 0) > lc_key(127, LC_BLOCK_NR_MAX, 0xff, 15));
}

static void place_ignores_mask_and_flags(void **state)
{
	(void)state;
	assert_true(lc_key_place(lc_key(4, 99, 0x0f, 1)) ==
		    lc_key_place(lc_key(4, 99, 0xf0, 2) | LC_KEY_FLAGS));
	assert_true(lc_key_place(lc_key(4, 99, 1, 1)) != lc_key_place(lc_key(5, 99, 1, 1)));
	assert_true(lc_key_place(lc_key(4, 99, 1, 1)) != lc_key_place(lc_key(4, 98, 1, 1)));
}

/* --- zone --- */

static void zone_is_one_512th_and_at_least_one_mib(void **state)
{
	const u64 mib = 256, gib = mib * 1024;

	(void)state;
	assert_true(lc_zone_blocks(0) == mib);
	assert_true(lc_zone_blocks(gib / 2) == mib);
	assert_true(lc_zone_blocks(gib / 2 + 512) == 2 * mib);
	assert_true(lc_zone_blocks(gib) == 2 * mib);
	assert_true(lc_zone_blocks(1024 * gib) == 2048 * mib);
	assert_true(lc_zone_blocks(1024 * gib) * LC_BLOCK >= LC_NR_PAGES * 2 * LC_BLOCK);
}

/* --- round trips --- */

static void page_comes_back(void **state)
{
	struct lc_page_info in = {.page = 40, .generation = 1ull << 60}, out;

	(void)state;
	memcpy(in.uuid, uuid, sizeof uuid);
	memset(block, 0xa5, sizeof block);
	lc_page_seal(block, &in);
	assert_int_equal(lc_page_verify(block, 40, &out), LC_PAGE_OK);
	assert_int_equal(out.page, 40);
	assert_int_equal(out.version, LC_FORMAT_VERSION);
	assert_true(out.generation == in.generation);
	assert_memory_equal(out.uuid, uuid, sizeof uuid);
	assert_memory_equal(block, "lcpg", 4);
	assert_true(lc_page_recognize(block));
	/* A page that was written to the wrong place is no page. */
	assert_int_equal(lc_page_verify(block, 41, &out), LC_PAGE_BROKEN);
}

static void page_of_another_version_is_unknown(void **state)
{
	struct lc_superblock sb = some_superblock();
	struct lc_page_info info;

	(void)state;
	seal_superblock(&sb);
	raw_put(block, 4, 4, 9);
	raw_reseal(block);
	assert_int_equal(lc_page_verify(block, LC_PAGE_SUPERBLOCK, &info), LC_PAGE_UNKNOWN);
	assert_int_equal(info.version, 9);
	assert_true(lc_page_recognize(block));
	raw_put(block, 0, 1, 'x');
	assert_int_equal(lc_page_verify(block, LC_PAGE_SUPERBLOCK, &info), LC_PAGE_BROKEN);
	assert_false(lc_page_recognize(block));
}

static void superblock_comes_back(void **state)
{
	struct lc_superblock in = some_superblock(), out;

	(void)state;
	seal_superblock(&in);
	assert_true(lc_superblock_decode(block, &out));
	assert_true(out.compat == 1 && out.ro_compat == 2 && out.incompat == 4);
	assert_string_equal(out.label, in.label);
	assert_true(out.device_blocks == in.device_blocks);
	assert_int_equal(out.zone_blocks, in.zone_blocks);
	assert_int_equal(out.segment_blocks, in.segment_blocks);
	assert_int_equal(out.nr_segments, in.nr_segments);
	assert_true(out.clean && out.settled);
	assert_true(out.epoch == in.epoch && out.first == in.first);
	assert_true(out.tail_id == in.tail_id && out.tail_seq == in.tail_seq);
	assert_true(out.durable_seq == in.durable_seq);
	in.settled = false;
	seal_superblock(&in);
	assert_true(lc_superblock_decode(block, &out));
	assert_true(out.clean && !out.settled);
	in.clean = false;
	seal_superblock(&in);
	assert_true(lc_superblock_decode(block, &out));
	assert_false(out.clean);
}

static void volumes_come_back_from_their_own_entry(void **state)
{
	struct lc_volume_entry in = {.id = 255,
				     .size_bytes = 4096 * 3 + 17,
				     .from_seq = 5,
				     .unsure = 1ull << 63 | 6},
			       out;

	(void)state;
	memcpy(in.uuid, uuid, sizeof uuid);
	memset(in.name, 'n', LC_NAME_BYTES - 1);
	for (u32 i = 0; i < LC_NR_SAMPLES; i++)
		in.samples[i] = i * 0x01010101u;
	memset(block, 0, sizeof block);
	lc_volume_encode(block, 3, &in);
	for (u32 i = 0; i < LC_VOLUMES_PER_PAGE; i++) {
		assert_true(lc_volume_decode(block, i, &out));
		assert_int_equal(out.id, i == 3 ? 255 : 0);
		if (i != 3)
			continue;
		assert_memory_equal(out.uuid, uuid, sizeof uuid);
		assert_string_equal(out.name, in.name);
		assert_true(out.size_bytes == in.size_bytes && out.from_seq == 5);
		assert_true(out.unsure == in.unsure);
		assert_memory_equal(out.samples, in.samples, sizeof in.samples);
	}
}

static void bad_list_comes_back(void **state)
{
	struct lc_bad_entry in[LC_BAD_PER_PAGE], out[LC_BAD_PER_PAGE];

	(void)state;
	for (u32 i = 0; i < LC_BAD_PER_PAGE; i++)
		in[i] = (struct lc_bad_entry){some_slot(i).key, i * 1000003ull};
	memset(block, 0, sizeof block);
	lc_bad_encode(block, in, LC_BAD_PER_PAGE);
	assert_int_equal(lc_bad_decode(block, out), LC_BAD_PER_PAGE);
	assert_memory_equal(out, in, sizeof in);
	/* A shorter list leaves nothing of the longer one behind. */
	lc_bad_encode(block, in, 2);
	assert_int_equal(lc_bad_decode(block, out), 2);
	assert_int_equal(raw_get32(block, 64 + 8 + 2 * 16), 0);
	/* An unused entry between is left out. */
	in[1].key = 0;
	lc_bad_encode(block, in, 3);
	assert_int_equal(lc_bad_decode(block, out), 2);
	assert_true(out[1].key == in[2].key && out[1].seq == in[2].seq);
	lc_bad_encode(block, in, 0);
	assert_int_equal(lc_bad_decode(block, out), 0);
}

static void records_come_back(void **state)
{
	static const u32 sizes[] = {1, 2, 255, 319, 320};
	struct lc_slot entries[LC_ENTRIES_MAX];
	struct lc_record_info out;

	(void)state;
	for (u32 i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		struct lc_record_info in = some_record(sizes[i]);

		memset(block, 0xee, sizeof block);
		seal_record(sizes[i]);
		assert_true(lc_record_decode(block, &out, entries));
		assert_memory_equal(out.uuid, uuid, sizeof uuid);
		assert_true(out.segment_id == in.segment_id && out.seq == in.seq);
		assert_true(out.epoch == in.epoch && out.first == in.first);
		assert_true(out.durable_seq == in.durable_seq && out.position == in.position);
		assert_int_equal(out.nr_entries, sizes[i]);
		for (u32 k = 0; k < sizes[i]; k++) {
			assert_true(entries[k].key == some_slot(k).key);
			assert_int_equal(entries[k].crc, some_slot(k).crc);
		}
		for (u32 at = 256 + 12 * sizes[i]; at < LC_BLOCK; at++)
			assert_int_equal(block[at], 0);
	}
}

/* Their length stands where the crc of data does; data and ranges stand side by side. */
static void entries_that_zero_come_back(void **state)
{
	struct lc_record_info r = some_record(5), back;
	struct lc_summary_info s = some_summary(), s_back;
	struct lc_slot in[6] = {
		some_zero(LC_ENTRY_ZERO, 0, 1),
		some_slot(3),
		some_zero(LC_ENTRY_TRIM, 12345, LC_ZERO_BLOCKS_MAX),
		some_zero(LC_ENTRY_ZERO, LC_BLOCK_NR_MAX - 1, 1),
		some_zero(LC_ENTRY_TRIM, LC_BLOCK_NR_MAX - LC_ZERO_BLOCKS_MAX, LC_ZERO_BLOCKS_MAX),
		some_zero(LC_ENTRY_ZERO, 7, 4242),
	};
	struct lc_slot out[LC_ENTRIES_MAX];

	(void)state;
	lc_record_encode(block, &r, in);
	assert_true(lc_record_decode(block, &back, out));
	assert_memory_equal(out, in, 5 * sizeof *in);
	lc_summary_encode(block, &s, in);
	assert_true(lc_summary_decode(block, &s_back, out));
	assert_memory_equal(out, in, 6 * sizeof *in);
	for (u32 i = 0; i < 6; i++)
		assert_int_equal(lc_key_zeroes(out[i].key), i != 1);
}

static void flags_in_ram_do_not_reach_the_disk(void **state)
{
	struct lc_record_info r = some_record(1);
	struct lc_slot in = some_slot(1), out[LC_ENTRIES_MAX];
	struct lc_bad_entry bad[LC_BAD_PER_PAGE], one = {in.key | LC_KEY_FLAGS, 1};

	(void)state;
	in.key |= LC_KEY_FLAGS;
	lc_record_encode(block, &r, &in);
	assert_true(lc_record_decode(block, &r, out));
	assert_true(out[0].key == some_slot(1).key);
	lc_bad_encode(block, &one, 1);
	assert_int_equal(lc_bad_decode(block, bad), 1);
	assert_true(bad[0].key == some_slot(1).key);
}

static void summary_comes_back(void **state)
{
	struct lc_slot entries[LC_SUMMARY_ENTRIES_MAX];
	struct lc_summary_info in = some_summary(), out;

	(void)state;
	seal_summary();
	assert_true(lc_summary_decode(block, &out, entries));
	assert_memory_equal(out.uuid, uuid, sizeof uuid);
	assert_true(out.segment_id == in.segment_id && out.epoch == in.epoch);
	assert_true(out.first_seq == in.first_seq && out.last_seq == in.last_seq);
	assert_int_equal(out.nr_records, 3);
	assert_int_equal(out.nr_entries, 6);
	for (u32 i = 0; i < 3; i++)
		assert_int_equal(out.nr_blocks[i], i + 1);
	for (u32 i = 0; i < 6; i++)
		assert_true(entries[i].key == some_slot(i).key && entries[i].crc == some_slot(i).crc);
}

static void largest_summary_fits(void **state)
{
	static struct lc_slot entries[LC_SUMMARY_ENTRIES_MAX], back[LC_SUMMARY_ENTRIES_MAX];
	struct lc_summary_info in = {.segment_id = 1, .first_seq = 1, .last_seq = 256}, out;

	(void)state;
	in.nr_records = in.nr_entries = LC_SUMMARY_RECORDS_MAX;
	for (u32 i = 0; i < LC_SUMMARY_RECORDS_MAX; i++) {
		in.nr_blocks[i] = 1;
		entries[i] = some_slot(i);
	}
	lc_summary_encode(block, &in, entries);
	assert_true(lc_summary_decode(block, &out, back));
	assert_memory_equal(entries, back, sizeof back);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(crc_is_crc32c),
		cmocka_unit_test(crc_of_zeros_is_not_zero),
		cmocka_unit_test(keys_keep_their_parts),
		cmocka_unit_test(keys_sort_by_volume_then_block),
		cmocka_unit_test(place_ignores_mask_and_flags),
		cmocka_unit_test(zone_is_one_512th_and_at_least_one_mib),
		cmocka_unit_test(page_comes_back),
		cmocka_unit_test(page_of_another_version_is_unknown),
		cmocka_unit_test(superblock_comes_back),
		cmocka_unit_test(volumes_come_back_from_their_own_entry),
		cmocka_unit_test(bad_list_comes_back),
		cmocka_unit_test(records_come_back),
		cmocka_unit_test(entries_that_zero_come_back),
		cmocka_unit_test(flags_in_ram_do_not_reach_the_disk),
		cmocka_unit_test(summary_comes_back),
		cmocka_unit_test(largest_summary_fits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
