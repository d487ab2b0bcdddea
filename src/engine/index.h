/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * index.h - (volume, block) -> slot: the slot table and a hash over it.
 *
 * The slot table has 12 bytes for each block of the log: its key, its flags in RAM and its crc. The hash has
 * one 4-byte slot number per bucket and takes the keys from the table: open addressing with linear
 * probing at a load of at most 0.8, and backward shift instead of tombstones, so that it never
 * degrades. 12 + 4 / 0.8 = 17 bytes per block.
 *
 * A slot is a block number of the cache device; 0 lies in the metadata zone, and stands for "none". The bits that a bucket
 * has left hold part of the block's hash, its tag: at this load a run of buckets has many entries of others,
 * and to look at the key of each would cost as many cache misses. A cache of 1 TiB has tags of 4 bits, which spare 15 of 16;
 * one of 16 TiB has none.
 *
 * Locking: the caller holds the engine mutex. No allocation after lc_index_init.
 */
#ifndef LC_INDEX_H
#define LC_INDEX_H

#include <assert.h>

#include "format.h"

/* Flags of a slot in RAM (the bits LC_KEY_FLAGS of its key). */
#define LC_SLOT_LIVE 0x10ull  /* the hash points here: this is the block's newest copy */
#define LC_SLOT_DIRTY 0x20ull /* newer than the backing store */

struct lc_index {
	struct lc_slot *slots; /* [nr_slots]; entry 0 is device block `base` */
	u32 *buckets;	       /* [nr_buckets]; tag and slot, or 0 */
	u32 slot_mask;	       /* the bits of a slot in a bucket */
	u32 base;
	u32 nr_slots;
	u64 nr_buckets;
	u32 nr_entries;
};

/* -ENOMEM. BASE > 0 is the first block of the log area. */
int lc_index_init(struct lc_index *ix, u32 base, u32 nr_slots);
void lc_index_destroy(struct lc_index *ix);
/* No block is anywhere any more; the slot table stays. */
void lc_index_clear(struct lc_index *ix);
u64 lc_index_bytes(const struct lc_index *ix);

static inline struct lc_slot *lc_index_slot(const struct lc_index *ix, u32 slot)
{
	return &ix->slots[slot - ix->base];
}

/* Where the entry of a block is or, if it has none, would go; and what is put there beside the slot. */
struct lc_bucket {
	u64 nr;
	u32 tag;
};

/* Valid until the index is changed by anything but lc_index_put into this very bucket. */
struct lc_bucket lc_index_bucket(const struct lc_index *ix, u8 volume, u64 block);
/* Enter SLOT, whose key is set, into the bucket of its block, instead of the slot that was there, if any. */
static inline void lc_index_put(struct lc_index *ix, struct lc_bucket bucket, u32 slot);
/* The slot in bucket NR, or 0. */
static inline u32 lc_index_at(const struct lc_index *ix, u64 nr)
{
	return ix->buckets[nr] & ix->slot_mask;
}

/* The slot that holds a block, or 0. */
static inline u32 lc_index_find(const struct lc_index *ix, u8 volume, u64 block)
{
	return lc_index_at(ix, lc_index_bucket(ix, volume, block).nr);
}

/*
 * The slot that holds a block if it lies in [FROM, END); or 0. A copy elsewhere is not looked at, which would be a wait for memory under
 * the mutex; but it is fetched into the CPU's cache, where lc_index_bucket will find it.
 */
u32 lc_index_find_in(const struct lc_index *ix, u8 volume, u64 block, u32 from, u32 end);

/*
 * A block will be looked up soon: fetch its bucket into the CPU's cache, which costs nothing but the wait for memory
 * that the look-up would have under the mutex. No lock needed.
 */
void lc_index_prefetch(const struct lc_index *ix, u8 volume, u64 block);
/* Take out the entry of SLOT, which is there. */
void lc_index_remove(struct lc_index *ix, u32 slot);

/*
 * --- how it is done, for index.c and for bulk.c, which enters all the blocks of a cache: a call for each step would be
 * a quarter of the time ---
 */

/* MurmurHash3's 64-bit finalizer (Appleby, public domain). */
static inline u64 lc_index_hash(u64 place)
{
	u64 h = place;

	h ^= h >> 33;
	h *= 0xff51afd7ed558ccdull;
	h ^= h >> 33;
	h *= 0xc4ceb9fe1a85ec53ull;
	h ^= h >> 33;
	return h;
}

/* The high bits of the hash say where a place lives, the low ones are its tag. */
static inline u64 lc_index_home(const struct lc_index *ix, u64 hash)
{
	return (unsigned __int128)hash * ix->nr_buckets >> 64;
}

static inline u32 lc_index_tag(const struct lc_index *ix, u64 hash)
{
	return (u32)hash & ~ix->slot_mask;
}

static inline u64 lc_index_place(const struct lc_index *ix, u32 slot)
{
	return lc_key_place(lc_index_slot(ix, slot)->key);
}

static inline u64 lc_index_next(const struct lc_index *ix, u64 nr)
{
	return nr + 1 == ix->nr_buckets ? 0 : nr + 1;
}

static inline void lc_index_fetch(const struct lc_index *ix, u64 nr)
{
	__builtin_prefetch(&ix->buckets[nr], 1);
}

/*
 * The bucket for SLOT, whose key is set, given its home and its tag: the key, which may be far away, is only looked at if
 * the bucket may hold another copy of the block.
 */
static inline struct lc_bucket lc_index_seek(const struct lc_index *ix, u64 home, u32 tag, u32 slot)
{
	struct lc_bucket b = {.nr = home, .tag = tag};
	u32 content;

	while ((content = ix->buckets[b.nr]) &&
	       ((content & ~ix->slot_mask) != tag ||
		lc_index_place(ix, content & ix->slot_mask) != lc_index_place(ix, slot)))
		b.nr = lc_index_next(ix, b.nr);
	return b;
}

static inline void lc_index_put(struct lc_index *ix, struct lc_bucket bucket, u32 slot)
{
	u32 *content = &ix->buckets[bucket.nr];

	if (*content) {
		assert(lc_index_place(ix, *content & ix->slot_mask) == lc_index_place(ix, slot));
	} else {
		assert(ix->nr_entries + 1 < ix->nr_buckets);
		ix->nr_entries++;
	}
	*content = bucket.tag | slot;
}

#endif
