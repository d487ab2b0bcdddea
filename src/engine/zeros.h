/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * zeros.h - ranges that were zeroed or trimmed in the log, and not yet on the backing store.
 *
 * To zero a large range is a write like any other: one entry in the log, durable with the next flush. The index gets
 * nothing for it; what the index has of the range is dropped, and until write-back has zeroed the backing
 * store the range stands here: a sector that no newer write has put into the cache reads as zeros, instead
 * of being read from the backing store. We call such a range pending.
 *
 *	lc_zeros_claim    a client has reserved a slot for its entry
 *	lc_zeros_add      it is in force: newer than everything that is here (a replay adds in log order)
 *	lc_zeros_done     the backing store was zeroed there, but not yet flushed
 *	lc_zeros_flushed  and now that is durable: what is done leaves
 *
 * The ranges are disjoint and sorted. Where a new one overlaps older ones, these shrink, split or vanish:
 * the newer one supersedes them, as a newer copy of a block does (I7: the tail does not pass the
 * segment of what was superseded before the log is durable). Each range counts in the segment of its entry, and
 * keeps the tail from passing it (I3).
 *
 * There are at most `max` entries above the tail: so a recovery, which finds all of them again, whatever was
 * done with them, has room for them, however they cut each other up.
 *
 * Locking: the caller holds the engine mutex. No allocation after lc_zeros_init.
 */
#ifndef LC_ZEROS_H
#define LC_ZEROS_H

#include "format.h"

struct lc_ring;

struct lc_zero {
	u64 place : 48; /* of its first block: lc_key_place */
	u64 trim : 1;	/* the backing store may give the space back */
	u64 done : 1;
	u32 nr;	  /* blocks */
	u32 slot; /* of its entry */
};

_Static_assert(sizeof(struct lc_zero) == 16, "they count as memory of each block");

struct lc_zeros {
	struct lc_zero *list; /* [2 * max], sorted by place */
	u32 nr;
	u32 max;			   /* entries above the tail */
	u32 entries;			   /* so many there are */
	u64 blocks;			   /* in all pending ranges together */
	u64 blocks_of[LC_VOLUMES_MAX + 1]; /* by volume */
};

/* For a cache of so many blocks. -ENOMEM. */
int lc_zeros_init(struct lc_zeros *z, u32 cache_blocks);
void lc_zeros_destroy(struct lc_zeros *z);
u64 lc_zeros_bytes(const struct lc_zeros *z);

/* The pending range that holds PLACE, or else the first one behind it; NULL if there is none. */
const struct lc_zero *lc_zeros_at(const struct lc_zeros *z, u64 place);

/* Does a block read as zeros as far as the index has nothing newer? */
static inline bool lc_zeros_cover(const struct lc_zeros *z, u64 place)
{
	const struct lc_zero *e = z->nr ? lc_zeros_at(z, place) : NULL;

	return e && e->place <= place;
}

/* SLOT will hold a ZERO or TRIM entry. There is room: not lc_ring_zeros_full. */
void lc_zeros_claim(struct lc_ring *r, u32 slot);
/* The entry in SLOT, whose key and length are in place, is the newest for its range. */
void lc_zeros_add(struct lc_ring *r, u32 slot);

/*
 * The first range of a volume at or behind PLACE that is not done, and whose segment is at most UPTO:
 * *OUT gets a copy. False if there is none.
 */
bool lc_zeros_next(const struct lc_ring *r, u8 volume, u64 place, u64 upto, struct lc_zero *out);
/* The backing store was zeroed in the range of WHAT, which lc_zeros_next gave out. */
void lc_zeros_done(struct lc_ring *r, const struct lc_zero *what);
/* The backing store of a volume was flushed, or that failed and nothing is known. */
void lc_zeros_flushed(struct lc_ring *r, u8 volume, bool ok);

#endif
