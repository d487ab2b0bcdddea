/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * store.h - a store is anything that holds blocks: a file, a block device, a simulated disk.
 *
 * The engine reaches its cache device and every backing store through this interface alone, in
 * two ways:
 *
 *   synchronous calls   lc_store_read / _read_many / _write / _flush / _zero / _extent, from any thread,
 *                       several at a time;
 *   a queue             owned by one thread, which stages a batch of I/O, starts it, and reaps
 *                       completions in whatever order they come.
 *
 * Contract of all I/O
 *   - offset and length are multiples of block_bytes, the length is not 0, buffers are aligned to
 *     LC_BLOCK. Violations are bugs in the caller (asserted), never reported to a user.
 *   - An I/O is whole or an error: stores resume partial transfers, EINTR and EAGAIN themselves.
 *   - I/O begins before size_bytes, and may reach past it only inside the block (LC_BLOCK) that holds the last
 *     byte: the part beyond the end reads as zeros, and is dropped when written. A store never grows.
 *   - Overlapping I/Os in flight at one time have no defined order.
 *   - After a successful flush every write that had completed before the flush was submitted is durable.
 *     After a failed flush nothing is known of the writes since the last good one.
 *   - Sectors (LC_SECTOR) are written atomically, nothing larger is.
 */
#ifndef LOGCACHE_STORE_H
#define LOGCACHE_STORE_H

#include <assert.h>

#include "logcache/types.h"

struct lc_store;
struct lc_queue;

enum lc_io_op { LC_IO_READ, LC_IO_WRITE, LC_IO_FLUSH };

/*
 * One I/O of a queue, or of lc_store_read_many. The caller owns it; the queue uses it from submit until it is reaped,
 * the call until it returns.
 */
struct lc_io {
	enum lc_io_op op;
	void *buf; /* aligned to LC_BLOCK; unused by a flush */
	u32 len_bytes;
	u64 offset_bytes;
	int result;	    /* set on completion: 0 or -errno */
	u32 done_bytes;	    /* the store's: progress of a partial transfer */
	struct lc_io *next; /* the store's while submitted; then links the list of completions */
	void *owner;	    /* the caller's */
};

/* A piece of memory that a queue's I/O will use, so that the store can register it once. */
struct lc_area {
	void *base;
	size_t len_bytes;
};

/* A stretch of a store or volume that is all alike. */
struct lc_extent {
	u64 len_bytes;
	bool hole; /* reads as zeros, and was never written: it need not be copied */
};

struct lc_store_ops {
	int (*read)(struct lc_store *s, void *buf, u32 len_bytes, u64 offset_bytes);
	int (*write)(struct lc_store *s, const void *buf, u32 len_bytes, u64 offset_bytes);
	int (*flush)(struct lc_store *s);
	/* May be NULL: one after the other. NR is at least 2. */
	void (*read_many)(struct lc_store *s, struct lc_io *ios, u32 nr);
	/* May be NULL: -EOPNOTSUPP. */
	int (*zero)(struct lc_store *s, u64 len_bytes, u64 offset_bytes, bool punch);
	/* May be NULL: everything is data. */
	int (*extent)(struct lc_store *s, u64 len_bytes, u64 offset_bytes, struct lc_extent *out);
	int (*queue_open)(struct lc_store *s, unsigned depth, const struct lc_area *areas,
			  unsigned nr_areas, struct lc_queue **out, struct lc_error *err);
	/* May be NULL: nothing outlives the process that asked for it. */
	void (*trust)(struct lc_store *s);
	/* May be NULL: always. */
	bool (*settled)(struct lc_store *s);
	/* May be NULL: it is quiet. */
	u64 (*quiet_ns)(struct lc_store *s);
	void (*close)(struct lc_store *s);
};

struct lc_queue_ops {
	void (*submit)(struct lc_queue *q, struct lc_io *io);
	void (*start)(struct lc_queue *q);
	struct lc_io *(*wait)(struct lc_queue *q, u64 deadline_ns);
	void (*kick)(struct lc_queue *q);
	void (*close)(struct lc_queue *q);
};

struct lc_store {
	const struct lc_store_ops *ops;
	const char *name; /* how messages call it: the path or URI that the user gave */
	u64 size_bytes;	  /* any number; not necessarily a multiple of anything */
	u32 block_bytes;  /* logical block: 512 .. 4096, a power of two */
	/*
	 * What zero() does without transferring the data, in much less time than that would take, as far
	 * as it can be known beforehand; either may be true without the other. can_zero: it keeps the space;
	 * can_punch: it gives it back.
	 */
	bool can_zero, can_punch;
	u64 errors; /* lc_store_errors */
};

