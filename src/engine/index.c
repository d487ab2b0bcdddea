/* SPDX-License-Identifier: BSD-3-Clause */
#include "index.h"

#include <assert.h>
#include <string.h>

/* The load that the memory promise is made of: 4 entries in 5 buckets. */
static u64 buckets_for(u32 nr_slots)
{
	return (u64)nr_slots * 5 / 4 + 1;
}

/* As many low bits as a slot number up to LAST has. */
static u32 mask_for(u32 last)
{
	return ~0u >> __builtin_clz(last);
}

int lc_index_init(struct lc_index *ix, u32 base, u32 nr_slots)
{
	u64 nr_buckets = buckets_for(nr_slots);

	assert(base > 0);
	*ix = (struct lc_index){.base = base, .nr_slots = nr_slots};
	ix->nr_buckets = nr_buckets;
	ix->slot_mask = mask_for(base + nr_slots - 1);
	ix->slots = lc_alloc(nr_slots * sizeof *ix->slots);
	ix->buckets = lc_alloc(nr_buckets * sizeof *ix->buckets);
	if (ix->slots && ix->buckets)
		return 0;
	lc_index_destroy(ix);
	return -ENOMEM;
}

void lc_index_destroy(struct lc_index *ix)
{
	lc_free(ix->slots, ix->nr_slots * sizeof *ix->slots);
	lc_free(ix->buckets, ix->nr_buckets * sizeof *ix->buckets);
	*ix = (struct lc_index){0};
}

void lc_index_clear(struct lc_index *ix)
{
	memset(ix->buckets, 0, ix->nr_buckets * sizeof *ix->buckets);
	ix->nr_entries = 0;
}

u64 lc_index_bytes(const struct lc_index *ix)
{
	return ix->nr_slots * sizeof *ix->slots + ix->nr_buckets * sizeof *ix->buckets;
}

/* MurmurHash3's 64-bit finalizer (Appleby, public domain). */
static u64 hash(u64 place)
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
static u64 home(const struct lc_index *ix, u64 h)
{
	return (unsigned __int128)h * ix->nr_buckets >> 64;
}

static u32 tag(const struct lc_index *ix, u64 h)
{
	return (u32)h & ~ix->slot_mask;
}

static u64 place_of(const struct lc_index *ix, u32 slot)
{
	return lc_key_place(lc_index_slot(ix, slot)->key);
}

static u64 next(const struct lc_index *ix, u64 bucket)
{
	return bucket + 1 == ix->nr_buckets ? 0 : bucket + 1;
}

struct lc_bucket lc_index_bucket(const struct lc_index *ix, u8 volume, u64 block)
{
	u64 place = lc_place(volume, block), h = hash(place);
	struct lc_bucket b = {.nr = home(ix, h), .tag = tag(ix, h)};
	u32 content;

	while ((content = ix->buckets[b.nr]) && ((content & ~ix->slot_mask) != b.tag ||
						 place_of(ix, content & ix->slot_mask) != place))
		b.nr = next(ix, b.nr);
	return b;
}

void lc_index_put(struct lc_index *ix, struct lc_bucket bucket, u32 slot)
{
	u32 *content = &ix->buckets[bucket.nr];

	if (*content) {
		assert(place_of(ix, *content & ix->slot_mask) == place_of(ix, slot));
	} else {
		assert(ix->nr_entries + 1 < ix->nr_buckets);
		ix->nr_entries++;
	}
	*content = bucket.tag | slot;
}

/* Attaching a cache may change what is read here at the same time: then the hint is of no use, and does no harm. */
__attribute__((no_sanitize("thread"))) void lc_index_prefetch(const struct lc_index *ix, u8 volume,
							      u64 block)
{
	__builtin_prefetch(&ix->buckets[home(ix, hash(lc_place(volume, block)))], 1);
}

/*
 * Close the gap: whatever follows in the run and may live nearer to its home moves up. An entry at B
 * with home H may fill the gap at G unless H lies cyclically in (G, B].
 */
void lc_index_remove(struct lc_index *ix, u32 slot)
{
	u64 place = place_of(ix, slot);
	u64 gap = lc_index_bucket(ix, lc_place_volume(place), lc_place_block(place)).nr;

	assert(lc_index_at(ix, gap) == slot);

	for (u64 b = next(ix, gap); ix->buckets[b]; b = next(ix, b)) {
		u64 h = home(ix, hash(place_of(ix, lc_index_at(ix, b))));
		bool stays = gap < b ? gap < h && h <= b : gap < h || h <= b;

		if (!stays) {
			ix->buckets[gap] = ix->buckets[b];
			gap = b;
		}
	}
	ix->buckets[gap] = 0;
	ix->nr_entries--;
}
