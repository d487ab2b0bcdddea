/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * volume.h - what clients do to one volume: read, write, zero, trim, flush; split into blocks.
 *
 * read.c, write.c and zero.c implement the functions of logcache.h, which says what they promise, for a volume with a log.
 * direct.c implements the same for a volume without one.
 *
 * A write goes to the log alone. A run of whole blocks reserves slots, copies, publishes: two short
 * critical sections and one copy. A part of a block is copied into the block's slot if that lies in the open
 * record; otherwise the sectors that it lacks are merged in from the copy in the cache, so that
 * there is always at most one copy of a block that matters, with a mask of its valid sectors. A write that
 * is not aligned to sectors first reads the whole block.
 *
 * To zero a large range is a write, too: one entry in the log (zeros.h says how it goes on).
 *
 * Writers of the same block sort themselves out through `ranges` (range.h): whole blocks may race, the later log
 * position wins (I5); parts and zeros exclude everybody else. Nobody waits for a range while holding an
 * unpublished reservation.
 *
 * Locking: the engine mutex guards everything from `id` on; the rest is constant.
 */
#ifndef LC_VOLUME_H
#define LC_VOLUME_H

#include "log.h"
#include "pace.h"
#include "range.h"

/* A request is done in chunks of so many blocks: what one critical section looks up or publishes. */
#define LC_CHUNK_BLOCKS 32u

struct lc_volume {
	struct lc_core *core;
	char name[LC_NAME_BYTES];
	struct lc_store *backing;
	u64 size_bytes;
	u64 nr_blocks;
	u8 id; /* in the cache */

	struct lc_log *log;	   /* NULL: straight to the backing store. path.h */
	u32 log_reads, log_writes; /* steps under way through the log */
	u32 direct_writes;	   /* and straight */
	bool sampling; /* a cache is being attached: `touched` and `written` note what goes straight meanwhile */
	bool written; /* something has */
	/*
	 * Flushes of the backing store, while there is no log: one at a time, and write-back waits for the last one. Who asked
	 * for one that fails cannot be the only one to know: others may have written what is lost with it.
	 */
	u64 flushes_begun, flushes_ended;
	struct lc_cond flushed; /* one has ended */
	u64 flush_failures;
	u64 failures_told; /* to some client: up to this one */
	int flush_error;   /* of the last one */
	struct lc_ranges ranges;
	struct lc_busy reads;
	/*
	 * Samples of the fingerprint that something was written to on the backing store since they were taken (bit i: sample i): by
	 * write-back, which takes them anew after the flush of each turn, or finds that it is unsure of them (sweep.c); or straight, while
	 * a cache is being attached.
	 */
	u64 touched;
	bool sampled; /* the table says something else of them by now than its page on the SSD */
	/* Write-back's. */
	u64 swept;	  /* the elevator's position: places up to here are done in this round */
	u64 round_blocks; /* its round ends at the latest when so many more are written */
	u64 zero_rate;	/* blocks a second that the backing store zeroed lately; 0: not seen yet */
	bool failing;	/* the backing store, when write-back last tried */
	u32 failures;	/* in a row */
	u64 retry_ns;	/* until then it is left alone */
	bool continued; /* this cache served it last, and was closed in good order */
};

/* NR blocks will be looked up soon. Without the mutex: lc_index_prefetch says why that does no harm. */
__attribute__((no_sanitize("thread"))) static inline void lc_volume_announce(const struct lc_volume *v,
									     u64 block, u32 nr)
{
	for (u32 i = 0; i < nr; i++)
		lc_index_prefetch(&v->core->ring.index, v->id, block + i);
}

/* NR blocks, which were announced, will be looked up now: many at a time, they wait for memory together. [lock] */
static inline void lc_volume_fetch(const struct lc_volume *v, u64 block, u32 nr)
{
	for (u32 i = 0; i < nr; i++)
		lc_index_find_in(&v->core->ring.index, v->id, block + i, 0, 0);
}

/* Scratch memory of one request: LC_CHUNK_BLOCKS blocks. NULL without memory. Takes and releases the mutex. */
void *lc_scratch_get(struct lc_core *c);
void lc_scratch_put(struct lc_core *c, void *scratch);
void lc_scratch_destroy(struct lc_core *c);

/* Read one whole block as a client would see it. [no lock held] */
int lc_volume_read_block(struct lc_volume *v, u64 block, void *buf);

