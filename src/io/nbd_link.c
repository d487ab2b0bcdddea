/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd_link.c - requests to an NBD server and their answers, on libnbd's asynchronous calls.
 *
 * Whoever submits a request also sends it, as far as the socket takes it; the connection's own thread sends the rest,
 * and reads all answers, straight into the buffers of those who read. So there are no hand-overs on the way out, and
 * one on the way back. Requests go to the connection that has the fewest.
 *
 * libnbd's callbacks run in the middle of its own work, in either thread, with its lock held: they only leave a note
 * (conn.done). The thread hands notes to the fence when libnbd has come to rest.
 *
 * A connection ends in its own thread alone: when libnbd says that it is dead, or `stop` is set, it shuts
 * the socket down, which lets libnbd answer everything that was in flight with ENOTCONN.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "nbd_priv.h"

/* How long a server may take to close a connection that was ended properly. */
#define GOODBYE_NS (500 * LC_NS_PER_MS)
/* A block status request is about so much at most. */
#define EXTENT_BYTES (1u << 30)

static struct lc_nbd_link *nbd_of(struct lc_link *l)
{
	return (struct lc_nbd_link *)l;
}

static void kick(int event_fd)
{
	u64 one = 1;

	/* Only a signal can keep it from being written: the counter holds 2^64 kicks. */
	while (write(event_fd, &one, sizeof one) < 0 && errno == EINTR)
		;
}

static void calm(int event_fd)
{
	u64 count;

	(void)!read(event_fd, &count, sizeof count); /* it is nonblocking: empty is fine */
}

/* --- requests --- */

/* NOLINTBEGIN(readability-non-const-parameter): the types of both are libnbd's */

/* The command is done. 1: it need not be retired. */
static int completed(void *opaque, int *error)
{
	struct lc_link_io *io = opaque;
	struct lc_nbd_conn *c = io->link_data;

	/* A server that is shutting down executes nothing any more: to us it is gone. */
	io->result = *error == ESHUTDOWN ? -ENOTCONN : -*error;
	/* libnbd does not look whether an answer without an error had all the data. */
	if (io->op == LC_LINK_READ && !*error && io->got_bytes != io->len_bytes)
		io->result = -EPROTO;
	lc_mutex_lock(&c->done_lock);
	io->next = c->done;
	c->done = io;
	lc_mutex_unlock(&c->done_lock);
	return 1;
}

/* A part of what is read has come, data or a hole; or an error for a part, which brings nothing. */
static int got_part(void *opaque, const void *data, size_t nr, u64 offset, unsigned status, int *error)
{
	struct lc_link_io *io = opaque;

	(void)data;
	(void)offset;
	(void)error;
	if (status != LIBNBD_READ_ERROR)
		io->got_bytes += nr;
	return 0;
}

/* What begins at OFFSET, as pairs of length and flags. */
static int told_extents(void *opaque, const char *context, u64 offset, u32 *entries, size_t nr,
			int *error)
{
	struct lc_link_io *io = opaque;
	u64 at = offset, end = io->offset_bytes + io->len_bytes;
	bool hole = nr >= 2 && entries[1] & LIBNBD_STATE_ZERO;

	(void)error;
	if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0)
		return 0;
	for (size_t i = 0; i + 1 < nr && hole == !!(entries[i + 1] & LIBNBD_STATE_ZERO); i += 2)
		at += entries[i];
	/* The question began at a block, the caller's range may begin later. */
	if (at > io->offset_bytes)
		io->extent = (struct lc_extent){
			.len_bytes = (at < end ? at : end) - io->offset_bytes,
			.hole = hole,
		};
	return 0;
}

/* NOLINTEND(readability-non-const-parameter) */

static int64_t ask_extent(struct lc_nbd_link *l, struct nbd_handle *h, struct lc_link_io *io,
			  nbd_completion_callback done)
{
	nbd_extent_callback told = {.callback = told_extents, .user_data = io};
	u64 from = io->offset_bytes / l->block_bytes * l->block_bytes;
	u64 len = io->offset_bytes + io->len_bytes - from;

	if (len > EXTENT_BYTES)
		len = EXTENT_BYTES;
	len = (len + l->block_bytes - 1) / l->block_bytes * l->block_bytes;
	if (len > l->size_bytes - from)
		len = l->size_bytes - from;
	io->extent = (struct lc_extent){.len_bytes = io->len_bytes};
	return nbd_aio_block_status(h, len, from, told, done, 0);
}

