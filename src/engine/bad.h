/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * bad.h - the list of lost blocks (I10).
 *
 * A dirty block that cannot be read back from the SSD is lost: its sectors answer EIO until they are
 * overwritten, and never with the stale data of the backing store. Each entry is a key whose
 * mask says which sectors are lost, and the seq up to which the log's copies of them are void: replay ignores
 * those, and takes off the list what newer ones overwrote. The list lives in metadata pages; page i holds
 * the entries i * LC_BAD_PER_PAGE and up, entries never move, so that each page can be written by itself.
 *
 * It is empty on a healthy device, and then costs one comparison. With entries a look-up is linear.
 *
 * Locking: the caller holds the engine mutex.
 */
#ifndef LC_BAD_H
#define LC_BAD_H

#include "format.h"

#define LC_BAD_MAX (LC_NR_BAD_PAGES * LC_BAD_PER_PAGE)

struct lc_bad {
	struct lc_bad_entry *entries;  /* [LC_BAD_MAX] */
	u32 used;		       /* entries from here on are unused */
	u32 nr;			       /* entries in use */
	bool changed[LC_NR_BAD_PAGES]; /* differs from what was last written */
};

int lc_bad_init(struct lc_bad *b); /* -ENOMEM */
void lc_bad_destroy(struct lc_bad *b);

/*
 * Lose the sectors in MASK, whose newest copy is in a record up to SEQ, besides those that are lost already, in whatever
 * order that is found out. Returns the entry's page (0 ..), or -ENOSPC when the list is full: the block must stay dirty then.
 */
int lc_bad_add(struct lc_bad *b, u8 volume, u64 block, u8 mask, u64 seq);
/* The sectors in MASK were overwritten. */
void lc_bad_clear(struct lc_bad *b, u8 volume, u64 block, u8 mask);
/* All sectors of blocks [block, block + nr) that were lost at or before record SEQ were overwritten. */
void lc_bad_clear_range(struct lc_bad *b, u8 volume, u64 block, u64 nr, u64 seq);
/* Which sectors are lost. */
u8 lc_bad_mask(const struct lc_bad *b, u8 volume, u64 block);
/* Is anything of a volume lost? */
bool lc_bad_any(const struct lc_bad *b, u8 volume);
/* The newest record that an entry is about, 0 if there is none: it was durable before the entry was. */
u64 lc_bad_newest(const struct lc_bad *b);
/* Is a copy of the block in record SEQ among what was lost? */
bool lc_bad_voids(const struct lc_bad *b, u8 volume, u64 block, u64 seq);

#endif
