/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_format_refuse.c - what is on disk and does not count: rot, and nonsense with good crc.
 * Offsets are written out here once more, as a second opinion on format.c.
 */
#include "format_samples.h"

/* --- rot --- */

/* Flip each bit of the block in turn: it must not count any more. */
static void no_flip_is_accepted(bool (*counts)(void))
{
	assert_true(counts());
	for (u32 bit = 0; bit < LC_BLOCK * 8; bit++) {
		block[bit / 8] ^= 1u << bit % 8;
		if (counts())
			fail_msg("a flip of bit %u of byte %u is accepted", bit % 8, bit / 8);
		block[bit / 8] ^= 1u << bit % 8;
	}
	assert_true(counts());
}

static void every_flipped_bit_is_noticed(void **state)
{
	struct lc_superblock sb = some_superblock();

	(void)state;
	seal_superblock(&sb);
	no_flip_is_accepted(superblock_counts);
	seal_record(3);
	no_flip_is_accepted(record_counts);
	seal_summary();
	no_flip_is_accepted(summary_counts);
}

static void one_kind_is_not_taken_for_another(void **state)
{
	(void)state;
	seal_record(3);
	assert_false(summary_counts() || superblock_counts());
	seal_summary();
	assert_false(record_counts() || superblock_counts());
	memset(block, 0, sizeof block);
	assert_false(record_counts() || summary_counts() || superblock_counts());
}

static void structures_of_another_version_do_not_count(void **state)
{
	(void)state;
	seal_record(3);
	raw_put(block, 4, 4, LC_FORMAT_VERSION + 1);
	raw_reseal(block);
	assert_false(record_counts());
	seal_summary();
	raw_put(block, 4, 4, LC_FORMAT_VERSION + 1);
	raw_reseal(block);
	assert_false(summary_counts());
}

/* --- nonsense with a good crc --- */

struct nonsense {
	const char *what;
	size_t at, bytes;
	u64 value;
};

static void check_nonsense(const struct nonsense *n, size_t nr, void (*seal)(void),
			   bool (*counts)(void))
{
	unsigned accepted = 0;

	for (size_t i = 0; i < nr; i++) {
		seal();
		assert_true(counts());
		raw_put(block, n[i].at, n[i].bytes, n[i].value);
		raw_reseal(block);
		if (counts()) {
			print_error("accepted: %s\n", n[i].what);
			accepted++;
		}
	}
	assert_int_equal(accepted, 0);
}

static void seal_three(void)
{
	seal_record(3);
}

static void impossible_records_are_refused(void **state)
{
	static const struct nonsense list[] = {
		{"no entries", 76, 4, 0},
		{"321 entries", 76, 4, 321},
		{"4 billion entries", 76, 4, UINT32_MAX},
		{"more entries than are there", 76, 4, 4},
		{"segment 0", 32, 8, 0},
		{"seq 0", 40, 8, 0},
		{"an epoch that began at 0", 56, 8, 0},
		{"seq before the epoch's first", 56, 8, (1ull << 50) + 1},
		{"a record that was durable before it was written", 64, 8, 1ull << 50},
		{"a record that knows the future", 64, 8, UINT64_MAX},
		{"a flag in a key", 256, 1, LC_ENTRY_DATA | 0x10},
		{"another flag, in the last key", 256 + 24, 1, LC_ENTRY_DATA | 0x80},
		{"an entry of type NONE", 256, 1, LC_ENTRY_NONE},
		{"a ZERO of some sectors", 256, 1, LC_ENTRY_ZERO},
		{"a TRIM of some sectors", 256, 1, LC_ENTRY_TRIM},
		{"an entry of type CLEAN", 256, 1, LC_ENTRY_CLEAN},
		{"an entry of type ERA", 256 + 12, 1, LC_ENTRY_ERA},
		{"an entry of type 6", 256, 1, 6},
		{"an entry of type 15", 256, 1, 15},
		{"an entry without sectors", 256 + 1, 1, 0},
		{"an entry of volume 0", 256 + 7, 1, 0},
	};

	(void)state;
	check_nonsense(list, sizeof list / sizeof *list, seal_three, record_counts);
}

static void impossible_summaries_are_refused(void **state)
{
	static const struct nonsense list[] = {
		{"segment 0", 32, 8, 0},
		{"first seq 0", 40, 8, 0},
		{"last before first", 56, 8, 999},
		{"more seqs than records", 56, 8, 1003},
		{"no records", 64, 4, 0},
		{"2 records for 3 seqs", 64, 4, 2},
		{"257 records", 64, 4, 257},
		{"4 billion records", 64, 4, UINT32_MAX},
		{"fewer entries than blocks", 68, 4, 5},
		{"more entries than blocks", 68, 4, 7},
		{"257 entries", 68, 4, 257},
		{"4 billion entries", 68, 4, UINT32_MAX},
		{"a record of 257 blocks", 128, 2, 257},
		{"a record of 65535 blocks", 128 + 4, 2, 65535},
		/* 0 + 3 + 3: the sum is right, but no record is empty */
		{"an empty record", 128, 4, 3ull << 16},
		{"an entry with a flag", 640, 1, LC_ENTRY_DATA | 0x40},
		{"a ZERO of some sectors", 640, 1, LC_ENTRY_ZERO},
		{"an entry without sectors", 640 + 12 * 5 + 1, 1, 0},
		{"an entry of volume 0", 640 + 7, 1, 0},
	};

	(void)state;
	check_nonsense(list, sizeof list / sizeof *list, seal_summary, summary_counts);
}

