/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sweep.h - one sorted sweep over the dirty blocks of a batch of segments, to the backing stores.
 *
 *	zero      first the pending ranges (zeros.h), all that are durable: the stores zero them, and are flushed
 *	collect   the places of the batch's dirty blocks, in ascending key ranges that fit `places`
 *	run       from each place, the dirty durable blocks that lie right beside one another, whatever
 *	          segment they are in; read from buffers or the SSD, verified; one large write
 *	flush     the backing stores; only then the blocks turn clean (I3)
 *
 * Only durable log content is written back (I8), and nothing in a range that is still pending: this thread alone
 * changes the backing stores, one thing after the other, so that zeros and blocks cannot
 * overtake each other. The runs of a sweep ascend, so a block is written at most
 * once between two flushes: two versions of it are never in flight together.
 *
 * A block that cannot be read from the SSD, or whose crc is wrong, goes to the list of lost blocks (I10).
 *
 * All of it belongs to the write-back thread, which alone calls lc_sweep_open, _run and _close.
 *
 * A backing store that fails is left alone for the rest of the sweep; the other volumes go on.
 */
#ifndef LC_SWEEP_H
#define LC_SWEEP_H

#include "volume.h"

/* The longest write to a backing store, and how many are in the making. Small caches make do with less. */
#define LC_RUN_BLOCKS_MAX 64u
#define LC_RUN_BLOCKS_MIN 8u
#define LC_NR_RUNS 16u

struct lc_piece {
	u32 slot;
	u32 crc;
	u8 mask;
	bool bad;   /* it cannot be read, or */
	bool wrong; /* its crc is wrong */
	enum lc_pin pin;
	const u8 *data;
};

/* One write to the backing store in the making. */
struct lc_run {
	struct lc_volume *v;
	u64 block;
	u32 nr;
	u32 nr_ios; /* in flight */
	u64 submitted_ns;
	int error;
	u8 *buf; /* run_blocks blocks */
	struct lc_piece pieces[LC_RUN_BLOCKS_MAX];
	struct lc_io ios[LC_RUN_BLOCKS_MAX];
	struct lc_run *next;
};

struct lc_sweep {
	struct lc_core *core;
	struct lc_log *log;
	struct lc_volume **volumes; /* [LC_VOLUMES_MAX + 1], by id; NULL: not served */

	struct lc_queue *ssd;
	struct lc_queue **backing; /* by volume id */
	struct lc_run *runs;	   /* [LC_NR_RUNS] */
	struct lc_run *free_runs;
	u8 *memory; /* LC_NR_RUNS * run_blocks blocks */
	u32 run_blocks;
	u64 *places;  /* [max] of one key range, sorted */
	u32 *written; /* [max] slots written since the last backing flush */
	u32 max, nr_places, nr_written;
	u64 covered; /* places up to here are done in this range: the next run starts behind */
	/* Guarded by the engine mutex. */
	bool stop;	/* leave the sweep as soon as possible */
	u32 hurries;	/* do not give way to clients: so many wait for a drain */
	u32 nr_failing; /* volumes whose backing stores fail */
	/* Of the present sweep: what ends it, and what a backing store said. */
	int error, backing_error;
	bool failed[LC_VOLUMES_MAX + 1]; /* this volume is not tried any more */
};

/* -ENOMEM. VOLUMES is by id and outlives SW. */
int lc_sweep_init(struct lc_sweep *sw, struct lc_core *core, struct lc_log *log,
		  struct lc_volume **volumes);
void lc_sweep_destroy(struct lc_sweep *sw);
/* Memory that it holds. */
u64 lc_sweep_bytes(const struct lc_sweep *sw);

/* Open and close the thread's queues. -errno. */
int lc_sweep_open(struct lc_sweep *sw, struct lc_error *err);
void lc_sweep_close(struct lc_sweep *sw);

/*
 * Write back all that is dirty in the segments tail + 1 .. UPTO, which are durable. When it returns 0 it is on
 * the backing stores and flushed, and clean. Otherwise what was not covered by a good flush is as dirty as
 * before; -ECANCELED after `stop`.
 */
int lc_sweep_run(struct lc_sweep *sw, u64 upto);

/* What had failed works: writers need not give up. */
void lc_sweep_works(struct lc_sweep *sw);

#endif
