/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * writeback.h - from the log to the backing stores, in sorted sweeps; and the tail.
 *
 * One thread. When it has a reason (the dirty share, an idle client, want of segments, a drain) it takes the
 * oldest durable segments above the tail as a batch and sweeps over what is dirty in them:
 *
 *	collect   the places of the batch's dirty blocks, in ascending key ranges that fit `places`
 *	run       from each place, the dirty durable blocks that lie right beside one another, whatever
 *	          segment they are in; read from buffers or the SSD, verified; one large write
 *	flush     the backing stores; only then the blocks turn clean (I3)
 *
 * then the tail passes all segments that have nothing dirty left, in the order that I3 and I7 demand:
 * the log durable (it holds what superseded blocks of the batch), fingerprints and lost blocks durable, the
 * superblock durable in both copies; only then may the segments be reused.
 *
 * Only durable log content is written back (I8). The runs of a range ascend, so a block is written at most
 * once between two flushes: two versions of it are never in flight together.
 *
 * A block that cannot be read from the SSD, or whose crc is wrong, goes to the list of lost blocks (I10).
 * When a backing store fails, everything since its last good flush stays dirty and is tried again.
 *
 * Locking: the engine mutex guards drain_id, errors, last_error and stop. The rest is the thread's own.
 */
#ifndef LC_WRITEBACK_H
#define LC_WRITEBACK_H

#include "volume.h"

/* The longest write to a backing store, and how many are in the making. Small caches make do with less. */
#define LC_RUN_BLOCKS_MAX 64u
#define LC_RUN_BLOCKS_MIN 8u
#define LC_NR_RUNS 16u

struct lc_piece {
	u32 slot;
	u32 crc;
	u8 mask;
	bool bad;
	enum lc_pin pin;
	const u8 *data;
};

/* One write to the backing store in the making. */
struct lc_run {
	struct lc_volume *v;
	u64 block;
	u32 nr;
	u32 nr_ios; /* in flight */
	int error;
	u8 *buf;    /* run_blocks blocks */
	struct lc_piece pieces[LC_RUN_BLOCKS_MAX];
	struct lc_io ios[LC_RUN_BLOCKS_MAX];
	struct lc_run *next;
};

struct lc_writeback {
	struct lc_core *core;
	struct lc_log *log;
	struct lc_volume **volumes; /* [LC_VOLUMES_MAX + 1], by id; NULL: not served */

	struct lc_thread thread;
	bool started, stop;
	bool running;	  /* start_result is set */
	int start_result;
	struct lc_cond done; /* a sweep or the start has ended */
	u64 drain_id;	  /* everything up to this segment is to be written back */
	u64 errors;	  /* sweeps that failed */
	int last_error;

	/* own */
	struct lc_queue *ssd;
	struct lc_queue **backing; /* by volume id */
	struct lc_run *runs;	   /* [LC_NR_RUNS] */
	struct lc_run *free_runs;
	u8 *memory;		   /* LC_NR_RUNS * run_blocks blocks */
	u32 run_blocks;
	u64 *places; /* [max] of one key range, sorted */
	u32 *written; /* [max] slots written since the last backing flush */
	u32 max, nr_places, nr_written;
	u64 covered; /* places up to here are done in this range: the next run starts behind */
	u64 seen_ops, quiet_ns;
	int error; /* of the present sweep */
};

/* The buffers of all runs. */
static inline size_t lc_writeback_memory_bytes(const struct lc_writeback *w)
{
	return (size_t)LC_NR_RUNS * w->run_blocks * LC_BLOCK;
}

/* -ENOMEM. VOLUMES is by id and outlives W. */
int lc_writeback_init(struct lc_writeback *w, struct lc_core *core, struct lc_log *log,
		      struct lc_volume **volumes);
void lc_writeback_destroy(struct lc_writeback *w);
/* Memory for sweeps. */
u64 lc_writeback_bytes(const struct lc_writeback *w);
int lc_writeback_start(struct lc_writeback *w);
void lc_writeback_stop(struct lc_writeback *w);

/* Write back all that is in the log now, and wait for it. What a store answered if it failed. */
int lc_writeback_drain(struct lc_writeback *w);

#endif
