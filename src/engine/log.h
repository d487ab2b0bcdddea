/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * log.h - from client data in RAM to durable records on the SSD.
 *
 * A segment is built in a buffer of its size, in place: record behind record, each one header block
 * and the data blocks that clients reserved and filled in. There is at most one open record. A client
 *
 *	reserves slots in it   (under the mutex; the first reservation opens a record, and a
 *	                        segment with its buffer if need be)
 *	copies its data        (without the mutex), and knows its checksums
 *	publishes              (under the mutex: the slots have their crcs, and the index points to them from now on, I6)
 *
 * and the record is sealed when it is full, when a flush wants it, or when it gets old. A sealed
 * record takes no new slots; when its last copy is finished, its header is filled in, and
 * it is written with one I/O. The header names everything in the record, so a record is atomic: it is replayed whole
 * or not at all.
 *
 *	OPEN -> SEALED -> WRITING -> WRITTEN          seq <= written_seq: all written up to here
 *	                                              seq <= durable_seq: and a flush succeeded after that
 *
 * The log thread writes records that are full or old, several at a time, and flushes the SSD when buffers get scarce
 * or a record gets old.
 *
 * Group commit (commit.c). Who needs durability, and finds nobody at it, leads a round, in its own thread: it seals
 * the open record; writes it, if all others are on their way already, and waits for those; flushes the SSD; and
 * tells all whom that served. Who comes meanwhile leaves the open record open, so that all who gather share the next
 * record and the next flush, and waits; when the round is over one of them leads the next. So a lone writer that
 * flushes needs no other thread, whose waking would take longer than the flush of a good SSD; and many together need
 * two I/Os a round, however many they are. There is no artificial delay, unless flush_deadline_ms asks for one.
 *
 * Nothing is durable before a flush that was submitted when it had been written completely, whoever wrote it (I2).
 * At most one flush runs at a time, and each failure of one is noticed by all who wait.
 *
 * Failure (I10). After a failed write or flush nothing is known of the records since durable_seq:
 * all waiters get EIO, and so does every later request for durability, until the log thread has
 * reissued those records: written them again, and flushed. Their buffers are still there, because a buffer is
 * given away only when a flush covers it. They go to the same places with the same bytes (only the durable
 * seq in the header's first sector may be newer), so whatever mixture of both attempts is on the SSD, each
 * record there is valid as a whole or not at all, and means the same.
 *
 * Locking: everything here is guarded by the engine mutex, except what is marked as the log thread's own.
 * Functions marked [lock] are called with the mutex held, and release it only where they say so.
 */
#ifndef LC_LOG_H
#define LC_LOG_H

#include "core.h"

/* Records between durable_seq and the open one. */
#define LC_RECORDS_MAX 512u
/* A copying count with this bit: somebody overwrites the block in place. */
#define LC_COPYING_WRITER 0x8000u

enum lc_record_state { LC_RECORD_OPEN, LC_RECORD_SEALED, LC_RECORD_WRITING, LC_RECORD_WRITTEN };

struct lc_record {
	u64 seq;
	u64 segment_id;
	u64 opened_ns;
	u16 start;   /* position of its header in the segment */
	u16 end;     /* position behind its last block */
	u16 limit;   /* where END has to stop */
	u16 writers; /* reservations and overwrites that are not published yet */
	bool last;   /* of its segment */
	u8 state;
	struct lc_io io;
};

struct lc_buffer {
	u8 *data;	/* one segment */
	u64 segment_id; /* whose image it is; 0: none */
	u64 first_seq;
	u32 readers; /* copying from it: it may not be given away */
	u16 nr_records;
	u16 nr_blocks[LC_SUMMARY_RECORDS_MAX]; /* data blocks of each record so far, for the summary */
	u16 *copying;			       /* per block: readers, or LC_COPYING_WRITER */
};

/* A request for durability, on the stack of who waits. */
struct lc_commit {
	u64 seq;   /* durable up to here, please; 0: just a flush of the device */
	u64 flush; /* number of the first flush that counts */
	u64 round; /* which will serve it */
	int result;
	bool done;
	struct lc_commit *next;
};

/* Slots reserved by one request: contiguous, in one record. */
struct lc_chunk {
	u64 seq;
	u32 slot;
	u32 nr;
};

struct lc_log {
	struct lc_core *core;

	struct lc_buffer *buffers; /* [settings.nr_buffers] */
	u8 *memory; /* what their data points into: one area, registered with the queue */
	struct lc_record records[LC_RECORDS_MAX]; /* seq % LC_RECORDS_MAX */
	u64 next_seq;				  /* of the next record to be opened */
	u64 sent_seq;				  /* handed to the SSD */
	u64 written_seq;
	u64 durable_seq;
	u64 durable_id;	  /* newest segment that is closed and durable, like all before it */
	u64 reissued_seq; /* after a failure: all records up to here must be written again */
	bool open;	  /* record next_seq - 1 is open */
	u32 fill;	  /* position in the head segment behind its last record */

	/* whoever waits */
	struct lc_cond published; /* a copy ended: see lc_log_wait_published */
	struct lc_cond space;	  /* a buffer, a segment, or bad news */
	struct lc_cond progress;  /* for write-back: lc_log_progress */
	u32 published_waiters;
	u32 space_waiters;
	u32 zero_waiters;    /* of them for write-back to zero something */
	u64 space_events;    /* how often lc_log_space was called, */
	u64 progress_events; /* and lc_log_progress */

	/* group commit */
	struct lc_commit *commits; /* all who wait, the leader among them */
	u64 round;		   /* number of the present or last round */
	struct lc_commit *leader;  /* of the present round; NULL: nobody is at it */
	u64 leader_seq;		   /* all up to here shall be durable then */
	bool hurry;		   /* somebody cannot wait for company */
	bool leader_waits;	   /* for something that others do: `led` */
	struct lc_cond led;
	struct lc_cond served[2]; /* by round % 2: who waits for it is served, or has to lead it */
	struct lc_slot *leader_entries; /* the leader's: entries of one segment */

	/* failure */
	u64 failures;	   /* how often a write or flush failed */
	u64 page_failures; /* that, when a metadata page was begun: belongs to its writer */
	bool failed;	   /* since the last failure not everything was reissued and flushed */
	bool broken;	   /* a failure that the log thread has not yet dealt with */
	u64 retry_ns;

	/* the log thread */
	struct lc_thread thread;
	bool started, stop;
	u32 kickers;  /* about to kick its queue, which has to stay until then */
	bool running; /* start_result is set */
	int start_result;
	struct lc_error start_error;
	const char *news_failed; /* what to tell the administrator */
	int news_error;
	bool news_healed;
	u64 now_ns;	    /* own: of the present turn of its loop */
	bool sleeping;	    /* in lc_queue_wait, or about to be */
	bool kick;	    /* lc_log_unlock is to wake it */
	bool reclaim_waits; /* for a reader to leave */
	u64 sleep_until_ns;
	u64 sent_ns; /* when it last wrote a record */
	struct lc_queue *queue;
	u32 in_flight; /* records at the SSD, whoever sent them */
	u64 flushes_started;
	bool flushing;		 /* whoever does */
	u64 flush_ns;		 /* when it was submitted */
	u64 flush_covers_seq;	 /* written_seq when the flush in flight was submitted */
	struct lc_io flush_io;	 /* own */
	struct lc_slot *entries; /* own: entries of one segment */
	u64 epoch, first;	 /* of this opening: constant once the thread runs */
};

/*
 * CORE's ring and meta are ready (loaded and recovered). NEXT_SEQ is the seq after the cut; everything
 * before it is durable. -ENOMEM.
 */
int lc_log_init(struct lc_log *l, struct lc_core *core, u64 next_seq);
void lc_log_destroy(struct lc_log *l);

/* Run the log thread. */
int lc_log_start(struct lc_log *l, struct lc_error *err);
/* Write and flush everything, end the thread. Returns what kept it from doing so. No other user is left. */
int lc_log_stop(struct lc_log *l);

/* --- writing [lock] --- */

/*
 * Reserve up to NR slots for the blocks BLOCK, BLOCK + 1, ... of a volume, all with sector mask MASK, in the
 * open record, which is opened if need be. Returns how many it got (fewer at the end of a
 * record), or 0 if there is no space: lc_log_wait_space.
 */
u32 lc_log_reserve(struct lc_log *l, u8 volume, u64 block, u8 mask, u32 nr, struct lc_chunk *chunk);

/*
 * Reserve a slot for an entry that zeroes NR blocks (at most LC_ZERO_BLOCKS_MAX) from BLOCK on. False: there is no
 * space, or no room for more such entries: lc_log_wait_space.
 */
bool lc_log_reserve_zero(struct lc_log *l, u8 volume, u64 block, u32 nr, bool trim,
			 struct lc_chunk *chunk);

/* The slot that holds a block if it lies in the open record; or 0. The block will be published soon: lc_index_find_in. */
u32 lc_log_find_open(struct lc_log *l, u8 volume, u64 block);

/*
 * Overwrite SLOT, which is one of the open record, in place, if nobody copies to or from it. The
 * chunk is then like a reservation of one slot.
 */
bool lc_log_reuse(struct lc_log *l, u32 slot, struct lc_chunk *chunk);

/* Where the data of a chunk goes. It stays valid until the chunk is published. */
u8 *lc_log_data(const struct lc_log *l, u32 slot);

/* The data of the chunk is complete, its slots have their crcs and are in the index: the record may leave. */
void lc_log_published(struct lc_log *l, const struct lc_chunk *chunk);

/*
 * Wait (the mutex is released) until something changed that lc_log_reserve (ZERO: lc_log_reserve_zero) could use.
 * SINCE_NS: when the request began. -EIO while the log has failed; what stopped write-back, if that is what the request waits
 * for, and it has failed for longer than stall_timeout_ms; -ESHUTDOWN if the request has waited for longer
 * than client_timeout_ms and its client is gone.
 */
int lc_log_wait_space(struct lc_log *l, bool zero, u64 since_ns);

/* Wait (the mutex is released) until write-back has zeroed something, or DEADLINE_NS: then -ETIMEDOUT. */
int lc_log_wait_zeroed(struct lc_log *l, u64 deadline_ns);

/* Wait (the mutex is released) until some copy has ended. */
void lc_log_wait_published(struct lc_log *l);

/* --- reading [lock] --- */

enum lc_pin { LC_PIN_BUSY, LC_PIN_BUFFER, LC_PIN_SSD };

/*
 * Keep the content of SLOT in place until lc_log_unpin: in a buffer (*DATA) or on the SSD. LC_PIN_BUSY, and
 * nothing is pinned, while it is being overwritten: lc_log_wait_published.
 */
enum lc_pin lc_log_pin(struct lc_log *l, u32 slot, const u8 **data);
void lc_log_unpin(struct lc_log *l, u32 slot, enum lc_pin pin);

/* --- durability --- */

/*
 * Make every record up to SEQ durable; seals it if it is open. Waits (the mutex is released). [lock]
 * -EIO: see above.
 */
int lc_log_commit(struct lc_log *l, u64 seq);

/* The newest seq that holds anything, the open record included. [lock] */
static inline u64 lc_log_newest_seq(const struct lc_log *l)
{
	return l->next_seq - 1;
}

/*
 * Flush the SSD once, for the metadata page that the caller has written since lc_log_settle. A flush
 * that failed in between may have lost it: -EIO. Without the mutex. For struct lc_flusher.
 */
int lc_log_flush_device(void *log);

/* Make durable all that was written until now. Without the mutex. For struct lc_flusher. */
int lc_log_settle(void *log);

/* For writing metadata pages while the log thread runs. */
static inline struct lc_flusher lc_log_flusher(struct lc_log *l)
{
	return (struct lc_flusher){lc_log_flush_device, lc_log_settle, l};
}

/* Seal the open record and close its segment, so that the tail can pass it. [lock] */
void lc_log_close_segment(struct lc_log *l);

/*
 * Something for the log thread to do: if it sleeps it is woken when the mutex is released, for which
 * everybody who may have given it work uses lc_log_unlock (a kick is a system call). [lock]
 */
void lc_log_wake(struct lc_log *l);
/* Release the engine mutex, then wake the log thread if it was to be woken. */
void lc_log_unlock(struct lc_log *l);

/* Whoever waits for space should look again: there is some, or there is bad news. [lock] */
void lc_log_space(struct lc_log *l);

/*
 * Write-back should look again: durable_id moved, somebody waits for space or drains, or what kept it from a volume is over. It
 * may be at a turn just now, and have looked before: so these are counted. [lock]
 */
void lc_log_progress(struct lc_log *l);

/* --- between log.c and log_thread.c --- */

static inline struct lc_record *lc_log_record(struct lc_log *l, u64 seq)
{
	return &l->records[seq % LC_RECORDS_MAX];
}

/* The open record takes no more slots. Whoever shall write it has to be told: lc_log_wake. [lock] */
void lc_log_seal(struct lc_log *l);
/* Everything up to SEQ is durable. [lock] */
void lc_log_set_durable(struct lc_log *l, u64 seq);
/* R is sealed, and its last copy has ended: tell who is to write it. [lock] */
void lc_log_ready(struct lc_log *l, const struct lc_record *r);

/* --- between commit.c and log_thread.c --- */

/* The next record to be written, if it is complete; NULL otherwise. [lock] */
struct lc_record *lc_log_next_record(struct lc_log *l);
/*
 * Finish that record: r->io is what has to be written. SCRATCH has room for the entries of one segment. [lock; returns
 * without it]
 */
void lc_log_finish_record(struct lc_log *l, struct lc_record *r, struct lc_slot *scratch);
/* It was written. [lock] */
void lc_log_record_written(struct lc_log *l, struct lc_record *r, int result);

/* A flush is about to be submitted, and has ended. [lock] */
void lc_log_begin_flush(struct lc_log *l);
void lc_log_end_flush(struct lc_log *l, int result);

void lc_log_main(void *log);

#endif
