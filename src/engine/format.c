/* SPDX-License-Identifier: BSD-3-Clause */
#include "format.h"

#include <assert.h>
#include <endian.h>
#include <isa-l/crc.h>
#include <string.h>

/* "lcpg", "lcrc", "lcsm" as they appear on disk. */
#define MAGIC_PAGE 0x6770636cu
#define MAGIC_RECORD 0x6372636cu
#define MAGIC_SUMMARY 0x6d73636cu

/* Every structure begins alike. */
#define AT_MAGIC 0
#define AT_VERSION 4
#define AT_CRC 8
#define AT_UUID 16

static void put16(void *block, size_t at, u16 v)
{
	v = htole16(v);
	memcpy((u8 *)block + at, &v, sizeof v);
}

static void put32(void *block, size_t at, u32 v)
{
	v = htole32(v);
	memcpy((u8 *)block + at, &v, sizeof v);
}

static void put64(void *block, size_t at, u64 v)
{
	v = htole64(v);
	memcpy((u8 *)block + at, &v, sizeof v);
}

static u16 get16(const void *block, size_t at)
{
	u16 v;

	memcpy(&v, (const u8 *)block + at, sizeof v);
	return le16toh(v);
}

static u32 get32(const void *block, size_t at)
{
	u32 v;

	memcpy(&v, (const u8 *)block + at, sizeof v);
	return le32toh(v);
}

static u64 get64(const void *block, size_t at)
{
	u64 v;

	memcpy(&v, (const u8 *)block + at, sizeof v);
	return le64toh(v);
}

/*
 * ISA-L's crc32_iscsi leaves both inversions to the caller. And its form for AVX-512 leaves the upper parts of the vector registers in
 * use: then the next SSE instruction of the thread, wherever that is, takes 0.3 us, and the next checksum twice as long.
 */
static u32 crc_update(u32 crc, const void *p, size_t n)
{
	crc = crc32_iscsi((unsigned char *)(uintptr_t)p, (int)n, crc);
#ifdef __x86_64__
	if (__builtin_cpu_supports("avx"))
		__asm__ volatile("vzeroupper");
#endif
	return crc;
}

u32 lc_crc32c(const void *p, size_t n)
{
	return ~crc_update(~0u, p, n);
}

/* The crc of a block with its crc field taken as zero. */
static u32 block_crc(const void *block)
{
	static const u8 zero[4];
	u32 crc = ~0u;

	crc = crc_update(crc, block, AT_CRC);
	crc = crc_update(crc, zero, sizeof zero);
	crc = crc_update(crc, (const u8 *)block + AT_CRC + 4, LC_BLOCK - AT_CRC - 4);
	return ~crc;
}

static void seal(void *block, u32 magic)
{
	put32(block, AT_MAGIC, magic);
	put32(block, AT_VERSION, LC_FORMAT_VERSION);
	put32(block, AT_CRC, block_crc(block));
}

static bool crc_fits(const void *block)
{
	return get32(block, AT_CRC) == block_crc(block);
}

static bool sealed(const void *block, u32 magic)
{
	return get32(block, AT_MAGIC) == magic && get32(block, AT_VERSION) == LC_FORMAT_VERSION &&
	       crc_fits(block);
}

static void put_slot(void *block, size_t at, const struct lc_slot *s)
{
	put64(block, at, s->key & ~LC_KEY_FLAGS);
	put32(block, at + 8, s->crc);
}

/* A key of data that a healthy engine could have written. */
static bool key_ok(u64 key)
{
	return lc_key_type(key) == LC_ENTRY_DATA && !(key & LC_KEY_FLAGS) && lc_key_mask(key) &&
	       lc_key_volume(key);
}

/* The same for an entry that zeroes a range. */
static bool zero_ok(const struct lc_slot *s)
{
	return lc_key_zeroes(s->key) && !(s->key & LC_KEY_FLAGS) &&
	       lc_key_mask(s->key) == LC_MASK_FULL && lc_key_volume(s->key) && s->crc > 0 &&
	       s->crc <= LC_ZERO_BLOCKS_MAX && s->crc <= LC_BLOCK_NR_MAX - lc_key_block(s->key);
}

static bool get_slot(const void *block, size_t at, struct lc_slot *s)
{
	s->key = get64(block, at);
	s->crc = get32(block, at + 8);
	return key_ok(s->key) || zero_ok(s);
}

/* --- metadata pages --- */

#define PAGE_NUMBER 12
#define PAGE_GENERATION 32
#define PAGE_PAYLOAD 64

