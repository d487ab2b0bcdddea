/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * places.h - the places of a volume's dirty blocks, in ascending order, one key range after the other.
 *
 * The slot table is in log order, a sweep in the order of the disk. To sort all of it would take as much memory
 * again; so a range is as much of the volume, from a place on, as fits the list, found in one pass over the segments:
 * when the list is full its upper part is given up, and with it everything that lies higher. 1/24 of a place per block of
 * the cache makes 24 to 48 passes for a round over a cache that is dirty throughout.
 *
 * Locking: the list is its owner's; collecting takes the engine mutex segment by segment.
 */
#ifndef LC_PLACES_H
#define LC_PLACES_H

#include "core.h"

struct lc_places {
	u64 *list; /* [max] sorted */
	u32 max, nr;
};

/* Room for MAX places, at least 2. -ENOMEM */
int lc_places_init(struct lc_places *p, u32 max);
void lc_places_destroy(struct lc_places *p);

/*
 * The smallest places of a volume above AFTER, at most WANTED of them, whose blocks are dirty in the segments tail + 1 ..
 * UPTO. Sorted; a place may be there twice, or have become clean meanwhile. No lock held.
 */
void lc_places_collect(struct lc_places *p, struct lc_core *c, u8 volume, u64 after, u64 upto,
		       u32 wanted);

#endif
