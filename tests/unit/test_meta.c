/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * test_meta.c - metadata pages in two copies: at every moment one good copy exists.
 */
#include "mem_store.h"

#include "meta.h"

#define DEVICE_BYTES (4u << 20)

static struct mem_store ssd;
static struct lc_meta meta;
static struct lc_mutex lock;
static struct lc_error error;

static void format(void)
{
	struct lc_superblock sb = {
		.device_blocks = DEVICE_BYTES / LC_BLOCK,
		.zone_blocks = 256,
		.segment_blocks = 16,
		.nr_segments = 48,
		.epoch = 1,
		.first = 1,
		.tail_seq = 1,
		.clean = true,
	};

	assert_int_equal(lc_meta_format(&ssd.store, &sb, &error), 0);
}

static int setup(void **state)
{
	(void)state;
	mem_open(&ssd, "/dev/fast", DEVICE_BYTES);
	lc_mutex_init(&lock);
	format();
	return lc_meta_load(&meta, &ssd.store, &error);
}

static int teardown(void **state)
{
	(void)state;
	lc_meta_destroy(&meta);
	lc_mutex_destroy(&lock);
	lc_store_close(&ssd.store);
	return 0;
}

static int reload(void)
{
	lc_meta_destroy(&meta);
	memset(&error, 0, sizeof error);
	return lc_meta_load(&meta, &ssd.store, &error);
}

static int write_page(u32 page)
{
	return lc_meta_write(&meta, &lock, page,
			     (struct lc_flusher){lc_meta_flush_store, NULL, &ssd.store});
}

static u8 *copy_of(u32 page, u32 i)
{
	return mem_block(&ssd, page * 2 + i);
}

/* Which copy of a page the I-th write or flush since mem_forget went to; -1 for a flush. */
static int traced(unsigned i, u32 page)
{
	assert_true(i < ssd.nr_trace);
	if (ssd.trace[i].op == LC_IO_FLUSH)
		return -1;
	assert_int_equal(ssd.trace[i].len_bytes, LC_BLOCK);
	assert_true(ssd.trace[i].offset_bytes / LC_BLOCK / 2 == page);
	return ssd.trace[i].offset_bytes / LC_BLOCK % 2;
}

/* --- format and load --- */

static void a_formatted_device_is_an_empty_cache(void **state)
{
	(void)state;
	assert_true(meta.sb.clean);
	assert_int_equal(meta.sb.nr_segments, 48);
	assert_int_equal(meta.bad.nr, 0);
	for (u32 id = 1; id <= LC_VOLUMES_MAX; id++)
		assert_int_equal(meta.volumes[id].id, 0);
	assert_int_equal(ssd.flushes, 1);
	/* only the metadata was written */
	for (u64 at = LC_NR_PAGES * 2 * LC_BLOCK; at < DEVICE_BYTES; at++)
		assert_int_equal(ssd.data[at], 0);
}

static void two_caches_have_two_uuids(void **state)
{
	u8 uuid[LC_UUID_BYTES];

	(void)state;
	memcpy(uuid, meta.uuid, sizeof uuid);
	format();
	assert_int_equal(reload(), 0);
	assert_memory_not_equal(uuid, meta.uuid, sizeof uuid);
}

static void loading_writes_nothing(void **state)
{
	(void)state;
	mem_forget(&ssd);
	assert_int_equal(reload(), 0);
	assert_int_equal(ssd.writes + ssd.flushes, 0);
}

