/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * queue.h - what the kinds of queues of the file store have in common. Only uring.c and aio.c
 * include it.
 *
 * An I/O goes
 *
 *	submit -> waiting (FIFO) -> the kernel (at most DEPTH) -> done (list) -> returned by wait
 *	               ^               |
 *	               +- the rest of a partial transfer, EINTR, EAGAIN
 *
 * submit() only appends to the FIFO: no system call. Part of the file's last block may have to go
 * through the page cache (file_priv.h): submit() does that on the spot, and only the rest goes
 * through the queue.
 *
 * A queue belongs to the process that opened it: it does not work in a forked child, which may
 * neither use nor close it. Close queues before a fork, and open them after it.
 *
 * Locks: none. The owner alone touches the queue; a kick only writes to the eventfd.
 */
#ifndef LOGCACHE_IO_QUEUE_H
#define LOGCACHE_IO_QUEUE_H

#include <pthread.h>

#include "file_priv.h"
#include "logcache/store.h"

struct lc_io_list {
	struct lc_io *head, *tail;
};

/* The first member of each kind of queue. */
struct lc_file_queue {
	struct lc_queue queue;
	struct lc_file *file;
	pthread_t owner;
	unsigned depth;
	unsigned inflight;	   /* how many I/Os the kernel has */
	struct lc_io_list waiting; /* for their turn to get there */
	struct lc_io_list done;	   /* to be returned by wait */
	int event_fd;		   /* wakes the owner */
	bool starved;		   /* the kernel said EAGAIN, and nothing else, lately */
	bool told_refused;	   /* a message once for each queue */
};

/*
 * Set Q up for its opener, with an eventfd of EVENT_FLAGS. The caller allocated it, and frees it, too, if
 * this fails.
 */
int lc_file_queue_init(struct lc_file_queue *q, const struct lc_queue_ops *ops, struct lc_file *f,
		       unsigned depth, int event_flags, struct lc_error *err);
/* Everything was reaped. The memory remains the caller's. */
void lc_file_queue_fini(struct lc_file_queue *q);

static inline void lc_file_queue_check_owner(const struct lc_file_queue *q)
{
	assert(pthread_equal(q->owner, pthread_self()));
	(void)q; /* only the assertion reads it */
}

/* The operation submit of struct lc_queue_ops. */
void lc_file_queue_submit(struct lc_queue *q, struct lc_io *io);

/* The I/O whose turn it is to go to the kernel, NULL if none waits or DEPTH are there already. */
static inline struct lc_io *lc_file_queue_next(const struct lc_file_queue *q)
{
	return q->inflight < q->depth ? q->waiting.head : NULL;
}

/* The kernel got lc_file_queue_next(): take it from the FIFO. */
void lc_file_queue_sent(struct lc_file_queue *q);

/* The kernel said RES to IO, which it got: IO is done, or waits again. */
void lc_file_queue_completed(struct lc_file_queue *q, struct lc_io *io, int64_t res);

/* Wake the owner. From any thread. */
void lc_file_queue_wake(const struct lc_file_queue *q);

/* If the kernel had no resources lately, give it a moment. */
void lc_file_queue_rest(struct lc_file_queue *q);

/* All that is done, for wait to return. */
struct lc_io *lc_file_queue_take_done(struct lc_file_queue *q);

/* Log, once, that the kernel refuses WHAT with RC although it allowed it when the queue was opened. */
void lc_file_queue_tell_refused(struct lc_file_queue *q, const char *what, int rc);

#endif