/*
 * Read the cached copy of a block, from a buffer or the SSD, verified; *MASK gets its valid sectors, 0 if
 * there is none, or only a clean one that is bad (it is dropped). The caller holds no lock, and keeps other
 * writers of the block away. -EIO: the only copy is lost (I10).
 */
int lc_volume_read_cached(struct lc_volume *v, u64 block, void *buf, u8 *mask);

/*
 * The SSD has lost its copy of a block. Was that written back, before a crash made it dirty again? Then the backing store has the
 * same, as the checksum proves, and BUF gets it: the sectors in MASK, zeros beside them. 1, 0, or -errno: the backing store
 * cannot be read, and nobody knows. No lock held.
 */
int lc_volume_backing_agrees(struct lc_volume *v, u64 block, u8 mask, u32 crc, u8 *buf);

/* One request of a client on its way into the log; all zeros at first. */
struct lc_request {
	u64 began_ns;	/* when it began, */
	u64 since_ns;	/* and since when it may have been waiting: lc_core_still_wanted */
	u64 newest_seq; /* the last record that it is in */
	u64 attachment; /* of which SSD */
	bool direct;	/* some of it went straight to the backing store, */
	u64 failures;	/* when so many flushes of that had failed */
	bool counted;	/* in the statistics */
	u64 pay_ns;	/* until then it pays for its blocks: pace.h */
};

/* A part of it is in a record of the SSD that is attached. [lock] */
static inline void lc_request_logged(struct lc_request *rq, const struct lc_core *c, u64 seq)
{
	if (seq > rq->newest_seq || rq->attachment != c->attachment)
		rq->newest_seq = seq;
	rq->attachment = c->attachment;
}

/* It begins. -ESHUTDOWN: its client went away while it lay unread. No lock held. */
static inline int lc_request_begin(struct lc_request *rq, struct lc_core *c)
{
	rq->began_ns = lc_now_ns();
	return lc_core_begin_change(c, rq->began_ns, &rq->since_ns);
}

/* Write data (BUF NULL: zeros). No lock held. */
int lc_volume_write(struct lc_volume *v, struct lc_request *rq, const void *buf, u64 len_bytes,
		    u64 offset_bytes);
/* All of it is written: make it durable, if FLAGS say so. */
int lc_volume_finish(struct lc_volume *v, const struct lc_request *rq, unsigned flags);

/*
 * The blocks [*FIRST, *END) are those that a range holds as a whole; none if *FIRST >= *END. A short block at
 * the end of a volume is not: what lies behind its end may become somebody's data when the store grows.
 */
static inline void lc_whole_blocks(u64 len_bytes, u64 offset_bytes, u64 *first, u64 *end)
{
	*first = (offset_bytes + LC_BLOCK - 1) / LC_BLOCK;
	*end = (offset_bytes + len_bytes) / LC_BLOCK;
}

/* For zeros to be copied from. */
extern const u8 lc_zero_block[LC_BLOCK];

/*
 * --- direct.c: one step without a log ---
 *
 * They return how many bytes they did, 0 if the volume has a log by now, or -errno.
 */

int64_t lc_direct_read(struct lc_volume *v, void *buf, u64 len_bytes, u64 offset_bytes);
/* BUF NULL: zeros. */
int64_t lc_direct_write(struct lc_volume *v, struct lc_request *rq, const void *buf, u64 len_bytes,
			u64 offset_bytes);
/* Whole blocks. ONLY if the store can do it itself: otherwise -EOPNOTSUPP; or else by writing. */
int64_t lc_direct_zero(struct lc_volume *v, struct lc_request *rq, u64 len_bytes, u64 offset_bytes,
		       bool punch, bool only);
/*
 * Make durable what went straight to the backing store, since when SINCE flushes had failed. Nothing to do if the volume has a log
 * by now: attaching it has flushed the store. 0 or -errno.
 */
int lc_direct_flush(struct lc_volume *v, u64 since);

/* The sectors of block-relative bytes [from, to) as a mask. */
static inline u8 lc_sector_mask(u32 from_bytes, u32 to_bytes)
{
	u32 first = from_bytes / LC_SECTOR, end = (to_bytes + LC_SECTOR - 1) / LC_SECTOR;

	return (u8)((1u << end) - (1u << first));
}

/* The sectors of a block that the volume has: the last block may be short. */
static inline u8 lc_volume_mask(const struct lc_volume *v, u64 block)
{
	u64 left = v->size_bytes - block * LC_BLOCK;

	return lc_sector_mask(0, left < LC_BLOCK ? left : LC_BLOCK);
}

#endif
