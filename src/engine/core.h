/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * core.h - what all rooms of one cache share: the engine mutex, the SSD, the ring, the metadata.
 *
 * One mutex guards all metadata. Nothing slow happens under it: no I/O, no copy of data, no checksum of
 * data, no allocation, no wait on write-back. The rooms above this one, top to bottom (calls
 * only go down):
 *
 *	cache       open, start, drain, close: ties the rooms together
 *	recover     what the SSD says, before any thread runs
 *	writeback   when to sweep; moves the tail. sweep: zeros and dirty blocks to the backing stores
 *	volume      what clients do: read, write, zero; direct, without a log
 *	range       who changes which blocks right now
 *	pace        how fast: writers, write-back, readers
 *	log         records to the SSD; group commit; buffers
 *	core        this
 */
#ifndef LC_CORE_H
#define LC_CORE_H

#include "meta.h"
#include "pace.h"
#include "segment.h"

#define LC_CACHE_LINE 64
/* Segment buffers in RAM, at most: the log is never further than that beyond what is durable, which recovery counts on. */
#define LC_BUFFERS_MAX 64u

struct lc_core {
	struct lc_mutex lock;
	/*
	 * Guarded by lock: what each step of a request looks at or changes while it holds the mutex, which has brought this
	 * core's cache the line anyway. The counters of clients follow (logcache.h has their order): plain
	 * additions, to two lines that no thread touches without the mutex. How long requests take is not counted here, but
	 * by each thread for itself (src/control/latency.h).
	 */
	struct lc_store *ssd;
	u64 client_ops; /* is anybody there? */
	u64 attachment; /* how often an SSD was attached: seqs of another one mean nothing */
	void *scratch;	/* unused scratch memory of requests, linked through its first word */
	u32 path_waiters;
	bool hold; /* writers of all volumes wait: the path is about to change (path.h) */
	_Alignas(LC_CACHE_LINE) struct lc_stats stats; /* guarded by lock; the counters of it */

	struct lc_ring ring; /* guarded by lock */
	/* Guarded by lock; those that settings.h does not name are constant. */
	struct lc_settings settings;
	struct lc_cond path; /* HOLD, a volume's path or its counts have changed */

	struct lc_meta meta;	       /* guarded as meta.h says */
	struct lc_latencies latencies; /* guarded by lock */
	/* Guarded by lock: since when write-back fails, and that holds the tail (0: it does not), and how. */
	u64 stalled_since_ns;
	int stall_error;
	struct lc_pace pace; /* guarded by lock */
};

/*
 * A request waits since SINCE_NS. If that took longer than its client's patience, the client may have given up, sent it
 * again elsewhere, and written something newer since: then it must not run any more. -ESHUTDOWN if its client is
 * gone. [lock; released meanwhile]
 */
int lc_core_still_wanted(struct lc_core *c, u64 since_ns);

/*
 * The same for a request that begins NOW, but may have been waiting for that: *SINCE_NS gets since when. Without the mutex.
 */
int lc_core_begin_change(struct lc_core *c, u64 now_ns, u64 *since_ns);

#endif
