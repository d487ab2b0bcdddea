/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd_connect.c - connect to an NBD server, and decide whether it is fit to be a backing store.
 *
 * Sockets over TCP are set so that closing one, or the end of the process, throws away what was not sent yet, and tells the
 * server (RST). Otherwise the kernel would go on delivering writes, long after a broken network works
 * again, and no fence could be long enough.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "nbd_priv.h"

/* What a server takes at a time if it does not say. */
#define MAX_BYTES (32u << 20)
/* How much longer than the first one a connection beside it may take: a server may leave it waiting until another one ends. */
#define FURTHER_NS LC_NS_PER_S
/* In one request: where it is quick, and where it may not be. */
#define FAST_ZERO_BYTES (256u << 20)
#define SLOW_ZERO_BYTES (16u << 20)

static void set_socket(int fd)
{
	const struct linger linger = {.l_onoff = 1, .l_linger = 0};
	const int on = 1, idle_s = 15, interval_s = 5, count = 3;
	struct sockaddr_storage a = {0};
	socklen_t n = sizeof a;

	if (getsockname(fd, (struct sockaddr *)&a, &n) < 0 ||
	    (a.ss_family != AF_INET && a.ss_family != AF_INET6))
		return;
	if (setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) < 0)
		lc_log(LC_LOG_WARNING,
		       "SO_LINGER is refused (%s): what is not sent yet when a connection breaks "
		       "may reach the server later",
		       strerror(errno));
	/* A machine that is gone is noticed while nothing is in flight, too. Without it, later. */
	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof count);
}

static int refuse(int code, const char *why, struct lc_error *err)
{
	return lc_fail(err, code, "cannot connect: %s", why);
}

const char *lc_nbd_says(void)
{
	const char *text = nbd_get_error(), *colon = text ? strstr(text, ": ") : NULL;

	return colon ? colon + 2 : text ? text : "for no reason that is known";
}

static int refuse_libnbd(struct lc_error *err)
{
	int code = nbd_get_errno();

	return lc_fail(err, code > 0 ? -code : -EIO,
		       "cannot connect: %s (does the server run, and is the URI right?)",
		       lc_nbd_says());
}