/*
 * An entry that zeroes is about whole blocks, so many that there is an end to it, and all of them have a number. Byte
 * 256 + 12 or 640 + 12 is its key, eight bytes behind that its length.
 */
struct range_nonsense {
	const char *what;
	u8 type, volume, mask, flags;
	u64 block;
	u32 nr;
};

static const struct range_nonsense ranges[] = {
	{"a ZERO of no blocks", LC_ENTRY_ZERO, 9, 0xff, 0, 5, 0},
	{"a TRIM of no blocks", LC_ENTRY_TRIM, 9, 0xff, 0, 5, 0},
	{"a ZERO of one block too many", LC_ENTRY_ZERO, 9, 0xff, 0, 5, LC_ZERO_BLOCKS_MAX + 1},
	{"a TRIM of one block too many", LC_ENTRY_TRIM, 9, 0xff, 0, 5, LC_ZERO_BLOCKS_MAX + 1},
	{"a ZERO of 4 billion blocks", LC_ENTRY_ZERO, 9, 0xff, 0, 5, UINT32_MAX},
	{"a ZERO without sectors", LC_ENTRY_ZERO, 9, 0, 0, 5, 8},
	{"a ZERO without the first sector", LC_ENTRY_ZERO, 9, 0xfe, 0, 5, 8},
	{"a TRIM without the last sector", LC_ENTRY_TRIM, 9, 0x7f, 0, 5, 8},
	{"a ZERO of volume 0", LC_ENTRY_ZERO, 0, 0xff, 0, 5, 8},
	{"a TRIM of volume 0", LC_ENTRY_TRIM, 0, 0xff, 0, 5, 8},
	{"a ZERO with a flag", LC_ENTRY_ZERO, 9, 0xff, 0x10, 5, 8},
	{"a TRIM with a flag", LC_ENTRY_TRIM, 9, 0xff, 0x80, 5, 8},
	{"a ZERO behind all block numbers", LC_ENTRY_ZERO, 9, 0xff, 0, LC_BLOCK_NR_MAX, 1},
	{"a ZERO that ends behind them", LC_ENTRY_ZERO, 9, 0xff, 0, LC_BLOCK_NR_MAX - 7, 8},
	{"a TRIM that ends behind them", LC_ENTRY_TRIM, 9, 0xff, 0,
	 LC_BLOCK_NR_MAX - LC_ZERO_BLOCKS_MAX + 1, LC_ZERO_BLOCKS_MAX},
	{"a CLEAN whose length would do", LC_ENTRY_CLEAN, 9, 0xff, 0, 5, 8},
	{"an ERA whose length would do", LC_ENTRY_ERA, 9, 0xff, 0, 5, 8},
	{"a NONE whose length would do", LC_ENTRY_NONE, 9, 0xff, 0, 5, 8},
	{"a type 6 whose length would do", 6, 9, 0xff, 0, 5, 8},
	{"a ZERO with another bit in its type", LC_ENTRY_ZERO | 8, 9, 0xff, 0, 5, 8},
};

/* Put SLOT into entry 1 of what SEAL makes. */
static bool range_counts(void (*seal)(void), size_t at, const struct lc_slot *slot,
			 bool (*counts)(void))
{
	seal();
	raw_put(block, at, 8, slot->key);
	raw_put(block, at + 8, 4, slot->crc);
	raw_reseal(block);
	return counts();
}

static void impossible_ranges_are_refused(void **state)
{
	const struct lc_slot good[] = {some_zero(LC_ENTRY_ZERO, 5, 8),
				       some_zero(LC_ENTRY_TRIM, 5, LC_ZERO_BLOCKS_MAX)};
	unsigned accepted = 0;

	(void)state;
	for (u32 i = 0; i < 2; i++) {
		assert_true(range_counts(seal_three, 256 + 12, &good[i], record_counts));
		assert_true(range_counts(seal_summary, 640 + 12, &good[i], summary_counts));
	}
	for (u32 i = 0; i < sizeof ranges / sizeof *ranges; i++) {
		const struct range_nonsense *n = &ranges[i];
		struct lc_slot slot = {lc_key(n->volume, n->block, n->mask, n->type) | n->flags,
				       n->nr};

		if (range_counts(seal_three, 256 + 12, &slot, record_counts) ||
		    range_counts(seal_summary, 640 + 12, &slot, summary_counts)) {
			print_error("accepted: %s\n", n->what);
			accepted++;
		}
	}
	assert_int_equal(accepted, 0);
}

