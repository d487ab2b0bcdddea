/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fence.h - a store over a link to another machine: a connection that breaks, a server that is away, and
 * writes that are executed after nobody waits for them any more.
 *
 * What is dangerous about a lost connection is what was in flight on it. The server may have read a write and
 * execute it seconds later, over whatever was written meanwhile on a new connection. Nothing in the protocol
 * asks it not to. So there is a **fence**: a time after which the administrator believes that nothing of
 * an old connection can be executed any more.
 *
 *	- A write or zero that was in flight when the connection broke does not complete, neither well nor badly,
 *	  until the fence has passed. Then it is issued again. Until then no other write or zero is issued
 *	  at all. Reads, extents and flushes go on as soon as there is a connection.
 *	- The store's user may be a second life of a process that died with writes in flight: so a store that was
 *	  just opened behaves as if a connection had broken at that moment, unless lc_store_trust() says that
 *	  all was well. lc_store_settled() tells whether a next life may be told so.
 *	- The server may have restarted and lost what it had not written to its disk. So a flush that would have to cover a
 *	  write of an earlier connection fails, once for each such write, with -EIO; and so
 *	  do all others that had been called when the connection broke.
 *
 * To the engine all this is slow I/O. It gets errors when waiting is no use:
 *
 *	- no connection for the patience (lc_fence_options): what waits, and what comes until there is one
 *	  again, fails with -ENOTCONN;
 *	- an I/O without an answer for that long: the connection is given up, and this I/O fails with -ETIMEDOUT;
 *	- an I/O that has been in flight on NR_LOSSES connections that broke fails with -ENOTCONN.
 *
 * A change that was in flight still waits for the fence in all three cases. So I/O ends after at most patience +
 * fence, plus the time the server takes while it answers.
 *
 * The life of an I/O
 *
 *	called -> waiting (no connection, or fenced) -> in flight on the link -> done
 *	             ^                                     |
 *	             +------- the connection broke --------+
 *
 * The layer knows the runtime (rt.h) and its link alone: nbd_link.c in production, a model of a remote server in
 * the simulation. One thread of its own connects, watches and lets go.
 *
 * Locks: one mutex for each store; the link is called, and I/O is copied, without it.
 */
#ifndef LOGCACHE_IO_FENCE_H
#define LOGCACHE_IO_FENCE_H

#include "logcache/rt.h"
#include "logcache/store.h"

struct lc_fence;
struct lc_link;

enum lc_link_op { LC_LINK_READ, LC_LINK_WRITE, LC_LINK_FLUSH, LC_LINK_ZERO, LC_LINK_EXTENT };

/* One request on the link. */
struct lc_link_io {
	enum lc_link_op op;
	bool punch; /* zero: the space may be given back */
	void *buf;
	u64 offset_bytes;
	u64 len_bytes;
	/* 0 or -errno; -ENOTCONN: the connection broke, and nobody knows whether it was, or will be, executed. */
	int result;
	struct lc_extent extent; /* the answer to LC_LINK_EXTENT */
	void *link_data;	 /* the link's own, while in flight; */
	u64 got_bytes;		 /* these, too */
	bool fast;
	struct lc_link_io *next; /* the link's while in flight; then links the list that it hands back */

	/* the fence's own */
	struct lc_link_io *later, *earlier;
	u64 left_bytes; /* what comes after this request, in further ones */
	u64 covers;	/* a flush: the changes that had completed when it was called */
	u64 sent_ns;
	u8 losses; /* connections that broke while it was in flight */
	bool lost; /* a change that may still be executed, until the fence has passed */
	int error; /* it is given up, and waits for the fence */
	struct fence_queue *queue; /* NULL: a call waits for it */
	struct lc_io *io;
	struct lc_cond *wake;
	bool done;
};

/* What the other side says when the link connects. */
struct lc_link_info {
	u64 size_bytes;
	u32 block_bytes;	  /* as in struct lc_store */
	u32 max_bytes;		  /* of a read or write: a multiple of block_bytes */
	u64 zero_max_bytes;	  /* of a zero */
	bool zero, extent;	  /* it has these operations */
	bool can_zero, can_punch; /* as in struct lc_store */
};

struct lc_link_ops {
	/*
	 * Connect, and find out what is there. From the thread that opens the store, or from the fence's own; nothing is
	 * in flight. Gives up after TIMEOUT_MS; cancel() from another thread ends it early. 0 or -errno with a
	 * reason in ERR, which is not NULL, without the name: the server is not there, or not fit to be used.
	 */
	int (*connect)(struct lc_link *l, u32 timeout_ms, struct lc_link_info *info,
		       struct lc_error *err);
	void (*cancel)(struct lc_link *l);
	/*
	 * Begin IO, without waiting for its end. It comes back through lc_fence_done(), in whatever thread, maybe
	 * before this returns. From any thread, also when the connection broke or was cut: then with -ENOTCONN.
	 */
	void (*submit)(struct lc_link *l, struct lc_link_io *io);
	/*
	 * Give up the connection, also one that broke. On return everything that was in flight has come back, as
	 * whatever was known of it by then; the link does not call the fence any more until it is connected again.
	 */
	void (*cut)(struct lc_link *l);
	/* Release the link: it is cut, or was never connected. */
	void (*close)(struct lc_link *l);
};

struct lc_link {
	const struct lc_link_ops *ops;
	struct lc_fence *fence; /* set by lc_fence_open, before connect */
};

struct lc_fence_options {
	u32 fence_ms;	 /* after so long nothing of a broken connection is executed any more */
	u32 patience_ms; /* how long I/O waits for a server; 0: for ever */
	u32 retry_ms;	 /* pause between attempts to connect; it grows up to 50-fold */
};

/*
 * Connect LINK, and make a store of it. NAME is what messages call it; it is copied. Takes LINK over: it is closed with the
 * store, or before this returns with an error: that of the link, or -ENOMEM. A thread runs until
 * lc_fence_pause() or the store is closed.
 */
int lc_fence_open(struct lc_link *link, const char *name, const struct lc_fence_options *o,
		  struct lc_store **out, struct lc_error *err);

/*
 * Disconnect and end the thread, so that the process can fork; and begin again, maybe in the child. In between there is no
 * I/O. The fence runs on. Resume connects in the background: it fails only if there can be no thread.
 */
void lc_fence_pause(struct lc_store *s);
int lc_fence_resume(struct lc_store *s, struct lc_error *err);

/* Does the store come from lc_fence_open()? */
bool lc_is_fence(const struct lc_store *s);

/* --- for the link --- */

/* These are done: a list linked through `next`, each with its result. */
void lc_fence_done(struct lc_fence *f, struct lc_link_io *list);
/* The connection broke: WHY is for a message. What is in flight may come back before or after. */
void lc_fence_lost(struct lc_fence *f, const char *why);

#endif
