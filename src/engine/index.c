/* SPDX-License-Identifier: BSD-3-Clause */
#include "index.h"

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

struct lc_bucket lc_index_bucket(const struct lc_index *ix, u8 volume, u64 block)
{
	u64 place = lc_place(volume, block), h = lc_index_hash(place);
	struct lc_bucket b = {.nr = lc_index_home(ix, h), .tag = lc_index_tag(ix, h)};
	u32 content;

	while ((content = ix->buckets[b.nr]) && ((content & ~ix->slot_mask) != b.tag ||
						 lc_index_place(ix, content & ix->slot_mask) != place))
		b.nr = lc_index_next(ix, b.nr);
	return b;
}

u32 lc_index_find_in(const struct lc_index *ix, u8 volume, u64 block, u32 from, u32 end)
{
	u64 place = lc_place(volume, block), h = lc_index_hash(place);
	u32 tag = lc_index_tag(ix, h), content;

	for (u64 nr = lc_index_home(ix, h); (content = ix->buckets[nr]); nr = lc_index_next(ix, nr)) {
		u32 slot = content & ix->slot_mask;

		if ((content & ~ix->slot_mask) != tag)
			continue;
		if (slot < from || slot >= end)
			__builtin_prefetch(lc_index_slot(ix, slot), 1);
		else if (lc_index_place(ix, slot) == place)
			return slot;
	}
	return 0;
}

/* Attaching a cache may change what is read here at the same time: then the hint is of no use, and does no harm. */
__attribute__((no_sanitize("thread"))) void lc_index_prefetch(const struct lc_index *ix, u8 volume,
							      u64 block)
{
	lc_index_fetch(ix, lc_index_home(ix, lc_index_hash(lc_place(volume, block))));
}

/*
 * Close the gap: whatever follows in the run and may live nearer to its home moves up. An entry at B
 * with home H may fill the gap at G unless H lies cyclically in (G, B].
 */
void lc_index_remove(struct lc_index *ix, u32 slot)
{
	u64 place = lc_index_place(ix, slot);
	u64 gap = lc_index_bucket(ix, lc_place_volume(place), lc_place_block(place)).nr;

	assert(lc_index_at(ix, gap) == slot);

	for (u64 b = lc_index_next(ix, gap); ix->buckets[b]; b = lc_index_next(ix, b)) {
		u64 h = lc_index_home(ix, lc_index_hash(lc_index_place(ix, lc_index_at(ix, b))));
		bool stays = gap < b ? gap < h && h <= b : gap < h || h <= b;

		if (!stays) {
			ix->buckets[gap] = ix->buckets[b];
			gap = b;
		}
	}
	ix->buckets[gap] = 0;
	ix->nr_entries--;
}
