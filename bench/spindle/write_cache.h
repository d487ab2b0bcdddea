/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * write_cache.h - what a disk has acknowledged and not yet written: a list by age, found by offset.
 *
 * An entry is one write. Writing the same place again (same offset, not longer) replaces what is there, which keeps its age.
 * An entry that is taken for the platter leaves the list at once, and gives its room back when it is released.
 *
 * Locking: none; the caller's. No allocation after write_cache_init.
 */
#ifndef SPINDLE_WRITE_CACHE_H
#define SPINDLE_WRITE_CACHE_H

#include "logcache/types.h"

struct cached_write {
	u64 offset_bytes, len_bytes;
	u64 seq; /* rises with age: 1, 2, ... */
	struct cached_write *older, *newer;
	struct cached_write *chain; /* of the bucket; or of the free ones */
};

struct write_cache {
	u64 max_bytes; /* 0: there is no cache */
	u64 bytes;
	u64 seq; /* of the newest one that ever was */
	struct cached_write *oldest, *newest;
	struct cached_write *pool, *free;
	struct cached_write **buckets;
	u32 nr_buckets;
};

/* -ENOMEM */
int write_cache_init(struct write_cache *w, u64 max_bytes);
void write_cache_destroy(struct write_cache *w);

/* False: no room. */
bool write_cache_put(struct write_cache *w, u64 offset_bytes, u64 len_bytes);
/* Would a read be answered from it? */
bool write_cache_has(const struct write_cache *w, u64 offset_bytes, u64 len_bytes);
void write_cache_take(struct write_cache *w, struct cached_write *c);
void write_cache_release(struct write_cache *w, struct cached_write *c);

#endif
