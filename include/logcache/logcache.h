/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * logcache.h - the engine: a log-structured cache on one store, in front of slower ones.
 *
 * Life of a cache
 *
 *	lc_cache_format()   once: an empty log on a blank device
 *	lc_cache_open()     decide every refusal, recover; no thread runs yet (fork is fine after it)
 *	lc_cache_start()    start the log thread and the write-back thread
 *	lc_read() lc_write() lc_flush()   from any number of threads
 *	lc_cache_drain()    optional: everything to the backing stores
 *	lc_cache_close()    seal, flush, mark as cleanly shut down, release memory
 *
 * All functions return 0 or -errno. Nothing here is global: several caches can live in one process.
 */
#ifndef LOGCACHE_LOGCACHE_H
#define LOGCACHE_LOGCACHE_H

#include "logcache/rt.h"
#include "logcache/store.h"
#include "logcache/types.h"

struct lc_cache;
struct lc_volume;

#define LC_SEGMENT_MIN_BYTES (8u << 10)
#define LC_SEGMENT_MAX_BYTES (1u << 20)
#define LC_SEGMENT_DEFAULT_BYTES (1u << 20)
/* Head, two in reserve (I4), and one that can be written back. */
#define LC_SEGMENTS_MIN 4u
#define LC_VOLUMES_MAX 255u
/* Bytes with the closing NUL. A name is 1 to 63 bytes of UTF-8, or empty for the default export. */
#define LC_NAME_BYTES 64u
#define LC_LABEL_BYTES 64u
#define LC_UUID_BYTES 16u

/* --- formatting --- */

struct lc_format_options {
	u32 segment_bytes; /* a power of two, LC_SEGMENT_MIN_BYTES .. LC_SEGMENT_MAX_BYTES */
	const char *label; /* for people; at most 63 bytes; NULL: none */
};

/* The smallest cache device, in bytes, that a segment size allows. */
u64 lc_cache_min_bytes(u32 segment_bytes);

/*
 * Write an empty log to SSD: its metadata zone alone, flushed. Whatever the store held is lost; whether
 * that is wanted is for the caller to find out first (I12).
 * -EINVAL: a segment size out of range; -ENOSPC: too small (ERR says how small is possible).
 */
int lc_cache_format(struct lc_store *ssd, const struct lc_format_options *o, struct lc_error *err);

/*
 * Does SSD hold a logcache? 1 yes (any version, also damaged ones: the magic of a superblock copy is
 * there), 0 no, -errno if it could not be read.
 */
int lc_cache_probe(struct lc_store *ssd, struct lc_error *err);

/* --- opening --- */

struct lc_volume_spec {
	const char *name;	  /* identity in the cache; "" for the default export */
	struct lc_store *backing; /* stays the caller's; outlives the cache */
};

struct lc_settings {
	u32 nr_buffers;	       /* segment buffers in RAM, 2 .. 1024 */
	bool writeback;	       /* off: only when segments run out */
	u32 dirty_low_percent; /* of the segments: write-back starts above */
	u32 idle_ms;	 /* write back everything after so long without client I/O; 0: never */
	u64 batch_bytes; /* data per sweep; 0: 1/8 of the cache */
	u32 flush_interval_ms; /* an open record older than this is made durable; 0: never by itself */
	u32 retry_ms;	       /* pause before an I/O that failed is tried again */
	u32 stall_timeout_ms; /* how long a write waits for space while a store fails */
};

/* The defaults of the settings. */
void lc_settings_init(struct lc_settings *s);

/*
 * Open the cache on SSD for the given volumes and recover it.
 *
 * Every refusal is decided before the first write to any store (I12): a wrong version, corruption
 * (I11), a backing store that is missing, foreign or shrunk while the cache holds dirty data for it.
 * ERR names the thing, the reason and the remedy. After success the new epoch is durable (I1), but no
 * record is written and no thread runs. The stores stay the caller's and outlive the cache.
 *
 * -EINVAL bad settings or specs; -ENOMEM; -EMEDIUMTYPE not a logcache, or of an unknown version;
 * -EUCLEAN corrupt; -EBUSY a volume's backing store does not fit its dirty data; or what the store said.
 */
int lc_cache_open(struct lc_store *ssd, const struct lc_volume_spec *specs, unsigned nr_specs,
		  const struct lc_settings *settings, struct lc_cache **out, struct lc_error *err);

/* Start the threads. On failure the cache is as lc_cache_open left it, and can be closed. */
int lc_cache_start(struct lc_cache *c, struct lc_error *err);

/*
 * Write everything back until tail = head, while clients may go on. Returns 0 when nothing dirty
 * was left at some moment after the call, or what a store answered.
 */
int lc_cache_drain(struct lc_cache *c);

/*
 * Stop the threads, make the log durable, write the superblock with the clean flag, release
 * everything. No client call is in progress. Returns what failed (the memory is released all the
 * same): then the next opening recovers as after a crash. Works on a cache that was never started.
 */
int lc_cache_close(struct lc_cache *c);

/* The I-th volume of the specs given to lc_cache_open. */
struct lc_volume *lc_cache_volume(struct lc_cache *c, unsigned i);

/* Size in bytes: that of its backing store. */
u64 lc_volume_size_bytes(const struct lc_volume *v);

/* --- I/O: any thread, any alignment, any buffer; offset + len <= size --- */

#define LC_FUA 1u /* return only when this write is durable */

/* -EIO: the data cannot be had (a store failed, or a block is lost: never stale data, I10). */
int lc_read(struct lc_volume *v, void *buf, u32 len_bytes, u64 offset_bytes);

/*
 * When it returns 0 the data is visible to every reader; it is durable after a later lc_flush or with
 * LC_FUA. On failure any part of the range may have been written, sector by sector.
 */
int lc_write(struct lc_volume *v, const void *buf, u32 len_bytes, u64 offset_bytes, unsigned flags);

/* Every write acknowledged before this call, on any volume and connection, is durable when it returns 0. */
int lc_flush(struct lc_cache *c);

/* --- insight --- */

struct lc_stats {
	/* clients; requests, bytes, and blocks by where they were found */
	u64 reads, read_bytes, writes, write_bytes, flushes;
	u64 read_hit_blocks, read_buffer_blocks, read_partial_blocks, read_miss_blocks;
	u64 write_hit_blocks, write_buffer_blocks, write_partial_blocks, write_miss_blocks;
	/* the log */
	u64 records, segments, log_bytes, commits;
	/* write-back */
	u64 sweeps, writeback_blocks, writeback_ios, backing_flushes, superseded_blocks;
	/* trouble */
	u64 ssd_errors, backing_errors, crc_errors, lost_blocks;
	/* state now */
	u64 head_id, tail_id, seq, durable_seq, epoch;
	u64 nr_segments, dirty_segments, dirty_blocks, cached_blocks, capacity_blocks;
	u64 memory_bytes; /* index, tables and buffers */
	u32 segment_bytes;
	/* how it was found at opening */
	bool was_clean;	       /* closed in good order */
	u64 recovered_records; /* above the tail */
};

void lc_cache_stats(struct lc_cache *c, struct lc_stats *out);

/* Bytes of RAM for each block of a cache with this segment size, apart from the buffers. */
double lc_memory_per_block(u32 segment_bytes);

#endif
