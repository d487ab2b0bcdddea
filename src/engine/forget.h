/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * forget.h - take a volume out of a cache that nobody serves.
 */
#ifndef LC_FORGET_H
#define LC_FORGET_H

#include "logcache/logcache.h"

struct lc_forgotten {
	u64 dirty_blocks; /* newer than the backing store, or zeroed and not so there yet */
	u64 lost_blocks;  /* that answered with errors */
	u64 size_bytes;
};

/*
 * Remove volume NAME from the table of the cache on SSD. What the log has of it is void from then on, also
 * what the backing store does not have; so that is refused unless LOSE. *OUT: what it was, or is.
 *
 * -ENOENT: no such volume; -EBUSY: it has dirty or lost blocks, and not LOSE; -EUCLEAN: the cache is corrupt;
 * -EMEDIUMTYPE; -ENOMEM; or what the SSD said.
 */
int lc_forget(struct lc_store *ssd, const char *name, bool lose, struct lc_forgotten *out,
	      struct lc_error *err);

#endif
