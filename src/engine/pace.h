/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * pace.h - how fast: clients against write-back, write-back against clients, and how far write-back looks.
 *
 * Writers. The last fifth of the ring is where they are slowed, so that nobody ever waits for a whole sweep. With a
 * share u of that fifth still free, a new block costs its writer
 *
 *	((1 - u) / u) ^ 1/4 / min(4 u, 1) / rate    seconds,    rate: blocks a second that write-back did lately
 *
 * nothing at u = 1; at u = 1/2 just what write-back needs for one; and ever more when little is left. So the share settles where both
 * are equally fast, and an error in the rate only moves that place. In between the price hardly changes: what comes in waves
 * leaves the ring in waves, a lap later, and writers who followed each of them would keep them going for ever. All writers
 * share one queue of such
 * delays; nobody is delayed for longer than LC_PACE_MAX_NS at a time. A writer pays after its blocks are
 * published and before it is acknowledged, when it holds nothing that anybody could wait for.
 *
 * Write-back gives way. It pauses while clients' reads keep the backing store busy, and goes on with a shorter queue
 * while any come in, unless the cache is getting full.
 *
 * How far write-back looks. It goes round and round over the backing store like an elevator (sweep.h), and takes
 * what is dirty in the segments up to a limit: then a segment is clean one round after it came below the limit, and the
 * tail follows the limit at the distance of a round. The more dirty blocks a round meets, the faster is the disk; but
 * the first round after a burst has to end before the reserve of the writers does. So the limit is set by
 * `work_blocks`, the dirty blocks below it: all of them normally; when writers begin to be slowed and the tail
 * does not follow (a burst), 1/8 of the ring, of which one round meets about 1/5 (what it does is replaced by
 * newer work ahead of it): the reserve. From then on it grows by 1/16 after each turn while the tail
 * lately (the last 16 turns) moved by at least half of what was written, and shrinks as much while it did not. In balance a
 * round meets nearly as many blocks as the cache has. What is younger than an eighth of the ring is left out, unless
 * it lies beside something older: some of it will be overwritten before it has to go. docs/design.md has the figures.
 *
 * Locking: the engine mutex guards everything here; the functions are called with it held.
 */
#ifndef LC_PACE_H
#define LC_PACE_H

#include "logcache/rt.h"

struct lc_core;
struct lc_log;

#define LC_PACE_MAX_NS (500 * LC_NS_PER_MS)

/* Clients' reads of a backing store: how busy do they keep it? */
struct lc_busy {
	u32 nr;	      /* now */
	u64 since_ns; /* while nr > 0 */
	u64 total_ns; /* before that */
	/* Write-back's: what it was when last measured, and the share of time since the measurement before. */
	u64 measured_ns, measured_total_ns;
	u32 percent;
};

struct lc_pace {
	/* writers */
	struct lc_cond paid; /* there is room again: nobody needs to pay any more */
	u64 next_ns;	     /* when the next block is due */
	u64 delay_ns;	     /* of the writer that came last; 0: they are not slowed */
	/* the rate of write-back, over the present stretch of time and the one before it */
	u64 stretch_ns, stretch_blocks, before_ns, before_blocks, seen_ns;
	/* how far write-back looks */
	u64 work_blocks;
	u64 written_lately, freed_lately; /* blocks, in the last turns */
	bool pressed;			  /* writers were slowed when the last turn ended */
	/* it does not give way: so many wait for a drain */
	u32 hurries;
};

void lc_pace_init(struct lc_pace *p);
void lc_pace_destroy(struct lc_pace *p);
/* Another ring. */
void lc_pace_reset(struct lc_pace *p);

/* --- writers --- */

/* Has the ring so little room that writers are slowed? */
bool lc_pace_pressed(const struct lc_core *c);

/* A writer took NR blocks of the log, from SLOT on. Until when does it pay (0: not at all)? */
u64 lc_pace_charge(struct lc_core *c, u32 slot, u32 nr);

/* Does it have to wait yet? For `paid`, or until then. There has to be a log. */
bool lc_pace_owes(const struct lc_core *c, u64 until_ns);

/* The tail has moved. */
void lc_pace_room(struct lc_core *c);

/* --- write-back --- */

/* It begins, now, after a pause. */
void lc_pace_start(struct lc_core *c, u64 now_ns);
/* It has brought NR more blocks to a backing store. */
void lc_pace_progress(struct lc_core *c, u32 nr, u64 now_ns);
/* Blocks a second lately, while it was at work; 0: nothing is known. */
u64 lc_pace_rate(const struct lc_core *c);

/* Up to which segment a turn takes blocks, at most DURABLE_ID. Releases the mutex in between. */
u64 lc_pace_limit(struct lc_core *c, u64 durable_id);
/* How many dirty blocks of a volume write-back looks at now. */
u64 lc_pace_work_blocks(const struct lc_core *c, u8 volume);
/* How many blocks a turn is to write. */
u32 lc_pace_turn_blocks(const struct lc_core *c);
/* A turn has written so many blocks and moved the tail so many segments. */
void lc_pace_turned(struct lc_core *c, u64 written_blocks, u64 tail_segments);

/* --- giving way --- */

static inline void lc_busy_begin(struct lc_busy *b)
{
	if (!b->nr++)
		b->since_ns = lc_now_ns();
}

static inline void lc_busy_end(struct lc_busy *b)
{
	if (!--b->nr)
		b->total_ns += lc_now_ns() - b->since_ns;
}

/* Is there a reason to write back whatever clients read meanwhile? */
bool lc_pace_hurry(const struct lc_core *c, const struct lc_log *log);

/* Is the backing store, which clients read like this, to be left alone now? If so look again at *AGAIN_NS. */
bool lc_pace_give_way(const struct lc_core *c, const struct lc_log *log, struct lc_busy *reads,
		      u64 *again_ns);

/* How many writes of write-back may be at a backing store at a time; FULL at most. */
u32 lc_pace_depth(const struct lc_core *c, const struct lc_log *log, struct lc_busy *reads, u32 full);

#endif
