/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd_priv.h - the parts of the NBD link: nbd_link.c has the requests and the threads that wait for answers,
 * nbd_connect.c connects and decides what is refused, nbd.c checks URIs.
 */
#ifndef LOGCACHE_IO_NBD_PRIV_H
#define LOGCACHE_IO_NBD_PRIV_H

#include <libnbd.h>
#include <stdatomic.h>

#include "fence.h"

/* As many connections, where the server promises that a flush on one of them covers all. */
#define LC_NBD_CONNECTIONS 4u

struct lc_nbd_link;

struct lc_nbd_conn {
	struct lc_nbd_link *link;
	struct lc_thread thread; /* drives the handle: waits, reads answers, goes on sending */
	bool running;
	int event_fd;	   /* wakes it */
	atomic_bool stop;  /* it is to close the connection */
	atomic_uint nr_io; /* what of the fence's this connection has */
	/*
	 * Held by whoever sends a request: the handle stays there. The thread, which alone lets it die, needs it only for that.
	 */
	struct lc_mutex lock;
	struct nbd_handle *h; /* NULL: not connected */
	/* libnbd's callbacks leave here what is done, whoever's thread they run in. */
	struct lc_mutex done_lock;
	struct lc_link_io *done;
};

struct lc_nbd_link {
	struct lc_link link; /* the first member */
	char *uri;
	bool without_flush;
	int cancel_fd; /* readable: do not connect */
	struct lc_nbd_conn conns[LC_NBD_CONNECTIONS];
	/* With a handle. Who submits while they are cut may see more of them: their handles are gone then. */
	atomic_uint nr_conns;
	u32 block_bytes; /* of the session */
	u64 size_bytes;
	bool can_fast_zero, can_flush;
	atomic_bool no_fast[2]; /* by punch: the server said that it would be slow */
};

/* --- nbd_connect.c --- */

/*
 * The operation connect of struct lc_link_ops, up to handles that are ready: link->conns[0 .. nr_conns). No thread runs yet.
 */
int lc_nbd_connect(struct lc_nbd_link *l, u32 timeout_ms, struct lc_link_info *info,
		   struct lc_error *err);

/* What libnbd said last to this thread, without the name of its function. */
const char *lc_nbd_says(void);

/* --- nbd_link.c --- */

extern const struct lc_link_ops lc_nbd_link_ops;

#endif
