/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * range.h - who is changing which blocks of a volume right now, and who has to wait for whom.
 *
 * Every change of a volume by a client holds the range of blocks that it changes, from before it looks at
 * them until its result is visible. There are two kinds:
 *
 *	shared     whole blocks. They may race with each other: the later log position wins (I5), and neither
 *	           loses anything that it did not overwrite
 *	exclusive  a part of a block, which is merged with what is there; zeroing, which drops what is there. Nothing else
 *	           may change its blocks meanwhile
 *
 * Whoever holds a shared range waits for nothing but the end of its own copy. Whoever holds an exclusive one
 * waits for space, or for ranges that were there before it (lc_range_enter_first): there is no circle.
 *
 * Locking: the engine mutex guards everything here; the functions that wait release it meanwhile.
 */
#ifndef LC_RANGE_H
#define LC_RANGE_H

#include "logcache/rt.h"

/* On the stack of who holds it. */
struct lc_range {
	u64 block;
	u32 nr;
	bool exclusive;
	struct lc_range *next; /* the one that came before it */
};

struct lc_ranges {
	struct lc_mutex *lock;
	struct lc_range *newest;
	u32 nr_exclusive;
	u32 waiters;
	struct lc_cond left;
};

void lc_ranges_init(struct lc_ranges *rs, struct lc_mutex *lock);
void lc_ranges_destroy(struct lc_ranges *rs);

/* How many blocks from BLOCK on, at most NR, a shared range may take now; 0: lc_ranges_wait. */
u32 lc_ranges_free(const struct lc_ranges *rs, u64 block, u32 nr);
/* Wait until some range was left. */
void lc_ranges_wait(struct lc_ranges *rs);

/* R is filled in, and does not conflict. */
void lc_range_enter(struct lc_ranges *rs, struct lc_range *r);
/* Enter R, which is exclusive, if nothing overlaps it. */
bool lc_range_try_alone(struct lc_ranges *rs, struct lc_range *r);
/* Wait until nothing overlaps R, which is exclusive, and enter it. */
void lc_range_enter_alone(struct lc_ranges *rs, struct lc_range *r);
/*
 * Enter R, which is exclusive and may be large, at once, so that no new writer gets in; then wait for those
 * that are in it already.
 */
void lc_range_enter_first(struct lc_ranges *rs, struct lc_range *r);
void lc_range_leave(struct lc_ranges *rs, struct lc_range *r);

#endif