static void everything_comes_back(void **state)
{
	(void)state;
	meta.sb.epoch = 9;
	meta.sb.tail_id = 5;
	meta.sb.clean = false;
	for (u32 id = 1; id <= LC_VOLUMES_MAX; id++) {
		meta.volumes[id] = (struct lc_volume_entry){.id = id, .size_bytes = id, .from_seq = id};
		snprintf(meta.volumes[id].name, LC_NAME_BYTES, "v%u", id);
	}
	for (u64 i = 0; i < LC_BAD_MAX; i++)
		assert_true(lc_bad_add(&meta.bad, 1, i, 3, 9) >= 0);
	for (u32 page = 0; page < LC_NR_PAGES; page++)
		assert_int_equal(write_page(page), 0);
	for (u32 i = 0; i < LC_NR_BAD_PAGES; i++)
		assert_false(meta.bad.changed[i]);

	assert_int_equal(reload(), 0);
	assert_true(meta.sb.epoch == 9 && meta.sb.tail_id == 5 && !meta.sb.clean);
	for (u32 id = 1; id <= LC_VOLUMES_MAX; id++) {
		char name[LC_NAME_BYTES];

		snprintf(name, sizeof name, "v%u", id);
		assert_string_equal(meta.volumes[id].name, name);
		assert_true(meta.volumes[id].id == id && meta.volumes[id].from_seq == id);
	}
	assert_int_equal(meta.bad.nr, LC_BAD_MAX);
	assert_int_equal(lc_bad_mask(&meta.bad, 1, LC_BAD_MAX - 1), 3);
	assert_int_equal(lc_bad_mask(&meta.bad, 1, 0), 3);
}

static void lost_blocks_on_any_page_come_back(void **state)
{
	(void)state;
	for (u64 i = 0; i < 2 * LC_BAD_PER_PAGE + 1; i++)
		assert_true(lc_bad_add(&meta.bad, 1, i, 1, 9) >= 0);
	/* holes: the first page becomes empty, the second sparse */
	for (u64 i = 0; i < 2 * LC_BAD_PER_PAGE; i++)
		if (i < LC_BAD_PER_PAGE || i % 100)
			lc_bad_clear(&meta.bad, 1, i, 1);
	for (u32 i = 0; i < 3; i++)
		assert_int_equal(write_page(LC_PAGE_BAD + i), 0);
	assert_int_equal(reload(), 0);
	for (u64 i = 0; i < 2 * LC_BAD_PER_PAGE; i++)
		assert_int_equal(lc_bad_mask(&meta.bad, 1, i), i >= LC_BAD_PER_PAGE && i % 100 == 0);
	assert_int_equal(lc_bad_mask(&meta.bad, 1, 2 * LC_BAD_PER_PAGE), 1);
	assert_int_equal(meta.bad.nr, 4); /* 300, 400, 500 and the one on the third page */
}

/* --- updates --- */

static void an_update_is_copy_flush_copy_flush(void **state)
{
	int first;

	(void)state;
	mem_forget(&ssd);
	assert_int_equal(write_page(LC_PAGE_SUPERBLOCK), 0);
	assert_int_equal(ssd.nr_trace, 4);
	first = traced(0, LC_PAGE_SUPERBLOCK);
	assert_int_equal(traced(1, LC_PAGE_SUPERBLOCK), -1);
	assert_int_equal(traced(2, LC_PAGE_SUPERBLOCK), !first);
	assert_int_equal(traced(3, LC_PAGE_SUPERBLOCK), -1);
	assert_memory_equal(copy_of(0, 0), copy_of(0, 1), LC_BLOCK);
}

/*
 * A power cut in the middle of either write of an update, with any subset of the sectors on the
 * medium: what is found is the state before or after, and after once the first copy was flushed.
 */
static void torn_updates_leave_the_old_or_the_new_state(void **state)
{
	(void)state;
	for (u32 fatal = 1; fatal <= 2; fatal++)
		for (u32 torn = 0; torn <= LC_MASK_FULL; torn++) {
			u64 old = meta.sb.epoch;

			meta.sb.epoch = old + 1;
			meta.sb.tail_seq = meta.sb.durable_seq = old * 3; /* another sector */
			snprintf(meta.sb.label, sizeof meta.sb.label, "%llu",
				 (unsigned long long)old);
			mem_forget(&ssd);
			ssd.dies_at_write = fatal;
			ssd.torn_mask = torn;
			assert_int_equal(write_page(LC_PAGE_SUPERBLOCK), -EIO);
			mem_revive(&ssd);
			if (reload())
				fail_msg("write %u, sectors %02x: %s", fatal, torn, error.text);
			if (fatal == 2 || torn == LC_MASK_FULL)
				assert_true(meta.sb.epoch == old + 1);
			else
				assert_true(meta.sb.epoch == old || meta.sb.epoch == old + 1);
			assert_true(meta.sb.tail_seq == 1 ||
				    meta.sb.tail_seq == (meta.sb.epoch - 1) * 3);
		}
}

