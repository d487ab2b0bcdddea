/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * format.h - every structure on the cache device: encode, decode, verify.
 *
 * Nothing else in the engine touches raw bytes. All integers are little-endian; every structure is
 * one block (4 KiB) and has a magic, a version and a CRC-32C in which the crc field counts as zero.
 * docs/format.md describes the same for somebody who writes an independent reader.
 *
 *	[ metadata zone: page i at block 2i and again at block 2i + 1 ][ segment 0 ][ segment 1 ] ...
 *
 * A segment holds records, one behind the other:
 *
 *	[ header | data blocks ][ header | data blocks ] ... [ summary ]
 *
 * The summary is the last block of a segment that filled up with more than one record.
 *
 * These functions are pure: no locks, no state, callable from anywhere. Decoders trust nothing: they
 * return false for whatever a healthy engine could not have written.
 */
#ifndef LC_FORMAT_H
#define LC_FORMAT_H

#include "logcache/logcache.h"
#include "mutant.h"

#define LC_FORMAT_VERSION 1u
/* Seqs, ids and epochs stay below this: at a million records a second for 30 000 years. */
#define LC_COUNT_MAX (1ull << 60)
/* A cache in which one has come so far is not opened: there has to be room for what it would go on with. */
#define LC_COUNT_OPEN_MAX (LC_COUNT_MAX / 2)

/* --- CRC-32C (Castagnoli), as in iSCSI: of "123456789" it is 0xE3069283 --- */

u32 lc_crc32c(const void *p, size_t n);

/* --- keys: what a slot of the log holds --- */

/*
 * volume (8 bits) | block (40) | sector mask (8) | flags (4) | type (4), most significant first, so
 * that keys sort by volume and block. The flags belong to the engine in RAM and are zero on disk.
 */
enum lc_entry_type {
	LC_ENTRY_NONE = 0,
	LC_ENTRY_DATA = 1, /* the entry's block in the record holds its data */
	/* A range that reads as zeros from here on. Its length in blocks stands instead of the crc. */
	LC_ENTRY_ZERO = 2,
	LC_ENTRY_CLEAN = 3, /* read cache; reserved */
	LC_ENTRY_ERA = 4,   /* checkpoint of a volume's era; reserved */
	LC_ENTRY_TRIM = 5,  /* like ZERO, and the backing store may give the space back */
};

/* The largest range of one ZERO or TRIM entry: 256 MiB. What is larger takes several. */
#define LC_ZERO_BLOCKS_MAX 65536u

#define LC_KEY_TYPE 0x0full
#define LC_KEY_FLAGS 0xf0ull
#define LC_BLOCK_NR_MAX ((1ull << 40) - 1)

static inline u64 lc_key(u8 volume, u64 block, u8 mask, u8 type)
{
	return (u64)volume << 56 | block << 16 | (u64)mask << 8 | type;
}

static inline u8 lc_key_volume(u64 key)
{
	return key >> 56;
}

static inline u64 lc_key_block(u64 key)
{
	return key >> 16 & LC_BLOCK_NR_MAX;
}

static inline u8 lc_key_mask(u64 key)
{
	return key >> 8;
}

static inline u8 lc_key_type(u64 key)
{
	return key & LC_KEY_TYPE;
}

/* Does an entry with this key zero a range? */
static inline bool lc_key_zeroes(u64 key)
{
	return lc_key_type(key) == LC_ENTRY_ZERO || lc_key_type(key) == LC_ENTRY_TRIM;
}

/* Volume and block alone: equal for all versions of one block. */
static inline u64 lc_key_place(u64 key)
{
	return key >> 16;
}

static inline u64 lc_place(u8 volume, u64 block)
{
	return (u64)volume << 40 | block;
}

static inline u8 lc_place_volume(u64 place)
{
	return place >> 40;
}

static inline u64 lc_place_block(u64 place)
{
	return place & LC_BLOCK_NR_MAX;
}

/* What a slot holds: 12 bytes on disk, and 12 in RAM, where there is one for every block. */
struct lc_slot {
	u64 key;
	u32 crc; /* of the data; or how many blocks the entry zeroes */
} __attribute__((packed, aligned(4)));

_Static_assert(sizeof(struct lc_slot) == 12, "the slot table is most of the memory per block");

/* --- metadata pages --- */

#define LC_PAGE_SUPERBLOCK 0u
#define LC_PAGE_VOLUMES 1u
#define LC_VOLUMES_PER_PAGE 7u
#define LC_NR_VOLUME_PAGES 37u
#define LC_PAGE_BAD (LC_PAGE_VOLUMES + LC_NR_VOLUME_PAGES)
#define LC_NR_BAD_PAGES 26u
#define LC_BAD_PER_PAGE 251u
#define LC_NR_PAGES (LC_PAGE_BAD + LC_NR_BAD_PAGES)

/* 1/512 of the device, at least 1 MiB, in whole MiB; LC_NR_PAGES of its pages are in use. */
u64 lc_zone_blocks(u64 device_blocks);

_Static_assert((LC_NR_VOLUME_PAGES * LC_VOLUMES_PER_PAGE) >= LC_VOLUMES_MAX, "all volumes fit");
_Static_assert((LC_NR_PAGES * 2 * LC_BLOCK) <= 1u << 20, "the pages fit the smallest zone");

enum lc_page_state {
	LC_PAGE_OK,
	LC_PAGE_BROKEN,	 /* wrong magic, crc, number or uuid */
	LC_PAGE_UNKNOWN, /* intact, but of a version that we do not know */
};

