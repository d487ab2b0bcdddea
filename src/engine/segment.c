/* SPDX-License-Identifier: BSD-3-Clause */
#include "segment.h"

#include <assert.h>

int lc_ring_init(struct lc_ring *r, u32 zone_blocks, u32 segment_blocks, u32 nr)
{
	int err;

	*r = (struct lc_ring){
		.nr = nr,
		.nr_free = nr,
		.zone_blocks = zone_blocks,
		.segment_blocks = segment_blocks,
	};
	r->segments = lc_alloc(nr * sizeof *r->segments);
	if (!r->segments)
		return -ENOMEM;
	for (u32 i = 0; i < nr; i++)
		r->segments[i].buffer = -1;
	err = lc_index_init(&r->index, zone_blocks, nr * segment_blocks);
	if (!err)
		err = lc_zeros_init(&r->zeros, nr * segment_blocks);
	if (err)
		lc_ring_destroy(r);
	return err;
}

void lc_ring_destroy(struct lc_ring *r)
{
	lc_free(r->segments, r->nr * sizeof *r->segments);
	lc_index_destroy(&r->index);
	lc_zeros_destroy(&r->zeros);
	*r = (struct lc_ring){0};
}

bool lc_ring_may_enter(const struct lc_ring *r, u64 id)
{
	return id <= r->free_id && (r->tail_id + r->nr >= id + 2 || LC_MUTANT(no_reserve));
}

void lc_ring_set_tail(struct lc_ring *r, u64 tail_id)
{
	while (r->tail_id < tail_id) {
		struct lc_segment *seg = lc_ring_segment(r, ++r->tail_id);

		assert(r->zeros.entries >= seg->zero_entries);
		r->zeros.entries -= seg->zero_entries;
		seg->zero_entries = 0;
	}
}

void lc_block_retire(struct lc_ring *r, u32 slot)
{
	struct lc_slot *s = lc_index_slot(&r->index, slot);
	struct lc_segment *seg = lc_ring_segment_of(r, slot);

	lc_block_clean(r, slot);
	assert(s->key & LC_SLOT_LIVE && seg->live > 0);
	s->key &= ~LC_SLOT_LIVE;
	seg->live--;
	r->live_of[lc_key_volume(s->key)]--;
}

bool lc_block_publish(struct lc_ring *r, u32 slot, u32 *old)
{
	u64 key = lc_index_slot(&r->index, slot)->key;
	struct lc_bucket bucket = lc_index_bucket(&r->index, lc_key_volume(key), lc_key_block(key));

	assert(lc_ring_segment_of(r, slot)->id > r->tail_id);
	lc_block_claim(r, slot);
	if (!lc_block_settle(r, bucket, slot, old))
		return false;
	lc_block_soil(r, slot);
	return true;
}

void lc_block_soil(struct lc_ring *r, u32 slot)
{
	struct lc_slot *s = lc_index_slot(&r->index, slot);

	assert((s->key & LC_KEY_FLAGS) == LC_SLOT_LIVE);
	s->key |= LC_SLOT_DIRTY;
	lc_ring_segment_of(r, slot)->dirty++;
	r->dirty_blocks++;
	r->dirty_of[lc_key_volume(s->key)]++;
}

void lc_block_clean(struct lc_ring *r, u32 slot)
{
	struct lc_slot *s = lc_index_slot(&r->index, slot);
	struct lc_segment *seg = lc_ring_segment_of(r, slot);

	if (!(s->key & LC_SLOT_DIRTY))
		return;
	assert(seg->dirty > 0 && r->dirty_blocks > 0);
	s->key &= ~LC_SLOT_DIRTY;
	seg->dirty--;
	r->dirty_blocks--;
	r->dirty_of[lc_key_volume(s->key)]--;
}

void lc_block_drop(struct lc_ring *r, u32 slot)
{
	lc_index_remove(&r->index, slot);
	lc_block_retire(r, slot);
}

bool lc_blocks_drop(struct lc_ring *r, u8 volume, u64 *block, u64 end, u32 max)
{
	if (LC_MUTANT(zero_keeps_blocks))
		return true;
	for (u32 i = 0; i < max && *block < end && r->live_of[volume]; i++, ++*block) {
		u32 slot = lc_index_find(&r->index, volume, *block);

		if (slot)
			lc_block_drop(r, slot);
	}
	return *block == end || !r->live_of[volume];
}
