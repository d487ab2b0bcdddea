/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * rings.h - rings that any thread may borrow, to have several reads of one descriptor under way at once.
 *
 * A queue (queue.h) belongs to one thread for as long as it lives; a client's read comes in whatever thread nbdkit
 * has for it. So there are a few small rings, of io_uring or else of libaio, and whoever needs one takes it for the length of
 * one call. One more is made when all that there are are in use, up to a limit; who gets none reads one after the
 * other.
 *
 * They are the process's, not a store's: a ring costs a descriptor, and a server may have many stores. What lasts is as many
 * as were ever in use at once, until the last store is closed. The one that was put back last is taken
 * first: it is still in the CPU's cache.
 *
 * Take the first one after a fork: they do not work in a child.
 *
 * Locks: one mutex for the lists; the kernel is asked for a new ring, and for the reads, without it.
 */
#ifndef LOGCACHE_IO_RINGS_H
#define LOGCACHE_IO_RINGS_H

#include "logcache/types.h"

/* How many reads a ring takes at a time: a client's request of LC_CHUNK_BLOCKS, all of them scattered. */
#define LC_RING_DEPTH 32u

struct lc_ring;

/* The kinds that may be taken, if there are several the better one that is to be had. */
#define LC_RING_URING 1u
#define LC_RING_AIO 2u

struct lc_ring_read {
	void *buf;
	u32 len_bytes;
	u64 offset_bytes;
	int64_t result; /* bytes or -errno, as of pread; LC_RING_UNSENT */
};

/* The kernel never got it. Not what any read says. */
#define LC_RING_UNSENT (-EINPROGRESS)

/* A store is opened, and closed; none of its rings is in use any more. No ring is made before the first is taken. */
void lc_rings_use(void);
void lc_rings_unuse(void);

/* Borrow a ring; NULL: there is none. From any thread. */
struct lc_ring *lc_ring_take(unsigned kinds);
/* Give it back. BROKEN: a call of lc_ring_read failed, and it shall not be used again. NULL is fine. */
void lc_ring_put(struct lc_ring *ring, bool broken);

/*
 * Do NR reads of FD, LC_RING_DEPTH at most, and wait for all of them. Each is tried once: results are those of a
 * pread, partial ones and EAGAIN among them. 0, or the -errno with which the kernel refused the ring's work, not that
 * of a read: then some are UNSENT, and nothing is in flight.
 */
int lc_ring_read(struct lc_ring *ring, int fd, struct lc_ring_read *reads, u32 nr);

#endif
