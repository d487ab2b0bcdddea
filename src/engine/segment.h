/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * segment.h - the ring of segments, and the life of a block in it.
 *
 * Segment `id` (1, 2, ... for ever) lies in place (id - 1) % nr. The ring is always
 *
 *	reclaimed | clean ............ tail | dirty .......... head | reclaimed
 *
 * and each place is FREE (nothing in the index points into it; the head may enter), OPEN (the head) or
 * CLOSED. A CLOSED segment with an id at or below the tail is clean, above it dirty.
 *
 * A block's life:  lc_block_publish (live, dirty) -> lc_block_clean, or superseded by a newer
 * publish, or lc_block_drop. The counts in the segments follow, so "may the tail pass this segment"
 * and "is there anything to reclaim" are one comparison each.
 *
 * Locking: the caller holds the engine mutex for everything here.
 */
#ifndef LC_SEGMENT_H
#define LC_SEGMENT_H

#include <assert.h>

#include "index.h"
#include "zeros.h"

enum lc_segment_state { LC_SEGMENT_FREE, LC_SEGMENT_OPEN, LC_SEGMENT_CLOSED };

struct lc_segment {
	u64 id;		  /* 0: never written, or reclaimed */
	u64 last_seq;	  /* of the newest record in it */
	u32 readers;	  /* reading it from the SSD: it may not be reused (I4) */
	u16 live;	  /* slots that the index points to */
	u16 dirty;	  /* those of them that are newer than the backing store */
	u16 zeros;	  /* pending ranges of its ZERO and TRIM entries: zeros.h */
	u16 zero_entries; /* and how many such entries it has */
	int16_t buffer;	  /* its image in RAM, or -1 */
	u8 state;
};

_Static_assert(sizeof(struct lc_segment) == 32, "a share of it counts as memory of each block");

struct lc_ring {
	struct lc_segment *segments; /* [nr] */
	u32 nr;
	u32 zone_blocks;
	u32 segment_blocks;
	u64 head_id; /* newest segment that was ever opened; 0: none */
	u64 tail_id; /* durable tail: it is in both superblock copies (I3) */
	u64 free_id; /* the places of all ids up to here have been made ready for the head */
	u32 nr_free; /* places that are FREE */
	u64 dirty_blocks;
	u32 live_of[LC_VOLUMES_MAX + 1]; /* blocks in the index, by volume */
	u32 dirty_of[LC_VOLUMES_MAX + 1];
	struct lc_zeros zeros;
	struct lc_index index;
};

/* -ENOMEM */
int lc_ring_init(struct lc_ring *r, u32 zone_blocks, u32 segment_blocks, u32 nr);
void lc_ring_destroy(struct lc_ring *r);

static inline struct lc_segment *lc_ring_segment(const struct lc_ring *r, u64 id)
{
	return &r->segments[(id - 1) % r->nr];
}

/* The place of segment ID is what SEG says. */
static inline void lc_ring_set_segment(struct lc_ring *r, u64 id, struct lc_segment seg)
{
	struct lc_segment *at = lc_ring_segment(r, id);

	r->nr_free += (seg.state == LC_SEGMENT_FREE) - (at->state == LC_SEGMENT_FREE);
	*at = seg;
}

/* First block of the place of segment ID: where its first header lies. */
static inline u32 lc_ring_first_slot(const struct lc_ring *r, u64 id)
{
	return r->zone_blocks + (u32)((id - 1) % r->nr) * r->segment_blocks;
}

static inline struct lc_segment *lc_ring_segment_of(const struct lc_ring *r, u32 slot)
{
	return &r->segments[(slot - r->zone_blocks) / r->segment_blocks];
}

static inline u32 lc_ring_position(const struct lc_ring *r, u32 slot)
{
	return (slot - r->zone_blocks) % r->segment_blocks;
}

static inline u64 lc_slot_offset_bytes(u32 slot)
{
	return (u64)slot * LC_BLOCK;
}

