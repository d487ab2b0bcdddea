/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * cache.h - the rooms at the top of the engine: a cache as a whole.
 *
 *	cache.c     format, open, start, drain, close
 *	bind.c      which volume of the cache is which backing store, and what is refused (I12)
 *	attach.c    give a cache to volumes that are being served, and take it away again
 *	settings.c  what can be changed meanwhile
 *	insight.c   what a cache says of itself
 */
#ifndef LC_CACHE_H
#define LC_CACHE_H

#include "recover.h"
#include "writeback.h"

struct lc_cache {
	struct lc_core core;
	/* What stands on an SSD; all zeros without one. */
	struct lc_log log;
	struct lc_writeback writeback;
	struct lc_recovery recovery;
	struct lc_volume *by_id[LC_VOLUMES_MAX + 1];
	u64 logged[LC_VOLUMES_MAX + 1]; /* bind.c: samples of each volume that records above the tail have copies of */
	bool changed[LC_NR_PAGES]; /* metadata pages to be written at opening */
	bool rewrite[LC_NR_PAGES]; /* that differ from what is right after a failed detach: write at closing */

	struct lc_volume *volumes; /* [nr_volumes], in the order of the specs: constant */
	unsigned nr_volumes;
	enum lc_cache_state state; /* guarded by the engine mutex */
	bool interrupted;	   /* guarded by the engine mutex: end what takes long */
	/* Guarded by the engine mutex: holding writers (attach.c). */
	u64 hold_began_ns; /* 0: they are not held */
	u64 held_ns; /* the longest time at a stretch, of the present or last attach or detach */
};

/* --- bind.c --- */

/*
 * Find or make the table entry of each volume, and check that its backing store is the right one. Nothing
 * is written; c->changed says what has to be. ATTACH: the volumes were served without the cache, which
 * therefore may hold nothing dirty, and loses what is clean.
 */
int lc_bind_volumes(struct lc_cache *c, bool attach, struct lc_error *err);

/*
 * Before a fingerprint is taken: wait until nothing that was asked of S before it was opened can be executed any
 * more. A write that came after the fingerprint, and not from the cache, would look like a stranger's at the next
 * start. -ECANCELED: lc_cache_interrupt. No lock held.
 */
int lc_wait_quiet(struct lc_cache *c, struct lc_store *s, struct lc_error *err);

/* --- cache.c, for attach.c --- */

/*
 * Everything that needs an SSD, which core.ssd is: load, recover, bind, begin the epoch. On failure nothing is left
 * of it, and core.ssd is NULL.
 */
int lc_ssd_open(struct lc_cache *c, bool attach, struct lc_error *err);
/* The threads have ended: mark it as clean (unless ERR says that it is not), and let go of it. Returns what failed. */
int lc_ssd_close(struct lc_cache *c, int err);
/* Write a metadata page while no log thread runs. */
int lc_ssd_write_page(struct lc_cache *c, u32 page);

/* --- settings.c --- */

/* Take what the SSD keeps of settings, unless they were given explicitly. [lock, if clients are there] */
void lc_settings_take_kept(struct lc_settings *s, const struct lc_superblock *sb);

#endif
