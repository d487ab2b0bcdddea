/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * format_samples.h - one of each structure on disk, for the tests of format.c.
 *
 * seal_x() makes `block` an x, x_counts() says whether the engine would take it for one. Each
 * program includes it once; everything is static.
 */
#ifndef LOGCACHE_TEST_FORMAT_SAMPLES_H
#define LOGCACHE_TEST_FORMAT_SAMPLES_H

#include "mem_store.h"

#include <stdalign.h>

static alignas(LC_BLOCK) u8 block[LC_BLOCK];

static const u8 uuid[LC_UUID_BYTES] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

static UNUSED struct lc_superblock some_superblock(void)
{
	return (struct lc_superblock){
		.compat = 1,
		.ro_compat = 2,
		.incompat = 4,
		.label = "the fast one",
		.device_blocks = 256 + 10 * 16 + 3,
		.zone_blocks = 256,
		.segment_blocks = 16,
		.nr_segments = 10,
		.clean = true,
		.settled = true,
		.epoch = 7,
		.first = 90,
		.tail_id = 12,
		.tail_seq = 80,
		.durable_seq = 99,
	};
}

static UNUSED void seal_superblock(const struct lc_superblock *sb)
{
	struct lc_page_info info = {.page = LC_PAGE_SUPERBLOCK, .generation = 33};

	memcpy(info.uuid, uuid, sizeof uuid);
	memset(block, 0, sizeof block);
	lc_superblock_encode(block, sb);
	lc_page_seal(block, &info);
}

static UNUSED struct lc_slot some_slot(u32 i)
{
	u64 key = lc_key(1 + i % 255, i * 977ull, 1 + i % 255, LC_ENTRY_DATA);

	return (struct lc_slot){key, ~i * 31};
}

/* One that zeroes a range. */
static UNUSED struct lc_slot some_zero(u8 type, u64 first, u32 nr)
{
	return (struct lc_slot){lc_key(9, first, LC_MASK_FULL, type), nr};
}

static UNUSED struct lc_record_info some_record(u32 nr)
{
	struct lc_record_info r = {
		.segment_id = 1ull << 40,
		.seq = 1ull << 50,
		.epoch = 17,
		.first = (1ull << 50) - 9,
		.durable_seq = (1ull << 50) - 1,
		.position = 5,
		.nr_entries = nr,
	};

	memcpy(r.uuid, uuid, sizeof uuid);
	return r;
}

static UNUSED void seal_record(u32 nr)
{
	struct lc_record_info r = some_record(nr);
	struct lc_slot entries[LC_ENTRIES_MAX];

	for (u32 i = 0; i < nr; i++)
		entries[i] = some_slot(i);
	lc_record_encode(block, &r, entries);
}

static UNUSED struct lc_summary_info some_summary(void)
{
	struct lc_summary_info s = {
		.segment_id = 77,
		.first_seq = 1000,
		.last_seq = 1002,
		.epoch = 3,
		.nr_records = 3,
		.nr_entries = 6,
		.nr_blocks = {1, 2, 3},
	};

	memcpy(s.uuid, uuid, sizeof uuid);
	return s;
}

static UNUSED void seal_summary(void)
{
	struct lc_summary_info s = some_summary();
	struct lc_slot entries[6];

	for (u32 i = 0; i < 6; i++)
		entries[i] = some_slot(i);
	lc_summary_encode(block, &s, entries);
}

static UNUSED bool superblock_counts(void)
{
	struct lc_page_info info;
	struct lc_superblock sb;

	return lc_page_verify(block, LC_PAGE_SUPERBLOCK, &info) == LC_PAGE_OK &&
	       lc_superblock_decode(block, &sb);
}

static UNUSED bool record_counts(void)
{
	struct lc_slot entries[LC_ENTRIES_MAX];
	struct lc_record_info r;

	return lc_record_decode(block, &r, entries);
}

static UNUSED bool summary_counts(void)
{
	struct lc_slot entries[LC_SUMMARY_ENTRIES_MAX];
	struct lc_summary_info s;

	return lc_summary_decode(block, &s, entries);
}

#endif
