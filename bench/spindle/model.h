/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * model.h - a disk: what it does in which order, and when that is done. No data, no clock, no I/O, no
 * threads: time is what the caller says it is. The plugin (spindle.c) gives it the clock of the machine, the simulator
 * (sim.c) jumps from event to event; both use this code.
 *
 *	disk_submit()   a request arrives
 *	disk_next_ns()  when something happens next
 *	disk_advance()  let time go on; returns what has been completed since
 *
 * A request takes one of queue_depth places; while all are taken others wait outside, in order. Whenever the
 * head is free the disk takes from its queue the request that can be reached first (shortest positioning
 * time: seek plus rotation), from where the head is at that very moment. A request that has been in the queue for longer than
 * queue_depth times the longest access, which is what first come, first served takes at worst, goes first: nothing starves.
 *
 * Requests that are adjacent and in the queue together are one access, as in drives that coalesce them:
 * behind the end of the first, the second is reached in no time.
 *
 * A command that finds a drive waiting for it takes overhead_ns before the arm moves (protocol, firmware); for those
 * in the queue that is over before their turn comes.
 *
 * The write cache, if there is one: a write completes at once if there is room for it, otherwise when
 * room has become free. What is in it goes to the platter when nothing else is in the queue, or when the cache is
 * 3/4 full, or a flush waits for it: the write that can be reached first out of the destage_window oldest. Writing the
 * same again replaces it, reading it is answered from it. A flush completes when everything is
 * on the platter that was in the cache when it came. A write with FUA goes to the platter before it completes.
 *
 * Not in the model: zones (all tracks are as long), read-ahead (sequential reads need two in flight for the full
 * rate), several heads, bad sectors, the time on the wire.
 *
 * Locking: none; the caller's. Every NOW_NS must be at least the one before.
 */
#ifndef SPINDLE_MODEL_H
#define SPINDLE_MODEL_H

#include "platter.h"
#include "write_cache.h"

enum disk_op { DISK_READ, DISK_WRITE, DISK_FLUSH };

/* The caller's; it stays where it is until disk_advance returns it. */
struct disk_request {
	enum disk_op op;
	bool fua;
	u64 offset_bytes; /* inside the disk; len_bytes > 0. A flush has neither */
	u64 len_bytes;
	void *context; /* the caller's */

	/* The model's: */
	u64 arrival_ns;
	u64 ready_ns; /* in the queue, and the overhead is over */
	u64 done_ns; /* when it was completed, which may be before the NOW_NS that it was returned at */
	u64 flush_through; /* newest write in the cache that a flush waits for */
	struct disk_request *next;
};

struct disk_options {
	struct platter_sheet sheet;
	u32 queue_depth;
	u64 overhead_ns;
	u64 cache_bytes; /* 0: no write cache */
	u32 destage_window;
};

/* What the disk really did. */
struct disk_stats {
	u64 reads, writes, flushes; /* completed */
	u64 read_bytes, written_bytes;
	u64 cached_writes; /* completed before they were on the platter */
	u64 cache_read_hits;
	u64 accesses;  /* on the platter: reads, writes, and what the cache had to write */
	u64 seeks;     /* accesses for which the arm moved */
	u64 coalesced; /* accesses right behind the one before, without a wait */
	u64 aged;      /* accesses that came first because they had waited for too long */
	u64 seek_ns, rotation_ns, transfer_ns;
	u64 busy_ns;	       /* their sum, and the overhead */
	u64 first_ns, last_ns; /* when the first request came, when the last access ended */
	u64 depth_sum; /* requests that the head could choose from, added up over the accesses */
	u32 depth_max;
};

#define DISK_NEVER UINT64_MAX

struct disk_fifo {
	struct disk_request *first, *last;
};

struct disk {
	struct platter platter;
	struct disk_options options;
	u64 patience_ns; /* then a request goes first */
	struct disk_stats stats;

	struct disk_request **queue; /* [nr_queued], at most queue_depth, in the order of arrival */
	u32 nr_queued;
	struct disk_fifo outside;
	struct disk_fifo want_room; /* writes that wait for room in the cache; they have places in the queue */
	u32 nr_want_room;
	struct disk_fifo flushes;
	struct disk_fifo soon; /* will be completed at their done_ns, without the platter */
	struct disk_fifo done; /* for disk_advance to return */
	struct write_cache cache;

	/* The head. */
	u64 now_ns;
	u64 track;
	u64 free_ns; /* when it is, or was, free */
	u64 decide_ns; /* when it chooses next, if it is free: DISK_NEVER if there is nothing to choose */
	struct disk_request *request; /* being accessed; or */
	struct cached_write *destage;
};

/* A 7200 rpm drive with SIZE_BYTES, 32 requests deep, with its write cache on or off. */
struct disk_options disk_7200rpm(u64 size_bytes, bool write_cache);

/* -EINVAL (see platter_init), -ENOMEM */
int disk_init(struct disk *d, const struct disk_options *options);
void disk_destroy(struct disk *d);

void disk_submit(struct disk *d, struct disk_request *r, u64 now_ns);
/* DISK_NEVER: nothing, until something is submitted. */
u64 disk_next_ns(const struct disk *d);
/* A list by ->next, in the order of done_ns; or NULL. */
struct disk_request *disk_advance(struct disk *d, u64 now_ns);

#endif
