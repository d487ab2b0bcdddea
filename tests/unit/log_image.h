/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * log_image.h - logs made by hand, block by block, for the tests of recovery.
 *
 * The device has eight segments of eight blocks (or what a program defines BLOCKS to be before) and one
 * volume of 100 blocks (id 1), the last of them short. begin() goes to a segment, add() appends a record to it. Recovery only reads:
 * recover() checks that each time.
 *
 * Each program includes it once; everything is static.
 */
#ifndef LOGCACHE_TEST_LOG_IMAGE_H
#define LOGCACHE_TEST_LOG_IMAGE_H

#include "mem_store.h"

#include "recover.h"

#define NR 8u
#ifndef BLOCKS
#define BLOCKS 8u
#endif
#define ZONE 256u
#define VOLUME_BLOCKS 100u

static struct mem_store ssd;
static struct lc_meta meta; /* to make the image with */
static struct lc_mutex lock;
static struct lc_core core; /* what recovery made of it */
static struct lc_recovery found;
static struct lc_error error;

static struct {
	struct lc_record_info next; /* of the record that add() makes next */
	struct lc_summary_info summary;
	struct lc_slot entries[BLOCKS];
} image;

static void write_page(u32 page)
{
	assert_int_equal(lc_meta_write(&meta, &lock, page,
				       (struct lc_flusher){lc_meta_flush_store, NULL, &ssd.store}),
			 0);
}

static int setup(void **state)
{
	struct lc_superblock sb = {
		.device_blocks = ZONE + NR * BLOCKS,
		.zone_blocks = ZONE,
		.segment_blocks = BLOCKS,
		.nr_segments = NR,
		.epoch = 1,
		.first = 1,
		.tail_seq = 1,
	};

	(void)state;
	mem_open(&ssd, "/dev/fast", (ZONE + NR * BLOCKS) * LC_BLOCK);
	lc_mutex_init(&lock);
	assert_int_equal(lc_meta_format(&ssd.store, &sb, &error), 0);
	assert_int_equal(lc_meta_load(&meta, &ssd.store, &error), 0);
	meta.volumes[1] = (struct lc_volume_entry){.id = 1,
						   .size_bytes = VOLUME_BLOCKS * LC_BLOCK - 9};
	write_page(LC_PAGE_VOLUMES);
	memset(&image, 0, sizeof image);
	image.next = (struct lc_record_info){.seq = 1, .epoch = 1, .first = 1};
	memcpy(image.next.uuid, meta.uuid, LC_UUID_BYTES);
	return 0;
}

static void forget(void)
{
	if (core.ssd) {
		lc_ring_destroy(&core.ring);
		lc_meta_destroy(&core.meta);
	}
	memset(&core, 0, sizeof core);
}

static int teardown(void **state)
{
	(void)state;
	forget();
	lc_meta_destroy(&meta);
	lc_mutex_destroy(&lock);
	lc_store_close(&ssd.store);
	return 0;
}

/* --- making an image --- */

static u32 slot_at(u64 id, u32 position)
{
	return ZONE + (id - 1) % NR * BLOCKS + position;
}

/* The block at a position of the place of a segment. */
static u8 *at(u64 id, u32 position)
{
	return mem_block(&ssd, slot_at(id, position));
}

static UNUSED void rot(u64 id, u32 position)
{
	at(id, position)[1234] ^= 0x10;
}

static void begin(u64 segment_id)
{
	image.next.segment_id = segment_id;
	image.next.position = 0;
	image.summary = (struct lc_summary_info){.segment_id = segment_id,
						 .first_seq = image.next.seq};
	memcpy(image.summary.uuid, meta.uuid, LC_UUID_BYTES);
}

/* The next record is appended; its NR entries are in their place. */
static void append(u32 nr)
{
	image.next.nr_entries = nr;
	lc_record_encode(at(image.next.segment_id, image.next.position), &image.next,
			 image.entries + image.summary.nr_entries);
	image.summary.nr_blocks[image.summary.nr_records++] = nr;
	image.summary.nr_entries += nr;
	image.summary.last_seq = image.next.seq;
	image.summary.epoch = image.next.epoch;
	image.next.position += 1 + nr;
	image.next.seq++;
}

