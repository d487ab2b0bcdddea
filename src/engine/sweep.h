/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * sweep.h - dirty blocks to the backing stores, in ascending order, round and round like an elevator.
 *
 * Each volume has a position, `swept`. A turn takes the next key range above it:
 *
 *	zero      first the volume's pending ranges (zeros.h), all that are durable: the store zeroes them, and is
 *	          flushed                                                                           sweep_zero.c
 *	collect   the places of dirty blocks in segments up to a limit, ascending                   places.h
 *	run       from each place, the dirty durable blocks that lie right beside one another, whatever
 *	          segment they are in; read from buffers or the SSD,                                sweep_build.c
 *	          verified; one large write                                                         sweep_write.c
 *	flush     the backing store; only then the blocks turn clean (I3)
 *
 * and the next turn goes on behind it, with what has become dirty there since; above the last place a new round
 * begins, or when four times as much was written as was in sight at the beginning: a client that writes ahead of the position could
 * keep it going for ever, away from what holds the tail. So a round meets all that was written since the one before it. A
 * segment is clean at the latest one round after it came below the limit, whatever is written meanwhile, and the tail
 * moves after each turn, not once a round.
 *
 * Runs lie one behind the other on a belt of frames (a block of memory each, with what is to be known of its block):
 *
 *	done ... oldest  [writing]  next to write  [reading, ready]  next to build ... free
 *
 * so that the SSD is read ahead of the backing store, which always has a queue of ascending writes.
 *
 * Only durable log content is written back (I8), and nothing in a range that is still pending: this thread alone
 * changes the backing stores, one thing after the other, so that zeros and blocks cannot
 * overtake each other. The runs of a turn ascend, so a block is written at most
 * once between two flushes: two versions of it are never in flight together.
 *
 * A block that cannot be read from the SSD, or whose crc is wrong, goes to the list of lost blocks (I10).
 *
 * All of it belongs to the write-back thread, which alone calls lc_sweep_open, _turn and _close.
 *
 * A backing store that fails is left alone for a while, which doubles with each failure; the others go on.
 */
#ifndef LC_SWEEP_H
#define LC_SWEEP_H

#include "places.h"
#include "volume.h"

/* Writes at a backing store at a time: what a disk can sort by itself is 32, and as many are on their way to it. */
#define LC_SWEEP_DEPTH 64u
/* Runs on the belt; the longest one, and frames, in small caches fewer. */
#define LC_NR_RUNS 256u
#define LC_RUN_BLOCKS_MAX 64u
#define LC_RUN_BLOCKS_MIN 8u
#define LC_FRAMES_MAX 1024u
#define LC_FRAMES_MIN 128u

/* One block of a run on its way. */
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
	u64 block;
	u32 frame; /* its first */
	u32 nr;	   /* blocks */
	u32 nr_frames;
	u32 nr_ios; /* in flight: reads, then writes */
	u64 submitted_ns;
	int error;
};

struct lc_sweep {
	struct lc_core *core;
	struct lc_log *log;
	struct lc_volume **volumes; /* [LC_VOLUMES_MAX + 1], by id; NULL: not served */

	struct lc_queue *ssd;
	struct lc_queue **backing; /* by volume id */

	/* The belt. The numbers of runs go on for ever: run N is runs[N % LC_NR_RUNS]. */
	struct lc_run *runs;
	u64 oldest, next_write, next_build;
	u8 *memory;		 /* nr_frames blocks */
	struct lc_piece *pieces; /* [nr_frames] */
	struct lc_io *ios;	 /* [nr_frames] */
	u32 nr_frames, run_blocks;
	u32 reading, writing; /* I/Os at the SSD, runs at the backing store */
	u32 depth;	      /* of those, at most */

	/* The present turn. */
	struct lc_volume *v;
	struct lc_places places;
	u32 *written; /* [max_written] slots written since the last backing flush */
	u32 max_written, nr_written;
	int error;	   /* what ends the turn */
	int backing_error; /* what the backing store said */

	/* Guarded by the engine mutex. */
	bool stop;	/* leave the turn as soon as possible */
	u32 nr_failing; /* volumes whose backing stores fail */
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
 * One turn of a volume, over what is dirty in the segments tail + 1 .. UPTO, which are durable. *WRITTEN gets the blocks that
 * are on the backing store and flushed now, and clean. What was not covered by a good flush is as dirty as before:
 * -ECANCELED after `stop`; or what a store said: if it is the backing store, the volume is failing, and to be left alone until
 * its retry_ns.
 */
int lc_sweep_turn(struct lc_sweep *sw, struct lc_volume *v, u64 upto, u64 *written);

/* What had failed works: writers need not give up. */
void lc_sweep_works(struct lc_sweep *sw);
/* A store that has failed, and from which nothing is wanted any more, does not hold up anybody. */
void lc_sweep_forgive(struct lc_sweep *sw);

/* --- between its files --- */

static inline struct lc_run *lc_sweep_run(const struct lc_sweep *sw, u64 nr)
{
	return &sw->runs[nr % LC_NR_RUNS];
}

static inline u8 *lc_sweep_frame(const struct lc_sweep *sw, u32 frame)
{
	return sw->memory + (size_t)frame * LC_BLOCK;
}

/* Is the next run to be written still being read? */
static inline bool lc_sweep_next_is_read(const struct lc_sweep *sw)
{
	return sw->next_write < sw->next_build && lc_sweep_run(sw, sw->next_write)->nr_ios;
}

/* Build runs from places[*AT] on, and begin to read them, while there is room. False: no more of this turn. */
bool lc_sweep_build(struct lc_sweep *sw, u32 *at);
/* Take what the SSD has read; wait for it until DEADLINE_NS. */
void lc_sweep_reap_ssd(struct lc_sweep *sw, u64 deadline_ns);
/* Write what was read, as many runs at a time as the backing store may have now. */
void lc_sweep_write(struct lc_sweep *sw);
/* Wait for at least one write to complete. */
void lc_sweep_reap_backing(struct lc_sweep *sw);

/* The durable pending ranges of the turn's volume; only after the backing flush they are pending no more. */
void lc_sweep_zero(struct lc_sweep *sw);

/* The backing store of the turn's volume said so. */
void lc_sweep_backing_failed(struct lc_sweep *sw, int err);
/* Flush it, and take samples of it; false: that failed. The belt is empty. */
bool lc_sweep_flush(struct lc_sweep *sw);
/* Wait while clients' reads keep it busy. */
void lc_sweep_give_way(struct lc_sweep *sw);
bool lc_sweep_stopped(struct lc_sweep *sw);

#endif
