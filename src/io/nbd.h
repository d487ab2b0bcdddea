/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nbd.h - the store for whatever an NBD server serves: another nbdkit, Ceph RBD or any image format through qemu-nbd,
 * a disk in some cloud.
 *
 * A store here is two layers: nbd_link.c talks to the server through libnbd, and fence.c above it makes a store of that
 * whose users see slow I/O where connections break (fence.h says what they see, and when errors).
 *
 * In use by somebody else (I12): NBD has no locks. What keeps two logcaches apart is what the server does: qemu-nbd
 * locks its image against other programs, and serves one client unless it is told otherwise (--shared), as does
 * nbdkit with the exitlast filter or a plugin that is not shared; most servers let everybody in. A cache
 * notices by the fingerprint that its backing store was changed, at 64 places, when it is opened.
 */
#ifndef LOGCACHE_IO_NBD_H
#define LOGCACHE_IO_NBD_H

#include "fence.h"

struct lc_nbd_options {
	struct lc_fence_options fence;
	bool without_flush; /* accept a server that cannot flush: it writes through, says the administrator */
};

/*
 * What a server has read it executes as soon as its disk lets it: in less than a second, unless the disk fails. Then the
 * kernel gives up on a disk after 30 seconds by default (the SCSI timeout), and so may the server.
 */
#define LC_NBD_FENCE_MS 30000u
/* Longer than the fence, so that a server that is back by then costs time, and no errors. */
#define LC_NBD_PATIENCE_MS 60000u
/* And up to 5 seconds. */
#define LC_NBD_RETRY_MS 100u

static inline void lc_nbd_options_init(struct lc_nbd_options *o)
{
	*o = (struct lc_nbd_options){
		.fence = {.fence_ms = LC_NBD_FENCE_MS,
			  .patience_ms = LC_NBD_PATIENCE_MS,
			  .retry_ms = LC_NBD_RETRY_MS},
	};
}

/* SCHEME://..., of whatever scheme. */
bool lc_is_uri(const char *text);

/*
 * Does this look like the URI of an NBD server that we can use? -EINVAL: ERR says what is wrong with it, without
 * repeating it (it may hold a password). Whether there is a server is another question.
 */
int lc_nbd_check_uri(const char *uri, struct lc_error *err);

/*
 * Connect to the server at URI. -EROFS, -ENODATA (empty), -EOPNOTSUPP (no flush, or blocks that are too
 * large), -EINVAL (the URI), or what kept the connection from being made; ERR names URI, reason and remedy.
 * lc_fence_pause() before a fork, and lc_fence_resume() after it.
 */
int lc_nbd_open(const char *uri, const struct lc_nbd_options *o, struct lc_store **out,
		struct lc_error *err);

#endif