/* The handshake, until the handle is ready. */
static int shake_hands(const struct lc_nbd_link *l, struct nbd_handle *h, u64 until_ns,
		       struct lc_error *err)
{
	while (nbd_aio_is_connecting(h) > 0) {
		struct pollfd p[] = {{.fd = nbd_aio_get_fd(h)},
				     {.fd = l->cancel_fd, .events = POLLIN}};
		unsigned dir = nbd_aio_get_direction(h);
		u64 now_ns = lc_now_ns();
		int rc;

		if (now_ns >= until_ns)
			return refuse(-ETIMEDOUT, "the server does not answer", err);
		p[0].events = (short)((dir & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
				      (dir & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
		if (poll(p, 2, (int)((until_ns - now_ns) / LC_NS_PER_MS) + 1) < 0) {
			if (errno == EINTR)
				continue;
			return refuse(-errno, strerror(errno), err);
		}
		if (p[1].revents)
			return refuse(-ECANCELED, "logcache is being shut down", err);
		if (!p[0].revents)
			continue;
		if (dir & LIBNBD_AIO_DIRECTION_READ && p[0].revents & ~POLLOUT)
			rc = nbd_aio_notify_read(h);
		else
			rc = nbd_aio_notify_write(h);
		if (rc < 0)
			return refuse_libnbd(err);
	}
	return nbd_aio_is_ready(h) > 0 ? 0 : refuse_libnbd(err);
}

static int open_handle(const struct lc_nbd_link *l, u64 until_ns, struct nbd_handle **out,
		       struct lc_error *err)
{
	struct nbd_handle *h = nbd_create();
	int rc;

	if (!h)
		return refuse_libnbd(err);
	/*
	 * Keys for TLS are in files. Buffers are cleared before they are read into, as is the default: a server that sends
	 * one half twice must not make us show what was in the other before.
	 */
	if (nbd_set_uri_allow_local_file(h, true) < 0 ||
	    nbd_add_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0 ||
	    nbd_aio_connect_uri(h, l->uri) < 0)
		rc = refuse_libnbd(err);
	else
		rc = shake_hands(l, h, until_ns, err);
	if (rc) {
		nbd_close(h);
		return rc;
	}
	set_socket(nbd_aio_get_fd(h));
	*out = h;
	return 0;
}

/* Everything that a server may be refused for, and what it can do. */
static int look_at(struct lc_nbd_link *l, struct nbd_handle *h, struct lc_link_info *info,
		   struct lc_error *err)
{
	int64_t size = nbd_get_size(h), min = nbd_get_block_size(h, LIBNBD_SIZE_MINIMUM),
		max = nbd_get_block_size(h, LIBNBD_SIZE_MAXIMUM);
	bool zero = nbd_can_zero(h) > 0;

	if (size < 0)
		return lc_fail(err, -EOVERFLOW, "it has no size that can be used: %s", lc_nbd_says());
	if (!size)
		return lc_fail(err, -ENODATA, "it is empty (0 bytes): give it a size first");
	if (nbd_is_read_only(h) > 0)
		return lc_fail(err, -EROFS,
			       "it is read-only: logcache writes what it has cached to its backing store; "
			       "start the server without its option for that (-r, --read-only)");
	if (nbd_can_flush(h) <= 0 && !l->without_flush)
		return lc_fail(err, -EOPNOTSUPP,
			       "the server cannot flush, so nobody knows when a write is durable there, and "
			       "logcache must not forget it: use a server that can; if you know that this one "
			       "answers only when a write is durable, give backing-without-flush=accept");
	if (min <= 0)
		min = 1;
	if (max <= 0)
		max = MAX_BYTES;
	if (min > LC_BLOCK || (min & (min - 1)))
		return lc_fail(err, -EOPNOTSUPP,
			       "the server wants requests in units of %lld bytes, and logcache cannot do "
			       "more than %u: put something between that accepts smaller ones (nbdkit's "
			       "blocksize filter, qemu-nbd)",
			       (long long)min, LC_BLOCK);
	if (size % min)
		return lc_fail(err, -EOPNOTSUPP,
			       "its size, %lld bytes, is not a multiple of the %lld bytes that the server "
			       "wants requests in: its end could not be reached; correct the size",
			       (long long)size, (long long)min);
	*info = (struct lc_link_info){
		.size_bytes = (u64)size,
		.block_bytes = min > LC_SECTOR ? (u32)min : LC_SECTOR,
		.zero = zero,
		.can_zero = zero && nbd_can_fast_zero(h) > 0,
		.extent = nbd_can_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION) > 0,
	};
	/* It can give space back, and then zeros cost it little, though it may not promise so. */
	info->can_punch = zero && nbd_can_trim(h) > 0;
	info->zero_max_bytes = info->can_zero ? FAST_ZERO_BYTES : SLOW_ZERO_BYTES;
	if (max > MAX_BYTES)
		max = MAX_BYTES;
	/* Pieces begin at blocks, if it lets them. */
	info->max_bytes = max >= LC_BLOCK ? (u32)max / LC_BLOCK * LC_BLOCK :
					    (u32)max / info->block_bytes * info->block_bytes;
	if (!info->max_bytes)
		return lc_fail(err, -EOPNOTSUPP,
			       "the server takes at most %lld bytes in a request, and logcache needs %u",
			       (long long)max, info->block_bytes);
	l->size_bytes = info->size_bytes;
	l->block_bytes = info->block_bytes;
	l->can_fast_zero = info->can_zero;
	l->can_flush = nbd_can_flush(h) > 0;
	atomic_store(&l->no_fast[0], false);
	atomic_store(&l->no_fast[1], false);
	return 0;
}

int lc_nbd_connect(struct lc_nbd_link *l, u32 timeout_ms, struct lc_link_info *info,
		   struct lc_error *err)
{
	u64 began_ns = lc_now_ns(), until_ns = began_ns + timeout_ms * LC_NS_PER_MS, further_ns;
	struct nbd_handle *h = NULL;
	struct lc_error ignored;
	int rc = open_handle(l, until_ns, &h, err);

	if (rc)
		return rc;
	rc = look_at(l, h, info, err);
	if (rc) {
		nbd_close(h);
		return rc;
	}
	l->conns[0].h = h;
	l->nr_conns = 1;
	if (nbd_can_multi_conn(h) <= 0)
		return 0;
	further_ns = lc_now_ns() - began_ns + FURTHER_NS;
	/* A server may have a limit: then there are fewer. */
	while (l->nr_conns < LC_NBD_CONNECTIONS) {
		u64 end_ns = lc_now_ns() + further_ns;

		if (open_handle(l, end_ns < until_ns ? end_ns : until_ns, &h, &ignored))
			break;
		l->conns[l->nr_conns++].h = h;
	}
	return 0;
}
