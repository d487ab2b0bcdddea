/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fence_priv.h - between fence.c, which knows when something may go over the link, and fence_io.c, which has the
 * store's calls and queues.
 */
#ifndef LOGCACHE_IO_FENCE_PRIV_H
#define LOGCACHE_IO_FENCE_PRIV_H

#include "fence.h"

struct lc_link_list {
	struct lc_link_io *head, *tail;
};

enum session {
	SESSION_NONE, /* not connected, nothing is in flight */
	SESSION_UP,
	SESSION_BROKEN, /* nothing is sent any more; the thread is about to cut it */
};

struct lc_fence {
	struct lc_store store; /* the first member */
	char *name;
	size_t name_bytes;
	struct lc_link *link;
	struct lc_fence_options options;
	struct lc_link_info info; /* of this session, or the last one */
	struct lc_thread thread;
	bool running; /* the thread; only whoever pauses and resumes looks at it */

	struct lc_mutex lock;  /* for all that follows */
	struct lc_cond change; /* wakes the thread */
	enum session session;
	bool stop;
	bool stillborn;	   /* SESSION_NONE: the connection that is being made broke already */
	bool watching;	   /* the thread will wake up in time for what is in flight */
	bool told;	   /* people know that there is no connection */
	char why[192];	   /* the last connection broke, or the last attempt failed */
	u64 none_since_ns; /* SESSION_NONE: since when */
	u64 connected_ns;  /* when this session began, or the last one */
	u64 connect_ns;	   /* when the next attempt is due */
	u64 backoff_ns;	   /* the pause before the one after it */
	u64 fence_ns;	   /* before that no change is sent */
	bool fence_of_start; /* nothing of ours broke yet: it is for what an earlier life may have left */
	struct lc_link_list waiting, flight; /* flight: in the order of sent_ns */
	u32 nr_flight;
	u32 nr_lost; /* changes that were in flight on this session when it broke */
	/* Requests for changes that completed well, numbered in that order: */
	u64 nr_done;
	u64 settled; /* up to here a flush answered, well or badly */
	u64 broken;  /* up to here they were made on connections that broke */
};

static inline struct lc_fence *lc_fence_of(struct lc_store *s)
{
	return (struct lc_fence *)s;
}

/* The store's operations. */
extern const struct lc_store_ops lc_fence_ops;

/*
 * IO is new, for LEN bytes from where it says, maybe more than the link takes at a time: send it, or let it wait, or end
 * it. Without the lock.
 */
void lc_fence_begin(struct lc_fence *f, struct lc_link_io *io, u64 len_bytes);
/* Release a fence that is paused. */
void lc_fence_destroy(struct lc_fence *f);

/* --- fence_io.c --- */

/* IO has ended with RESULT: tell whoever waits for it. [lock] */
void lc_fence_deliver(struct lc_link_io *io, int result);

#endif
