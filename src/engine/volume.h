/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * volume.h - what clients do to one volume: read and write, split into blocks.
 *
 * read.c and write.c implement lc_read and lc_write of logcache.h, which says what they promise.
 *
 * A write goes to the log alone. A run of whole blocks reserves slots, copies, publishes: two short
 * critical sections and one copy. A part of a block is copied into the block's slot if that lies in the open
 * record; otherwise the sectors that it lacks are merged in from the copy in the cache, so that
 * there is always at most one copy of a block that matters, with a mask of its valid sectors. A write that
 * is not aligned to sectors first reads the whole block.
 *
 * Writers of the same block. Whole blocks may race: the later log position wins (I5), and neither loses
 * anything that it did not overwrite. A part of a block is different: what it merges in must not
 * change meanwhile. So every write puts itself on its volume's `pending` list until it has published; a
 * part waits for all that overlap it, and whole blocks wait for parts (which are `exclusive`). Nobody
 * waits for a pending write while holding an unpublished reservation, and an exclusive write waits for
 * nothing but space: there is no circle.
 *
 * Locking: the engine mutex guards pending, nr_exclusive and touched; the rest is constant.
 */
#ifndef LC_VOLUME_H
#define LC_VOLUME_H

#include "log.h"

/* A request is done in chunks of so many blocks: what one critical section looks up or publishes. */
#define LC_CHUNK_BLOCKS 32u

struct lc_pending {
	u64 block;
	u32 nr;
	bool exclusive;
	struct lc_pending *next;
};

struct lc_volume {
	struct lc_core *core;
	struct lc_log *log;
	struct lc_store *backing;
	u64 size_bytes;
	u64 nr_blocks;
	u8 id;

	struct lc_pending *pending;
	u32 nr_exclusive;
	u64 touched; /* samples of the fingerprint that write-back wrote to (bit i: sample i) */
};

/* Scratch memory of one request: LC_CHUNK_BLOCKS blocks. NULL without memory. Takes and releases the mutex. */
void *lc_scratch_get(struct lc_core *c);
void lc_scratch_put(struct lc_core *c, void *scratch);
void lc_scratch_destroy(struct lc_core *c);

/* Read one whole block as a client would see it. [no lock held] */
int lc_volume_read_block(struct lc_volume *v, u64 block, void *buf);

/*
 * Read the cached copy of a block, from a buffer or the SSD, verified; *MASK gets its valid sectors, 0 if
 * there is none, or only a clean one that is bad (it is dropped). The caller holds no lock, and keeps other
 * writers of the block away. -EIO: the only copy is lost (I10).
 */
int lc_volume_read_cached(struct lc_volume *v, u64 block, void *buf, u8 *mask);

/* The sectors of block-relative bytes [from, to) as a mask. */
static inline u8 lc_sector_mask(u32 from_bytes, u32 to_bytes)
{
	u32 first = from_bytes / LC_SECTOR, end = (to_bytes + LC_SECTOR - 1) / LC_SECTOR;

	return (u8)((1u << end) - (1u << first));
}

/* The sectors of a block that the volume has: the last block may be short. */
static inline u8 lc_volume_mask(const struct lc_volume *v, u64 block)
{
	u64 left = v->size_bytes - block * LC_BLOCK;

	return lc_sector_mask(0, left < LC_BLOCK ? left : LC_BLOCK);
}

#endif