u64 lc_zone_blocks(u64 device_blocks)
{
	const u64 mib = (1u << 20) / LC_BLOCK;
	u64 zone = (device_blocks / 512 + mib - 1) / mib * mib;

	return zone < mib ? mib : zone;
}

void lc_page_seal(void *block, const struct lc_page_info *info)
{
	put32(block, PAGE_NUMBER, info->page);
	memcpy((u8 *)block + AT_UUID, info->uuid, LC_UUID_BYTES);
	put64(block, PAGE_GENERATION, info->generation);
	seal(block, MAGIC_PAGE);
}

enum lc_page_state lc_page_verify(const void *block, u32 page, struct lc_page_info *info)
{
	info->page = get32(block, PAGE_NUMBER);
	info->version = get32(block, AT_VERSION);
	info->generation = get64(block, PAGE_GENERATION);
	memcpy(info->uuid, (const u8 *)block + AT_UUID, LC_UUID_BYTES);
	if (!lc_page_recognize(block) || !crc_fits(block) || info->page != page)
		return LC_PAGE_BROKEN;
	return info->version == LC_FORMAT_VERSION ? LC_PAGE_OK : LC_PAGE_UNKNOWN;
}

bool lc_page_recognize(const void *block)
{
	return get32(block, AT_MAGIC) == MAGIC_PAGE;
}

#define SB_COMPAT 64
#define SB_RO_COMPAT 72
#define SB_INCOMPAT 80
#define SB_DEVICE_BLOCKS 88
#define SB_ZONE_BLOCKS 96
#define SB_SEGMENT_BLOCKS 100
#define SB_NR_SEGMENTS 104
#define SB_FLAGS 108
#define SB_EPOCH 112
#define SB_FIRST 120
#define SB_TAIL_ID 128
#define SB_TAIL_SEQ 136
#define SB_DURABLE_SEQ 144
#define SB_LABEL 192
#define SB_KEPT 256
#define SB_VALUES 264

#define SB_FLAG_CLEAN 1u
#define SB_FLAG_SETTLED 2u

void lc_superblock_encode(void *block, const struct lc_superblock *sb)
{
	put64(block, SB_COMPAT, sb->compat);
	put64(block, SB_RO_COMPAT, sb->ro_compat);
	put64(block, SB_INCOMPAT, sb->incompat);
	put64(block, SB_DEVICE_BLOCKS, sb->device_blocks);
	put32(block, SB_ZONE_BLOCKS, sb->zone_blocks);
	put32(block, SB_SEGMENT_BLOCKS, sb->segment_blocks);
	put32(block, SB_NR_SEGMENTS, sb->nr_segments);
	put32(block, SB_FLAGS, (sb->clean ? SB_FLAG_CLEAN : 0) | (sb->settled ? SB_FLAG_SETTLED : 0));
	put64(block, SB_EPOCH, sb->epoch);
	put64(block, SB_FIRST, sb->first);
	put64(block, SB_TAIL_ID, sb->tail_id);
	put64(block, SB_TAIL_SEQ, sb->tail_seq);
	put64(block, SB_DURABLE_SEQ, sb->durable_seq);
	memcpy((u8 *)block + SB_LABEL, sb->label, LC_LABEL_BYTES);
	put32(block, SB_KEPT, sb->kept);
	for (unsigned i = 0; i < LC_SETTINGS_MAX; i++)
		put64(block, SB_VALUES + 8 * i, sb->values[i]);
}

bool lc_superblock_decode(const void *block, struct lc_superblock *sb)
{
	u64 segment_bytes;

	sb->compat = get64(block, SB_COMPAT);
	sb->ro_compat = get64(block, SB_RO_COMPAT);
	sb->incompat = get64(block, SB_INCOMPAT);
	sb->device_blocks = get64(block, SB_DEVICE_BLOCKS);
	sb->zone_blocks = get32(block, SB_ZONE_BLOCKS);
	sb->segment_blocks = get32(block, SB_SEGMENT_BLOCKS);
	sb->nr_segments = get32(block, SB_NR_SEGMENTS);
	sb->clean = get32(block, SB_FLAGS) & SB_FLAG_CLEAN;
	sb->settled = get32(block, SB_FLAGS) & SB_FLAG_SETTLED;
	sb->epoch = get64(block, SB_EPOCH);
	sb->first = get64(block, SB_FIRST);
	sb->tail_id = get64(block, SB_TAIL_ID);
	sb->tail_seq = get64(block, SB_TAIL_SEQ);
	sb->durable_seq = get64(block, SB_DURABLE_SEQ);
	memcpy(sb->label, (const u8 *)block + SB_LABEL, LC_LABEL_BYTES);
	sb->kept = get32(block, SB_KEPT);
	for (unsigned i = 0; i < LC_SETTINGS_MAX; i++)
		sb->values[i] = get64(block, SB_VALUES + 8 * i);

	segment_bytes = (u64)sb->segment_blocks * LC_BLOCK;
	return segment_bytes >= LC_SEGMENT_MIN_BYTES && segment_bytes <= LC_SEGMENT_MAX_BYTES &&
	       !(segment_bytes & (segment_bytes - 1)) && sb->nr_segments >= LC_SEGMENTS_MIN &&
	       sb->device_blocks <= UINT32_MAX &&
	       sb->zone_blocks == lc_zone_blocks(sb->device_blocks) &&
	       sb->zone_blocks + (u64)sb->nr_segments * sb->segment_blocks <= sb->device_blocks &&
	       sb->epoch < LC_COUNT_MAX && sb->tail_id < LC_COUNT_MAX &&
	       sb->durable_seq < LC_COUNT_MAX && sb->first >= 1 && sb->tail_seq >= 1 &&
	       sb->durable_seq + 1 >= sb->tail_seq && sb->first <= sb->durable_seq + 1 &&
	       sb->label[LC_LABEL_BYTES - 1] == 0;
}