static int64_t issue(struct lc_nbd_link *l, struct nbd_handle *h, struct lc_link_io *io)
{
	nbd_completion_callback done = {.callback = completed, .user_data = io};
	nbd_chunk_callback got = {.callback = got_part, .user_data = io};

	switch (io->op) {
	case LC_LINK_READ:
		io->got_bytes = 0;
		return nbd_aio_pread_structured(h, io->buf, io->len_bytes, io->offset_bytes, got,
						done, 0);
	case LC_LINK_WRITE:
		return nbd_aio_pwrite(h, io->buf, io->len_bytes, io->offset_bytes, done, 0);
	case LC_LINK_FLUSH:
		return nbd_aio_flush(h, done, 0);
	case LC_LINK_ZERO:
		io->fast = l->can_fast_zero && !l->no_fast[io->punch];
		return nbd_aio_zero(h, io->len_bytes, io->offset_bytes, done,
				    (io->punch ? 0 : LIBNBD_CMD_FLAG_NO_HOLE) |
					    (io->fast ? LIBNBD_CMD_FLAG_FAST_ZERO : 0));
	case LC_LINK_EXTENT:
		return ask_extent(l, h, io, done);
	}
	return -1;
}

/* The connection with the least to do. */
static struct lc_nbd_conn *pick(struct lc_nbd_link *l)
{
	struct lc_nbd_conn *best = &l->conns[0];
	unsigned least = UINT32_MAX;

	for (u32 i = 0; i < l->nr_conns; i++) {
		unsigned nr = atomic_load_explicit(&l->conns[i].nr_io, memory_order_relaxed);

		if (nr >= least)
			continue;
		best = &l->conns[i];
		least = nr;
	}
	return best;
}

static void link_submit(struct lc_link *link, struct lc_link_io *io)
{
	struct lc_nbd_link *l = nbd_of(link);
	struct lc_nbd_conn *c = pick(l);
	bool wake = false;
	int error = ENOTCONN;

	if (io->op == LC_LINK_FLUSH && !l->can_flush) {
		io->result = 0; /* what was answered is durable, we were told */
		io->next = NULL;
		lc_fence_done(link->fence, io);
		return;
	}
	io->link_data = c;
	atomic_fetch_add(&c->nr_io, 1);
	lc_mutex_lock(&c->lock);
	if (c->h) {
		if (issue(l, c->h, io) >= 0) {
			/* The thread waits for answers only, unless it knows that there is more to send. */
			wake = nbd_aio_get_direction(c->h) & LIBNBD_AIO_DIRECTION_WRITE ||
			       nbd_aio_is_dead(c->h) > 0;
			error = 0;
		} else if (nbd_aio_is_dead(c->h) == 0 && nbd_aio_is_closed(c->h) == 0 &&
			   !atomic_load(&c->stop)) {
			error = nbd_get_errno(); /* libnbd itself does not like it */
		}
	}
	lc_mutex_unlock(&c->lock);
	if (wake)
		kick(c->event_fd);
	if (!error)
		return; /* maybe it is done already, and not there any more */
	atomic_fetch_sub(&c->nr_io, 1);
	io->result = error > 0 ? -error : -EIO;
	io->next = NULL;
	lc_fence_done(link->fence, io);
}

/* --- answers --- */

/* Give back to the fence what is done. */
static void hand_back(struct lc_nbd_conn *c)
{
	struct lc_nbd_link *l = c->link;
	struct lc_link_io *io, *list = NULL, *again = NULL, *next;
	unsigned nr = 0;

	lc_mutex_lock(&c->done_lock);
	io = c->done;
	c->done = NULL;
	lc_mutex_unlock(&c->done_lock);
	for (; io; io = next) { /* the oldest comes last in it */
		next = io->next;
		nr++;
		if (io->op == LC_LINK_ZERO && io->result == -ENOTSUP && io->fast) {
			atomic_store(&l->no_fast[io->punch], true);
			io->next = again;
			again = io;
			continue;
		}
		io->next = list;
		list = io;
	}
	atomic_fetch_sub(&c->nr_io, nr);
	if (list)
		lc_fence_done(l->link.fence, list);
	/* Slow, but still quicker than to send the zeros. */
	for (; again; again = next) {
		next = again->next;
		link_submit(&l->link, again);
	}
}