static void a_failed_flush_leaves_the_old_or_the_new_state(void **state)
{
	(void)state;
	for (u32 fatal = 1; fatal <= 2; fatal++) {
		u64 old = meta.sb.epoch;

		meta.sb.epoch++;
		mem_forget(&ssd);
		ssd.dies_at_flush = fatal;
		assert_int_equal(write_page(LC_PAGE_SUPERBLOCK), -EIO);
		assert_int_equal(ssd.writes, fatal); /* nobody goes on after a failed flush */
		mem_revive(&ssd);
		assert_int_equal(reload(), 0);
		assert_in_range(meta.sb.epoch, old, old + 1);
	}
}

static void after_a_failure_the_suspect_copy_is_written_first(void **state)
{
	(void)state;
	for (u32 fatal = 1; fatal <= 2; fatal++)
		for (u32 by_flush = 0; by_flush <= 1; by_flush++) {
			int suspect;

			mem_forget(&ssd);
			ssd.torn_mask = 0x0f;
			*(by_flush ? &ssd.dies_at_flush : &ssd.dies_at_write) = fatal;
			meta.sb.epoch++;
			assert_int_equal(write_page(LC_PAGE_SUPERBLOCK), -EIO);
			suspect = traced(2 * (fatal - 1), LC_PAGE_SUPERBLOCK);
			mem_revive(&ssd);
			mem_forget(&ssd);
			assert_int_equal(write_page(LC_PAGE_SUPERBLOCK), 0);
			assert_int_equal(traced(0, LC_PAGE_SUPERBLOCK), suspect);
		}
}

static void after_loading_the_good_copy_is_spared(void **state)
{
	(void)state;
	for (u32 page = 0; page < LC_NR_PAGES; page++)
		for (u32 broken = 0; broken <= 1; broken++) {
			copy_of(page, broken)[2000] ^= 1;
			assert_int_equal(reload(), 0);
			mem_forget(&ssd);
			assert_int_equal(write_page(page), 0);
			assert_int_equal(traced(0, page), broken);
		}
}

static void the_newest_copy_counts_and_the_older_is_written_first(void **state)
{
	(void)state;
	for (u32 i = 0; i < 2; i++) {
		int newest;

		mem_forget(&ssd);
		ssd.dies_at_write = 2;
		ssd.torn_mask = 0;
		meta.sb.epoch++;
		assert_int_equal(write_page(LC_PAGE_SUPERBLOCK), -EIO);
		newest = traced(0, LC_PAGE_SUPERBLOCK);
		mem_revive(&ssd);
		assert_int_equal(reload(), 0);
		assert_int_equal(meta.sb.epoch, i + 2);
		mem_forget(&ssd);
		assert_int_equal(write_page(LC_PAGE_SUPERBLOCK), 0);
		assert_int_equal(traced(0, LC_PAGE_SUPERBLOCK), !newest);
	}
}

static void a_bad_page_that_was_not_written_stays_changed(void **state)
{
	(void)state;
	assert_true(lc_bad_add(&meta.bad, 1, 1, 1, 9) >= 0);
	ssd.write_error = -EIO;
	assert_int_equal(write_page(LC_PAGE_BAD), -EIO);
	assert_true(meta.bad.changed[0]);
	mem_revive(&ssd);
	assert_int_equal(write_page(LC_PAGE_BAD), 0);
	assert_false(meta.bad.changed[0]);
}

/* --- damage --- */

