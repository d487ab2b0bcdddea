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
 *	log         records to the SSD; group commit; buffers
 *	core        this
 */
#ifndef LC_CORE_H
#define LC_CORE_H

#include "meta.h"
#include "segment.h"

struct lc_core {
	struct lc_store *ssd;
	struct lc_settings settings; /* constant after opening */

	struct lc_mutex lock;
	struct lc_ring ring;   /* guarded by lock */
	struct lc_meta meta;   /* guarded as meta.h says */
	struct lc_stats stats; /* guarded by lock; the counters of it */
	/* Guarded by lock: since when write-back fails (0: it does not), and how. */
	u64 stalled_since_ns;
	int stall_error;
	u64 client_ops; /* guarded by lock: is anybody there? */
	void *scratch; /* guarded by lock: unused scratch memory of requests, linked through its first word */
};

#endif
