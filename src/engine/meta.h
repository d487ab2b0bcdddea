/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * meta.h - the metadata zone: superblock, volume table, list of lost blocks, each page in two copies.
 *
 * The truth in RAM is decoded (sb, volumes, bad); lc_meta_write puts one page of it on the SSD: one copy,
 * a flush, the other copy, a flush. It always begins with the copy that is *not* known to be good, so
 * that at every moment one good copy exists. Whatever depends on the update waits for
 * lc_meta_write to return 0.
 *
 * Locking: sb, volumes and bad are guarded by the engine mutex, whose holder changes them and then
 * calls lc_meta_write without it. `busy` (under the mutex) makes writers of pages take turns; generation,
 * next and page belong to whoever set it.
 */
#ifndef LC_META_H
#define LC_META_H

#include "bad.h"
#include "format.h"

struct lc_meta {
	struct lc_store *ssd;
	u8 uuid[LC_UUID_BYTES];
	struct lc_superblock sb;
	struct lc_volume_entry *volumes; /* [LC_VOLUMES_MAX + 1], by id; [0] is unused */
	struct lc_bad bad;

	bool busy;
	struct lc_cond idle;
	u64 generation[LC_NR_PAGES];
	u8 next[LC_NR_PAGES];	  /* the copy to write first: the older, or the broken one */
	bool lonely[LC_NR_PAGES]; /* only one copy is good and new: opening writes the other */
	void *page;		  /* one block */
};

/*
 * How a writer of pages makes the SSD flush: it depends on who it is. Before a page is written `settle` (if
 * there is one) makes everything durable that the page may rely on; it is called after the page's content
 * was taken. 0 or -errno.
 */
struct lc_flusher {
	int (*flush)(void *arg);
	int (*settle)(void *arg);
	void *arg;
};

/* A flusher that asks the store itself: ARG is a struct lc_store. For when no log thread runs. */
int lc_meta_flush_store(void *arg);

/*
 * Write all pages of an empty cache to SSD. Both copies of each, with a flush at the end: formatting
 * has no old content to fall back on.
 */
int lc_meta_format(struct lc_store *ssd, const struct lc_superblock *sb, struct lc_error *err);

/* Read and verify all pages. Changes nothing. */
int lc_meta_load(struct lc_meta *m, struct lc_store *ssd, struct lc_error *err);
void lc_meta_destroy(struct lc_meta *m);

/* Make PAGE durable as it is in RAM. LOCK is the engine mutex, not held by the caller. */
int lc_meta_write(struct lc_meta *m, struct lc_mutex *lock, u32 page, struct lc_flusher flusher);

/* The page that holds the table entry of a volume. */
static inline u32 lc_volume_page(u8 id)
{
	return LC_PAGE_VOLUMES + (id - 1) / LC_VOLUMES_PER_PAGE;
}

#endif