static void both_copies_of_any_page_damaged_is_refused(void **state)
{
	(void)state;
	for (u32 page = 0; page < LC_NR_PAGES; page++) {
		for (u32 i = 0; i < 2; i++)
			copy_of(page, i)[100] ^= 1;
		assert_int_equal(reload(), page == LC_PAGE_SUPERBLOCK ? -EMEDIUMTYPE : -EUCLEAN);
		assert_says(&error, "/dev/fast");
		assert_says(&error, "damaged");
		for (u32 i = 0; i < 2; i++)
			copy_of(page, i)[100] ^= 1;
	}
	assert_int_equal(reload(), 0);
}

/* The cache was formatted anew; of the old one a page is left, with a higher generation. */
static void pages_of_an_older_cache_do_not_count(void **state)
{
	static u8 stale[LC_BLOCK];

	(void)state;
	meta.volumes[1] = (struct lc_volume_entry){.id = 1, .name = "old", .size_bytes = 1};
	for (u32 i = 0; i < 5; i++)
		assert_int_equal(write_page(LC_PAGE_VOLUMES), 0);
	memcpy(stale, copy_of(LC_PAGE_VOLUMES, 0), LC_BLOCK);
	format();
	for (u32 i = 0; i < 2; i++) {
		format();
		memcpy(copy_of(LC_PAGE_VOLUMES, i), stale, LC_BLOCK);
		assert_int_equal(reload(), 0);
		assert_int_equal(meta.volumes[1].id, 0);
		mem_forget(&ssd);
		assert_int_equal(write_page(LC_PAGE_VOLUMES), 0);
		assert_int_equal(traced(0, LC_PAGE_VOLUMES), i);
	}
	memcpy(copy_of(LC_PAGE_VOLUMES, 0), stale, LC_BLOCK);
	memcpy(copy_of(LC_PAGE_VOLUMES, 1), stale, LC_BLOCK);
	assert_int_equal(reload(), -EUCLEAN);
}

static void superblocks_of_two_caches_are_refused(void **state)
{
	static u8 stale[LC_BLOCK];

	(void)state;
	memcpy(stale, copy_of(0, 0), LC_BLOCK);
	format();
	memcpy(copy_of(0, 1), stale, LC_BLOCK);
	assert_int_equal(reload(), -EUCLEAN);
	assert_says(&error, "different caches");
}

static void set_version(u32 i, u32 version)
{
	raw_put(copy_of(0, i), 4, 4, version);
	raw_reseal(copy_of(0, i));
}

static void an_unknown_version_is_named(void **state)
{
	(void)state;
	set_version(0, 7);
	set_version(1, 7);
	assert_int_equal(reload(), -EMEDIUMTYPE);
	assert_says(&error, "format version 7");
	assert_says(&error, "format=force");
}

static void an_unknown_version_is_named_from_either_copy(void **state)
{
	(void)state;
	for (u32 i = 0; i < 2; i++) {
		format();
		set_version(i, 7);
		memset(copy_of(0, !i), 0, LC_BLOCK); /* and the other copy is gone */
		assert_int_equal(reload(), -EMEDIUMTYPE);
		assert_says(&error, "format version 7");
	}
}

/* The newest valid copy counts: a flipped bit is damage wherever it is; there is another copy. */
static void a_flipped_bit_in_one_superblock_is_survived_wherever_it_is(void **state)
{
	unsigned refused = 0;

	(void)state;
	for (u32 at = 0; at < LC_BLOCK; at++) {
		copy_of(0, at % 2)[at] ^= 1u << at / 2 % 8;
		if (reload()) {
			print_error("byte %u: %s\n", at, error.text);
			refused++;
		}
		copy_of(0, at % 2)[at] ^= 1u << at / 2 % 8;
	}
	assert_int_equal(refused, 0);
}