#define VOLUME_BYTES 512u
#define VOLUME_ID 0
#define VOLUME_FLAGS 4
#define VOLUME_SIZE 8
#define VOLUME_FROM_SEQ 16
#define VOLUME_UNSURE 24
#define VOLUME_UUID 32
#define VOLUME_NAME 64
#define VOLUME_SAMPLES 128

#define VOLUME_UNVERIFIED 1u

_Static_assert(PAGE_PAYLOAD + LC_VOLUMES_PER_PAGE * VOLUME_BYTES <= LC_BLOCK, "volume page");
_Static_assert(VOLUME_SAMPLES + 4 * LC_NR_SAMPLES <= VOLUME_BYTES, "volume entry");

void lc_volume_encode(void *block, unsigned index, const struct lc_volume_entry *v)
{
	size_t at = PAGE_PAYLOAD + index * VOLUME_BYTES;

	assert(index < LC_VOLUMES_PER_PAGE);
	put32(block, at + VOLUME_ID, v->id);
	put32(block, at + VOLUME_FLAGS, v->unverified ? VOLUME_UNVERIFIED : 0);
	put64(block, at + VOLUME_SIZE, v->size_bytes);
	put64(block, at + VOLUME_FROM_SEQ, v->from_seq);
	put64(block, at + VOLUME_UNSURE, v->unsure);
	memcpy((u8 *)block + at + VOLUME_UUID, v->uuid, LC_UUID_BYTES);
	memcpy((u8 *)block + at + VOLUME_NAME, v->name, LC_NAME_BYTES);
	for (unsigned i = 0; i < LC_NR_SAMPLES; i++)
		put32(block, at + VOLUME_SAMPLES + 4 * i, v->samples[i]);
}

bool lc_volume_decode(const void *block, unsigned index, struct lc_volume_entry *v)
{
	size_t at = PAGE_PAYLOAD + index * VOLUME_BYTES;
	u32 id = get32(block, at + VOLUME_ID), flags = get32(block, at + VOLUME_FLAGS);

	assert(index < LC_VOLUMES_PER_PAGE);
	v->id = id;
	v->unverified = flags & VOLUME_UNVERIFIED;
	v->size_bytes = get64(block, at + VOLUME_SIZE);
	v->from_seq = get64(block, at + VOLUME_FROM_SEQ);
	v->unsure = get64(block, at + VOLUME_UNSURE);
	memcpy(v->uuid, (const u8 *)block + at + VOLUME_UUID, LC_UUID_BYTES);
	memcpy(v->name, (const u8 *)block + at + VOLUME_NAME, LC_NAME_BYTES);
	for (unsigned i = 0; i < LC_NR_SAMPLES; i++)
		v->samples[i] = get32(block, at + VOLUME_SAMPLES + 4 * i);
	return id <= LC_VOLUMES_MAX && !(flags & ~VOLUME_UNVERIFIED) &&
	       v->name[LC_NAME_BYTES - 1] == 0 &&
	       (id == 0 || (v->size_bytes > 0 && v->size_bytes <= LC_BLOCK_NR_MAX * LC_BLOCK));
}

#define BAD_ENTRIES (PAGE_PAYLOAD + 8)
#define BAD_ENTRY_BYTES 16

_Static_assert(BAD_ENTRIES + BAD_ENTRY_BYTES * LC_BAD_PER_PAGE <= LC_BLOCK, "bad block page");