/* `stop` is set: end the connection, properly if nothing is in flight. */
static void say_goodbye(struct lc_nbd_conn *c, u64 *until_ns)
{
	lc_mutex_lock(&c->lock); /* nobody sends, so nobody lets libnbd close the socket either */
	if (!*until_ns && !atomic_load(&c->nr_io) && nbd_aio_disconnect(c->h, 0) == 0) {
		*until_ns = lc_now_ns() + GOODBYE_NS;
	} else if (!*until_ns || lc_now_ns() >= *until_ns) {
		int fd = nbd_aio_get_fd(c->h);

		*until_ns = LC_FOREVER;
		if (fd >= 0)
			shutdown(fd, SHUT_RDWR);
	}
	lc_mutex_unlock(&c->lock);
}

static bool is_over(struct nbd_handle *h)
{
	return nbd_aio_is_dead(h) > 0 || nbd_aio_is_closed(h) > 0;
}

static void conn_main(void *arg)
{
	struct lc_nbd_conn *c = arg;
	struct nbd_handle *h = c->h;
	u64 goodbye_ns = 0;
	char why[160] = "the server has closed it";

	while (!is_over(h)) {
		struct pollfd p[] = {{.fd = nbd_aio_get_fd(h)},
				     {.fd = c->event_fd, .events = POLLIN}};
		unsigned dir = nbd_aio_get_direction(h);
		int rc = 0;

		p[0].events = (short)((dir & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
				      (dir & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
		if (atomic_load(&c->stop) && goodbye_ns != LC_FOREVER)
			say_goodbye(c, &goodbye_ns);
		/* Only a signal could make it fail, and this thread gets none. */
		(void)poll(p, 2, goodbye_ns ? 20 : -1);
		if (p[1].revents)
			calm(c->event_fd);
		if (dir & LIBNBD_AIO_DIRECTION_READ && p[0].revents & ~POLLOUT)
			rc = nbd_aio_notify_read(h);
		else if (p[0].revents)
			rc = nbd_aio_notify_write(h);
		if (rc < 0)
			snprintf(why, sizeof why, "%s", lc_nbd_says());
		if (!is_over(h))
			hand_back(c);
	}
	if (!atomic_load(&c->stop))
		lc_fence_lost(c->link->link.fence, why);
	hand_back(c);
}

/* --- the link --- */

static void link_cut(struct lc_link *link)
{
	struct lc_nbd_link *l = nbd_of(link);

	for (u32 i = 0; i < l->nr_conns; i++) {
		atomic_store(&l->conns[i].stop, true);
		kick(l->conns[i].event_fd);
	}
	for (u32 i = 0; i < l->nr_conns; i++) {
		struct lc_nbd_conn *c = &l->conns[i];
		struct nbd_handle *h = c->h;

		if (c->running)
			lc_thread_join(&c->thread);
		c->running = false;
		lc_mutex_lock(&c->lock);
		c->h = NULL;
		lc_mutex_unlock(&c->lock);
		nbd_close(h);
		hand_back(c); /* somebody may have sent while the thread was ending */
		calm(c->event_fd);
	}
	l->nr_conns = 0;
	calm(l->cancel_fd);
}

static int link_connect(struct lc_link *link, u32 timeout_ms, struct lc_link_info *info,
			struct lc_error *err)
{
	struct lc_nbd_link *l = nbd_of(link);
	int rc = lc_nbd_connect(l, timeout_ms, info, err);

	if (rc)
		return rc;
	for (u32 i = 0; i < l->nr_conns && !rc; i++) {
		struct lc_nbd_conn *c = &l->conns[i];

		atomic_store(&c->stop, false);
		rc = lc_thread_start(&c->thread, "lc-nbd", conn_main, c);
		c->running = !rc;
	}
	if (rc) {
		link_cut(link);
		lc_fail(err, rc, "cannot start a thread: %s; raise the limit (TasksMax=, ulimit -u)",
			strerror(-rc));
	}
	return rc;
}

static void link_cancel(struct lc_link *link)
{
	kick(nbd_of(link)->cancel_fd);
}

static void link_close(struct lc_link *link)
{
	struct lc_nbd_link *l = nbd_of(link);

	assert(!l->nr_conns);
	for (unsigned i = 0; i < LC_NBD_CONNECTIONS; i++) {
		lc_mutex_destroy(&l->conns[i].lock);
		lc_mutex_destroy(&l->conns[i].done_lock);
		if (l->conns[i].event_fd >= 0)
			close(l->conns[i].event_fd);
	}
	if (l->cancel_fd >= 0)
		close(l->cancel_fd);
	free(l->uri);
	free(l);
}

const struct lc_link_ops lc_nbd_link_ops = {
	.connect = link_connect,
	.cancel = link_cancel,
	.submit = link_submit,
	.cut = link_cut,
	.close = link_close,
};
