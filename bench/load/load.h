/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * load.h - a load generator that costs as little as it can: load.c decides what is requested and counts, an engine
 * carries requests out. `nbd-load --help` says what can be asked for.
 *
 *	load_nbd.c    libnbd's asynchronous calls, one connection for each worker
 *	load_uring.c  a file or block device, O_DIRECT, one io_uring for each worker
 *	load_loop.c   the same with pread, pwrite and fdatasync, one request at a time
 *
 * Each worker is a thread with its own connection, slots and histograms; they share only the counter of
 * requests (load_next). A slot has one request in flight: after --flush-every writes it flushes, so
 * 16 slots that flush after each write are 16 concurrent flushers.
 *
 * An engine's thread:
 *
 *	for each slot that has nothing in flight: while (load_next(w, slot)) submit it
 *	when one has completed: load_done(w, slot)
 *
 * and it ends when no slot has a next one and nothing is in flight. Errors end the program: load_die().
 */
#ifndef BENCH_LOAD_H
#define BENCH_LOAD_H

#include <pthread.h>
#include <stdatomic.h>

#include "../common/shuffle.h"
#include "logcache/histogram.h"

enum load_op { LOAD_READ, LOAD_WRITE, LOAD_FLUSH, NR_LOAD_OPS };

struct load_options {
	const char *target; /* an NBD URI, or a path */
	enum load_op op;
	u32 connections;
	u32 depth; /* for each of them */
	u32 block_bytes;
	u64 size_bytes; /* requests lie below; 0: as large as the target */
	u64 start_bytes;
	u64 stride_bytes; /* from one place to the next */
	bool sequential;
	bool distinct;
	bool sorted;
	u32 flush_every; /* 0: never */
	bool fua;
	double seconds; /* 0: until count */
	u64 count;	/* 0: until seconds are over */
	u64 seed;
};

struct load_slot {
	enum load_op op; /* in flight */
	bool fua;
	u64 offset_bytes;
	u64 began_ns;
	u32 unflushed; /* writes since the last flush */
	void *buffer;  /* aligned; block_bytes */
	/* the engine's: */
	struct load_worker *worker;
	struct load_slot *next;
};

struct load_worker {
	struct load *load;
	pthread_t thread;
	struct load_slot *slots; /* [depth] */
	u64 random;
	u64 began_ns, ended_ns; /* first request submitted, last one completed */
	struct lc_histogram latency[NR_LOAD_OPS];
	void *engine;
};

struct load {
	struct load_options options;
	struct load_worker *workers;
	const struct load_engine *engine;
	u64 nr_blocks;
	struct shuffle shuffle;
	u64 *sorted;	   /* block numbers, or NULL */
	_Atomic u64 taken; /* requests that are not flushes, all workers */
	u64 stop_ns;
	pthread_barrier_t start;
};

struct load_engine {
	/* Open the target for W, and return its size in bytes. */
	u64 (*open)(struct load_worker *w);
	void (*run)(struct load_worker *w);
	void (*close)(struct load_worker *w);
};

extern const struct load_engine load_nbd, load_uring, load_loop;

u64 load_now_ns(void);
/* Like calloc, but never NULL. */
void *load_alloc(size_t nr, size_t size) __attribute__((returns_nonnull));
/* Fill in S with the next request to make. False: there is none any more. */
bool load_next(struct load_worker *w, struct load_slot *s);
void load_done(struct load_worker *w, struct load_slot *s);

_Noreturn void load_die(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
