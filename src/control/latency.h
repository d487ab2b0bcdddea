/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * latency.h - how long the clients' requests take, counted without a shared cache line.
 *
 * Each thread counts in a shard of its own, with plain (relaxed) loads and stores; whoever wants to know adds
 * all shards up. nbdkit's threads come and go with the connections: a thread that ends leaves its shard,
 * with what it has counted, to the next one that begins. So there are never more shards than there
 * were threads at a time, and nothing is ever merged or lost.
 *
 * Until latency_init() all this does nothing, and nothing is counted.
 */
#ifndef LC_CONTROL_LATENCY_H
#define LC_CONTROL_LATENCY_H

#include "logcache/logcache.h"

enum latency_kind {
	LATENCY_READ,
	LATENCY_WRITE,
	LATENCY_ZERO,
	LATENCY_TRIM,
	LATENCY_FLUSH,
	LATENCY_EXTENTS,
	NR_LATENCY_KINDS,
};

/* From one thread, before and after all requests. Init may be called again after fini. 0 or -errno. */
int latency_init(void);
void latency_fini(void);

/* A request has ended that took so long. Any thread. */
void latency_add(enum latency_kind kind, u64 ns);

/* Since the beginning, or the last reset; any thread. */
void latency_read(enum latency_kind kind, struct lc_histogram *out);
void latency_reset(void);

/* "read", "write", "zero", "trim", "flush", "extents" */
const char *latency_name(enum latency_kind kind);

#endif