static void summary_of_one_record_is_refused(void **state)
{
	(void)state;
	seal_summary();
	raw_put(block, 56, 8, 1000);
	raw_put(block, 64, 4, 1);
	raw_put(block, 68, 4, 1);
	raw_reseal(block);
	assert_false(summary_counts());
}

static void seal_good_superblock(void)
{
	struct lc_superblock sb = some_superblock();

	seal_superblock(&sb);
}

static void impossible_superblocks_are_refused(void **state)
{
	static const struct nonsense list[] = {
		{"segments of 0 blocks", 100, 4, 0},
		{"segments of 1 block", 100, 4, 1},
		{"segments of 12 blocks", 100, 4, 12},
		{"segments of 512 blocks", 100, 4, 512},
		{"segments whose size overflows", 100, 4, 1u << 31},
		{"no segments", 104, 4, 0},
		{"3 segments", 104, 4, 3},
		{"one segment more than fits", 104, 4, 11},
		{"4 billion segments", 104, 4, UINT32_MAX},
		{"a device without blocks", 88, 8, 0},
		{"a device smaller than its segments", 88, 8, 256 + 159},
		{"a device with more blocks than slots have bits", 88, 8, 1ull << 32},
		{"no zone", 96, 4, 0},
		{"a zone that does not fit the device", 96, 4, 512},
		{"an epoch that began at 0", 120, 8, 0},
		{"an epoch that began after what is durable", 120, 8, 101},
		{"a tail at seq 0", 136, 8, 0},
		{"a tail beyond what is durable", 136, 8, 101},
		{"everything durable, for ever", 144, 8, UINT64_MAX},
		{"nothing durable", 144, 8, 0},
		{"a label without end", 192 + LC_LABEL_BYTES - 1, 1, 'x'},
	};

	(void)state;
	check_nonsense(list, sizeof list / sizeof *list, seal_good_superblock, superblock_counts);
}

static void seal_volume(void)
{
	struct lc_volume_entry v = {.id = 1, .name = "a", .size_bytes = 1};

	memset(block, 0, sizeof block);
	lc_volume_encode(block, 0, &v);
}

static bool volume_counts(void)
{
	struct lc_volume_entry v;

	return lc_volume_decode(block, 0, &v);
}

static void impossible_volumes_are_refused(void **state)
{
	static const struct nonsense list[] = {
		{"id 256", 64, 4, 256},
		{"id 4 billion", 64, 4, UINT32_MAX},
		{"size 0", 64 + 8, 8, 0},
		{"size beyond the last block number", 64 + 8, 8, LC_BLOCK_NR_MAX * LC_BLOCK + 1},
		{"a name without end", 64 + 64 + LC_NAME_BYTES - 1, 1, 'x'},
	};

	(void)state;
	check_nonsense(list, sizeof list / sizeof *list, seal_volume, volume_counts);
}

static void seal_bad_list(void)
{
	struct lc_bad_entry in[2] = {{some_slot(4).key, 1}, {some_slot(5).key, 2}};

	memset(block, 0, sizeof block);
	lc_bad_encode(block, in, 2);
}

static bool bad_list_counts(void)
{
	struct lc_bad_entry out[LC_BAD_PER_PAGE];

	return lc_bad_decode(block, out) >= 0;
}

static void impossible_bad_lists_are_refused(void **state)
{
	static const struct nonsense list[] = {
		{"252 keys", 64, 8, 252},
		{"very many keys", 64, 8, 1ull << 32},
		{"more keys than are there", 64, 8, 3},
		{"a key of type NONE", 72, 1, 0},
		{"a key of type ZERO", 72, 1, LC_ENTRY_ZERO},
		/* of all sectors, with a seq that could be a length */
		{"a whole ZERO", 72, 8, 9ull << 56 | 5 << 16 | 0xff02},
		{"a key without sectors", 72 + 16 + 1, 1, 0},
		{"a key with a flag", 72, 1, LC_ENTRY_DATA | 0x20},
		{"a key of volume 0", 72 + 7, 1, 0},
	};

	(void)state;
	check_nonsense(list, sizeof list / sizeof *list, seal_bad_list, bad_list_counts);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_flipped_bit_is_noticed),
		cmocka_unit_test(one_kind_is_not_taken_for_another),
		cmocka_unit_test(structures_of_another_version_do_not_count),
		cmocka_unit_test(impossible_records_are_refused),
		cmocka_unit_test(impossible_summaries_are_refused),
		cmocka_unit_test(impossible_ranges_are_refused),
		cmocka_unit_test(summary_of_one_record_is_refused),
		cmocka_unit_test(impossible_superblocks_are_refused),
		cmocka_unit_test(impossible_volumes_are_refused),
		cmocka_unit_test(impossible_bad_lists_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