void lc_bad_encode(void *block, const struct lc_bad_entry *entries, unsigned nr)
{
	size_t at = BAD_ENTRIES;
	unsigned used = 0;

	assert(nr <= LC_BAD_PER_PAGE);
	memset((u8 *)block + BAD_ENTRIES, 0, LC_BLOCK - BAD_ENTRIES);
	for (unsigned i = 0; i < nr; i++) {
		if (!entries[i].key)
			continue;
		put64(block, at, entries[i].key & ~LC_KEY_FLAGS);
		put64(block, at + 8, entries[i].seq);
		at += BAD_ENTRY_BYTES;
		used++;
	}
	put64(block, PAGE_PAYLOAD, used);
}

int lc_bad_decode(const void *block, struct lc_bad_entry entries[LC_BAD_PER_PAGE])
{
	u64 nr = get64(block, PAGE_PAYLOAD);

	if (nr > LC_BAD_PER_PAGE)
		return -1;
	for (unsigned i = 0; i < nr; i++) {
		entries[i].key = get64(block, BAD_ENTRIES + BAD_ENTRY_BYTES * i);
		entries[i].seq = get64(block, BAD_ENTRIES + BAD_ENTRY_BYTES * i + 8);
		if (!key_ok(entries[i].key))
			return -1;
	}
	return (int)nr;
}

/* --- records --- */

#define RECORD_SEGMENT 32
#define RECORD_SEQ 40
#define RECORD_EPOCH 48
#define RECORD_FIRST 56
#define RECORD_DURABLE 64
#define RECORD_POSITION 72
#define RECORD_NR_ENTRIES 76
#define RECORD_ENTRIES 256

_Static_assert(RECORD_ENTRIES + LC_ENTRIES_MAX * 12 == LC_BLOCK, "record header");
_Static_assert(LC_SEGMENT_MAX_BYTES / LC_BLOCK <= LC_ENTRIES_MAX, "one header names a segment");

void lc_record_encode(void *block, const struct lc_record_info *r, const struct lc_slot *entries)
{
	assert(r->nr_entries <= LC_ENTRIES_MAX);
	assert(r->durable_seq < r->seq && r->first <= r->seq);
	memset(block, 0, RECORD_ENTRIES);
	memcpy((u8 *)block + AT_UUID, r->uuid, LC_UUID_BYTES);
	put64(block, RECORD_SEGMENT, r->segment_id);
	put64(block, RECORD_SEQ, r->seq);
	put64(block, RECORD_EPOCH, r->epoch);
	put64(block, RECORD_FIRST, r->first);
	put64(block, RECORD_DURABLE, r->durable_seq);
	put32(block, RECORD_POSITION, r->position);
	put32(block, RECORD_NR_ENTRIES, r->nr_entries);
	for (unsigned i = 0; i < r->nr_entries; i++)
		put_slot(block, RECORD_ENTRIES + 12 * i, &entries[i]);
	memset((u8 *)block + RECORD_ENTRIES + 12 * r->nr_entries, 0,
	       12 * (LC_ENTRIES_MAX - r->nr_entries));
	seal(block, MAGIC_RECORD);
}

static void get_record_info(const void *block, struct lc_record_info *r)
{
	memcpy(r->uuid, (const u8 *)block + AT_UUID, LC_UUID_BYTES);
	r->segment_id = get64(block, RECORD_SEGMENT);
	r->seq = get64(block, RECORD_SEQ);
	r->epoch = get64(block, RECORD_EPOCH);
	r->first = get64(block, RECORD_FIRST);
	r->durable_seq = get64(block, RECORD_DURABLE);
	r->position = get32(block, RECORD_POSITION);
	r->nr_entries = get32(block, RECORD_NR_ENTRIES);
}

bool lc_record_decode(const void *block, struct lc_record_info *r,
		      struct lc_slot entries[LC_ENTRIES_MAX])
{
	if (!sealed(block, MAGIC_RECORD))
		return false;
	get_record_info(block, r);
	if (r->nr_entries < 1 || r->nr_entries > LC_ENTRIES_MAX || r->segment_id == 0 ||
	    r->first == 0 || r->seq < r->first || r->durable_seq >= r->seq ||
	    r->seq >= LC_COUNT_MAX || r->segment_id >= LC_COUNT_MAX || r->epoch >= LC_COUNT_MAX)
		return false;
	for (unsigned i = 0; i < r->nr_entries; i++)
		if (!get_slot(block, RECORD_ENTRIES + 12 * i, &entries[i]))
			return false;
	return true;
}