/*
 * I4: may client records enter segment ID? Its own place must be reclaimed, and the places of the two
 * that follow must be at or below the durable tail: recovery's fresh segment is one of them.
 */
bool lc_ring_may_enter(const struct lc_ring *r, u64 id);

/* Can the head not go on before the tail moves? (Otherwise it waits for a buffer, or for reclaim.) */
static inline bool lc_ring_starved(const struct lc_ring *r)
{
	return r->tail_id + r->nr < r->head_id + 3;
}

/* Can no more ZERO entries be logged before the tail moves? */
static inline bool lc_ring_zeros_full(const struct lc_ring *r)
{
	return r->zeros.entries >= r->zeros.max;
}

/* May the tail pass segment ID, as far as the backing stores are concerned? (I3) */
static inline bool lc_ring_written_back(const struct lc_ring *r, u64 id)
{
	const struct lc_segment *seg = lc_ring_segment(r, id);

	return (!seg->dirty || LC_MUTANT(tail_passes_dirty)) &&
	       (!seg->zeros || LC_MUTANT(tail_passes_zeros));
}

/* The durable tail is now TAIL_ID. */
void lc_ring_set_tail(struct lc_ring *r, u64 tail_id);

/*
 * Make SLOT, whose key and data are in place, the newest copy of its block: live and dirty. I5: if the
 * index has a copy at a later log position, that one stays and this one is dead on arrival; returns
 * whether SLOT won. *OLD gets the slot that was superseded, or 0.
 */
bool lc_block_publish(struct lc_ring *r, u32 slot, u32 *old);

/* SLOT, which is live and clean, is newer than the backing store. */
void lc_block_soil(struct lc_ring *r, u32 slot);

/* SLOT is now on the backing store, and that flushed (I3). Nothing happens if it was superseded. */
void lc_block_clean(struct lc_ring *r, u32 slot);

/* Forget SLOT, which is live. */
void lc_block_drop(struct lc_ring *r, u32 slot);

/*
 * Forget the blocks of a volume from *BLOCK on, up to END, at most MAX of them; *BLOCK moves on. True:
 * nothing is left in the range.
 */
bool lc_blocks_drop(struct lc_ring *r, u8 volume, u64 *block, u64 end, u32 max);

/*
 * --- the halves of lc_block_publish, which bulk.c needs for each block of the cache ---
 */

/* Is A a newer log position than B? */
static inline bool lc_slot_newer(const struct lc_ring *r, u32 a, u32 b)
{
	u64 id_a = lc_ring_segment_of(r, a)->id, id_b = lc_ring_segment_of(r, b)->id;

	return id_a != id_b ? id_a > id_b : a > b;
}

/* SLOT is no longer what the index points to. */
void lc_block_retire(struct lc_ring *r, u32 slot);

/* SLOT is live and clean, for the time being: the index has to know it by and by. */
static inline void lc_block_claim(struct lc_ring *r, u32 slot)
{
	struct lc_slot *s = lc_index_slot(&r->index, slot);
	struct lc_segment *seg = lc_ring_segment_of(r, slot);

	assert(!(s->key & LC_KEY_FLAGS) && seg->state != LC_SEGMENT_FREE);
	s->key |= LC_SLOT_LIVE;
	seg->live++;
	r->live_of[lc_key_volume(s->key)]++;
}

/*
 * SLOT, which was claimed, gets into BUCKET, which is its own, unless a copy at a later log position is there: then it is
 * dead (I5). Returns and sets *OLD as lc_block_publish.
 */
static inline bool lc_block_settle(struct lc_ring *r, struct lc_bucket bucket, u32 slot, u32 *old)
{
	u32 present = lc_index_at(&r->index, bucket.nr);
	bool wins = !present || lc_slot_newer(r, slot, present) || LC_MUTANT(last_publish_wins);

	*old = wins ? present : 0;
	if (wins)
		lc_index_put(&r->index, bucket, slot);
	if (present)
		lc_block_retire(r, wins ? present : slot);
	return wins;
}

#endif