struct lc_page_info {
	u32 page;
	u32 version;
	u64 generation;
	u8 uuid[LC_UUID_BYTES];
};

/* Fill in the page header around the payload that is in BLOCK already, and its crc. */
void lc_page_seal(void *block, const struct lc_page_info *info);
/* Verify BLOCK as copy of page number PAGE; INFO is filled in as far as it could be read. */
enum lc_page_state lc_page_verify(const void *block, u32 page, struct lc_page_info *info);

/* Does BLOCK look like a metadata page of any version, good or damaged? */
bool lc_page_recognize(const void *block);

/* Features that change what is on disk. An unknown bit in incompat means: refuse. */
#define LC_FEATURES_COMPAT 0ull
#define LC_FEATURES_RO_COMPAT 0ull
#define LC_FEATURES_INCOMPAT 0ull

struct lc_superblock {
	u64 compat, ro_compat, incompat;
	char label[LC_LABEL_BYTES];
	u64 device_blocks;
	u32 zone_blocks;
	u32 segment_blocks;
	u32 nr_segments;
	bool clean; /* closed in good order, nothing written since */
	bool settled; /* and nothing that was asked of a backing store could be executed later (lc_store_settled) */
	u64 epoch;	 /* number of times the cache was opened */
	u64 first;	 /* the seq at which this epoch began */
	u64 tail_id;	 /* newest segment all of whose data is on the backing stores; 0: none */
	u64 tail_seq;	 /* the seq that follows it */
	u64 durable_seq; /* every record up to it was durable when this was written */
	/* Settings that are kept: settings.h. */
	u32 kept; /* bit N: values[N] is meant */
	u64 values[LC_SETTINGS_MAX];
};

void lc_superblock_encode(void *block, const struct lc_superblock *sb);
/* False if the values cannot be right (the crc was good: a bug or malice, not rot). */
bool lc_superblock_decode(const void *block, struct lc_superblock *sb);

#define LC_NR_SAMPLES 64u

struct lc_volume_entry {
	u8 id; /* 1 .. 255; 0: the entry is unused */
	u8 uuid[LC_UUID_BYTES];
	char name[LC_NAME_BYTES];
	u64 size_bytes;
	bool unverified; /* served without the cache: the samples say nothing, only the size counts */
	u64 from_seq;	 /* entries of this volume in older records are void */
	/*
	 * Fingerprint: crcs of sample blocks for this size_bytes. Unsure ones (bit i: sample i) may have been written to since,
	 * by a sweep that did not come to its end; what was to be written may have left the log. One that a sweep writes is sure again.
	 */
	u32 samples[LC_NR_SAMPLES];
	u64 unsure;
};

/* Volume ID is entry (ID - 1) % LC_VOLUMES_PER_PAGE of page LC_PAGE_VOLUMES + (ID - 1) / LC_VOLUMES_PER_PAGE. */
void lc_volume_encode(void *block, unsigned index, const struct lc_volume_entry *v);
bool lc_volume_decode(const void *block, unsigned index, struct lc_volume_entry *v);

/* A lost block (I10). */
struct lc_bad_entry {
	u64 key; /* its mask says which sectors are lost; 0: unused entry */
	u64 seq; /* the copy that was lost is in a record up to this one: what is newer is not lost */
};

/* Entries with key 0 are left out. */
void lc_bad_encode(void *block, const struct lc_bad_entry *entries, unsigned nr);
/* Returns how many there are, or -1. */
int lc_bad_decode(const void *block, struct lc_bad_entry entries[LC_BAD_PER_PAGE]);

/* --- records --- */

#define LC_ENTRIES_MAX 320u

struct lc_record_info {
	u8 uuid[LC_UUID_BYTES];
	u64 segment_id;
	u64 seq;
	u64 epoch;
	u64 first;
	u64 durable_seq;
	u32 position; /* block in the segment where the header lies */
	u32 nr_entries;
};

/* ENTRIES: nr_entries keys (flags are masked out) with their crcs. */
void lc_record_encode(void *block, const struct lc_record_info *r, const struct lc_slot *entries);
/* Verify a header by itself; whether it belongs where it was found is for the caller. */
bool lc_record_decode(const void *block, struct lc_record_info *r,
		      struct lc_slot entries[LC_ENTRIES_MAX]);

/*
 * What a block says that was a header and is damaged: nothing of it is to be trusted, values are as they stand there.
 * An entry that cannot be one has key 0.
 */
void lc_record_guess(const void *block, struct lc_record_info *r,
		     struct lc_slot entries[LC_ENTRIES_MAX]);
/* Is the checksum that BLOCK has that of a header with this content? Then this is what it was, wherever it is damaged. */
bool lc_record_proved(const void *block, const struct lc_record_info *r,
		      const struct lc_slot *entries);

/* --- summaries --- */

#define LC_SUMMARY_RECORDS_MAX 256u
#define LC_SUMMARY_ENTRIES_MAX 256u

struct lc_summary_info {
	u8 uuid[LC_UUID_BYTES];
	u64 segment_id;
	u64 first_seq;
	u64 last_seq;
	u64 epoch;	/* of the last record */
	u32 nr_records; /* = last_seq - first_seq + 1 */
	u32 nr_entries;
	u16 nr_blocks[LC_SUMMARY_RECORDS_MAX]; /* data blocks of each record */
};

void lc_summary_encode(void *block, const struct lc_summary_info *s, const struct lc_slot *entries);
bool lc_summary_decode(const void *block, struct lc_summary_info *s,
		       struct lc_slot entries[LC_SUMMARY_ENTRIES_MAX]);

#endif