void lc_record_guess(const void *block, struct lc_record_info *r,
		     struct lc_slot entries[LC_ENTRIES_MAX])
{
	get_record_info(block, r);
	for (unsigned i = 0; i < LC_ENTRIES_MAX; i++)
		if (!get_slot(block, RECORD_ENTRIES + 12 * i, &entries[i]))
			entries[i] = (struct lc_slot){0};
}

bool lc_record_proved(const void *block, const struct lc_record_info *r, const struct lc_slot *entries)
{
	u8 whole[LC_BLOCK];

	if (r->nr_entries < 1 || r->nr_entries > LC_ENTRIES_MAX || r->durable_seq >= r->seq ||
	    r->first > r->seq)
		return false;
	lc_record_encode(whole, r, entries);
	return get32(whole, AT_CRC) == get32(block, AT_CRC);
}

/* --- summaries --- */

#define SUMMARY_SEGMENT 32
#define SUMMARY_FIRST_SEQ 40
#define SUMMARY_EPOCH 48
#define SUMMARY_LAST_SEQ 56
#define SUMMARY_NR_RECORDS 64
#define SUMMARY_NR_ENTRIES 68
#define SUMMARY_RECORDS 128
#define SUMMARY_ENTRIES (SUMMARY_RECORDS + 2 * LC_SUMMARY_RECORDS_MAX)

_Static_assert(SUMMARY_ENTRIES + 12 * LC_SUMMARY_ENTRIES_MAX <= LC_BLOCK, "summary");

void lc_summary_encode(void *block, const struct lc_summary_info *s, const struct lc_slot *entries)
{
	assert(s->nr_records >= 1 && s->nr_records <= LC_SUMMARY_RECORDS_MAX);
	assert(s->nr_entries <= LC_SUMMARY_ENTRIES_MAX);
	assert(s->last_seq - s->first_seq + 1 == s->nr_records);
	memset(block, 0, LC_BLOCK);
	memcpy((u8 *)block + AT_UUID, s->uuid, LC_UUID_BYTES);
	put64(block, SUMMARY_SEGMENT, s->segment_id);
	put64(block, SUMMARY_FIRST_SEQ, s->first_seq);
	put64(block, SUMMARY_EPOCH, s->epoch);
	put64(block, SUMMARY_LAST_SEQ, s->last_seq);
	put32(block, SUMMARY_NR_RECORDS, s->nr_records);
	put32(block, SUMMARY_NR_ENTRIES, s->nr_entries);
	for (unsigned i = 0; i < s->nr_records; i++)
		put16(block, SUMMARY_RECORDS + 2 * i, s->nr_blocks[i]);
	for (unsigned i = 0; i < s->nr_entries; i++)
		put_slot(block, SUMMARY_ENTRIES + 12 * i, &entries[i]);
	seal(block, MAGIC_SUMMARY);
}

bool lc_summary_decode(const void *block, struct lc_summary_info *s,
		       struct lc_slot entries[LC_SUMMARY_ENTRIES_MAX])
{
	u32 sum = 0;

	if (!sealed(block, MAGIC_SUMMARY))
		return false;
	memcpy(s->uuid, (const u8 *)block + AT_UUID, LC_UUID_BYTES);
	s->segment_id = get64(block, SUMMARY_SEGMENT);
	s->first_seq = get64(block, SUMMARY_FIRST_SEQ);
	s->epoch = get64(block, SUMMARY_EPOCH);
	s->last_seq = get64(block, SUMMARY_LAST_SEQ);
	s->nr_records = get32(block, SUMMARY_NR_RECORDS);
	s->nr_entries = get32(block, SUMMARY_NR_ENTRIES);
	if (s->nr_records < 2 || s->nr_records > LC_SUMMARY_RECORDS_MAX ||
	    s->nr_entries > LC_SUMMARY_ENTRIES_MAX || s->segment_id == 0 || s->first_seq == 0 ||
	    s->segment_id >= LC_COUNT_MAX || s->last_seq >= LC_COUNT_MAX || s->epoch >= LC_COUNT_MAX ||
	    s->last_seq < s->first_seq || s->last_seq - s->first_seq + 1 != s->nr_records)
		return false;
	for (unsigned i = 0; i < s->nr_records; i++) {
		s->nr_blocks[i] = get16(block, SUMMARY_RECORDS + 2 * i);
		if (s->nr_blocks[i] < 1 || s->nr_blocks[i] > LC_SUMMARY_ENTRIES_MAX)
			return false;
		sum += s->nr_blocks[i];
	}
	if (sum != s->nr_entries)
		return false;
	for (unsigned i = 0; i < s->nr_entries; i++)
		if (!get_slot(block, SUMMARY_ENTRIES + 12 * i, &entries[i]))
			return false;
	return true;
}