static void unknown_features_are_refused(void **state)
{
	(void)state;
	for (u32 at = 72; at <= 80; at += 8) { /* ro_compat, incompat */
		format();
		for (u32 i = 0; i < 2; i++) {
			raw_put(copy_of(0, i), at, 8, 1ull << 40);
			raw_reseal(copy_of(0, i));
		}
		assert_int_equal(reload(), -EMEDIUMTYPE);
		assert_says(&error, "0x10000000000");
		assert_says(&error, "newer");
	}
	/* compat: whoever does not know it may go on */
	format();
	raw_put(copy_of(0, 0), 64, 8, 1);
	raw_reseal(copy_of(0, 0));
	assert_int_equal(reload(), 0);
}

static void a_truncated_device_is_refused(void **state)
{
	(void)state;
	ssd.store.size_bytes = DEVICE_BYTES - 1;
	assert_int_equal(reload(), -EUCLEAN);
	assert_says(&error, "truncated");
	ssd.store.size_bytes = LC_NR_PAGES * 2 * LC_BLOCK - 1;
	assert_int_equal(reload(), -EMEDIUMTYPE);
	ssd.store.size_bytes = DEVICE_BYTES + LC_BLOCK; /* longer is fine */
	assert_int_equal(reload(), 0);
}

static void impossible_values_with_a_good_crc_are_refused(void **state)
{
	static const struct {
		u32 page, at, bytes;
		u64 value;
	} list[] = {
		{LC_PAGE_SUPERBLOCK, 104, 4, 3}, /* segments */
		{LC_PAGE_VOLUMES, 64, 4, 2},	 /* volume 2 in the place of volume 1 */
		{LC_PAGE_VOLUMES + 1, 64, 4, 1},
		{LC_PAGE_BAD, 64, 8, 1}, /* one key, which is 0 */
	};

	(void)state;
	for (u32 k = 0; k < sizeof list / sizeof *list; k++) {
		format();
		for (u32 i = 0; i < 2; i++) {
			u8 *page = copy_of(list[k].page, i);

			raw_put(page, list[k].at, list[k].bytes, list[k].value);
			if (list[k].page >= LC_PAGE_VOLUMES)
				raw_put(page, 64 + 8, 8, list[k].page == LC_PAGE_BAD ? 0 : 4096);
			raw_reseal(page);
		}
		assert_int_equal(reload(), -EUCLEAN);
		assert_says(&error, "impossible values");
	}
}

static void read_errors_are_reported(void **state)
{
	(void)state;
	mem_break_reads(&ssd, 3);
	assert_int_equal(reload(), -EIO);
	assert_says(&error, "cannot read");
}

#define META_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		META_TEST(a_formatted_device_is_an_empty_cache),
		META_TEST(two_caches_have_two_uuids),
		META_TEST(loading_writes_nothing),
		META_TEST(everything_comes_back),
		META_TEST(lost_blocks_on_any_page_come_back),
		META_TEST(an_update_is_copy_flush_copy_flush),
		META_TEST(torn_updates_leave_the_old_or_the_new_state),
		META_TEST(a_failed_flush_leaves_the_old_or_the_new_state),
		META_TEST(after_a_failure_the_suspect_copy_is_written_first),
		META_TEST(after_loading_the_good_copy_is_spared),
		META_TEST(the_newest_copy_counts_and_the_older_is_written_first),
		META_TEST(a_bad_page_that_was_not_written_stays_changed),
		META_TEST(both_copies_of_any_page_damaged_is_refused),
		META_TEST(pages_of_an_older_cache_do_not_count),
		META_TEST(superblocks_of_two_caches_are_refused),
		META_TEST(an_unknown_version_is_named),
		META_TEST(an_unknown_version_is_named_from_either_copy),
		META_TEST(a_flipped_bit_in_one_superblock_is_survived_wherever_it_is),
		META_TEST(unknown_features_are_refused),
		META_TEST(a_truncated_device_is_refused),
		META_TEST(impossible_values_with_a_good_crc_are_refused),
		META_TEST(read_errors_are_reported),
	};

	return cmocka_run_group_tests(tests, mem_quiet, NULL);
}