/* Append the next record: NR blocks of the volume, from BLOCK on. */
static void add(u32 nr, u64 block)
{
	struct lc_slot *entries = image.entries + image.summary.nr_entries;

	for (u32 i = 0; i < nr; i++) {
		u8 *data = at(image.next.segment_id, image.next.position + 1 + i);

		memset(data, image.next.seq + i, LC_BLOCK);
		entries[i].key = lc_key(1, block + i, LC_MASK_FULL, LC_ENTRY_DATA);
		entries[i].crc = lc_crc32c(data, LC_BLOCK);
	}
	append(nr);
}

/* A record with one entry, which zeroes NR blocks of a volume; the entry's own block is left as it is. */
static UNUSED void add_zero(u8 type, u8 volume, u64 block, u32 nr)
{
	image.entries[image.summary.nr_entries] = (struct lc_slot){lc_key(volume, block,
									  LC_MASK_FULL, type),
								   nr};
	append(1);
}

static UNUSED void summarize(void)
{
	lc_summary_encode(at(image.summary.segment_id, BLOCKS - 1), &image.summary, image.entries);
}

/* A segment that one record fills, whose blocks are 7 * (id - 1) % 98 and up. */
static UNUSED void add_full(u64 id)
{
	begin(id);
	add(BLOCKS - 1, (id - 1) * 7 % 98);
}

static UNUSED void set_superblock(u64 tail_id, u64 tail_seq, u64 durable_seq)
{
	meta.sb.tail_id = tail_id;
	meta.sb.tail_seq = tail_seq;
	meta.sb.durable_seq = durable_seq;
	write_page(LC_PAGE_SUPERBLOCK);
}

/* Begin the next epoch after a cut at SEQ, as opening does. */
static UNUSED void new_epoch(u64 cut_seq)
{
	meta.sb.epoch = ++image.next.epoch;
	meta.sb.first = image.next.first = cut_seq + 1;
	meta.sb.durable_seq = image.next.durable_seq = cut_seq;
	image.next.seq = cut_seq + 1;
	write_page(LC_PAGE_SUPERBLOCK);
}

/* --- looking at the result --- */

static int recover(void)
{
	int ret;

	forget();
	memset(&error, 0, sizeof error);
	assert_int_equal(lc_meta_load(&core.meta, &ssd.store, &error), 0);
	core.ssd = &ssd.store;
	assert_int_equal(lc_ring_init(&core.ring, ZONE, BLOCKS, NR), 0);
	mem_forget(&ssd);
	ret = lc_recover(&core, &found, &error);
	assert_int_equal(ssd.writes, 0);
	return ret;
}

static UNUSED void assert_recovers(u64 cut_seq, u64 head_id)
{
	if (recover())
		fail_msg("%s", error.text);
	assert_int_equal(found.cut_seq, cut_seq);
	assert_int_equal(core.ring.head_id, head_id);
	assert_int_equal(core.ring.tail_id, meta.sb.tail_id);
	assert_int_equal(core.ring.free_id, head_id);
}

static UNUSED void assert_refused(int want, const char *words)
{
	assert_int_equal(recover(), want);
	assert_says(&error, "/dev/fast");
	assert_says(&error, words);
	assert_says(&error, "nothing was changed");
}

/* Block BLOCK of the volume is at a position of segment ID; 0: nowhere. */
static UNUSED void assert_at(u64 block, u64 id, u32 position)
{
	u32 slot = lc_index_find(&core.ring.index, 1, block);
	bool dirty = id > meta.sb.tail_id;

	assert_int_equal(slot, id ? slot_at(id, position) : 0);
	if (id)
		assert_int_equal(!!(lc_index_slot(&core.ring.index, slot)->key & LC_SLOT_DIRTY),
				 dirty);
}

/*
 * Records 1 to 3 in segment 1, 4 and 5 in segment 2, each of one block; known durable by the
 * superblock, or (0) each but the last by the header of the next.
 */
static UNUSED void make_durable_log(u64 durable_by_superblock)
{
	begin(1);
	for (u32 i = 1; i <= 5; i++) {
		if (i == 4)
			begin(2);
		image.next.durable_seq = durable_by_superblock ? 0 : i - 1;
		add(1, i);
	}
	set_superblock(0, 1, durable_by_superblock);
	assert_recovers(5, 2);
}

#define IMAGE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