struct lc_queue {
	const struct lc_queue_ops *ops;
	struct lc_store *store; /* whose I/O it does */
};

/*
 * --- counting what fails: here, so that nothing is missed; it costs nothing while all is well ---
 *
 * Reads, writes and flushes, synchronous or through a queue. Not zero and extent: who asks for those does without.
 */

static inline int lc_store_count(struct lc_store *s, int err)
{
	if (err)
		__atomic_fetch_add(&s->errors, 1, __ATOMIC_RELAXED);
	return err;
}

/* How many I/Os failed since the store was opened, or since the reset; any thread. */
static inline u64 lc_store_errors(const struct lc_store *s)
{
	return __atomic_load_n(&s->errors, __ATOMIC_RELAXED);
}

static inline void lc_store_reset_errors(struct lc_store *s)
{
	__atomic_store_n(&s->errors, 0, __ATOMIC_RELAXED);
}

/* --- synchronous, from any thread; 0 or -errno --- */

static inline void lc_store_check(const struct lc_store *s, const void *buf, u32 len_bytes,
				  u64 offset_bytes)
{
	u64 end = (s->size_bytes + LC_BLOCK - 1) / LC_BLOCK * LC_BLOCK;

	assert((uintptr_t)buf % LC_BLOCK == 0);
	assert(len_bytes > 0 && len_bytes % s->block_bytes == 0);
	assert(offset_bytes % s->block_bytes == 0);
	assert(offset_bytes < s->size_bytes && len_bytes <= end - offset_bytes);
	(void)end; /* only the assertions read them */
	(void)buf;
}

static inline int lc_store_read(struct lc_store *s, void *buf, u32 len_bytes, u64 offset_bytes)
{
	lc_store_check(s, buf, len_bytes, offset_bytes);
	return lc_store_count(s, s->ops->read(s, buf, len_bytes, offset_bytes));
}

/*
 * Several reads at once, which the store has under way together as far as it can. IOS are NR of them, in no
 * particular order; the caller sets op (LC_IO_READ), buf, len_bytes and offset_bytes. Returns when all are done, each
 * with a result of its own, which is what lc_store_read would have said: one that fails does not keep
 * the others from being done. NR may be 0, or more than the store can have under way; 1 costs what
 * lc_store_read costs. Like a queue, it belongs to a process: a child after a fork may not go on with a store on which
 * its parent called this.
 */
static inline void lc_store_read_many(struct lc_store *s, struct lc_io *ios, u32 nr)
{
	if (nr < 2 || !s->ops->read_many) {
		for (u32 i = 0; i < nr; i++)
			ios[i].result = lc_store_read(s, ios[i].buf, ios[i].len_bytes,
						      ios[i].offset_bytes);
		return;
	}
	for (u32 i = 0; i < nr; i++) {
		assert(ios[i].op == LC_IO_READ);
		lc_store_check(s, ios[i].buf, ios[i].len_bytes, ios[i].offset_bytes);
	}
	s->ops->read_many(s, ios, nr);
	for (u32 i = 0; i < nr; i++)
		(void)lc_store_count(s, ios[i].result); /* the caller looks at it */
}

static inline int lc_store_write(struct lc_store *s, const void *buf, u32 len_bytes, u64 offset_bytes)
{
	lc_store_check(s, buf, len_bytes, offset_bytes);
	return lc_store_count(s, s->ops->write(s, buf, len_bytes, offset_bytes));
}

static inline int lc_store_flush(struct lc_store *s)
{
	return lc_store_count(s, s->ops->flush(s));
}

/*
 * Make a range read as zeros without transferring them; like a write it is durable after a flush. PUNCH: the
 * space may be given back; otherwise it stays allocated. The offset is a multiple of LC_BLOCK, and so is
 * the length, or the range ends at the end of the store. Takes as long as it takes: callers
 * who may be interrupted go in pieces.
 *
 * -EOPNOTSUPP: the store has no such operation (nothing was changed); the caller writes zeros. After another
 * error each sector of the range holds what it held, or zeros.
 */
