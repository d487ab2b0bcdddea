/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * writeback.h - from the log to the backing stores, in sorted sweeps; and the tail.
 *
 * One thread. While it has a reason (the dirty share, an idle client, want of segments, a drain) the volumes that have
 * something dirty take turns (sweep.h), over the oldest durable segments above the tail, as far as pace.h says.
 *
 * After each turn the tail passes all segments that have nothing dirty left, in the order that I3 and I7 demand:
 * the log durable (it holds what superseded blocks of the batch), fingerprints and lost blocks durable, the
 * superblock durable in both copies; only then may the segments be reused.
 *
 * When something fails, everything since the last good flush of the backing store stays dirty and is tried again:
 *
 *	who fails          what rests                 until                      who drains hears of it
 *	a backing store    its volume                 v->retry_ns                when the other volumes have nothing left to
 *	                                                                         do, or stall_timeout_ms are over
 *	the SSD, a full    all volumes                w->retry_ns                at once
 *	list, the log
 *
 * In both cases stalled_since_ns (core.h) says since when writers may give up. Turns that change nothing (`fruitless`)
 * are not repeated before something happens: what is dirty may all be in the open segment.
 *
 * Locking: the engine mutex guards drain_id, errors, last_error and stop. The rest is the thread's own.
 */
#ifndef LC_WRITEBACK_H
#define LC_WRITEBACK_H

#include "sweep.h"

struct lc_writeback {
	struct lc_core *core;
	struct lc_log *log;
	struct lc_volume **volumes; /* [LC_VOLUMES_MAX + 1], by id; NULL: not served */

	struct lc_thread thread;
	bool started, stop;
	bool interrupted; /* nobody waits for a drain any more */
	bool running;	  /* start_result is set */
	int start_result;
	struct lc_error start_error;
	struct lc_cond done; /* a sweep or the start has ended */
	u64 drain_id;	     /* everything up to this segment is to be written back */
	u64 errors;	     /* how often nothing could be done any more */
	int last_error;

	/* own */
	struct lc_sweep sweep;
	u64 seen_ops, quiet_ns;
	u64 superblock_ns; /* when it was last written */
	u32 turn;	   /* the volume that had the last one */
	int turn_error; /* guarded by the engine mutex: of a turn, since nothing could be done last */
	u32 fruitless; /* turns in a row that changed nothing */
	bool flushed; /* a volume that has something is being flushed for a client: its turn comes after that */
	/* Guarded by the engine mutex: what failed was not a backing store, but the SSD or the log; in a row, and the next attempt. */
	u32 failures;
	u64 retry_ns;
};

/* -ENOMEM. VOLUMES is by id and outlives W. */
int lc_writeback_init(struct lc_writeback *w, struct lc_core *core, struct lc_log *log,
		      struct lc_volume **volumes);
void lc_writeback_destroy(struct lc_writeback *w);
int lc_writeback_start(struct lc_writeback *w, struct lc_error *err);
void lc_writeback_stop(struct lc_writeback *w);

/* All drains, also later ones, return -ECANCELED. [lock] */
void lc_writeback_interrupt(struct lc_writeback *w);

/*
 * Write back all that is in the log now, and wait for it. What a store answered if it failed; -ETIMEDOUT after
 * DEADLINE_NS; -ECANCELED: see above.
 */
int lc_writeback_drain(struct lc_writeback *w, u64 deadline_ns);

#endif
