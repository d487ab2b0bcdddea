/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bulk.h - a recovery's way into the index: many blocks, in any order.
 *
 * To enter blocks one by one costs a wait for memory each, because the bucket of a block may be anywhere. So the hash is
 * divided into stretches that fit into the CPU's cache (for caches of up to about 1 TiB), and each has a bin: what is to be
 * entered there is collected in it until it is full, and then entered together. Which copy of a block wins depends on their positions
 * in the log, not on who comes first (I5).
 *
 * From lc_bulk_add on a slot is live; until lc_bulk_finish the index may not know it, and the superseded copies may be live as well.
 *
 * Memory: at most a byte for each block of the cache, and 32 MiB; a recovery gives it back.
 *
 * Locking: none; one thread at a time, which owns the ring's index.
 */
#ifndef LC_BULK_H
#define LC_BULK_H

#include "segment.h"

struct lc_bulk_entry {
	u32 home;    /* as seen from the first bucket of the stretch */
	u32 content; /* of its bucket: tag and slot */
};

struct lc_bulk {
	struct lc_ring *ring;
	struct lc_bulk_entry *entries; /* [nr_bins][bin_size] */
	u32 *fill;		       /* [nr_bins] */
	u32 nr_bins, bin_size;
	unsigned stretch_log2; /* buckets */
};

/* -ENOMEM. RING has its index, and outlives this. */
int lc_bulk_init(struct lc_bulk *b, struct lc_ring *ring);
void lc_bulk_destroy(struct lc_bulk *b);

/* SLOT, whose key is set, has no flags; its segment is in the ring. */
void lc_bulk_add(struct lc_bulk *b, u32 slot);
/* The index knows everything that was added. */
void lc_bulk_finish(struct lc_bulk *b);

#endif