static inline int lc_store_zero(struct lc_store *s, u64 len_bytes, u64 offset_bytes, bool punch)
{
	assert(offset_bytes % LC_BLOCK == 0 && len_bytes > 0);
	assert(offset_bytes < s->size_bytes && len_bytes <= s->size_bytes - offset_bytes);
	assert(len_bytes % LC_BLOCK == 0 || offset_bytes + len_bytes == s->size_bytes);
	return s->ops->zero ? s->ops->zero(s, len_bytes, offset_bytes, punch) : -EOPNOTSUPP;
}

/*
 * What begins at OFFSET: a hole or data, and how far it goes, at most LEN. Any alignment; at
 * least one byte is described. Writes in flight may be seen or not. 0 or -errno.
 */
static inline int lc_store_extent(struct lc_store *s, u64 len_bytes, u64 offset_bytes,
				  struct lc_extent *out)
{
	assert(offset_bytes < s->size_bytes && len_bytes > 0);
	assert(len_bytes <= s->size_bytes - offset_bytes);
	*out = (struct lc_extent){.len_bytes = len_bytes};
	return s->ops->extent ? s->ops->extent(s, len_bytes, offset_bytes, out) : 0;
}

/*
 * Writes that a process died with, or a connection broke with, may be executed later on another machine, over newer ones.
 * Stores there wait after an opening until that cannot happen any more before they write. They need not if
 * who used the store last found it settled when he had finished, and nobody used it since: who knows that
 * says so with lc_store_trust(), before the first write.
 */
static inline void lc_store_trust(struct lc_store *s)
{
	if (s->ops->trust)
		s->ops->trust(s);
}

/* Can nothing that was ever asked of the store, by anybody, be executed any more? */
static inline bool lc_store_settled(struct lc_store *s)
{
	return !s->ops->settled || s->ops->settled(s);
}

/*
 * From that time on (lc_now_ns) nothing is executed any more that an earlier user of the store asked for: what is read
 * before may change by itself. In the past: it is so already.
 */
static inline u64 lc_store_quiet_ns(struct lc_store *s)
{
	return s->ops->quiet_ns ? s->ops->quiet_ns(s) : 0;
}

/* Release the store and all locks on what it stands for. All its queues are closed before. */
static inline void lc_store_close(struct lc_store *s)
{
	s->ops->close(s);
}

/* --- queues --- */

/*
 * A queue for at most DEPTH I/Os at the device at a time; whatever is submitted beyond waits inside it. AREAS
 * says which memory most I/O will use (may be empty): an accelerator, never a restriction. The
 * thread that opens the queue is its owner: only the owner may submit, start, wait and close. ERR may be NULL.
 */
static inline int lc_queue_open(struct lc_store *s, unsigned depth, const struct lc_area *areas,
				unsigned nr_areas, struct lc_queue **out, struct lc_error *err)
{
	int ret = s->ops->queue_open(s, depth, areas, nr_areas, out, err);

	if (!ret)
		(*out)->store = s;
	return ret;
}

/* Stage IO. Never fails: what cannot be done completes with an error. */
static inline void lc_queue_submit(struct lc_queue *q, struct lc_io *io)
{
	q->ops->submit(q, io);
}

/* Hand everything that was staged to the device, without waiting. */
static inline void lc_queue_start(struct lc_queue *q)
{
	q->ops->start(q);
}

/*
 * Start what is staged, then wait until at least one I/O has completed, or somebody kicked, or
 * lc_now_ns() reaches DEADLINE_NS (0: do not wait; LC_FOREVER). Returns the completed I/Os as a list
 * linked through `next`, NULL if there are none. A kick that came before the call counts.
 */
static inline struct lc_io *lc_queue_wait(struct lc_queue *q, u64 deadline_ns)
{
	struct lc_io *done = q->ops->wait(q, deadline_ns);

	for (const struct lc_io *io = done; io; io = io->next)
		(void)lc_store_count(q->store, io->result); /* the owner looks at it */
	return done;
}

/*
 * From any thread: make the owner's present or next lc_queue_wait return. It costs a system call, so
 * kick only an owner that declared (under its mutex) that it is about to sleep.
 */
static inline void lc_queue_kick(struct lc_queue *q)
{
	q->ops->kick(q);
}

/* Release the queue. Nothing is in flight any more: everything submitted has been reaped; nobody kicks. */
static inline void lc_queue_close(struct lc_queue *q)
{
	q->ops->close(q);
}

#endif
